"""The start and the end of what refines: an image laid out on a canvas, and what was made of it as an image again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer, canvas_of, integer_corners
from ..data.results import Image
from ..errors import DataError
from ..physics.merit import gain_squared
from ..physics.patches import check_inside
from ..physics.probe import add_modes
from ..physics.relative import lit, peak_intensity
from .positions import FramePositions
from .stitching import make_image, probe_weights

__all__ = [
    "ScanState",
    "Start",
    "coverage_of",
    "finish",
    "flat_image",
    "frame_intensities",
    "level_of",
    "reached",
    "room_to_move",
    "with_modes",
    "with_room",
]

_CHUNK = 256


def coverage_of(
    positions_px: NDArray[np.float64],
    probe: NDArray[np.complex64],
    origin_px: NDArray[np.int64],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Σ_j w_j on a canvas in units of the probe's peak, the coverage of an image (FM-7, FM-29).

    Args:
        positions_px: (J, 2) centres (y, x) of the frames that the image was made of.
        probe: (P, N, N) complex64.
        origin_px: (2,) integer corner of the canvas in scan coordinates (y, x).
        shape: (H, W) of the canvas.

    Returns:
        (H, W) float32.
    """
    N = probe.shape[-1]
    corners, rest = integer_corners(positions_px, N)
    total, peak = np.zeros(shape, np.float32), peak_intensity(probe)
    for start in range(0, len(positions_px), _CHUNK):
        weights = probe_weights(probe, rest[start : start + _CHUNK])
        for weight, (y, x) in zip(weights, corners[start : start + _CHUNK] - origin_px, strict=True):
            total[y : y + N, x : x + N] += weight
    return total / np.float32(peak) if peak > 0 else total


def _check_of_scan(image: Image, scan: PtychoDataContainer) -> None:
    raw, N, name = scan.raw, scan.raw.side, scan.raw.source.path or "scan"
    if image.probe.shape[-1] != N or len(image.positions_px) != raw.n_frames:
        raise DataError(
            f"{name}: it has {raw.n_frames} frames of {N}×{N}, but the image to refine was made from "
            f"{len(image.positions_px)} frames with a probe of {image.probe.shape[-1]}×"
            f"{image.probe.shape[-1]}; refine it with the scan it was made from."
        )


def room_to_move(image: Image, scan: PtychoDataContainer, limit_px: float) -> int:
    """Pixels to add on every side of an image so that its positions can move as far as they may.

    The limit counts from where a position was read, which is not where an image that was refined before has it.

    Args:
        image: the image.
        scan: its scan.
        limit_px: farthest that a position may be from where it was read.

    Raises:
        DataError: an image of another scan.
    """
    _check_of_scan(image, scan)
    _origin_of(image, scan)  # a margin would hide frames that lie beyond the image
    used = scan.used_frames
    moved = float(np.abs(image.positions_px - scan.raw.positions_px)[used].max(initial=0.0))
    return math.ceil(moved + limit_px) + 1


