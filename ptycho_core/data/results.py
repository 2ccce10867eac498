"""Results: one reconstruction type and one facade result, the same for every engine (specs/10-data)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..protocol import TrainedModel
    from ..refinement.positions import PositionReport
    from .container import PtychoDataContainer

__all__ = ["CdiResult", "CdiResults", "Reconstruction", "Refined"]


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """An image of the object with everything needed to judge and to reuse it.

    Attributes:
        object: (H, W) complex64; 0 where no frame reached.
        coverage: (H, W) float32, Σ of the probe intensity over the frames, in units of the probe's peak: about the
            number of times a pixel was lit.
        origin_px: (2,) float64 scan coordinates (y, x) of the centre of pixel (0, 0).
        probe: (P, N, N) complex64 as used in the end.
        scale: s, with λ = s · Σ_p |F ψ_p|² + background.
        positions_px: (M, 2) float64 frame centres (y, x) as used.
        nominal_positions_px: (M, 2) float64 frame centres (y, x) as read.
        r_factor: Σ(g√λ − √k)² / Σk over the good pixels of all frames; g is absorbed in `scale`.
        frame_misfit: (M,) float64 Σ(√λ − √k)² of each frame, after g was absorbed.
        frame_totals: (M,) float64 Σk of each frame.
        dropped: how many frames, pixels or patches were left out, by reason.
    """

    object: NDArray[np.complex64]
    coverage: NDArray[np.float32]
    origin_px: NDArray[np.float64]
    probe: NDArray[np.complex64]
    scale: float
    positions_px: NDArray[np.float64]
    nominal_positions_px: NDArray[np.float64]
    r_factor: float
    frame_misfit: NDArray[np.float64]
    frame_totals: NDArray[np.float64]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def r_factor_of(self, frames: NDArray[np.int64]) -> float:
        """R-factor of some frames (n,), with the scale of all of them; NaN when they hold no counts."""
        total = float(self.frame_totals[frames].sum())
        return float(self.frame_misfit[frames].sum()) / total if total > 0 else float("nan")


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What refining an image gave.

    Attributes:
        reconstruction: the better of the two images: the refined one, or the one it began with.
        initial: the image it began with.
        engine: engine that refined.
        kept: whether the refined image is the better one.
        note: why it was discarded, for people; empty when it is kept.
        history: ``train_loss`` and, with held-out frames, ``test_loss``, one an epoch.
        positions: what became of the positions, or None when they were not refined.
    """

    reconstruction: Reconstruction
    initial: Reconstruction
    engine: str
    kept: bool
    note: str
    history: Mapping[str, list[float]]
    positions: PositionReport | None = None


class CdiResults(TypedDict):
    """What a facade call returns beside the images; the same keys and types for every engine."""

    backend: str
    train_container: PtychoDataContainer
    test_container: PtychoDataContainer | None
    history: Mapping[str, list[float]]
    model: TrainedModel
    checkpoint_path: Path | None
    reconstructed_obj: NDArray[np.complex64] | None
    reconstruction: Reconstruction | None
    probe: NDArray[np.complex64]
    config: TrainingConfig
    provenance: dict[str, Any]


@dataclass(frozen=True)
class CdiResult:
    """Result of ``run_cdi_example``; unpacks as ``amplitude, phase, results = …``.

    Attributes:
        amplitude: (H, W) float32, or None when nothing was reconstructed.
        phase: (H, W) float32 radians in (−π, π], or None.
        results: see :class:`CdiResults`.
    """

    amplitude: NDArray[np.float32] | None
    phase: NDArray[np.float32] | None
    results: CdiResults

    def __iter__(self) -> Iterator[Any]:
        return iter((self.amplitude, self.phase, self.results))
