"""CXI 1.6 (www.cxidb.org), SI units; the rules are those of ``io.readers.cxi``.

Detector rows are written to step along −y and columns along −x, so that the motion of the sample, ``translation``, is
(x, y, 0) times the object pixel for a frame at (y, x). The probe is where other programs put one,
``source_1/illumination``; provenance is in ``note_1``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...data.raw import RawData
from ..h5_output import h5_output
from .common import (
    Instrument,
    NotWholeError,
    as_whole,
    chunked,
    instrument_of,
    lost_background,
    lost_calibration,
    lost_kinds_of_bad_pixels,
    lost_object_guess,
    lost_propagation,
    provenance_json,
)

if TYPE_CHECKING:
    import h5py

__all__ = [
    "CXI_VERSION",
    "JOULES_PER_EV",
    "PIXEL_IS_INVALID",
    "basis_vectors",
    "translation_m",
    "write",
    "write_frames",
]

CXI_VERSION = 160
JOULES_PER_EV = 1.602176634e-19
PIXEL_IS_INVALID = 1
"""Bit 0 of a CXI mask; 0 is a good pixel."""

_NAME = "CXI"


def basis_vectors(detector_pixel_size_m: float) -> np.ndarray:
    """The steps in space (x, y, z) from one row, and one column, of the detector to the next: (3, 2), metres."""
    return detector_pixel_size_m * np.array([[0.0, -1.0], [-1.0, 0.0], [0.0, 0.0]])


def translation_m(raw: RawData, instrument: Instrument) -> np.ndarray:
    """Motion of the sample (M, 3) (x, y, z), metres: minus the position, along directions that step towards minus."""
    y, x = (raw.positions_px * instrument.pixel_size_m).T
    return np.stack([x, y, np.zeros_like(x)], axis=1)


def write_frames(
    detector: h5py.Group, raw: RawData, dtype: str, compress: bool, check: Callable[[], None]
) -> h5py.Dataset:
    """Write the frames, a few at a time, as ``data``; `check` is called after each few.

    Raises:
        NotWholeError: `dtype` is an integer and the counts are not.
    """
    M, N = raw.n_frames, raw.side
    data = detector.create_dataset("data", (M, N, N), dtype, **chunked(N, compress))
    whole = np.dtype(dtype).kind == "i"
    for indices, counts in raw.chunks():
        data[indices[0] : indices[-1] + 1] = as_whole(counts) if whole else counts
        check()
    return data


def _number(group: h5py.Group, name: str, value: float, units: str) -> None:
    group[name] = value
    group[name].attrs["units"] = units


def _write(path: Path, raw: RawData, instrument: Instrument, dtype: str, compress: bool) -> None:
    import h5py

    with h5_output(path) as (h5, check):
        h5["cxi_version"], h5["number_of_entries"] = CXI_VERSION, 1
        source = h5.create_group("entry_1/instrument_1/source_1")
        _number(source, "wavelength", instrument.wavelength_m, "m")
        if instrument.radiation == "photon":
            _number(source, "energy", instrument.energy_eV * JOULES_PER_EV, "J")
        else:  # CXI has energies of photons; the word is what NeXus has for the beam
            source["probe"] = instrument.radiation
        if raw.probe is not None:
            source["illumination"] = raw.probe
        detector = h5.create_group("entry_1/instrument_1/detector_1")
        _number(detector, "distance", instrument.distance_m, "m")
        _number(detector, "x_pixel_size", instrument.detector_pixel_size_m, "m")
        _number(detector, "y_pixel_size", instrument.detector_pixel_size_m, "m")
        detector["basis_vectors"] = basis_vectors(instrument.detector_pixel_size_m)
        detector["basis_vectors"].attrs["units"] = "m"
        if raw.mask is not None:
            detector["mask"] = np.where(raw.mask, 0, PIXEL_IS_INVALID).astype("<u4")
        write_frames(detector, raw, dtype, compress, check).attrs["axes"] = "translation:y:x"
        geometry = h5.create_group("entry_1/sample_1/geometry_1")
        geometry["translation"] = translation_m(raw, instrument)
        geometry["translation"].attrs["units"] = "m"
        detector["translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
        data = h5.create_group("entry_1/data_1")
        data["data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        data["translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
        note = h5.create_group("entry_1/note_1")
        note["type"], note["description"], note["data"] = "application/json", "provenance", provenance_json(raw)


def write(path: Path, raw: RawData, *, compress: bool) -> list[str]:
    """Write a scan and say what is lost.

    Raises:
        DataError: too little is known of the instrument.
    """
    instrument = instrument_of(raw, _NAME)
    provenance_json(raw)  # refused before any frame is read
    try:
        _write(path, raw, instrument, "<i4", compress)
    except NotWholeError:
        _write(path, raw, instrument, "<f4", compress)
    return [
        *instrument.notes,
        *lost_object_guess(raw, _NAME),
        *lost_background(raw, _NAME),
        *lost_calibration(raw, _NAME),
        *lost_kinds_of_bad_pixels(raw),
        *lost_propagation(raw, _NAME),
    ]
