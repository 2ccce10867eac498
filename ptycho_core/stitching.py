"""Stitching: patches of a whole scan merged on the integer grid, with memory that does not grow with their number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .data.container import PtychoDataContainer, integer_corners
from .data.raw import RawData
from .data.results import Reconstruction
from .errors import BackendError, ConfigError
from .physics.forward import expected_counts, fourier_shift
from .physics.likelihood import best_gain, frame_misfit, misfit
from .physics.patches import extract

__all__ = ["Stitcher", "finish_reconstruction", "probe_weights"]

_CHUNK_FRAMES_BYTES = 48 * 2**20
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
    return np.asarray(np.sum(np.abs(shifted) ** 2, axis=1), dtype=np.float32)


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
    def for_scan(cls, raw: RawData, central_crop_px: int | None = None) -> Stitcher:
        """Make an empty canvas that holds every patch of a scan.

        Raises:
            ConfigError: a central crop larger than a patch.
        """
        N = raw.side
        if central_crop_px is not None and central_crop_px > N:
            raise ConfigError(f"central_crop_px = {central_crop_px} is larger than the patches, which are {N}×{N}.")
        corners, _ = integer_corners(raw.positions_px, N)
        origin = corners.min(axis=0)
        height, width = corners.max(axis=0) - origin + N
        return cls(
            origin, np.zeros((height, width), np.complex64), np.zeros((height, width), np.float32), N, central_crop_px
        )

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


def scan_misfit(
    obj: NDArray[np.complex64], origin_px: NDArray[np.int64], probe: NDArray[np.complex64], raw: RawData, scale: float
) -> NDArray[np.float64]:
    """The sums of every frame that the R-factor is made of, (M, 3); see ``physics.likelihood.misfit``."""
    corners, rest = integer_corners(raw.positions_px, raw.side)
    sums = np.zeros((raw.n_frames, 3))
    step = max(1, _CHUNK_FRAMES_BYTES // (16 * raw.side**2 * len(probe) * 3))
    for start in range(0, raw.n_frames, step):
        chosen = np.arange(start, min(start + step, raw.n_frames))
        patches = extract(obj, corners[chosen] - origin_px, raw.side)
        rate = expected_counts(patches, probe, rest[chosen], scale, raw.background)
        sums[chosen] = misfit(rate, raw.read_counts(chosen), raw.mask)
    return sums


def _own(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """A copy that can be written where the array itself can."""
    copied = array.copy()
    copied.flags.writeable = array.flags.writeable
    return copied


def finish_reconstruction(
    obj: NDArray[np.complex64],
    coverage: NDArray[np.float32],
    origin_px: NDArray[np.int64],
    probe: NDArray[np.complex64],
    scale: float,
    data: PtychoDataContainer,
    *,
    nominal_positions_px: NDArray[np.float64] | None = None,
    dropped: dict[str, int] | None = None,
) -> Reconstruction:
    """Score an object against every frame of its scan and bind the result; the same for every engine (FM-11).

    Probe and positions are copied, so that a result shares no memory with its scan (BE-34); object and coverage, which
    may be large, are taken as they are: hand in arrays that nobody else keeps.

    Args:
        obj: (H, W) complex64.
        coverage: (H, W) float32.
        origin_px: (2,) int64 integer corner of the canvas in scan coordinates (y, x).
        probe: (P, N, N) complex64 as used.
        scale: s as used; the R-factor's g is absorbed in it, unless the probe is calibrated.
        data: the container that was reconstructed.
        nominal_positions_px: positions as read, when they were refined.
        dropped: left out, by reason.

    Raises:
        BackendError: the object is not finite.
    """
    if not np.isfinite(obj).all():
        raise BackendError("the reconstructed object holds NaN or infinite values; the engine failed.")
    raw = data.raw
    sums = scan_misfit(obj, origin_px, probe, raw, scale)
    gain = best_gain(sums)
    of_frames = frame_misfit(sums, gain)
    bad_pixels = 0 if raw.mask is None else int((~raw.mask).sum())
    return Reconstruction(
        object=obj,
        coverage=coverage,
        origin_px=origin_px.astype(np.float64),
        probe=_own(probe),
        scale=scale if raw.probe_calibrated else scale * gain**2,
        positions_px=_own(raw.positions_px),
        nominal_positions_px=_own(raw.positions_px if nominal_positions_px is None else nominal_positions_px),
        r_factor=float(of_frames.sum() / sums[:, 2].sum()),
        frame_misfit=np.maximum(of_frames, 0.0),
        frame_totals=sums[:, 2],
        dropped={"frames_without_counts": int((sums[:, 2] == 0).sum()), "masked_pixels": bad_pixels} | (dropped or {}),
    )
