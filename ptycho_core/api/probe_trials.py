"""The bench on which probes are tried: a piece of a scan, made small, and the starts that are tried on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer
from ..data.orientation import oriented
from ..data.probe_guess import Aperture, ProbeTrial
from ..data.raw import RawData
from ..errors import DataError
from ..physics.aperture import bright_field, find_aperture
from ..physics.probe import add_modes, disc_probe, probe_from_mean_pattern
from ..physics.reduction import Reduction
from ..protocol import Progress, ProgressEvent, ReconstructionBackend
from ..runtime import Runtime
from .explained import judged_trial, null_misfits
from .trials import MOST_FRAMES, Region, TrialPlan, region_frames, try_scan

__all__ = ["Bench", "Start", "reduction_for"]

SMALL_SIDE = 64
"""Side of the frames that are tried on, at least, where there are as many pixels."""

_COARSE = TrialPlan(epochs=2)
_FINE = TrialPlan(epochs=4)
_SETTLE = TrialPlan(epochs=12, probe_from=2)
_FIXED = TrialPlan(epochs=4)
_HELDOUT_SHARE = 0.2
_SETTLE_FRAMES = 600
_MOST_STEPS = 32
_PHASE_STEP = 1.2
_WIDEST = 0.9
_RADIUS_RATIO = 1.35
_ROOM = 1.05
_EXPECTED_TRIALS = 60


@dataclass(frozen=True, kw_only=True)
class Start:
    """A probe to try, in the pixels of the small scan.

    Attributes:
        orientation: word that the positions are brought to.
        defocus_px2: defocus of the lens.
        disc_radius_px: radius of a hole at the sample instead, or None.
        bright_field: whether what lies outside the bright field is taken for scattered light, and left out.
        refined: (P, side, side) a probe that trials before have refined, instead of what the others say.
    """

    orientation: str
    defocus_px2: float = 0.0
    disc_radius_px: float | None = None
    bright_field: bool = False
    refined: NDArray[np.complex64] | None = field(default=None, compare=False)

    def is_beside(self, other: Start, step: float) -> bool:
        """Whether the two are so near that one leads to the other."""
        if self.orientation != other.orientation or (self.disc_radius_px is None) != (other.disc_radius_px is None):
            return False
        if self.disc_radius_px is not None and other.disc_radius_px is not None:
            return abs(math.log(self.disc_radius_px / other.disc_radius_px)) < 1.5 * math.log(_RADIUS_RATIO)
        return abs(self.defocus_px2 - other.defocus_px2) < 2.5 * step

    def is_beyond(self, other: Start) -> bool:
        """Whether it is a lens in the same orientation, out of focus to the same side."""
        lenses = self.disc_radius_px is None and other.disc_radius_px is None
        return lenses and self.orientation == other.orientation and self.defocus_px2 * other.defocus_px2 > 0

    def neighbours(self, step: float, halving: int) -> Iterator[Start]:
        """The two on either side: a step of the defocus, or a part of the radius' ratio."""
        for sign in (-1, 1):
            if self.disc_radius_px is None:
                yield replace(self, defocus_px2=self.defocus_px2 + sign * step)
            else:
                yield replace(self, disc_radius_px=self.disc_radius_px * _RADIUS_RATIO ** (sign / halving))


def reduction_for(N: int, aperture: Aperture | None) -> Reduction:
    """How to make frames small: cropped to the bright field, then binned in powers of two, at least 64 pixels wide."""
    reach = N
    if aperture is not None:
        off = max(abs(place - N / 2) for place in aperture.centre)
        reach = math.ceil(2 * (_ROOM * aperture.radius + off))
    crop, bins = min(N, max(SMALL_SIDE, reach + reach % 2)), 1
    while crop // (2 * bins) >= SMALL_SIDE:
        bins *= 2
    whole = min(N, math.ceil(crop / (2 * bins)) * 2 * bins)
    while whole % (2 * bins):
        bins //= 2
    return Reduction(full=N, crop=whole, bin=max(1, bins))


