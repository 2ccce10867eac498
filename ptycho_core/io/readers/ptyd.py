"""ptypy's prepared scans (``.ptyd``), as its documentation lays them out (ptypy, chapter "Data management").

=====================  =============================================================================================
dataset                content
=====================  =============================================================================================
chunks/0/data          (n, H, W) photon counts of a part of the scan; chunks/1 … go on
chunks/0/positions     (n, 2) metres, the order of the axes of a frame, (y, x)
chunks/0/indices       (n,) numbers of the frames in the scan
chunks/0/weights       empty, or (n, H, W) or (H, W); 0 hides a pixel
meta/… , info/…        ``energy`` (keV), ``distance`` (m), ``psize`` (m), ``propagation``, ``weight2d``: as they hold
                       for the prepared frames, and as they were asked for
=====================  =============================================================================================

Where the documentation leaves something open, what is taken is said among the assumptions: that positions are those of
the beam on the object, and that zero frequency is at (H // 2, W // 2).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.frames import ConcatenatedFrames, FrameSource, Hdf5Frames
from ...data.propagation import FAR_FIELD, Propagation
from ...data.raw import Geometry, Source
from ...data.recording import Recording
from ...errors import DataError
from ...physics.propagation import wavelength_m
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ...text import counted
from ..candidate import Candidate, missing_key
from ..h5_values import array_at, dataset_at, energy_at, length_at, open_h5, text_at
from ..measurement import resolve_measurement
from ..probes import NO_PROBE

__all__ = ["ptycho_reader", "read", "recognises"]

_CHUNK = re.compile(r"chunks/(\d+)/data")
_GROUPS = ("meta", "info")


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="ptyd",
        title="ptypy's .ptyd (HDF5) with chunks/0/data",
        kind="hdf5",
        module=__name__,
        protocol_version=2,
        priority=30,
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether an HDF5 file has chunks of frames."""
    return file.kind == "hdf5" and any(_CHUNK.fullmatch(name) for name in file.names)


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; frames stay on disk.

    Args:
        file: an examined HDF5 file.
        options: `measurement` must not contradict counts.

    Raises:
        DataError: a dataset is missing or holds what it must not.
    """
    name = str(file.path)
    resolve_measurement(name, "counts", options.measurement)
    numbers = sorted(int(match[1]) for n in file.names if (match := _CHUNK.fullmatch(n)))
    if not numbers:
        raise missing_key(file, "chunks/0/data", "(n, H, W) frames")
    notes = [
        "ptypy's frames are photon counts with zero frequency at (H // 2, W // 2).",
        "positions are (y, x), metres, of the beam on the object.",
        NO_PROBE,
    ]
    with open_h5(file.path, options.follow) as h5:
        chunks = [chunk for number in numbers if (chunk := _frames(h5, file, number)) is not None]
        if not chunks or len({chunk.shape[1:] for chunk in chunks}) != 1:
            sizes = sorted({f"{chunk.shape[1]}×{chunk.shape[2]}" for chunk in chunks})
            raise DataError(f"{name}: frames of its chunks are {', '.join(sizes) or 'none'}; they must be of one size.")
        positions = _positions_m(h5, file, [_number_of(chunk) for chunk in chunks], options)
        shape = chunks[0].shape[1:]
        mask = _good_pixels(h5, [_number_of(chunk) for chunk in chunks], shape, name, notes)
        geometry = _geometry(h5, file, options)
        propagation = _propagation(h5, geometry, options, name)
    if len(chunks) > 1:
        notes.append(f"The frames of {len(chunks)} chunks follow each other in the order of the chunks.")
    if propagation is not None and propagation.is_near:
        geometry = Geometry(
            energy_eV=geometry.energy_eV,
            distance_m=geometry.distance_m,
            detector_pixel_size_m=geometry.detector_pixel_size_m,
            pixel_size_m=geometry.detector_pixel_size_m,
        )
        notes.append("A near field: psize and distance are taken as those of the demagnified image, F = psize²/(λz).")
    frames: FrameSource = chunks[0] if len(chunks) == 1 else ConcatenatedFrames(tuple(chunks))
    return Recording(
        frames=frames,
        positions=positions,
        position_unit="m",
        mask=mask,
        geometry=geometry,
        propagation=propagation,
        source=Source(path=name, dialect="ptyd", measurement="counts", assumptions=tuple(notes)),
    )


def _number_of(chunk: Hdf5Frames) -> int:
    return int(chunk.dataset.split("/")[1])


def _frames(h5: Any, file: Candidate, number: int) -> Hdf5Frames | None:
    """Frames of a chunk, or None where it is empty."""
    path = f"chunks/{number}/data"
    dataset = dataset_at(h5, path)
    if dataset is None or dataset.ndim != 3 or dataset.dtype.kind not in "biuf":
        found = "missing" if dataset is None else f"{dataset.shape} {dataset.dtype}"
        raise DataError(f"{file.path}: {path!r} is {found}; it must be (n, H, W) real counts.")
    return Hdf5Frames(file.path, path, dataset.shape, follow=h5.swmr_mode) if dataset.shape[0] else None


def _positions_m(h5: Any, file: Candidate, numbers: list[int], options: ReadOptions) -> NDArray[np.float64] | None:
    """Frame centres (M, 2) (y, x) on the object, metres, chunk by chunk."""
    parts = []
    for number in numbers:
        path = f"chunks/{number}/positions"
        part = array_at(h5, path)
        if part is None:
            if options.positions is not None or options.scan_step_m is not None:
                return None
            raise missing_key(file, path, "(n, 2) positions (y, x), metres")
        if part.ndim != 2 or part.shape[1] != 2:
            raise DataError(f"{file.path}: {path!r} is {part.shape}; it must be (n, 2) metres (y, x).")
        parts.append(part.astype(np.float64))
    return np.concatenate(parts)


def _good_pixels(
    h5: Any, numbers: list[int], shape: tuple[int, int], name: str, notes: list[str]
) -> NDArray[np.bool_] | None:
    """Pixels (H, W) whose weight is above 0 in every frame, or None where no weights are stored."""
    paths = [f"{group}/weight2d" for group in _GROUPS] + [f"chunks/{number}/weights" for number in numbers]
    good = np.ones(shape, bool)
    used, graded = [], False
    for path in paths:
        weights = array_at(h5, path)
        if weights is None or weights.ndim < 2 or not weights.size:
            continue
        if weights.shape[-2:] != shape:
            raise DataError(
                f"{name}: {path!r} is {weights.shape}, but frames are {shape[0]}×{shape[1]}; a pixel has one weight."
            )
        planes = np.nan_to_num(weights.reshape(-1, *shape))
        good &= (planes > 0).all(axis=0)
        graded |= bool(((planes > 0) & (planes != planes.max(initial=0))).any())
        used.append(path)
    if not used:
        return None
    notes.append(
        f"Weights of 0 hide {counted(int((~good).sum()), 'pixel')}, each that has one in any frame"
        f"{'; other weights were not used' if graded else ''}."
    )
    return good


def _geometry(h5: Any, file: Candidate, options: ReadOptions) -> Geometry:
    """The instrument, of ``meta`` where it is there, else of ``info``."""
    what = {
        "energy": ("energy_eV", "the photon energy in keV"),
        "distance": ("distance_m", "sample to detector, metres"),
        "psize": ("detector_pixel_size_m", "detector pixel, metres"),
    }
    found: dict[str, Any] = {}
    for key, (field, text) in what.items():
        for path in (f"{group}/{key}" for group in _GROUPS):
            dataset = dataset_at(h5, path)
            if dataset is None or dataset.dtype.kind not in "biuf" or not dataset.size:
                continue  # None is kept as a text
            if key == "energy":
                found[field] = energy_at(h5, path, text, unstated="keV", given=options.energy_eV)
            else:
                found[field] = length_at(h5, path, text, option=f"--{field}", given=getattr(options, field))
            break
        if field not in found and getattr(options, field) is None and options.pixel_size_m is None:
            raise DataError(f"{missing_key(file, f'meta/{key}', text)} Or give --{field} ….")
    return Geometry(**found)


def _propagation(h5: Any, geometry: Geometry, options: ReadOptions, name: str) -> Propagation | None:
    """As the file states it; a near field whose Fresnel number is given is left to what is given."""
    stated = next((text for group in _GROUPS if (text := text_at(h5, f"{group}/propagation"))), "farfield")
    if "near" not in stated.lower():
        return FAR_FIELD
    if options.propagation is not None and options.propagation.is_near:
        return None
    energy, z, p = geometry.energy_eV, geometry.distance_m, geometry.detector_pixel_size_m
    if energy is None or z is None or p is None:
        raise DataError(
            f"{name}: a near field needs energy, distance and psize in the file, or --propagation near_field:F."
        )
    return Propagation("near_field", p**2 / (wavelength_m(energy) * z))
