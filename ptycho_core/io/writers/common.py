"""What the writers share: provenance, the instrument in metres, counts as whole numbers, and what is lost in words."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.propagation import Propagation
from ...data.raw import Geometry, RawData
from ...errors import DataError
from ...physics.propagation import wavelength_m
from ...text import printable

__all__ = [
    "Instrument",
    "NotWholeError",
    "as_whole",
    "chunked",
    "complete_instrument",
    "instrument_of",
    "lost_background",
    "lost_calibration",
    "lost_kinds_of_bad_pixels",
    "lost_object_guess",
    "lost_propagation",
    "provenance_json",
]

_INT32_END = 2.0**31
_SAME = 1e-9  # two ways to compute one number
_NEAR = 1e-3  # two roundings of one number


class NotWholeError(Exception):
    """Counts that an integer cannot hold."""


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """An instrument that is known in full.

    Attributes:
        energy_eV: of a photon or an electron.
        wavelength_m: of either.
        distance_m: sample to detector, metres.
        detector_pixel_size_m: metres.
        pixel_size_m: object pixel by the three above and how waves propagate, metres: what readers compute.
        radiation: ``photon`` or ``electron``.
        notes: what was worked out from the rest, or is written otherwise than the scan says it.
    """

    energy_eV: float
    wavelength_m: float
    distance_m: float
    detector_pixel_size_m: float
    pixel_size_m: float
    radiation: str
    notes: tuple[str, ...] = ()


def provenance_json(raw: RawData) -> str:
    """What is known of a scan's origin, as JSON text.

    Raises:
        DataError: ``source.details`` holds more than plain JSON data.
    """
    source = raw.source
    record = {
        "written_from": printable(Path(source.path).name) if source.path else None,
        "dialect": source.dialect,
        "assumptions": list(source.assumptions),
        "warnings": list(source.warnings),
        "details": source.details,
        "written_by": f"ptycho-core {importlib.metadata.version('ptycho-core')}",
    }
    try:
        return json.dumps(record, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{source.path or 'scan'}: source.details must be plain JSON data ({error}).") from error


def as_whole(counts: NDArray[np.float32]) -> NDArray[np.int32]:
    """Counts as int32.

    Raises:
        NotWholeError: they are no whole numbers, or too large.
    """
    if not (counts == np.rint(counts)).all() or (counts.size and counts.max() >= _INT32_END):
        raise NotWholeError
    return counts.astype(np.int32)


def chunked(N: int, compress: bool) -> dict[str, Any]:
    """How a dataset of frames is laid out in HDF5."""
    return {"chunks": (1, N, N), "compression": "gzip", "shuffle": True} if compress else {}


def instrument_of(raw: RawData, format_name: str) -> Instrument:
    """The instrument of a scan, see :func:`complete_instrument`."""
    return complete_instrument(raw.source.path or "scan", raw.geometry, raw.propagation, raw.side, format_name)


def complete_instrument(
    name: str, geometry: Geometry, propagation: Propagation, N: int, format_name: str
) -> Instrument:
    """The instrument in full: what is not stated follows from the rest, or is asked for.

    In the far field λ z = N p a, of the detector pixel p and the object pixel a; in a near field a = p / m with
    F = p² / (m λ z) (FM-25). So the energy and two of z, p and a give the third. Nothing is made up.

    Args:
        name: of the scan or the result, for messages.
        geometry: as far as it is known.
        propagation: from the object to the detector.
        N: side of a frame.
        format_name: for messages.

    Raises:
        DataError: too little is known, or what is known contradicts itself.
    """
    _refuse_what_is_missing(name, geometry, format_name)
    assert geometry.energy_eV is not None
    wavelength = wavelength_m(geometry.energy_eV, geometry.radiation)
    notes: list[str] = []
    z, p, stated = geometry.distance_m, geometry.detector_pixel_size_m, geometry.pixel_size_m
    F = propagation.fresnel_number
    if p is None:
        assert z is not None
        assert stated is not None
        p = wavelength * z / (N * stated) if F is None else F * wavelength * z / stated
        notes.append(f"detector_pixel_size_m = {p:.6g} follows from the energy, the distance and the object pixel.")
    if z is None:
        assert stated is not None
        z = N * p * stated / wavelength if F is None else p * stated / (F * wavelength)
        notes.append(f"distance_m = {z:.6g} follows from the energy and the pixels of detector and object.")
    a = wavelength * z / (N * p) if F is None else F * wavelength * z / p
    if stated is not None and abs(a - stated) > _NEAR * stated:
        raise DataError(
            f"{name}: pixel_size_m = {stated:.6g}, but energy, distance and detector pixel make the object pixel "
            f"{a:.6g} m; {format_name} states the three and no more. Correct one of them, with --energy_eV, "
            "--distance_m, --detector_pixel_size_m or --pixel_size_m."
        )
    if stated is not None and abs(a - stated) > _SAME * stated:
        notes.append(
            f"The object pixel is written as energy, distance and detector pixel make it, {a:.6g} m for {stated:.6g} m."
        )
    return Instrument(
        energy_eV=geometry.energy_eV,
        wavelength_m=wavelength,
        distance_m=z,
        detector_pixel_size_m=p,
        pixel_size_m=a,
        radiation=geometry.radiation,
        notes=tuple(notes),
    )


def _refuse_what_is_missing(name: str, geometry: Geometry, format_name: str) -> None:
    """Refuse a geometry without an energy, or of whose three lengths fewer than two are known.

    Raises:
        DataError: it is one; the options that are missing are named.
    """
    needed = ("energy_eV", "distance_m", "detector_pixel_size_m")
    wanted = [key for key in needed if getattr(geometry, key) is None]
    stated = geometry.pixel_size_m
    if not wanted or (len(wanted) == 1 and wanted[0] != "energy_eV" and stated is not None):
        return
    alone = stated is not None and len(wanted) > 1
    known = f" From the object pixel of {stated:.4g} m alone they do not follow." if alone else ""
    raise DataError(
        f"{name}: {format_name} needs the instrument in metres, and {', '.join(wanted)} "
        f"{'is' if len(wanted) == 1 else 'are'} not known.{known} Give {' '.join(f'--{key}' for key in wanted)}"
        f"{', or --pixel_size_m in place of one of the lengths' if stated is None else ''}."
    )


def lost_object_guess(raw: RawData, format_name: str) -> list[str]:
    """The sentence, where the scan has one."""
    if raw.object_guess is None:
        return []
    return [f"The object that came with the scan is left out: {format_name} has no place for one."]


def lost_background(raw: RawData, format_name: str) -> list[str]:
    """The sentence, where the scan has one."""
    if raw.background is None:
        return []
    return [
        f"The background is left out: {format_name} has no place for expected counts. Frames hold all counts still; "
        "give it with --background when they are read."
    ]


def lost_calibration(raw: RawData, format_name: str) -> list[str]:
    """The sentence, where the probe is in photons."""
    if raw.probe is None or not raw.probe_calibrated:
        return []
    return [f"That the probe is in photons is left out: {format_name} cannot say so, and its scale is fitted again."]


def lost_kinds_of_bad_pixels(raw: RawData) -> list[str]:
    """The sentence, where a file said of each pixel in which way it is bad."""
    if raw.mask is None or raw.source.dialect not in ("cxi", "nxcxi_ptycho"):
        return []
    return ["In which way a pixel is bad, by the bits of the mask it was read from, is left out: bad is bad."]


def lost_propagation(raw: RawData, format_name: str) -> list[str]:
    """The sentence, where the scan is a near-field one."""
    F, exact = raw.propagation.fresnel_number, raw.propagation.wavelength_px
    if F is None:
        return []
    text = f"That this is a near field is left out: {format_name} cannot say so. Read it with "
    text += f"--propagation near_field:{F!r}."
    if exact is not None:
        text += " That the angular spectrum is exact (wavelength_px) is left out."
    return [text]
