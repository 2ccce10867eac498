"""A probe for a scan that brings none: aperture from the mean pattern, defocus by trials (PROBE-1 … PROBE-6).

The mean pattern shows the modulus of the beam on the detector and not its phase. With every defocus it explains the
mean of all frames alike, and with the right one the frames one by one: an object is found that foretells frames which
it has not seen. So dozens of defoci, and holes in the sample's plane, are tried on a piece of the scan, made small; the
best are tried closer, and the winner's probe is refined there until it has settled, a second mode last.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.orientation import ORIENTATIONS, composed, parse_orientation
from ..data.orientation_finding import HALF_TURN
from ..data.probe_guess import ProbeGuess, ProbeTrial
from ..data.raw import RawData
from ..errors import ConfigError
from ..io import read_scan
from ..physics.aperture import find_aperture
from ..physics.lattice import scan_lattice
from ..physics.probe import probe_from_mean_pattern
from ..protocol import Progress, ReconstructionBackend, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from .prepare_probe import light_pattern
from .probe_trials import Bench, Start
from .probe_words import doubts_of, sentences_of
from .trials import stepping_engine

__all__ = ["ALL_CLASSES", "find_probe"]

ALL_CLASSES = ("none", "flip_y", "transpose", "transpose+flip_y")
"""One orientation of each pair that a turn by 180° makes of each other: with it goes the twin of the probe."""

LEAST_FRAMES = 32
"""Frames with counts that a scan needs to be searched."""

_STRONG = 0.3
_LEAST_TRUST = 4.0
_LEAST_LEAD = 2.0
_FINALISTS = 3
_WORTH = 0.5
_SETTLE_ROUNDS = 3
_ROUND_GAIN = 0.02
_MODE_GAIN = 0.03
_ENOUGH = 0.75
_LATTICE_COST = 0.03
_QUIET = 4.0


def find_probe(
    scan: RawData | Path | str,
    *,
    frames: NDArray[np.int64] | None = None,
    orientations: Sequence[str] = ("none",),
    engine: str | ReconstructionBackend = "numpy",
    runtime: Runtime = DEFAULT_RUNTIME,
    most_modes: int = 2,
    seed: int = 0,
    progress: Progress = no_progress,
) -> ProbeGuess:
    """Find a probe for a scan from its frames alone; a probe that it has is not looked at.

    Args:
        scan: the scan, or its path; positions in object pixels.
        frames: (n,) frames that may be looked at; None: all. Frames that are to judge an image must not be among them.
        orientations: words of ``data.orientation.ORIENTATIONS`` that positions may have to be brought to, the one that
            is to be kept where nothing speaks against it first. More than one are searched together with the defocus,
            since a turn by 180° and the defocus' sign are one unknown.
        engine: an engine that makes steps, or its name.
        runtime: what does the work.
        most_modes: 1 leaves out the trial of a second mode.
        seed: of what is drawn: frames that judge, and the order of the others.
        progress: called after each trial; it may raise ``Cancelled``.

    Returns:
        The guess. Where no trial is convincing it is the best there is, or the mean pattern in focus, and says so.

    Raises:
        ConfigError: no orientation, an unknown one, or an engine that makes no steps.
        DataError: no usable scan, or no light in it above its background.
        BackendError: the engine broke.
    """
    began = time.perf_counter()
    words = tuple(dict.fromkeys(parse_orientation(word) for word in orientations))
    if not words:
        raise ConfigError(f"orientations is empty; give at least one of {', '.join(ORIENTATIONS)}.")
    raw = scan if isinstance(scan, RawData) else read_scan(Path(scan))
    among = np.arange(raw.n_frames) if frames is None else np.asarray(frames, np.int64)
    pattern = light_pattern(raw, among)
    lit = among[~(raw.frame_totals[among] == 0)]  # totals that are not known yet are NaN
    if raw.propagation.is_near:
        return _unsearched(raw, pattern, "near field", "propagated back to the object")
    if len(lit) < LEAST_FRAMES:
        why = f"in focus: {len(lit)} frames with counts are too few to search with (at least {LEAST_FRAMES})"
        return _unsearched(raw, pattern, "mean pattern", why)
    bench = Bench(raw, lit, pattern, stepping_engine(engine), runtime, seed, progress)
    found = _Search(bench, words, most_modes).run()
    return replace(found, seconds=time.perf_counter() - began)


def _unsearched(raw: RawData, pattern: NDArray[np.float64], how: str, why: str) -> ProbeGuess:
    aperture = None if raw.propagation.is_near else find_aperture(pattern, raw.mask)
    return ProbeGuess(
        probe=probe_from_mean_pattern(pattern, propagation=raw.propagation),
        how=how,
        aperture=aperture,
        defocus_px2=None if raw.propagation.is_near else 0.0,
        sentences=(f"the scan brought no probe; one was estimated from the mean pattern, {why}",),
    )


class _Search:
    """One search: a coarse grid, the best closer, the winner settled."""

    def __init__(self, bench: Bench, words: tuple[str, ...], most_modes: int) -> None:
        self.bench, self.words, self.most_modes = bench, words, most_modes
        # with both signs of the defocus, one of two words that differ by half a turn is enough
        self.classes: list[str] = []
        for word in words:
            if composed(word, HALF_TURN) not in self.classes:
                self.classes.append(word)

    def run(self) -> ProbeGuess:
        """Search, and say what was found."""
        best = self._best()
        if best is None or best[1].gain <= 0:
            return self._nothing()
        start, trial = best
        leads = self._lead(start, trial)
        trust, start = trial.trust, self._twin_to_use(start)
        fixed = self.bench.settle(start, fixed=True)
        trust = max(trust, fixed[1].trust)
        start, trial = self._settled(start, fixed)
        # a probe that is refined explains something of any scan, so that a lead counts with the probe as it was, and
        # only where the frames do not shout that something is left: a wrong orientation leads, too, if by little
        strong = trial.explained >= _STRONG and trial.trust >= _LEAST_TRUST
        quiet = trial.best_misfit < _QUIET * trial.floor
        convincing = strong or (leads and quiet and trust >= _LEAST_TRUST)
        if not convincing and (trust < _LEAST_TRUST or start.orientation != self.words[0]):
            return self._nothing()  # positions are turned for good reasons only
        probe = self.bench.full_probe(start)
        guess = ProbeGuess(
            probe=probe,
            how="disc" if start.disc_radius_px else "lens",
            aperture=self.bench.aperture,
            defocus_px2=None if start.disc_radius_px else self.bench.reduction.defocus(start.defocus_px2),
            disc_radius_px=start.disc_radius_px / self.bench.reduction.position_factor
            if start.disc_radius_px
            else None,
            orientation=start.orientation,
            convincing=convincing,
            explained=trial.explained,
            trials=tuple(self.bench.trials),
        )
        said = sentences_of(guess, self.bench.raw)
        return replace(guess, sentences=said, doubts=doubts_of(guess, self.bench.raw, self.words))

    def _nothing(self) -> ProbeGuess:
        """The mean pattern in focus, as there is nothing better."""
        guess = ProbeGuess(
            probe=probe_from_mean_pattern(self.bench.pattern),
            how="mean pattern",
            aperture=self.bench.aperture,
            defocus_px2=0.0,
            trials=tuple(self.bench.trials),
        )
        said = sentences_of(guess, self.bench.raw)
        return replace(guess, sentences=said, doubts=doubts_of(guess, self.bench.raw, self.words))

    def _best(self) -> tuple[Start, ProbeTrial] | None:
        """The best start after the coarse grid and a closer look, among all classes as far as they are needed."""
        self.coarse: list[tuple[Start, ProbeTrial]] = []
        for word in self.classes:
            self.coarse += [(start, self.bench.trial(start, "coarse")) for start in self.bench.grid(word)]
            _, best = min(self.coarse, key=lambda pair: pair[1].best_misfit)
            if best.explained >= _STRONG and best.trust >= _LEAST_TRUST:
                break  # a wrong orientation explains next to nothing
        ranked = sorted(self.coarse, key=lambda pair: pair[1].best_misfit)
        most, finalists = ranked[0][1].gain, list[Start]()
        for start, trial in ranked:
            if trial.gain <= _WORTH * most or len(finalists) == _FINALISTS:
                break
            if not any(start.is_beside(other, self.bench.step) for other in finalists):
                finalists.append(start)
        tried = [self._between(start) for start in finalists]
        return min(tried, key=lambda pair: pair[1].best_misfit) if tried else None

    def _between(self, start: Start) -> tuple[Start, ProbeTrial]:
        known = {start: self.bench.trial(start, "fine")}
        for halving in (2, 4, 8):
            best = min(known, key=lambda one: known[one].best_misfit)
            for near in best.neighbours(self.bench.step / halving, halving):
                if near not in known:
                    known[near] = self.bench.trial(near, "fine")
        best = min(known, key=lambda one: known[one].best_misfit)
        return best, known[best]

    def _lead(self, start: Start, trial: ProbeTrial) -> bool:
        """Whether it gains clearly more than whatever is not of its hill: where light is weak, that is a wide one."""
        own = [t.gain for s, t in self.coarse if s.is_beside(start, self.bench.step)]
        others = [t.gain for s, t in self.coarse if not (s.is_beside(start, self.bench.step) or s.is_beyond(start))]
        return max(own, default=trial.gain) >= _LEAST_LEAD * max(others, default=0.0)

    def _twin_to_use(self, start: Start) -> Start:
        """The start itself or its twin, positions turned by 180° and the other sign of the defocus.

        The first orientation that was allowed is kept where it is one of the two; else the sample is downstream of the
        focus, where that is allowed.
        """
        turned = composed(start.orientation, HALF_TURN)
        twin = replace(start, orientation=turned, defocus_px2=-start.defocus_px2)
        if start.orientation == self.words[0] or turned not in self.words:
            return start
        if turned == self.words[0] or start.orientation not in self.words or start.defocus_px2 < 0:
            return twin
        return start

    def _settled(self, start: Start, fixed: tuple[Start, ProbeTrial]) -> tuple[Start, ProbeTrial]:
        """The start with its probe refined on the piece of the scan, and a second mode where there is one.

        Args:
            start: the best of the trials before.
            fixed: what it comes to with the probe as it is.
        """
        forms = [start] if start.disc_radius_px else [start, replace(start, bright_field=True)]
        settle = self.bench.settle
        refined = self._rounds(min((settle(form) for form in forms), key=lambda pair: pair[1].best_misfit))
        # on a lattice a probe that stays as it is leaves the pattern of the scan step in the object
        least = -_LATTICE_COST if scan_lattice(self.bench.raw.positions_px) is not None else 0.0
        best = refined if _gained(fixed[1], refined[1]) > least else fixed
        if self.most_modes < 2 or best[1].explained >= _ENOUGH:
            return best  # the rest is refined with the image
        two = self._rounds(settle(self.bench.with_mode(best[0])))
        return two if _gained(best[1], two[1]) >= _MODE_GAIN else best

    def _rounds(self, pair: tuple[Start, ProbeTrial]) -> tuple[Start, ProbeTrial]:
        """Go on as long as that pays."""
        for _ in range(_SETTLE_ROUNDS):
            if pair[1].explained >= _ENOUGH:
                break
            more = self.bench.settle(pair[0])
            gained = _gained(pair[1], more[1])
            pair = more if gained > 0 else pair
            if gained < _ROUND_GAIN:
                break
        return pair


def _gained(before: ProbeTrial, after: ProbeTrial) -> float:
    """What a trial gains on another, as a part of its misfit above the noise."""
    return (before.best_misfit - after.best_misfit) / max(before.best_misfit - before.floor, 1e-12)
