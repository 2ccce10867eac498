"""Why an image explains its frames badly: bad pixels, other orientations, other probes, each half of the frames alone.

A few short solves of a piece of the scan, in that order, until one of them explains held-out frames much better, or the
time is up. Nothing is changed by what is found: the verdict names it, with the option that repeats the run with it.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.probe_guess import ProbeGuess
from ..data.trials import Trial
from ..errors import Cancelled, DataError
from ..evaluation.verdict import Alternative, Circumstances
from ..inspection.facts import Facts
from ..inspection.finding import pixels_of
from ..inspection.pixel_checks import suspects
from ..protocol import Progress, ProgressEvent, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from .orient import diagnose_orientation
from .trials import TrialPlan, frames_for, region_of, stepping_engine, try_scan

__all__ = ["LONGEST_S", "MUCH_BETTER", "diagnose"]

LONGEST_S = 12.0
"""Seconds after which nothing further is begun."""

MUCH_BETTER = 0.6
"""Part of the Fourier error of held-out frames above which something else is no better: regions of an ordinary sample,
and starts that end in the same image, differ by less."""

_ALONG = "positions run the other way along "

_WORDS = {
    "transpose": "the scan's axes are exchanged",
    "flip_y": f"{_ALONG}y",
    "flip_x": f"{_ALONG}x",
}

_LEAST_FRAMES = 32

_SEARCHED = 64  # frames: a probe is found on them in five seconds, with the same defocus as on all


def diagnose(
    scan: PtychoDataContainer,
    config: TrainingConfig,
    runtime: Runtime = DEFAULT_RUNTIME,
    *,
    progress: Progress = no_progress,
) -> Circumstances:
    """Look for what is wrong with a scan.

    Args:
        scan: as it was solved, with the probe that was begun with. Held-out frames are not looked at.
        config: names the engine.
        runtime: what does the work.
        progress: told of each trial; it may raise ``Cancelled``.

    Returns:
        What explains the frames much better, as ``alternatives``, and what was tried in vain, as ``searched``.

    Raises:
        BackendError: an engine failed.
    """
    began, searched = time.perf_counter(), list[str]()
    for name, look in (
        ("without pixels that look bad", _pixels),
        ("other orientations", _orientation),
        ("the two halves of the frames by themselves", _samples),
        ("other probes", _probe),
    ):
        try:
            found = look(scan, config, runtime, _until(began + LONGEST_S, progress))
        except DataError:  # too few frames with light
            continue
        except _TimeIsUp:
            break
        if found is not None:
            return Circumstances(alternatives=(found,), searched=tuple(searched))
        searched.append(name)
    return Circumstances(searched=tuple(searched))


class _TimeIsUp(Cancelled):
    """The time for a diagnosis is over."""


def _until(end: float, progress: Progress) -> Progress:
    """The caller's progress, which also ends what takes too long."""

    def report(event: ProgressEvent) -> None:
        progress(event)
        if time.perf_counter() > end:
            raise _TimeIsUp("the time for a diagnosis is over")

    return report


def _pixels(
    scan: PtychoDataContainer, config: TrainingConfig, runtime: Runtime, progress: Progress
) -> Alternative | None:
    """Whether the frames are explained without the pixels that an inspection warns of."""
    facts = Facts.of(scan.raw)
    bad = suspects(scan.raw, facts)
    frames = scan.train_frames[scan.raw.frame_totals[scan.train_frames] > 0]
    if not bad.any():
        raise DataError("no pixel looks bad")  # nothing to try, which is not worth a word
    raw = scan.raw if scan.raw.probe is not None else scan.raw.with_probe(scan.probe)
    region, engine = region_of(raw, among=frames), stepping_engine("numpy")
    without = replace(region.raw, mask=~bad if region.raw.mask is None else region.raw.mask & ~bad)
    trials = []
    for number, given in enumerate((region.raw, without)):
        progress(ProgressEvent(stage="diagnosis", done=number, total=2))
        plan = TrialPlan(epochs=8, probe_from=2)
        trials.append(try_scan(given, region.heldout, {}, plan=plan, engine=engine, runtime=runtime)[0].fourier_error)
    if not trials[1] < MUCH_BETTER * trials[0]:
        return None
    return Alternative(
        name="pixels",
        words=f"bad pixels were fitted as light ({pixels_of(bad)})",
        option="--mask auto",
        advice="--mask auto",
        figure=trials[1],
        beside=trials[0],
    )


