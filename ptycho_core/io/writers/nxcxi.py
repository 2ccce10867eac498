"""NXcxi_ptycho, the application definition of NeXus for raw ptychography (manual.nexusformat.org).

It is CXI by its names and NeXus by its classes. The photon energy is ``beam_1/energy``; ``source_1/energy`` is that of
the machine, which a scan does not know: what the definition asks for and nobody told is written as NaN or "not known".
Lengths are metres and energies joules, as the definition wants them for CXI. Signs are those of ``cxi``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...data.raw import RawData
from ...text import printable
from ..h5_output import h5_output
from ..nexus import add_group, add_note, add_number, add_plot
from .common import (
    Instrument,
    NotWholeError,
    instrument_of,
    lost_background,
    lost_calibration,
    lost_kinds_of_bad_pixels,
    lost_object_guess,
    lost_propagation,
    provenance_json,
)
from .cxi import CXI_VERSION, JOULES_PER_EV, PIXEL_IS_INVALID, basis_vectors, translation_m, write_frames

if TYPE_CHECKING:
    import h5py

__all__ = ["write"]

_NAME = "NXcxi_ptycho"
_UNKNOWN = "not known"
_TRANSLATION = "/entry_1/instrument_1/detector_1/translation"
_DATA = "/entry_1/instrument_1/detector_1/data"


def _add_instrument(
    entry: h5py.Group, raw: RawData, at: Instrument, frames: Callable[[h5py.Group], h5py.Dataset]
) -> None:
    """The source, the beam, and the detector with what `frames` puts into it."""
    import h5py

    instrument = add_group(entry, "instrument_1", "NXinstrument")
    source = add_group(instrument, "source_1", "NXsource")
    source["name"], source["type"] = _UNKNOWN, _UNKNOWN
    source["probe"] = "x-ray" if at.radiation == "photon" else at.radiation
    add_number(source, "energy", np.nan, "J", "energy of the machine, not known")
    if raw.probe is not None:
        source["illumination"] = raw.probe
    beam = add_group(instrument, "beam_1", "NXbeam")
    energy = add_number(beam, "energy", at.energy_eV * JOULES_PER_EV, "J", f"energy of each {at.radiation}")
    beam["incident_beam_energy"] = energy
    add_number(beam, "incident_energy_spread", np.nan, "J", "not known")
    add_number(beam, "incident_wavelength", at.wavelength_m, "m")
    detector = add_group(instrument, "detector_1", "NXdetector", axes="[, data]", signal="data")
    add_number(detector, "distance", at.distance_m, "m", "sample to detector")
    for axis in "xy":
        add_number(detector, f"{axis}_pixel_size", at.detector_pixel_size_m, "m")
    vectors = add_number(detector, "basis_vectors", basis_vectors(at.detector_pixel_size_m), "m")
    vectors.attrs["long_name"] = "steps (x, y, z) from one row, and one column, to the next"
    add_group(detector, "transformations", "NXtransformations")["vector"] = np.array([0.0, 0.0, 1.0])
    if raw.mask is not None:
        detector["mask"] = np.where(raw.mask, 0, PIXEL_IS_INVALID).astype("<u4")
        detector["pixel_mask"] = detector["mask"]  # what NXdetector calls it; of both, 0 is good
    translation = add_number(detector, "translation", translation_m(raw, at), "m", "motion of the sample (x, y, z)")
    translation.attrs.update(axes="translation:y:x", interpretation="image")
    frames(detector).attrs.update(units="counts", interpretation="image")
    detector["data_1"] = h5py.SoftLink(_DATA)


def _add_sample(entry: h5py.Group, raw: RawData, at: Instrument) -> None:
    """The motors: the sample is moved along the laboratory's axes, y carried by x."""
    import h5py

    sample = add_group(entry, "sample_1", "NXsample")
    motors = add_group(sample, "transformations", "NXtransformations", vector=np.array([1.0, 1.0, 0.0]))
    columns = translation_m(raw, at)
    for axis, column, vector, base in (("x", 0, (1.0, 0.0, 0.0), "."), ("y", 1, (0.0, 1.0, 0.0), "x")):
        motor = add_number(motors, axis, columns[:, column], "m", f"{axis} motion of the sample")
        motor.attrs.update(transformation_type="translation", vector=np.array(vector), depends_on=base)
    sample["depends_on"] = "transformations/y"
    add_group(sample, "geometry_1", "NXcollection")["translation"] = h5py.SoftLink(_TRANSLATION)


def _write(path: Path, raw: RawData, at: Instrument, dtype: str, compress: bool) -> None:
    import h5py

    with h5_output(path) as (h5, check):
        h5.attrs.update(NX_class="NXroot", default="entry_1")
        h5["cxi_version"], h5["number_of_entries"] = CXI_VERSION, 1
        entry = add_group(h5, "entry_1", "NXentry", default="data")
        entry["definition"] = "NXcxi_ptycho"
        entry["title"] = printable(Path(raw.source.path or "scan").name)
        _add_instrument(entry, raw, at, lambda detector: write_frames(detector, raw, dtype, compress, check))
        _add_sample(entry, raw, at)
        collection = add_group(entry, "data_1", "NXcollection")
        collection["data"], collection["translation"] = h5py.SoftLink(_DATA), h5py.SoftLink(_TRANSLATION)
        plot = add_plot(entry, "data", "Frames", signal="data", axes=["x", ".", "."], indices={"x": 0, "y": 0})
        plot["data"] = h5["entry_1/instrument_1/detector_1/data"]
        for axis in "xy":
            plot[axis] = h5[f"entry_1/sample_1/transformations/{axis}"]
        add_note(entry, "note_1", "provenance", provenance_json(raw))


def write(path: Path, raw: RawData, *, compress: bool) -> list[str]:
    """Write a scan and say what is lost.

    Raises:
        DataError: too little is known of the instrument.
    """
    at = instrument_of(raw, _NAME)
    provenance_json(raw)  # refused before any frame is read
    notes = list(at.notes)
    try:
        _write(path, raw, at, "<i4", compress)
    except NotWholeError:
        _write(path, raw, at, "<f4", compress)
        notes.append(f"Counts are no whole numbers and are written as float32, where {_NAME} has integers.")
    return [
        *notes,
        *lost_object_guess(raw, _NAME),
        *lost_background(raw, _NAME),
        *lost_calibration(raw, _NAME),
        *lost_kinds_of_bad_pixels(raw),
        *lost_propagation(raw, _NAME),
    ]
