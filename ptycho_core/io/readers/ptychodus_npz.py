"""NPZ files of ptychodus: training data, diffraction data, the product, and the form that it calls SLAC_NPZ.

Training data has the keys of the NPZ dialect with ``bad_pixels`` and no ``measurement``; it holds intensities, which
no file of ptychodus says. Diffraction data has ``patterns`` (M, H, W), ``indexes`` and ``bad_pixels``. SLAC_NPZ has
``diffraction`` (H, W, M), ``xcoords_start``, ``ycoords_start`` in metres, or in object pixels where one is above 1e-3,
``probeGuess``, and at least one of ``detector_distance_m``, ``photon_energy_eV`` and ``probe_energy_ev``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...data.raw import Geometry, Source
from ...data.recording import Recording
from ...errors import DataError
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from .. import npz
from ..candidate import Candidate
from ..h5_values import one_number
from ..measurement import doubt, resolve_measurement, unstated_note
from ..probes import NO_PROBE, normalise_probe
from .arrays import NpzArrays
from .entries import chosen_entry
from .product import POSITIONS
from .ptychodus import INTENSITIES, NOT_A_SCAN, good_pixels
from .stored_frames import Layout, StoredFrames, stored_frames

__all__ = ["ptycho_reader", "read", "recognises"]

_TRAINING = {"diff3d", "bad_pixels", "scan_index", "objectGuess"}
_SLAC = {"diffraction", "xcoords_start", "ycoords_start"}
_SLAC_NUMBERS = ("detector_distance_m", "photon_energy_eV", "probe_energy_ev")
_METRES_BELOW = 1e-3
_SAMPLE = 4


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="ptychodus_npz",
        title="ptychodus: NPZ with diff3d, bad_pixels, or patterns, or of SLAC",
        kind="npz",
        module=__name__,
        protocol_version=2,
        priority=25,
    )


def _kind(file: Candidate) -> str:
    names = set(file.names)
    if names >= _TRAINING and "measurement" not in names:
        return "training"
    if "patterns" in names and names & {"indexes", "bad_pixels"}:
        return "diffraction"
    if names >= _SLAC and "measurement" not in names and names & set(_SLAC_NUMBERS):
        return "slac"
    return "product" if names >= set(POSITIONS) else ""


def recognises(file: Candidate) -> bool:
    """Whether a file is an NPZ with the keys of one of the four."""
    return file.kind == "npz" and bool(_kind(file))


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; frames stay on disk where they lie there uncompressed.

    Args:
        file: an examined NPZ.
        options: `measurement` must not contradict counts.

    Raises:
        DataError: a key is missing or holds what it must not, or the file is a product.
    """
    kind = _kind(file)
    if kind == "product":
        raise DataError(NOT_A_SCAN.format(path=file.path))
    if not kind:
        raise DataError(f"{file.path}: none of the NPZ files of ptychodus; it holds {', '.join(sorted(file.names))}.")
    resolve_measurement(str(file.path), "counts", options.measurement)
    if kind != "training":
        chosen_entry(["0"], options.entry, str(file.path))  # such a file holds one scan
    return {"training": _training, "diffraction": _diffraction, "slac": _slac}[kind](file, options)


def _training(file: Candidate, options: ReadOptions) -> Recording:
    """As the NPZ dialect reads it, told that frames are counts."""
    found = npz.read(file, replace(options, measurement="counts"))
    notes = tuple(note for note in found.source.assumptions if note != unstated_note("counts"))
    return replace(found, source=replace(found.source, dialect="ptychodus_npz", assumptions=(INTENSITIES, *notes)))


def _frames(file: Candidate, name: str, image_axes: tuple[int, int]) -> StoredFrames:
    arrays = NpzArrays(file)
    header = arrays.header(name)
    if len(header.shape) != 3 or 0 in header.shape or header.dtype.kind not in "biuf":
        raise DataError(f"{file.path}: {name!r} is {header.shape} {header.dtype}; it must hold frames of real numbers.")
    axis = next(a for a in range(3) if a not in image_axes)
    return stored_frames(arrays, name, Layout(header.shape, (axis,), image_axes), "counts")


def _source(file: Candidate, frames: StoredFrames, notes: list[str]) -> Source:
    sample = frames.stored(np.unique(np.linspace(0, frames.shape[0] - 1, _SAMPLE).astype(np.int64)))
    return Source(
        path=str(file.path),
        dialect="ptychodus_npz",
        measurement="counts",
        assumptions=(INTENSITIES, *notes),
        warnings=tuple(doubt("counts", sample)),
    )


def _diffraction(file: Candidate, options: ReadOptions) -> Recording:
    """Frames and their numbers; positions and probe are in a product."""
    notes = [NO_PROBE]
    frames = _frames(file, "patterns", (1, 2))
    mask = good_pixels(file.load("bad_pixels"), notes) if "bad_pixels" in file.names else None
    indexes = file.load("indexes").astype(np.int64).ravel() if "indexes" in file.names else None
    return Recording(
        frames=frames,
        positions=None,
        mask=mask,
        mask_polarity="bad",
        frame_indexes=indexes,
        source=_source(file, frames, notes),
    )


def _slac(file: Candidate, options: ReadOptions) -> Recording:
    """Frames last, positions in metres or pixels by their size, as ptychodus reads them."""
    y, x = (file.load(f"{axis}coords_start").astype(np.float64).ravel() for axis in "yx")
    if len(y) != len(x):
        raise DataError(f"{file.path}: {len(x)} x coordinates but {len(y)} y; a frame has one of each.")
    positions = np.stack([y, x], axis=-1)
    finite = np.abs(positions[np.isfinite(positions)])
    unit = "px" if finite.max(initial=0.0) > _METRES_BELOW else "m"
    words = {"px": "object pixels, one being above 1e-3", "m": "metres, all being below 1e-3"}[unit]
    notes = [f"Coordinates were read as {words}, as ptychodus tells them."]
    frames = _frames(file, "diffraction", (0, 1))
    if "objectGuess" in file.names:
        notes.append("objectGuess is not used: nothing says where its first pixel lies.")
    probe = normalise_probe(file.load("probeGuess"), str(file.path), notes) if "probeGuess" in file.names else None
    if probe is None:
        notes.append(NO_PROBE)
    return Recording(
        frames=frames,
        positions=positions,
        position_unit=unit,
        probe=probe,
        geometry=Geometry(
            energy_eV=_first(file, ("photon_energy_eV", "probe_energy_ev")),
            distance_m=_first(file, ("detector_distance_m",)),
            detector_pixel_size_m=_first(file, ("detector_pixel_size_m",)),
        ),
        source=_source(file, frames, notes),
    )


def _first(file: Candidate, keys: tuple[str, ...]) -> float | None:
    """The first of some numbers that is there; one that is none is refused."""
    for key in keys:
        if key in file.names:
            number = one_number(file.load(key), f"{file.path}: {key!r}", "greater than 0")
            if number <= 0:
                raise DataError(f"{file.path}: {key!r} must be greater than 0; found {number:g}.")
            return number
    return None