def reached(corners_px: NDArray[np.int64], N: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels of a canvas that some frame reaches: the corners of each window in a difference array, and two sums.

    Args:
        corners_px: (J, 2) integer corners (y, x) on the canvas, within it.
        N: side of a frame.
        shape: (H, W) of the canvas.

    Returns:
        (H, W) bool.
    """
    check_inside(corners_px, N, shape)
    edges = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)
    y, x = corners_px.T
    for down, right, sign in ((0, 0, 1), (N, 0, -1), (0, N, -1), (N, N, 1)):
        np.add.at(edges, (y + down, x + right), sign)
    return np.asarray(edges.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0)


def flat_image(scan: PtychoDataContainer) -> Image:
    """The image that knows nothing: O = 1 where training frames reach, on the canvas of the scan, with its probe."""
    origin, shape = scan.canvas()
    positions = FramePositions(scan, scan.raw.positions_px, origin)
    probe = scan.probe * np.sqrt(scan.statistics.scale)
    return finish(scan, np.ones(shape, np.complex64), probe, positions, scale=scan.statistics.scale)


def with_room(image: Image, margin_px: int) -> Image:
    """An image with a margin that nothing lit on every side, room for its positions to move."""
    return replace(
        image,
        object=np.pad(image.object, margin_px),
        coverage=np.pad(image.coverage, margin_px),
        origin_px=image.origin_px - margin_px,
    )


def with_modes(image: Image, n_modes: int) -> Image:
    """An image with as many incoherent probe modes; see ``physics.probe.add_modes``.

    Raises:
        ConfigError: more modes than can be added.
    """
    weights = image.mode_weights
    if weights is not None:  # what a frame takes of the main mode it takes of every mode
        weights = np.repeat(weights[:, :1], n_modes, axis=1)
    return replace(image, probe=add_modes(image.probe, n_modes), mode_weights=weights)


def frame_intensities(image: Image, name: str) -> NDArray[np.float64]:
    """Intensity of each frame (M,) of an image, 1 where it has no weights of its own.

    Raises:
        DataError: its frames take some modes more than others.
    """
    weights = image.mode_weights
    if weights is None:
        return np.ones(len(image.positions_px))
    if not np.array_equal(weights, np.broadcast_to(weights[:, :1], weights.shape)):
        raise DataError(
            f"{name}: frames of the image to refine take some modes of its probe more than others (mode_weights), "
            "and only an intensity for each frame can be refined here; refine it with the engine that made it."
        )
    return weights[:, 0].astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a stepper starts from: an image laid out, in arrays of its own.

    Attributes:
        scan: the scan.
        object: (H, W) complex; where nothing lit it, the mean of what was lit.
        probe: (P, N, N) complex, times √scale.
        positions: of all frames on this canvas.
        intensities: (M,) float64 intensity of each frame, with mean 1 unless the image has others.
        scale: s that the probe was multiplied with the root of.
    """

    scan: PtychoDataContainer
    object: NDArray[Any]
    probe: NDArray[Any]
    positions: FramePositions
    intensities: NDArray[np.float64]
    scale: float

    @classmethod
    def of(cls, image: Image, scan: PtychoDataContainer, dtype: type = np.complex64) -> Start:
        """Lay out an image.

        Args:
            image: object, probe, scale, positions and intensities; left as it is.
            scan: its scan.
            dtype: complex64 or complex128, of object and probe.

        Raises:
            DataError: an image of another scan (frames of another side or number, or beyond its canvas), or one that
                the forward model of core does not explain.
        """
        _check_of_scan(image, scan)
        name = scan.raw.source.path or "scan"
        if image.forward_model or image.slices is not None:
            raise DataError(
                f"{name}: the image to refine is explained by engine {image.forward_model!r} alone "
                f"({'a thick object' if image.slices is not None else 'its own physics'}); refine it with that one."
            )
        origin = _origin_of(image, scan)
        level = complex(image.object[lit(image.coverage)].mean(dtype=np.complex128))
        return cls(
            scan=scan,
            object=np.where(image.coverage > 0, image.object, level).astype(dtype),
            probe=(image.probe * np.sqrt(image.scale)).astype(dtype),
            positions=FramePositions(scan, image.positions_px, origin, image.object.shape),
            intensities=frame_intensities(image, name),
            scale=image.scale,
        )


def level_of(scan: PtychoDataContainer, expected: Callable[[], float]) -> float:
    """g² with which the training frames expect as many counts as were measured (FM-11).

    It is 1 for a calibrated probe; for a scan with bad pixels, where the sum over all pixels of what is expected says
    nothing of the good ones; and where nothing is expected or measured.

    Args:
        scan: the scan.
        expected: counts that the training frames expect together, without the background; asked only where it decides.
    """
    raw, frames = scan.raw, scan.train_frames
    if raw.probe_calibrated or (raw.mask is not None and not raw.mask.all()):
        return 1.0
    background = 0.0 if raw.background is None else float(raw.background.sum(dtype=np.float64)) * len(frames)
    measured, light = float(raw.frame_totals[frames].sum()), expected()
    return gain_squared(light + background, measured, background) if measured > background and light > 0 else 1.0


def finish(
    scan: PtychoDataContainer,
    obj: NDArray[Any],
    probe: NDArray[Any],
    positions: FramePositions,
    *,
    scale: float,
    gain_squared: float = 1.0,
    intensities: NDArray[np.float64] | None = None,
    stats: Mapping[str, float | int | str] | None = None,
) -> Image:
    """Bind what a stepper has as an image, cut to what the used frames reach, and 0 where no training frame does.

    Args:
        scan: the scan.
        obj: (H, W) complex on the canvas of `positions`.
        probe: (P, N, N) complex, times √scale.
        positions: of all frames.
        scale: s that the probe was multiplied with the root of.
        gain_squared: g² with which as many counts are expected as were measured, which goes into the scale.
        intensities: (M,) intensity of each frame, None where all are 1; their mean over the training frames becomes 1,
            and the object takes the rest.
        stats: plain values to say of it.
    """
    N, places, mean = scan.raw.side, positions.positions_px, 1.0
    if intensities is not None:
        mean = float(intensities[scan.train_frames].mean())
    origin, (height, width) = canvas_of(places[scan.used_frames], N)
    y, x = origin - positions.origin_px
    shown = (np.asarray(probe) / np.sqrt(scale)).astype(np.complex64)
    coverage = coverage_of(places[scan.train_frames], shown, origin, (height, width))
    # held-out frames reach beyond what the others have lit; there the object is what it began with
    made = np.where(coverage > 0, obj[y : y + height, x : x + width] * math.sqrt(mean), 0).astype(np.complex64)
    image = make_image(made, coverage, origin, shown, scale * gain_squared, places, stats=stats)
    if intensities is None or (intensities == 1).all():
        return image
    weights = np.repeat((intensities / mean).astype(np.float32)[:, None], len(shown), axis=1)
    return replace(image, mode_weights=weights)


def _origin_of(image: Image, scan: PtychoDataContainer) -> NDArray[np.int64]:
    """Corner (2,) of an image's canvas, which must lie on whole pixels and hold every used frame."""
    N, name = scan.raw.side, scan.raw.source.path or "scan"
    origin = np.round(image.origin_px).astype(np.int64)
    corners, _ = integer_corners(image.positions_px[scan.used_frames], N)
    inner = corners - origin
    beyond = (inner < 0).any() or (inner + N > np.array(image.object.shape)).any()
    if beyond or np.abs(image.origin_px - origin).max() > 1e-6:
        raise DataError(
            f"{name}: its frames lie beyond the image to refine, which is {image.object.shape} from "
            f"{image.origin_px.tolist()}; refine it with the scan it was made from."
        )
    return origin


@dataclass
class ScanState:
    """Object, probe and positions for an engine that descends by itself; the intensity scale is in the probe.

    Attributes:
        scan: the scan, with its positions as read.
        origin_px: (2,) int64 scan coordinates (y, x) of the corner of the canvas.
        object: (H, W) complex.
        probe: (P, N, N) complex, times √scale.
        positions_px: (M, 2) float64 centres (y, x) of all frames as they are now.
        scale: s that the probe was multiplied with the root of.
    """

    scan: PtychoDataContainer
    origin_px: NDArray[np.int64]
    object: NDArray[Any]
    probe: NDArray[Any]
    positions_px: NDArray[np.float64]
    scale: float

    @classmethod
    def of_image(
        cls,
        image: Image,
        scan: PtychoDataContainer,
        *,
        margin_px: int = 0,
        dtype: type = np.complex64,
        filled: bool = True,
    ) -> ScanState:
        """Start from an image.

        Args:
            image: the image.
            scan: its scan.
            margin_px: pixels added on every side, room for positions to move.
            dtype: complex64 or complex128.
            filled: whether pixels that no frame has lit, and the margin, get the mean of those that were lit, as is
                good to start from. Else they are as in the image, and 0 in the margin: that is what is judged.

        Raises:
            DataError: an image of another scan: frames of another side or number, or beyond its canvas.
        """
        _check_of_scan(image, scan)
        origin = _origin_of(image, scan)
        obj, level = image.object, 0j
        if filled:
            level = complex(obj[lit(image.coverage)].mean(dtype=np.complex128))
            obj = np.where(image.coverage > 0, obj, level)
        return cls(
            scan=scan,
            origin_px=origin - margin_px,
            object=np.pad(obj, margin_px, constant_values=level).astype(dtype),
            probe=(image.probe * np.sqrt(image.scale)).astype(dtype),
            positions_px=image.positions_px.copy(),
            scale=image.scale,
        )

    def shown(self) -> NDArray[Any]:
        """The object (H, W) as an image shows it: 0 where no training frame reaches, as positions are now (BE-21)."""
        reaches = reached(self.corners(self.scan.train_frames)[0], self.scan.raw.side, self.object.shape)
        return np.asarray(np.where(reaches, self.object, self.object.dtype.type(0)))

    def corners(self, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Integer corners (J, 2) on the canvas and sub-pixel rests (J, 2) of some frames, as they are now."""
        whole, rest = integer_corners(self.positions_px[frames], self.scan.raw.side)
        return whole - self.origin_px, rest

    def image(self) -> Image:
        """Bind the state as an image, cut to what the used frames reach."""
        positions = FramePositions(self.scan, self.positions_px, self.origin_px)
        return finish(self.scan, self.object, self.probe, positions, scale=self.scale)
