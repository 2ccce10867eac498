"""Measures what a verdict weighs, on an image and its frames; a bounded number of frames is looked at again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer, integer_corners
from ..data.results import Image, Scored
from ..physics.evidence import Evidence, NullModel, evenness
from ..physics.merit import SUMS
from ..physics.patches import extract
from ..physics.probe import mode_powers
from ..physics.relative import LIT_FROM, lit, peak_intensity
from .measured import Judged, Measured, Residual

__all__ = ["MOST_FRAMES", "measure"]

MOST_FRAMES = 128
"""Training frames, and held-out frames, that are looked at again at most: 128 of a scan tell its mean to a hundredth of
how its frames differ, and a score test of as many has no need of more."""

MOST_BYTES = 96 * 2**20
"""Memory of the expected counts that are kept, at most."""

COVERED = 0.6
"""Part of a held-out frame's light that must fall where training frames lit the object, or it can not be foretold."""

APART = 2.0
"""Median steps to the nearest training frame from which a held-out frame lies apart, as where a region is held out."""

_CHUNK = 16
_GRID = 200
_NO_FRAMES = Judged(
    n_frames=0,
    foretold=0.0,
    sd=1.0,
    predicted=0.0,
    structure=0.0,
    spread=0.0,
    structure_sd=1.0,
    excess=0.0,
    usual_deviance=np.nan,
)

Expected = Callable[[NDArray[np.int64]], NDArray[np.floating]]
"""Frames (n,) → their expected counts (n, N, N) by the image's own forward model."""


