"""Stitching: patches of a whole scan merged on the integer grid, with memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer, integer_corners
from ..data.results import Image
from ..errors import BackendError, ConfigError
from ..physics.forward import fourier_shift, mode_intensity
from ..physics.patches import check_inside

__all__ = ["Stitcher", "corners_on", "make_image", "probe_weights", "slices_shown"]

_MAX_NON_FINITE = 0.01
_Scalar = TypeVar("_Scalar", bound=np.generic)


def probe_weights(probe: NDArray[np.complex64], subpixel_px: NDArray[np.float32]) -> NDArray[np.float32]:
    """w_j = Σ_p |S(δ_j) P_p|², the weight of a patch in every merge (FM-7).

    Args:
        probe: (P, N, N) complex modes.
        subpixel_px: (J, 2) sub-pixel rest (y, x).

    Returns:
        (J, N, N) float32.
    """
    shifted = fourier_shift(probe[None], np.asarray(subpixel_px)[:, None])
    return np.asarray(mode_intensity(shifted), dtype=np.float32)


def corners_on(image: Image, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Where frames lie on an image, as every ``expected_counts`` needs it.

    Args:
        image: with its positions and the side of its probe.
        frames: (n,) numbers of frames of its scan.

    Returns:
        (n, 2) int64 corners (y, x) on the object and (n, 2) float32 sub-pixel rests.

    Raises:
        DataError: a frame leaves the image.
    """
    N = image.probe.shape[-1]
    corners, rest = integer_corners(image.positions_px[frames], N)
    corners = corners - np.round(image.origin_px).astype(np.int64)
    check_inside(corners, N, (image.object.shape[0], image.object.shape[1]))
    return corners, rest


@dataclass
class Stitcher:
    """Running weighted mean of patches on the canvas of a scan.

    Attributes:
        origin_px: (2,) int64 integer corner of the canvas in scan coordinates (y, x).
        numerator: (H, W) complex64 running Σ w Q.
        denominator: (H, W) float32 running Σ w.
        N: side of a patch.
        central_crop_px: side of the central square of a patch that is used, or None for all of it.
        n_non_finite: patches left out because they held NaN or infinite values.
        n_patches: patches seen.
    """

    origin_px: NDArray[np.int64]
    numerator: NDArray[np.complex64]
    denominator: NDArray[np.float32]
    N: int
    central_crop_px: int | None = None
    n_non_finite: int = 0
    n_patches: int = 0

    @classmethod
    def for_scan(cls, scan: PtychoDataContainer, central_crop_px: int | None = None) -> Stitcher:
        """Make an empty canvas that holds the patch of every used frame of a scan.

        Raises:
            ConfigError: a central crop larger than a patch.
        """
        N = scan.raw.side
        if central_crop_px is not None and central_crop_px > N:
            raise ConfigError(f"central_crop_px = {central_crop_px} is larger than the patches, which are {N}×{N}.")
        origin, shape = scan.canvas()
        return cls(origin, np.zeros(shape, np.complex64), np.zeros(shape, np.float32), N, central_crop_px)

    def add(self, patches: NDArray[np.complex64], weights: NDArray[np.float32], corners_px: NDArray[np.int64]) -> None:
        """Add patches.

        Args:
            patches: (J, N, N) complex64.
            weights: (J, N, N) float32 ≥ 0.
            corners_px: (J, 2) integer corners (y, x) in scan coordinates.

        Raises:
            BackendError: a patch leaves the canvas; none is clipped.
        """
        N, crop = self.N, self.central_crop_px or self.N
        corners = corners_px - self.origin_px
        if (corners < 0).any() or (corners + N > self.denominator.shape).any():
            raise BackendError(
                f"patches with corners from {corners_px.min(axis=0).tolist()} to {corners_px.max(axis=0).tolist()} "
                f"leave the canvas of shape {self.denominator.shape} at {self.origin_px.tolist()}; "
                "add patches of the scan that it was made for."
            )
        inset = (N - crop) // 2
        window = slice(inset, inset + crop)
        finite = np.isfinite(patches).all(axis=(-2, -1))
        self.n_patches += len(patches)
        self.n_non_finite += int((~finite).sum())
        for patch, weight, (y, x) in zip(patches[finite], weights[finite], corners[finite] + inset, strict=True):
            self.numerator[y : y + crop, x : x + crop] += (patch * weight)[window, window]
            self.denominator[y : y + crop, x : x + crop] += weight[window, window]

    def finish(self, peak_weight: float) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        """Divide, and return object (H, W) complex64 and coverage (H, W) float32 in units of `peak_weight`.

        Raises:
            BackendError: more than 1 % of the patches were not finite, or nothing was added.
        """
        if self.n_patches == 0 or self.n_non_finite > _MAX_NON_FINITE * self.n_patches:
            raise BackendError(
                f"{self.n_non_finite} of {self.n_patches} predicted patches hold NaN or infinite values, more than "
                f"{_MAX_NON_FINITE:.0%}; the model is broken. Train again with a smaller learning_rate."
            )
        lit = self.denominator > 0
        obj = np.divide(self.numerator, self.denominator, out=np.zeros_like(self.numerator), where=lit)
        return obj, self.denominator / np.float32(peak_weight)