class Bench:
    """Tries probes on a piece of a scan, and keeps every trial.

    Attributes:
        raw: the scan.
        pattern: (N, N) mean counts of the frames that may be looked at, without the background.
        aperture: what it shows, or None.
        reduction: how frames are made small.
        step: of the grid of defoci, square object pixels of the small scan.
        trials: so far.
    """

    def __init__(
        self,
        raw: RawData,
        frames: NDArray[np.int64],
        pattern: NDArray[np.float64],
        engine: ReconstructionBackend,
        runtime: Runtime,
        seed: int,
        progress: Progress,
    ) -> None:
        self.raw, self.frames, self.pattern = raw, frames, pattern
        self.engine, self.runtime, self.seed, self.progress = engine, runtime, seed, progress
        self.aperture = find_aperture(pattern, raw.mask)
        self.reduction = reduction_for(raw.side, self.aperture)
        self.trials: list[ProbeTrial] = []
        self.small_pattern = self.reduction.sums(pattern)
        self.piece = self._piece(MOST_FRAMES)
        self._more: Region | None = None
        self._null: dict[int, NDArray[np.float64]] = {}
        self.step, self.n_steps = self._grid_of_defocus()

    def _piece(self, most: int) -> Region:
        """A lively piece of the scan, made small."""
        frames, heldout = region_frames(
            self.raw, among=self.frames, most=most, heldout_share=_HELDOUT_SHARE, seed=self.seed
        )
        made, raw = self.reduction, self.raw.subset(frames)
        # hundreds of large frames never lie in memory: each is made small as it is read
        counts = np.concatenate([made.sums(part).astype(np.float32) for _, part in raw.chunks()])
        small = RawData.from_arrays(
            counts,
            raw.positions_px * made.position_factor,
            mask=_some(made.mask(raw.mask), raw),
            background=None if raw.background is None else made.sums(raw.background),
            source=raw.source,
        )
        return Region(raw=small, heldout=heldout, frames=frames)

    def _grid_of_defocus(self) -> tuple[float, int]:
        """Step of the grid, at which the phase over the aperture changes by 1.2 half turns, and steps to either side.

        At the last the cone is as wide as the window.
        """
        crop = self.reduction.crop
        outer = crop / 4 if self.aperture is None else self.aperture.radius
        inner = 0.0 if self.aperture is None else self.aperture.inner_radius
        step = _PHASE_STEP * crop**2 / (outer**2 - inner**2)
        widest = _WIDEST * self.reduction.side * crop / (2 * outer)
        return step, max(2, min(_MOST_STEPS, math.ceil(widest / step)))

    def grid(self, orientation: str) -> Iterator[Start]:
        """The coarse grid of one orientation: defoci of both signs, and holes from small to wide."""
        for k in range(-self.n_steps, self.n_steps + 1):
            yield Start(orientation=orientation, defocus_px2=k * self.step)
        if self.aperture is not None and self.aperture.inner_radius:
            return  # a hole has no dark middle
        radius = 2.5
        while radius < 0.45 * self.reduction.side:
            yield Start(orientation=orientation, disc_radius_px=radius)
            radius *= _RADIUS_RATIO

    def probe_of(self, start: Start) -> NDArray[np.complex64]:
        """The probe (P, side, side) of a start."""
        if start.refined is not None:
            return start.refined
        if start.disc_radius_px is not None:
            return disc_probe(self.reduction.side, start.disc_radius_px, total=float(self.small_pattern.sum()))
        return probe_from_mean_pattern(self._modulus(start, self.small_pattern), defocus_px2=start.defocus_px2)

    def _modulus(self, start: Start, pattern: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(bright_field(pattern), pattern, 0.0) if start.bright_field else pattern

    def full_probe(self, start: Start) -> NDArray[np.complex64]:
        """The probe (P, N, N) of a start on the scan as it is."""
        if start.refined is None and start.disc_radius_px is None:
            defocus = self.reduction.defocus(start.defocus_px2)
            return probe_from_mean_pattern(self._modulus(start, self.pattern), defocus_px2=defocus)
        return self.reduction.probe_back(self.probe_of(start), self.pattern, self.reduction.defocus(start.defocus_px2))

    def trial(self, start: Start, stage: str) -> ProbeTrial:
        """A short trial with the probe as it is."""
        return self._tried(start, stage, self.piece, _COARSE if stage == "coarse" else _FINE)[1]

    def settle(self, start: Start, *, fixed: bool = False) -> tuple[Start, ProbeTrial]:
        """A longer trial on more frames, in which the probe is refined; the start with that probe.

        Args:
            start: to refine.
            fixed: leave the probe as it is, to compare with.
        """
        if self._more is None:
            self._more = self._piece(_SETTLE_FRAMES)
        return self._tried(start, "settle", self._more, _FIXED if fixed else _SETTLE)

    def with_mode(self, start: Start) -> Start:
        """The start with one more mode."""
        probe = self.probe_of(start)
        return replace(start, refined=add_modes(probe, len(probe) + 1))

    def _tried(self, start: Start, stage: str, piece: Region, plan: TrialPlan) -> tuple[Start, ProbeTrial]:
        raw = oriented(piece.raw, start.orientation).with_probe(self.probe_of(start))
        tried = {
            "stage": stage,
            "orientation": start.orientation,
            "defocus_px2": None if start.disc_radius_px else self.reduction.defocus(start.defocus_px2),
            "disc_radius_px": start.disc_radius_px / self.reduction.position_factor if start.disc_radius_px else None,
            "modulus": "hole" if start.disc_radius_px else "bright field" if start.bright_field else "mean pattern",
            "modes": 1 if start.refined is None else len(start.refined),
        }
        plan = replace(plan, seed=self.seed)
        found, image = try_scan(raw, piece.heldout, tried, plan=plan, engine=self.engine, runtime=self.runtime)
        scan = PtychoDataContainer.of(raw, heldout=piece.heldout)
        if id(piece) not in self._null:
            self._null[id(piece)] = null_misfits(scan)
        trial = judged_trial(found, image, scan, self.engine, self._null[id(piece)])
        self.trials.append(trial)
        done = len(self.trials)
        metrics = {"misfit": trial.best_misfit} if math.isfinite(trial.best_misfit) else {}
        self.progress(ProgressEvent(stage="probe", done=done, total=max(done, _EXPECTED_TRIALS), metrics=metrics))
        return replace(start, refined=image.probe if plan.probe_from is not None else start.refined), trial


def _some(mask: NDArray[np.bool_] | None, raw: RawData) -> NDArray[np.bool_] | None:
    if mask is not None and not mask.any():
        raise DataError(
            f"{raw.source.path or 'scan'}: its mask leaves nothing of the bright field to find a probe with; give the "
            "probe, or another mask."
        )
    return mask
