"""HDF5 files of ptychodus: its training data, its diffraction data, and its product, which has no frames.

=========================  ==========================================================================================
dataset                    content
=========================  ==========================================================================================
patterns                   (M, H, W) intensities, zero frequency at (H // 2, W // 2)
bad_pixels                 (H, W) bool, True = bad; what lies there was filled in, not measured
probe_position_y_px, _x_px (M,) training data: places of frame centres, pixels of ``object``
probe, object              training data: (P, H, W) and (h, w) complex
object_pixel_height_m, …   training data: numbers, with detector_object_distance_m and photon_energy_eV
indexes                    (M,) diffraction data: number of each frame, by which a product names it; the side of a
                           detector pixel is in the attributes of ``patterns``
=========================  ==========================================================================================

ptychodus counts, and its files hold, intensities; nothing in them says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.propagation import FAR_FIELD
from ...data.raw import Geometry, ObjectGuess, Source
from ...data.recording import Recording
from ...errors import DataError
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ...text import counted
from ..candidate import Candidate, missing_key
from ..h5_values import array_at, attribute, dataset_at, number_at, open_h5
from ..measurement import doubt, resolve_measurement
from ..probes import NO_PROBE, normalise_probe
from .arrays import Hdf5Arrays
from .growing import counted_frames
from .product import POSITIONS

__all__ = ["INTENSITIES", "NOT_A_SCAN", "good_pixels", "ptycho_reader", "read", "recognises"]

NOT_A_SCAN = (
    "{path}: is a product of ptychodus: it has positions, a probe and an object, and no frames. Read the file with the "
    "frames, and give this one beside it: --positions {path} --probe {path}."
)
"""What is said of a product that is given as a scan."""

INTENSITIES = "Files of ptychodus hold intensities, read as counts."
"""What is noted of each of them."""
_PIXELS = ("probe_position_y_px", "probe_position_x_px")
_SAMPLE = 4


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="ptychodus",
        title="ptychodus: HDF5 with patterns, bad_pixels",
        kind="hdf5",
        module=__name__,
        protocol_version=2,
        priority=25,
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is HDF5 with patterns as ptychodus writes them, or a product of it without frames."""
    if file.kind != "hdf5":
        return False
    names = set(file.names)
    return {"patterns", "bad_pixels"} <= names or (set(POSITIONS) <= names and "dp" not in names)


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; frames stay on disk.

    Args:
        file: an examined HDF5 file.
        options: `measurement` must not contradict counts.

    Raises:
        DataError: a dataset is missing or holds what it must not, or the file is a product.
    """
    name = str(file.path)
    if "patterns" not in file.names:
        if set(POSITIONS) <= set(file.names):
            raise DataError(NOT_A_SCAN.format(path=name))
        raise missing_key(file, "patterns", "(M, H, W) frames")
    resolve_measurement(name, "counts", options.measurement)
    arrays = Hdf5Arrays(file.path, options.follow)
    _check_frames(arrays)
    notes = [INTENSITIES]
    warnings: list[str] = []
    with open_h5(file.path, options.follow) as h5:
        mask = good_pixels(array_at(h5, "bad_pixels"), notes)
        found = _training(h5, file, notes, warnings) if _PIXELS[0] in file.names else _diffraction(h5, notes)
    keys = ("positions", "frame_indexes")
    frames, cut = counted_frames(arrays, "patterns", (1, 2), [found.get(key) for key in keys], notes)
    found |= dict(zip(keys, cut, strict=True))
    sample = frames.stored(np.unique(np.linspace(0, frames.shape[0] - 1, _SAMPLE).astype(np.int64)))
    warnings += doubt("counts", sample)
    return Recording(
        frames=frames,
        mask=mask,
        mask_polarity="bad",
        source=Source(
            path=name,
            dialect="ptychodus",
            measurement="counts",
            assumptions=tuple(notes),
            warnings=tuple(warnings),
        ),
        **found,
    )


def _check_frames(arrays: Hdf5Arrays) -> None:
    header = arrays.header("patterns")
    if len(header.shape) != 3 or 0 in header.shape or header.dtype.kind not in "biuf":
        raise DataError(
            f"{arrays.path}: 'patterns' is {header.shape} {header.dtype}; frames must be (M, H, W) real numbers."
        )


def good_pixels(bad: NDArray[Any] | None, notes: list[str]) -> NDArray[np.bool_] | None:
    """The mask (H, W), True = good, of bad pixels, or None where all are good."""
    if bad is None or not bad.any():
        return None
    notes.append(
        f"bad_pixels (True = bad) was read as the mask; it hides {counted(int(bad.astype(bool).sum()), 'pixel')}."
    )
    return np.asarray(~bad.astype(bool))


def _training(h5: Any, file: Candidate, notes: list[str], warnings: list[str]) -> dict[str, Any]:
    """Positions in pixels of the object, with probe, object and instrument; the geometry is far field."""
    positions = []
    for key in _PIXELS:
        values = array_at(h5, key)
        if values is None:
            raise missing_key(file, key, "(M,) places of the frames, pixels of the object")
        positions.append(values.astype(np.float64).ravel())
    if len(positions[0]) != len(positions[1]):
        raise DataError(f"{file.path}: {len(positions[0])} positions y but {len(positions[1])} x; a frame has both.")
    height, width = (_number(h5, f"object_pixel_{way}_m") for way in ("height", "width"))
    if width is not None and height is not None and abs(width - height) > 1e-4 * width:
        warnings.append(
            f"Object pixels are {height:.4g} × {width:.4g} m; they are taken for square, of the first side."
        )
    probe, obj = array_at(h5, "probe", "biufc"), array_at(h5, "object", "biufc")
    if probe is None:
        notes.append(NO_PROBE)
    notes.append("Positions are pixels of the object's array, of the pixel (N-1)/2 of a frame.")
    guess = None
    if obj is not None and obj.ndim in (2, 3) and obj.size and np.isfinite(obj).all():
        if obj.ndim == 3 and len(obj) > 1:
            notes.append(f"The object has {len(obj)} layers; their product was taken, as of a thin stack.")
        flat = obj if obj.ndim == 2 else np.prod(obj, axis=0)
        guess = ObjectGuess(object=flat.astype(np.complex64), origin_px=np.zeros(2))
    return {
        "positions": np.stack(positions, axis=-1),
        "position_unit": "px",
        "probe": None if probe is None else normalise_probe(probe, str(file.path), notes),
        "object_guess": guess,
        "geometry": Geometry(
            energy_eV=_number(h5, "photon_energy_eV"),
            distance_m=_number(h5, "detector_object_distance_m"),
            pixel_size_m=height,
        ),
        "propagation": FAR_FIELD,
    }


def _number(h5: Any, path: str) -> float | None:
    """A number > 0; ptychodus writes 0 for what it does not know."""
    value = number_at(h5, path, "a number")
    return value if value is not None and value > 0 else None


def _diffraction(h5: Any, notes: list[str]) -> dict[str, Any]:
    """The numbers of the frames and the detector's pixel; positions and probe are in a product."""
    patterns = dataset_at(h5, "patterns")
    sizes = [attribute(patterns, f"detector_pixel_{way}_m") for way in ("height", "width")]
    known = all(isinstance(size, float) and size > 0 for size in sizes)
    square = known and abs(sizes[0] - sizes[1]) <= 1e-4 * sizes[1]
    indexes = array_at(h5, "indexes")
    notes.append(NO_PROBE)
    return {
        "positions": None,
        "frame_indexes": None if indexes is None else indexes.astype(np.int64).ravel(),
        "geometry": Geometry(detector_pixel_size_m=sizes[0] if square else None),
    }
