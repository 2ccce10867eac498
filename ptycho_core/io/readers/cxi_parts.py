"""What CXI and NXcxi_ptycho share: frames of any rank, masks by bits, motions in space, the beam's pixel.

What has a ``units`` attribute is read by it, all else in SI units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.frames import CentredFrames, FrameSource, Hdf5Frames
from ...errors import DataError
from ...reader_protocol import ReadOptions
from ...text import counted
from ..h5_values import (
    array_at,
    attribute,
    dataset_at,
    first_dataset,
    group_at,
    measured_at,
    number_at,
    text_at,
    whole,
    whole_frames,
)
from .cxi_layout import Layout, first_named

__all__ = [
    "DEFAULT_DIRECTIONS",
    "StoredFrames",
    "centre_px",
    "detector_directions",
    "frames_at",
    "good_pixels",
    "stored_probe",
    "translations_m",
]

# in a peak, artefact corrected, peak for the hit finder, background corrected: information, not defects
_HARMLESS_BITS = 0x20 | 0x800 | 0x2000 | 0x4000 | ~0x7FFF
_MASK_BYTES = 2**26

DEFAULT_DIRECTIONS = np.array([[0.0, -1.0], [-1.0, 0.0], [0.0, 0.0]])
"""(3, 2) directions (x, y, z) of a row step and a column step of a detector that faces the beam upright."""


@dataclass(frozen=True)
class StoredFrames:
    """Frames of a scan as they lie there.

    Attributes:
        source: (M, H, W).
        raster: (Ny, Nx) where the file says that they lie on one, slow axis first, else None.
        measurement: ``counts`` or ``amplitude``.
        shifted: whether they were moved from the corner.
    """

    source: FrameSource
    raster: tuple[int, int] | None
    measurement: str
    shifted: bool = False


def frames_at(
    h5: Any, layout: Layout, n_positions: int | None, path: Path, follow: bool, notes: list[str]
) -> StoredFrames:
    """The frames of a scan, none of which is read.

    Args:
        h5: an open file.
        layout: of the scan.
        n_positions: number of its positions, which says what four axes are, or None.
        path: the file that was named, whatever links lead out of it.
        follow: whether it may still be being written.
        notes: what was assumed is added here.

    Raises:
        DataError: no frames, or more images than one a position.
    """
    dataset, where = h5[layout.frames], f"{path}: {layout.frames!r}"
    shape = tuple(int(n) for n in dataset.shape)
    if len(shape) not in (3, 4) or 0 in shape or dataset.dtype.kind not in "biuf":
        raise DataError(f"{where} is {shape} {dataset.dtype}; frames must be (M, N, N) real counts.")
    whole = whole_frames(dataset)
    if h5.swmr_mode and n_positions is not None and len(shape) == 3:
        whole = min(whole, n_positions)
    if h5.swmr_mode:
        notes.append(
            f"The file is still being written: of {shape[0]} frames (or rows of them) the first "
            f"{counted(whole, 'is', 'are')} read."
        )
        shape = (whole, *shape[1:])
        if not whole:
            raise DataError(f"{where} is still being written and holds no whole frame yet; try again later.")
    raster: tuple[int, int] | None = None
    source = Hdf5Frames(path, layout.frames, shape, follow=follow)
    if len(shape) == 4:
        raster = _raster_of(shape, n_positions, attribute(dataset, "axes", ""), where, notes)
        axes = (0, 1) if raster is not None else (0,)
        image = (2, 3)
        source = replace(source, frame_axes=axes, image_axes=image)
    measurement = _measurement(h5, layout)
    if measurement == "amplitude":
        notes.append("data_type says amplitudes; they were squared.")
        source = replace(source, measurement=measurement)
    if not _is_shifted(h5, layout):
        return StoredFrames(source, raster, measurement)
    notes.append("is_fft_shifted is set: zero frequency was moved from the corner to (H // 2, W // 2).")
    return StoredFrames(CentredFrames(source), raster, measurement, shifted=True)


def _raster_of(
    shape: tuple[int, ...], n_positions: int | None, axes: Any, where: str, notes: list[str]
) -> tuple[int, int] | None:
    """(Ny, Nx) of frames with four axes, or None where the second has one entry and counts nothing."""
    if shape[1] == 1:
        return None
    modules = isinstance(axes, str) and "module" in axes
    if modules or n_positions == shape[0]:
        raise DataError(
            f"{where} is {shape}: {shape[1]} images (modules or repeats) at each of {shape[0]} positions; a frame is "
            "one image (H, W) a position. Assemble or add them, or choose them with a mapping (--map)."
        )
    notes.append(f"Frames are {shape}: a raster of {shape[0]} × {shape[1]}, the second axis fastest.")
    return shape[0], shape[1]


def _measurement(h5: Any, layout: Layout) -> str:
    groups = (layout.frames.rsplit("/", 1)[0], layout.data, layout.detector)
    stated = " ".join(text_at(h5, f"{group}/data_type") or "" for group in dict.fromkeys(groups))
    return "amplitude" if "amplitude" in stated.lower() else "counts"


def _is_shifted(h5: Any, layout: Layout) -> bool:
    """Whether zero frequency is said to be at the corner."""
    groups = dict.fromkeys((layout.frames.rsplit("/", 1)[0], layout.data, layout.detector))
    for group in groups:
        value = number_at(h5, f"{group}/is_fft_shifted", "0 or 1")
        if value is None and (item := group_at(h5, group)) is not None:
            value = attribute(item, "is_fft_shifted")
        if value is not None:
            return bool(value)
    return bool(attribute(h5[layout.frames], "is_fft_shifted", False))


def good_pixels(h5: Any, paths: tuple[str, ...], shifted: bool, notes: list[str]) -> NDArray[np.bool_] | None:
    """Good pixels (H, W) by a mask of CXI, in which every bit says in which way a pixel is bad; None without one.

    A mask for each frame leaves the pixels that are good in all of them.
    """
    found = first_dataset(h5, paths)
    if found is None:
        return None
    path, dataset = found
    if dataset.dtype.kind not in "biuf" or dataset.ndim < 2:
        raise DataError(
            f"{h5.file.filename}: {path!r} is {dataset.shape} {dataset.dtype}; a mask is (H, W) whole numbers."
        )
    harmless = 0 if path.endswith("pixel_mask") else _HARMLESS_BITS
    bad = np.zeros(dataset.shape[-2:], bool)
    for planes in _planes(dataset):
        values = np.where(np.isnan(planes), 1, planes) if planes.dtype.kind == "f" else planes
        bad |= ((values.astype(np.int64) & ~harmless) != 0).any(axis=0)
    each = dataset.ndim > 2 and int(np.prod(dataset.shape[:-2])) > 1
    notes.append(
        f"{path.rsplit('/', 1)[-1]} is a bit field in which 0 is good; it hides {counted(int(bad.sum()), 'pixel')}"
        f"{', those that are bad in any frame' if each else ''}."
    )
    return ~(np.fft.fftshift(bad) if shifted else bad)


def _planes(dataset: Any) -> Iterator[NDArray[Any]]:
    """A dataset (..., H, W) as some (n, H, W) after another."""
    height, width = dataset.shape[-2:]
    if dataset.ndim == 2:
        yield whole(dataset, dataset.name)[None]
        return
    step = max(1, _MASK_BYTES // (8 * max(1, int(np.prod(dataset.shape[1:])))))
    for start in range(0, dataset.shape[0], step):
        yield np.asarray(dataset[start : start + step]).reshape(-1, height, width)


def stored_probe(h5: Any, layout: Layout) -> tuple[str, NDArray[Any]] | None:
    """The probe, where one of the programs that keep it in CXI puts it, with its path."""
    image = first_named(h5, layout.entry, "image")
    groups = (layout.source, f"{image}/instrument_1/source_1", f"{image}/process_1", layout.sample, layout.data, image)
    names = ("illumination", "probe", "final_illumination")
    found = first_dataset(h5, (f"{group}/{name}" for group in groups for name in names))
    if found is None or found[1].ndim < 2:  # source_1/probe of NeXus is a word: x-ray
        return None
    values = array_at(h5, found[0], "biufc")
    return None if values is None else (found[0], values)


def detector_directions(h5: Any, layout: Layout, notes: list[str]) -> NDArray[np.float64]:
    """(3, 2) unit directions in space of a step to the next row, and to the next column, of the detector.

    Raises:
        DataError: ``basis_vectors`` are none.
    """
    path = f"{layout.detector}/basis_vectors"
    stored = array_at(h5, path)
    if stored is None:
        notes.append("No basis_vectors: detector rows are taken to step along -y and columns along -x.")
        return DEFAULT_DIRECTIONS
    basis = stored.astype(np.float64)
    if basis.shape == (2, 3):
        notes.append("basis_vectors are (2, 3): the first was read as the step from row to row.")
        basis = basis.T
    length = np.linalg.norm(basis, axis=0) if basis.shape == (3, 2) else np.zeros(2)
    if not (np.isfinite(length).all() and (length > 0).all()):
        raise DataError(
            f"{h5.file.filename}: 'basis_vectors' is {stored.shape}; it must be (3, 2), a row step and a column step "
            "in metres."
        )
    return np.asarray(basis / length)


def translations_m(
    h5: Any, paths: tuple[str, ...], n_frames: int, options: ReadOptions, notes: list[str]
) -> NDArray[np.float64] | None:
    """Motions (K, 3) (x, y, z), metres, of the first of some datasets that is there, else None.

    Where the caller says the unit they are the numbers as stored.

    Args:
        h5: an open file.
        paths: of (K, 3), (K, 2), (3, K), (2, K) or (Ny, Nx, 3) motions.
        n_frames: M, which tells rows from columns.
        options: what the caller says.
        notes: what was assumed is added here.

    Raises:
        DataError: something else lies there.
    """
    found = first_dataset(h5, paths)
    if found is None:
        return None
    path = found[0]
    measured = measured_at(h5, path, "length", "--position_unit", as_stored=options.position_unit is not None)
    assert measured is not None
    stored = measured.values
    if stored.ndim == 3 and stored.shape[2] in (2, 3):
        stored = stored.reshape(-1, stored.shape[2])
    rows, columns = (*stored.shape, 0, 0)[:2]
    if stored.ndim == 2 and rows in (2, 3) and rows != n_frames and (columns not in (2, 3) or columns == n_frames):
        notes.append(f"translation is {stored.shape}: its rows were read as x, y{', z' * (rows == 3)}.")
        stored = stored.T
    if stored.ndim != 2 or stored.shape[1] not in (2, 3):
        raise DataError(f"{h5.file.filename}: {path!r} is {measured.values.shape}; it must be (M, 3) metres (x, y, z).")
    out = np.zeros((len(stored), 3))
    out[:, : stored.shape[1]] = stored
    return out


def centre_px(
    h5: Any, layout: Layout, pixel_size_m: float | None, shape: tuple[int, int], notes: list[str], warnings: list[str]
) -> tuple[float, float] | None:
    """(y, x) pixel of zero frequency, where the file states it on the frames; None means (H // 2, W // 2)."""
    found = _image_centre(h5, layout)
    if found is None:
        values = [_beam_centre(h5, f"{layout.detector}/beam_center_{axis}", pixel_size_m) for axis in "yx"]
        if values[0] is None or values[1] is None:
            _doubt_corner(h5, layout, shape, warnings)
            return None
        found = values[0], values[1]
    middle = (shape[0] // 2, shape[1] // 2)
    if all(abs(at - mid) <= 1 for at, mid in zip(found, middle, strict=True)):
        return None  # which half of the middle pixel is meant, writers do not agree on
    where = f"({found[0]:.4g}, {found[1]:.4g})"
    if not all(0 <= at < n for at, n in zip(found, shape, strict=True)):
        warnings.append(
            f"The file puts the beam at pixel {where}, off its frames of {shape[0]}×{shape[1]}; {middle} was taken. If "
            "that is wrong, give --centre y,x."
        )
        return None
    notes.append(f"The file puts the beam at pixel {where}; if that is wrong, give --centre y,x.")
    return found


def _doubt_corner(h5: Any, layout: Layout, shape: tuple[int, int], warnings: list[str]) -> None:
    """Say where ``corner_position`` puts the beam if that is not the middle: programs that write it do not use it."""
    corner, basis = (array_at(h5, f"{layout.detector}/{name}") for name in ("corner_position", "basis_vectors"))
    if corner is None or basis is None or corner.shape != (3,) or basis.shape != (3, 2):
        return
    steps = basis / np.maximum(np.linalg.norm(basis, axis=0) ** 2, 1e-300)
    at = -(corner.astype(np.float64) @ steps)
    if np.isfinite(at).all() and any(abs(float(a) - n // 2) > 1 for a, n in zip(at, shape, strict=True)):
        warnings.append(
            f"corner_position puts the beam at pixel ({at[0]:.4g}, {at[1]:.4g}); ({shape[0] // 2}, {shape[1] // 2}) "
            "was taken. If that is wrong, give --centre y,x."
        )


def _image_centre(h5: Any, layout: Layout) -> tuple[float, float] | None:
    """(y, x) of CXI's ``image_center``, (x, y, z) pixels."""
    for group in dict.fromkeys((layout.frames.rsplit("/", 1)[0], layout.data, layout.detector)):
        values = array_at(h5, f"{group}/image_center")
        if values is not None and values.ndim == 1 and len(values) in (2, 3) and np.isfinite(values[:2]).all():
            return float(values[1]), float(values[0])
    return None


def _beam_centre(h5: Any, path: str, pixel_size_m: float | None) -> float | None:
    dataset = dataset_at(h5, path)
    if dataset is None:
        return None
    unit = attribute(dataset, "units", "")
    if unit == "" or str(unit).lower().startswith(("px", "pix")):
        value = number_at(h5, path, "the beam's pixel")
        metres = unit == "" and value is not None and 0 < value < 1 and pixel_size_m is not None
        return value / pixel_size_m if metres and value is not None and pixel_size_m is not None else value
    measured = measured_at(h5, path, "length", "--centre")
    if measured is None or pixel_size_m is None:
        return None
    return float(measured.values.ravel()[0]) / pixel_size_m
