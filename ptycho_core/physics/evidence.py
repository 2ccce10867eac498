"""Whether frames follow their positions as an image says: evidence against an image of nothing (FM-33, FM-34).

The null model is an image of nothing: each frame j is the mean training frame scaled to its own counts, ν_j = T_j p
with p its pattern of sum 1. The image foretells μ_j = ν_j λ_j / λ̄, scaled to the same counts, with its own mean λ̄ in
place of the measured one: what is wrong in the same way in every frame (a hot pixel, a background, a beam stop) says
nothing of the object and drops out. With weights 1/w_j, w_j = T_j √⟨(μ/T)²⟩ over the training frames, at least ν_j, and
larger where single frames are foretold to be bright:

    S = Σ (k − ν) (μ − ν) / w                                what comes true of what is foretold
    Var S = Σ ν ((μ − ν) / w)²                               where frames know nothing of their places
    V = Σ (μ − ν)² / w                                       what is foretold
    C = Σ ((k − ν)² − k + p² T ± ν T / Σ T) / w              what the frames have beyond their mean, without noise

A frame's change μ − ν is shrunk until V is at most Σ (k − ν)² / w, what the frame shows at all: at the rim of a scan an
image may foretell a hundred times too much of one frame, which then weighs no more than another.

p² T is there because the counts of a frame are given, ± ν T / Σ T because p is measured (+ for the frames that it was
measured on). S/√Var is the score test of the null model against a mixture of both: linear in the counts, so that it
holds at a tenth of a photon a pixel, where a deviance tells nothing. S/C is the share of the structure that is
foretold: 1 for the true object at any dose. S/V is the share of what is foretold that comes true: 1 for the true
object, less by the noise that the image has fitted, near 0 for an image that has only explained its own frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST_COUNTS", "Evidence", "NullModel", "evenness"]

LEAST_COUNTS = 5
"""Counts of a pixel in all training frames from which its mean is known well enough to be compared with."""

_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Sums over the pixels of each of some frames (n,) float64; see the module.

    Attributes:
        foretold: S.
        variance: Var S, by counting.
        squares: the same by the squares themselves, Σ ((k − ν)(μ − ν)/w)²: larger for values that are no counts.
        predicted: V.
        structure: C.
        spread: Σ (k − ν)² / w, C with its noise: what is left of it where values are no counts.
        structure_variance: variance of C where there is no structure, 2 Σ (ν/w)².
    """

    foretold: NDArray[np.float64]
    variance: NDArray[np.float64]
    squares: NDArray[np.float64]
    predicted: NDArray[np.float64]
    structure: NDArray[np.float64]
    spread: NDArray[np.float64]
    structure_variance: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class NullModel:
    """The mean training frame as the pattern of every frame.

    Attributes:
        pattern: (n_pixels,) float64 p of the pixels that are compared, sum 1.
        total: counts that it was measured on.
        pixels: (N, N) True where a good pixel has counts enough in the training frames.
    """

    pattern: NDArray[np.float64]
    total: float
    pixels: NDArray[np.bool_]

    @classmethod
    def of(cls, summed: NDArray[np.float64], mask: NDArray[np.bool_] | None) -> NullModel | None:
        """The null model, or None where no pixel has counts enough.

        Args:
            summed: (N, N) counts of all training frames together.
            mask: (N, N) True = good, or None.
        """
        enough = summed >= LEAST_COUNTS
        pixels = enough if mask is None else enough & mask
        counts = summed[pixels]
        if not len(counts):
            return None
        return cls(pattern=counts / counts.sum(), total=float(counts.sum()), pixels=pixels)

    def rate(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """ν (J, n_pixels) of frames whose compared counts are (J, n_pixels)."""
        return np.asarray(counts.sum(axis=1, keepdims=True) * self.pattern)

    def _structure(self, counts: NDArray[np.float64], rate: NDArray[np.float64], trained: bool) -> NDArray[np.float64]:
        """(k − ν)² − k + p² T ± ν/n: what counts differ from the mean frame by, squared, without the part of noise."""
        total = counts.sum(axis=1, keepdims=True)
        own = rate * total / self.total
        return np.asarray((counts - rate) ** 2 - counts + self.pattern**2 * total + (own if trained else -own))

    def unlikeness(self, counts: NDArray[np.float64], *, trained: bool) -> tuple[float, float, float]:
        """Σ ((k − ν)² − k …), its standard deviation where all frames are alike, and Σ ν².

        The first over the last is the mean square of the relative difference of frames, weighted with ν².

        Args:
            counts: (J, n_pixels) compared counts.
            trained: whether these frames are among those of the mean.
        """
        rate = self.rate(counts)
        squares = float(np.sum(rate**2))
        return float(self._structure(counts, rate, trained).sum()), float(np.sqrt(2 * squares)), squares

    def evidence(
        self,
        counts: NDArray[np.float64],
        predicted: NDArray[np.float64],
        weight: NDArray[np.float64],
        *,
        trained: bool,
    ) -> Evidence:
        """The sums of some frames.

        Args:
            counts: (J, n_pixels) compared counts k.
            predicted: (J, n_pixels) μ of :meth:`predictions`.
            weight: (n_pixels,) √⟨(μ/T)²⟩ of :meth:`weight`.
            trained: whether these frames are among those of the mean.
        """
        rate = self.rate(counts)
        w = np.maximum(counts.sum(axis=1, keepdims=True) * weight, _TINY)
        spread = np.sum((counts - rate) ** 2 / w, axis=1)
        change = predicted - rate
        size = np.sum(change**2 / w, axis=1)
        change *= np.sqrt(np.minimum(1, spread / np.maximum(size, _TINY)))[:, None]
        direction = change / w
        return Evidence(
            foretold=np.sum((counts - rate) * direction, axis=1),
            variance=np.sum(rate * direction**2, axis=1),
            squares=np.sum(((counts - rate) * direction) ** 2, axis=1),
            predicted=np.sum(change * direction, axis=1),
            structure=np.sum(self._structure(counts, rate, trained) / w, axis=1),
            spread=spread,
            structure_variance=np.sum(2 * (rate / w) ** 2, axis=1),
        )

    def predictions(
        self, rate: NDArray[np.float64], mean_rate: NDArray[np.float64], counts: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """μ (J, n_pixels): the null model, changed from frame to frame as the image says.

        Args:
            rate: (J, n_pixels) λ of the image.
            mean_rate: (n_pixels,) mean over training frames of λ_j / Σ λ_j.
            counts: (J, n_pixels) compared counts, for the totals.
        """
        # the totals of λ drop out: μ is scaled to the counts of the frame
        predicted = self.pattern * rate / np.maximum(mean_rate, _TINY)
        totals = counts.sum(axis=1, keepdims=True)
        return np.asarray(predicted * totals / np.maximum(predicted.sum(axis=1, keepdims=True), _TINY))

    def weight(self, predicted: NDArray[np.float64]) -> NDArray[np.float64]:
        """√⟨(μ/T)²⟩ (n_pixels,), at least p, of the μ (J, n_pixels) of training frames."""
        shapes = predicted / np.maximum(predicted.sum(axis=1, keepdims=True), _TINY)
        return np.asarray(np.maximum(np.sqrt(np.mean(shapes**2, axis=0)), self.pattern))


def evenness(summed: NDArray[np.float64]) -> tuple[float, float]:
    """How a sum of frames differs from an even detector: Σ((K − K̄)² − K) / Σ K̄², and its standard deviation for none.

    Args:
        summed: (n_pixels,) counts K of all frames together, of the good pixels.
    """
    mean = float(summed.mean())
    if mean <= 0 or len(summed) < 2:
        return 0.0, np.inf
    n = len(summed)
    # the mean is that of the same pixels, which takes one n-th of the variance
    excess = float(np.sum((summed - mean) ** 2 - summed * (1 - 1 / n)))
    return excess / (n * mean**2), float(np.sqrt(2 / n)) / mean