def slices_shown(slices: NDArray[np.complex64], lit: NDArray[np.bool_]) -> NDArray[np.complex64]:
    """Slices as an image shows them: where nothing lit, the first is 0 and the others are empty space.

    So the object, their product, is 0 there, and light that was spread beyond what was lit goes on.

    Args:
        slices: (L, H, W) complex64.
        lit: (H, W) bool, where training frames reach.

    Returns:
        (L, H, W) complex64, a new array.
    """
    beyond = np.ones((len(slices), 1, 1), np.complex64)
    beyond[0] = 0
    return np.where(lit, slices, beyond)


def _own(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """A copy that can be written where the array itself can."""
    copied = array.copy()
    copied.flags.writeable = array.flags.writeable
    return copied


def make_image(
    obj: NDArray[np.complex64],
    coverage: NDArray[np.float32],
    origin_px: NDArray[np.int64],
    probe: NDArray[np.complex64],
    scale: float,
    positions_px: NDArray[np.float64],
    *,
    slices: NDArray[np.complex64] | None = None,
    slice_spacing_m: float | None = None,
    mode_weights: NDArray[np.float32] | None = None,
    forward_model: str = "",
    stats: Mapping[str, float | int | str] | None = None,
) -> Image:
    """Bind what an engine found into an image that shares no memory with its scan (BE-34).

    Object, slices and coverage, which may be large, are taken as they are: hand in arrays that nobody else keeps.

    Args:
        obj: (H, W) complex64.
        coverage: (H, W) float32.
        origin_px: (2,) int64 integer corner of the canvas in scan coordinates (y, x).
        probe: (P, N, N) complex64 as used.
        scale: s as used.
        positions_px: (M, 2) float64 centres of all frames of the scan, as used.
        slices: (L, H, W) complex64 slices of a thick object, whose product is `obj`, or None.
        slice_spacing_m: metres between two of them, or None.
        mode_weights: (M, P) float32, what each frame takes of each mode, or None.
        forward_model: name of the engine whose forward model alone explains the image, or empty.
        stats: what else there is to say, plain values by name.

    Raises:
        BackendError: the object is not finite.
    """
    if not np.isfinite(obj).all():
        raise BackendError("the reconstructed object holds NaN or infinite values; the engine failed.")
    return Image(
        object=obj,
        coverage=coverage,
        origin_px=origin_px.astype(np.float64),
        probe=_own(probe),
        scale=float(scale),
        positions_px=_own(positions_px),
        slices=slices,
        slice_spacing_m=slice_spacing_m,
        mode_weights=None if mode_weights is None else _own(mode_weights),
        forward_model=forward_model,
        stats=dict(stats or {}),
    )