def _some(frames: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of some frames, evenly taken."""
    if len(frames) <= most:
        return frames
    return frames[np.unique(np.linspace(0, len(frames) - 1, most).round().astype(np.int64))]


def _parts(frames: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(frames), _CHUNK):
        yield frames[start : start + _CHUNK]


@dataclass(frozen=True)
class _Looked:
    """Some frames that were looked at again.

    Attributes:
        frames: their numbers (n,).
        counts: (n, n_pixels) float64 counts of the pixels that are compared.
        rate: (n, n_pixels) float64 expected counts of the image there.
    """

    frames: NDArray[np.int64]
    counts: NDArray[np.float64]
    rate: NDArray[np.float64]


class _Sums:
    """Sums over frames and over pixels of what an image leaves."""

    def __init__(self, good: NDArray[np.bool_], peak: float) -> None:
        self.good, self.peak = good, peak
        self.counts, self.rate = np.zeros(good.shape), np.zeros(good.shape)
        self.totals: list[tuple[float, float]] = []
        self.bright, self.bright_rate, self.n, self.at_peak = 0.0, 0.0, 0, 0
        self.next_to, self.squares = 0.0, 0.0
        self.dispersed = np.zeros((2, 2))

    def add(self, counts: NDArray[np.float64], rate: NDArray[np.float64]) -> None:
        """Add frames (n, N, N)."""
        self.n += len(counts)
        self.counts += counts.sum(axis=0)
        self.rate += rate.sum(axis=0)
        k, lam = counts[:, self.good], rate[:, self.good]
        self.totals += zip(k.sum(axis=1).tolist(), lam.sum(axis=1).tolist(), strict=True)
        bright = lam >= 0.9 * self.peak
        self.bright += float(k[bright].sum())
        self.bright_rate += float(lam[bright].sum())
        self.at_peak += int((k >= self.peak).sum())
        left = np.where(self.good & (rate >= 1), (counts - rate) / np.sqrt(np.maximum(rate, 1)), 0.0)
        self.next_to += float(np.sum(left[:, :, 1:] * left[:, :, :-1]))
        self.squares += float(np.sum(left[:, :, 1:] ** 2))
        for row, some in enumerate(((lam >= 1) & (lam <= 10), lam > 30)):
            self.dispersed[row] += (np.sum((k - lam)[some] ** 2 / lam[some]), some.sum())


def _look(scored: Scored, frames: NDArray[np.int64], null: NullModel, expected: Expected, sums: _Sums) -> _Looked:
    """Read some frames again, with what the image expects of them."""
    raw = scored.scan.raw
    counts, rate = (np.zeros((len(frames), len(null.pattern))) for _ in range(2))
    for start, part in zip(range(0, len(frames), _CHUNK), _parts(frames), strict=True):
        k = raw.read_counts(part).astype(np.float64)
        lam = np.maximum(expected(part).astype(np.float64), 0.0)
        sums.add(k, lam)
        counts[start : start + len(part)], rate[start : start + len(part)] = k[:, null.pixels], lam[:, null.pixels]
    return _Looked(frames, counts, rate)


def _excess(scored: Scored, frames: NDArray[np.int64]) -> NDArray[np.float64]:
    """Deviance above what noise allows of some frames (n,)."""
    columns = [SUMS.index("deviance"), SUMS.index("deviance_floor")]
    found, floor = scored.frame_sums[frames][:, columns].T
    return np.asarray(found - floor)


def _usual_deviance(scored: Scored, frames: NDArray[np.int64]) -> float:
    """Median reduced deviance of some frames (n,)."""
    found, floor = (scored.frame_sums[frames, SUMS.index(name)] for name in ("deviance", "deviance_floor"))
    return float(np.median(found / np.maximum(floor, 1e-12))) if len(frames) else float("nan")


def _judged(scored: Scored, frames: NDArray[np.int64], found: Evidence) -> Judged:
    return Judged(
        n_frames=len(frames),
        foretold=float(found.foretold.sum()),
        sd=float(np.sqrt(max(found.variance.sum(), found.squares.sum()))),
        predicted=float(found.predicted.sum()),
        structure=float(found.structure.sum()),
        spread=float(found.spread.sum()),
        structure_sd=float(np.sqrt(found.structure_variance.sum())),
        excess=float(_excess(scored, frames).sum()),
        usual_deviance=_usual_deviance(scored, frames),
    )


def _against_null(scored: Scored, null: NullModel, train: _Looked, held: _Looked) -> tuple[Judged | None, Judged]:
    """Held-out and training frames against the null model."""
    shares = train.rate / np.maximum(train.rate.sum(axis=1, keepdims=True), 1e-12)
    mean_rate = shares.mean(axis=0)
    predicted = null.predictions(train.rate, mean_rate, train.counts)
    weight = null.weight(predicted)
    training = _judged(scored, train.frames, null.evidence(train.counts, predicted, weight, trained=True))
    if not len(held.frames):
        return None, training
    predicted = null.predictions(held.rate, mean_rate, held.counts)
    return _judged(scored, held.frames, null.evidence(held.counts, predicted, weight, trained=False)), training


def _residual(scored: Scored, sums: _Sums, looked: NDArray[np.int64]) -> Residual:
    excess = max(float(_excess(scored, looked).sum()), 1e-12)
    known = sums.good & (sums.rate >= 5)
    left = sums.counts - sums.rate
    # e in each of n frames adds n e²/λ to the misfit, and (n e)² / (n λ) here
    parts = (left[known] ** 2 - sums.counts[known]) / sums.rate[known]
    fixed, ordered = float(parts.sum()), np.sort(np.maximum(parts, 0.0))[::-1]
    measured, expected = np.array(sums.totals).T
    safe = np.maximum(expected, 1e-12)
    of_frames = ((measured - expected) ** 2 - measured) / safe
    used = scored.scan.train_frames
    each = _excess(scored, used)
    worst = np.argsort(each)[::-1][: max(1, len(used) // 20)]
    step_frame, step_factor, step_sigma = _step(scored)
    return Residual(
        fixed_share=float(np.clip(fixed / excess, 0, 1)),
        fixed_in_few=float(ordered[: max(1, len(ordered) // 100)].sum() / max(ordered.sum(), 1e-12)),
        at_peak=sums.at_peak,
        peak=sums.peak,
        whiteness=sums.next_to / max(sums.squares, 1e-12),
        dispersion=tuple(float(total / n) if n >= 1000 else 0.0 for total, n in sums.dispersed),  # type: ignore[arg-type]
        floor_counts=_floor(sums.counts[sums.good], sums.n),
        bright_deficit=1 - sums.bright / sums.bright_rate if sums.bright_rate > 0 else 0.0,
        intensity_share=float(np.clip(of_frames.sum() / excess, 0, 1)),
        intensity_spread=float(np.sqrt(max(np.mean(of_frames / safe), 0.0))),
        few_frames_share=float(np.maximum(each[worst], 0).sum() / max(np.maximum(each, 0).sum(), 1e-12)),
        worst_frames=tuple(sorted(int(used[j]) for j in worst[:8])),
        step_frame=step_frame,
        step_factor=step_factor,
        step_sigma=step_sigma,
    )


def _step(scored: Scored) -> tuple[int, float, float]:
    """Where, in the order of the file, frames begin to be explained differently: the split that tells most.

    Returns:
        Number of the first frame after it, how many times more deviance they have, and standard errors of that.
    """
    used = scored.scan.used_frames
    used = used[np.argsort(scored.scan.raw.frame_numbers[used], kind="stable")]
    found, floor = (scored.frame_sums[used, SUMS.index(name)] for name in ("deviance", "deviance_floor"))
    height = np.log(np.maximum(found, 1e-12) / np.maximum(floor, 1e-12))
    n, least = len(used), max(5, len(used) // 10)
    if n < 4 * least:
        return 0, 1.0, 0.0
    k = np.arange(1, n)
    before = np.cumsum(height)[:-1] / k
    after = (height.sum() - before * k) / (n - k)
    between = k * (n - k) / n * (after - before) ** 2
    inside = (k >= least) & (k <= n - least)
    at = int(np.argmax(np.where(inside, between, -1.0)))
    within = max(float(np.sum((height - height.mean()) ** 2) - between[at]), 1e-12) / (n - 2)
    number = int(scored.scan.raw.frame_numbers[used[at + 1]])
    return number, float(np.exp(after[at] - before[at])), float(np.sqrt(between[at] / within))


def _floor(counts: NDArray[np.float64], n_frames: int) -> float:
    """Counts a pixel and frame in the darkest fifth of the pixels, where they are even to a tenth; else 0."""
    dark = np.sort(counts)[: max(2, len(counts) // 5)]
    level = float(dark.mean())
    # Poisson's own spread is taken off; below a hundred counts a tenth can not be told
    spread = max(float(dark.var()) - level, 0.0)
    return level / max(n_frames, 1) if level >= 100 and spread <= (0.1 * level) ** 2 else 0.0


def _contrast(image: Image) -> tuple[float, float, float]:
    """Spread of amplitude and phase in the well covered region, and what noise at that coverage makes of either.

    A wave that was lit by n photons has its amplitude, relative, and its phase known to 1/(2√n) at best.
    """
    region = image.coverage >= 0.5 * np.median(image.coverage[lit(image.coverage)])
    obj = image.object.astype(np.complex128)
    for axis in (0, 1):  # a ramp is a shift of the frames, no contrast
        here, there = (np.take(obj, np.arange(i, obj.shape[axis] - 1 + i), axis) for i in (0, 1))
        both = np.take(region, np.arange(obj.shape[axis] - 1), axis) & np.take(
            region, np.arange(1, obj.shape[axis]), axis
        )
        step = float(np.angle(np.sum((there * here.conj())[both]))) if both.any() else 0.0
        turn = np.exp(-1j * step * np.arange(obj.shape[axis]))
        obj = obj * (turn[:, None] if axis == 0 else turn[None, :])
    values = obj[region]
    values = values * np.exp(-1j * np.angle(values.sum()))
    amplitude = np.abs(values)
    photons = image.coverage[region].astype(np.float64) * image.scale * peak_intensity(image.probe)
    noise = float(np.sqrt(np.mean(1 / (4 * np.maximum(photons, 1e-12)))))
    return float(amplitude.std() / max(amplitude.mean(), 1e-12)), float(np.angle(values).std()), noise


def _diameter(probe: NDArray[np.complex64]) -> float:
    """Diameter of the disk with the area (Σ I)² / Σ I² of a probe's intensity, pixels."""
    intensity = np.sum(np.abs(probe.astype(np.complex128)) ** 2, axis=0)
    return float(2 * np.sqrt(intensity.sum() ** 2 / np.sum(intensity**2) / np.pi))


def _overlap(image: Image, scan: PtychoDataContainer) -> tuple[float, float, float]:
    """1 − median distance to the next frame / diameter of the probe, the diameter, and the longer side of the field."""
    from scipy.spatial import cKDTree

    places = image.positions_px[scan.used_frames]
    if len(places) < 2:
        return 0.0, _diameter(image.probe), 0.0
    nearest = cKDTree(places).query(places, k=2)[0][:, 1]
    across = _diameter(image.probe)
    return float(1 - np.median(nearest) / across), across, float(np.ptp(places, axis=0).max())


def _holes(image: Image, scan: PtychoDataContainer) -> float:
    """Part of the object within the outline of the positions that is lit by less than a tenth of the median there."""
    from scipy.spatial import ConvexHull, QhullError

    places = image.positions_px[scan.used_frames] - image.origin_px
    try:
        outline = ConvexHull(places).equations
    except (QhullError, ValueError):  # on a line, or too few
        return 0.0
    low, high = (f(places, axis=0) for f in (np.min, np.max))
    grid = np.meshgrid(*(np.unique(np.linspace(a, b, _GRID).round()) for a, b in zip(low, high, strict=True)))
    points = np.stack([axis.ravel() for axis in grid], axis=1)
    points = points[(points @ outline[:, :2].T + outline[:, 2] <= 0).all(axis=1)].astype(np.int64)
    field = image.coverage[points[:, 0], points[:, 1]]
    usual = np.median(field[field > 0]) if (field > 0).any() else 0.0
    return float(np.mean(field < LIT_FROM * usual)) if field.size and usual > 0 else 0.0


def _likeness(first: NDArray[np.complex64], second: NDArray[np.complex64]) -> float:
    """Correlation of the strongest modes of two probes, wherever they lie in their windows."""
    a, b = (np.fft.fft2(p[int(np.argmax(mode_powers(p)))].astype(np.complex128)) for p in (first, second))
    norm = np.sqrt(np.sum(np.abs(a) ** 2) * np.sum(np.abs(b) ** 2))
    return float(np.abs(np.fft.ifft2(a * b.conj())).max() * a.size / norm) if norm > 0 else 0.0


def _covered(image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) which of some frames lie where training frames lit the object."""
    corners, _ = integer_corners(image.positions_px[frames], scan.raw.side)
    origin = np.round(image.origin_px).astype(np.int64)
    light = np.sum(np.abs(image.probe.astype(np.complex128)) ** 2, axis=0)
    known = extract(lit(image.coverage).astype(np.float64), corners - origin, scan.raw.side)
    return np.asarray((known * light).sum(axis=(1, 2)) >= COVERED * light.sum())


def _near(image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) which of some frames have a training frame near, as frames of the scan have a next one."""
    from scipy.spatial import cKDTree

    train = image.positions_px[scan.train_frames]
    if len(train) < 2:
        return np.ones(len(frames), bool)
    tree = cKDTree(train)
    step = float(np.median(tree.query(train, k=2)[0][:, 1]))
    return np.asarray(tree.query(image.positions_px[frames])[0] <= APART * max(step, 1.0))


def _summed(scan: PtychoDataContainer) -> NDArray[np.float64]:
    """(N, N) counts of all training frames together."""
    raw, frames = scan.raw, scan.train_frames
    step = max(1, 2**22 // raw.side**2)
    total = np.zeros((raw.side, raw.side))
    for start in range(0, len(frames), step):
        total += raw.read_counts(frames[start : start + step]).sum(axis=0, dtype=np.float64)
    return total


def measure(scored: Scored, expected: Expected, begun_with: NDArray[np.complex64]) -> Measured:
    """Measure what a verdict weighs.

    Args:
        scored: the image and its figures.
        expected: its forward model.
        begun_with: (P, N, N) the probe that the scan was begun with.

    Raises:
        BackendError: the forward model failed.
    """
    scan, image = scored.scan, scored.image
    raw, N = scan.raw, scan.raw.side
    good = np.ones((N, N), bool) if raw.mask is None else raw.mask
    summed = _summed(scan)
    most = int(np.clip(MOST_BYTES / (16 * N**2), 8, MOST_FRAMES))
    train = _some(scan.train_frames, most)
    held = scan.heldout_frames
    covered, near = (f(image, scan, held) if len(held) else np.zeros(0, bool) for f in (_covered, _near))
    null = NullModel.of(summed, raw.mask)
    peak = max((float((raw.read_counts(part) * good).max()) for part in _parts(train)), default=0.0)
    sums = _Sums(good, max(peak, 1.0))
    heldout: Judged | None = None
    training = _NO_FRAMES
    unlikeness = (0.0, np.inf)
    if null is not None:
        looked = _look(scored, train, null, expected, sums)
        others = _look(scored, _some(held[covered], most), null, expected, sums)
        heldout, training = _against_null(scored, null, looked, others)
        found, sd, squares = null.unlikeness(looked.counts, trained=True)
        unlikeness = (found / squares, sd / squares)
    n_fitted = 2 * int(lit(image.coverage).sum()) + 2 * len(image.probe) * int(
        lit(np.sum(np.abs(image.probe) ** 2, axis=0)).sum()
    )
    amplitude, phase, noise = _contrast(image)
    overlap, across, extent = _overlap(image, scan)
    even, even_sd = evenness(summed[good])
    totals = raw.frame_totals[scan.used_frames]
    looked_at = np.concatenate([train, _some(held[covered], most)])
    return Measured(
        heldout=heldout,
        training=training,
        covered=int(covered.sum()),
        uncovered=int((near & ~covered).sum()),
        apart=int((~near & ~covered).sum()),
        unlikeness=unlikeness[0],
        unlikeness_sd=unlikeness[1],
        evenness=even,
        evenness_sd=even_sd,
        freedom=n_fitted / len(scan.train_frames),
        contrast_amplitude=amplitude,
        contrast_phase_rad=phase,
        contrast_noise=noise,
        lit_pixels=int(lit(image.coverage).sum()),
        holes=_holes(image, scan),
        overlap=overlap,
        diameter_px=across,
        extent_px=extent,
        probe_likeness=_likeness(image.probe, begun_with),
        total_photons=float(totals.sum()),
        counts_a_frame=float(totals.mean()),
        residual=_residual(scored, sums, looked_at),
    )
