"""Why an image explains its frames badly: other orientations, other probes, and each half of the frames by itself.

A few short solves of a piece of the scan, in that order, until one of them explains held-out frames much better, or the
time is up. Nothing is changed by what is found: the verdict names it, with the option that repeats the run with it.
"""

from __future__ import annotations

import time

import numpy as np

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.trials import Trial
from ..errors import DataError
from ..evaluation.verdict import Alternative, Circumstances
from ..protocol import Progress, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from .orient import diagnose_orientation
from .trials import TrialPlan, region_of, stepping_engine, try_scan

__all__ = ["LONGEST_S", "MUCH_BETTER", "diagnose"]

LONGEST_S = 12.0
"""Seconds after which nothing further is begun."""

MUCH_BETTER = 0.6
"""Part of the Fourier error above which a half of the frames by itself is explained no better than all: neighbouring
regions of an ordinary sample differ by less."""

_ALONG = "positions run the other way along "

_WORDS = {
    "transpose": "the scan's axes are exchanged",
    "flip_y": f"{_ALONG}y",
    "flip_x": f"{_ALONG}x",
}

_LEAST_FRAMES = 32


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
        ("other orientations", _orientation),
        ("the two halves of the frames by themselves", _samples),
    ):
        if time.perf_counter() - began > LONGEST_S:
            break
        try:
            found = look(scan, config, runtime, progress)
        except DataError:  # too few frames with light
            continue
        if found is not None:
            return Circumstances(alternatives=(found,), searched=tuple(searched))
        searched.append(name)
    return Circumstances(searched=tuple(searched))


def _orientation(
    scan: PtychoDataContainer, config: TrainingConfig, runtime: Runtime, progress: Progress
) -> Alternative | None:
    found = diagnose_orientation(scan, config, runtime, progress=progress)
    best, stored = found.trial_of(found.orientation), found.trial_of("none")
    if not found.changes or best is None or stored is None:
        return None
    words = " and ".join(_WORDS[part] for part in found.orientation.split("+"))
    words = words.replace(f" and {_ALONG}", " and ")
    return Alternative(
        name="orientation",
        words=words,
        option=f"--orientation {found.orientation}",
        advice=f"--orientation {found.orientation}",
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
    for part in (frames, *np.array_split(frames, 2)):
        region = region_of(raw, among=part)
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