def _orientation(
    scan: PtychoDataContainer, config: TrainingConfig, runtime: Runtime, progress: Progress
) -> Alternative | None:
    found = diagnose_orientation(scan, config, runtime, progress=progress)
    best, stored = found.trial_of(found.orientation), found.trial_of("none")
    if not found.changes or best is None or stored is None:
        return None
    words = " and ".join(_WORDS[part] for part in found.orientation.split("+"))
    words = words.replace(f" and {_ALONG}", " and ")
    # it comes on top of the orientation that the scan was read with
    option = found.option(scan.raw.source.details.get("read_with")) or f"--orientation {found.orientation}"
    return Alternative(
        name="orientation",
        words=words,
        option=option,
        advice=option,
        figure=best.fourier_error,
        beside=stored.fourier_error,
    )


def _samples(
    scan: PtychoDataContainer, config: TrainingConfig, runtime: Runtime, progress: Progress
) -> Alternative | None:
    """Whether the first and the second half of the frames are each explained, but not together."""
    raw = scan.raw if scan.raw.probe is not None else scan.raw.with_probe(scan.probe)
    frames = scan.train_frames[scan.raw.frame_totals[scan.train_frames] > 0]
    if len(frames) < 2 * _LEAST_FRAMES:
        return None
    engine = stepping_engine("numpy")
    plan = TrialPlan(epochs=8, probe_from=2)
    trials: list[Trial] = []
    for number, part in enumerate((frames, *np.array_split(frames, 2))):
        progress(ProgressEvent(stage="diagnosis", done=number, total=3))
        region = region_of(raw, among=part, most=frames_for(raw.side))
        trial, _ = try_scan(region.raw, region.heldout, {}, plan=plan, engine=engine, runtime=runtime)
        trials.append(trial)
    together, *apart = (trial.fourier_error for trial in trials)
    if not max(apart) < MUCH_BETTER * together:
        return None
    middle = int(frames[len(frames) // 2])
    return Alternative(
        name="samples",
        words=f"the frames are of two samples, or the sample moved (frames up to about {middle}, and those after)",
        option="each part by itself",
        advice="solve the parts by themselves (--frames START:STOP)",
        figure=max(apart),
        beside=together,
    )


def _probe(
    scan: PtychoDataContainer, config: TrainingConfig, runtime: Runtime, progress: Progress
) -> Alternative | None:
    """Whether a probe that is found from the frames does better than the one that was begun with."""
    from .find_probe import find_probe

    raw = scan.with_probe(scan.probe).raw
    frames = scan.train_frames[scan.raw.frame_totals[scan.train_frames] > 0]
    few = (
        frames
        if len(frames) <= _SEARCHED
        else region_of(raw, among=frames, most=frames_for(raw.side, _SEARCHED)).frames
    )
    found = find_probe(raw, frames=few, runtime=runtime, progress=progress)
    if not found.convincing:
        return None
    engine, region = stepping_engine("numpy"), region_of(raw, among=frames, most=frames_for(raw.side))
    with_it, without = (
        try_scan(
            region.raw.with_probe(probe),
            region.heldout,
            {},
            plan=TrialPlan(epochs=8, probe_from=2),
            engine=engine,
            runtime=runtime,
        )[0]
        for probe in (found.probe, scan.probe)
    )
    if not with_it.fourier_error < MUCH_BETTER * without.fourier_error:
        return None
    return Alternative(
        name="probe",
        words="the probe is another one",
        option=f"the one that is found from the frames ({_described(found)})",
        advice="--probe auto",
        figure=with_it.fourier_error,
        beside=without.fourier_error,
    )


def _described(guess: ProbeGuess) -> str:
    """A found probe in words."""
    if guess.disc_radius_px is not None:
        return f"--probe auto: a hole of radius {guess.disc_radius_px:.3g} pixels"
    return f"--probe auto: defocus {guess.defocus_px2:.4g} px²" if guess.defocus_px2 is not None else "--probe auto"
