"""Which way positions lie against the detector: the eight orientations tried by a few solver sweeps each.

All are held to the same frames of one compact region, from the same flat object, with the scan's probe: fixed at first,
since a right probe tells most in the fewest sweeps; where that cannot tell, on a larger region and with the probe
refined from the third sweep on. What is not told apart beyond noise is said to be alike (FIND-2, FIND-3).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.orientation import ORIENTATIONS, composed, oriented, oriented_probe
from ..data.orientation_finding import HALF_TURN, OrientationFinding
from ..data.raw import RawData, read_only
from ..data.roles import outlying_frames
from ..errors import ConfigError, DataError
from ..io.shadow_axes import axes_of_shadow
from ..physics.probe import mode_powers
from ..protocol import Progress, ProgressEvent, ReconstructionBackend, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from .contest import Contest, hold_contest
from .prepare import ScanInput, Tell, ensure_raw
from .trials import Region, TrialPlan, frames_for, region_of, stepping_engine

__all__ = [
    "LEAST_FRAMES",
    "SWEEPS",
    "diagnose_orientation",
    "find_orientation",
    "twin_likeness",
    "twin_of",
]

SWEEPS = 6
"""Sweeps of a trial: after six the right orientation of the star stands at a fifth of any other's misfit."""

LEAST_FRAMES = 12
"""Frames with light that a scan must have: with fewer, wrong positions are explained as well as right ones."""

FIRST_FRAMES, SECOND_FRAMES = 64, 160
"""Frames of the region in the first round, and in the second where the first cannot tell; fewer of large ones."""

HELDOUT_SHARE, HELDOUT_FRAMES, MOST_HELDOUT_SHARE = 0.2, 9, 0.35
"""Part of a region that judges, more of a small one, and at most: a gain is told from its spread over these frames."""

TWIN_LIKENESS = 0.98
"""Likeness of a probe to its twin from which the two are taken for one."""


def twin_likeness(probe: NDArray[np.complex64]) -> float:
    """How like a probe is to its twin conj P(−r), the best shift and phase apart: 1 means it is its own twin.

    A probe whose far field has a flat phase, one in focus, is.

    Args:
        probe: (P, N, N) complex modes; the strongest counts.
    """
    main = probe[int(np.argmax(mode_powers(probe)))].astype(np.complex128)
    # the twin's transform is the conjugate of the probe's, so the correlation over all shifts is that of F² and 1
    waves = np.fft.fft2(main)
    overlap = np.abs(np.fft.ifft2(waves * waves))
    return float(overlap.max() / np.sum(np.abs(main) ** 2))


def twin_of(probe: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """The twin conj P(−r) of a probe (P, N, N), about the middle of its window: what a turn by 180° goes with."""
    return np.conj(probe[:, ::-1, ::-1])


def find_orientation(
    scan: ScanInput,
    *,
    frames: NDArray[np.int64] | None = None,
    sweeps: int = SWEEPS,
    engine: str | ReconstructionBackend = "numpy",
    runtime: Runtime = DEFAULT_RUNTIME,
    progress: Progress = no_progress,
    tell: Tell | None = None,
) -> OrientationFinding:
    """Find which of the eight orientations explains the frames of a scan best (FIND-2).

    A near field whose frames move as one picture tells it by that motion; a scan without a probe together with the
    search for one (``api.find_probe``); all others by trials.

    Args:
        scan: the scan, in the orientation that it was read in. Of a container the training frames are tried on.
        frames: (n,) frames that may be looked at; None: all. Frames that are to judge an image must not be among them.
        sweeps: of each trial in the first round; a second one makes twice as many.
        engine: that makes the sweeps.
        runtime: what does the work.
        progress: told of each trial, as stage ``orient``; it may raise ``Cancelled``.
        tell: told of what cannot be told, one sentence each.

    Returns:
        The finding. Its ``orientation`` is what ``data.orientation.oriented`` takes.

    Raises:
        DataError: no usable scan.
        ConfigError: sweeps below 1, or an engine that makes no steps.
        BackendError: the engine is unknown, missing or broken.
    """
    began = time.perf_counter()
    if sweeps < 1:
        raise ConfigError(f"sweeps = {sweeps}; it must be at least 1.")
    raw, among = _frames_to_try(scan, frames)
    if len(among) < LEAST_FRAMES:
        found = _unknown(
            f"{len(among)} of its frames have light, and with fewer than {LEAST_FRAMES} a wrong orientation is "
            "explained as well as the right one"
        )
    elif raw.propagation.is_near and (by_shadow := _by_shadow(raw.subset(among))) is not None:
        found = by_shadow
    elif raw.probe is None:
        found = _jointly(raw, among, sweeps, stepping_engine(engine), runtime, progress)
    else:
        found = _by_trials(raw, among, sweeps, stepping_engine(engine), runtime, progress)
        if found.certain and found.changes:
            found = _with_probe_axes(found, raw, among, sweeps, stepping_engine(engine), runtime)
    found = replace(found, seconds=time.perf_counter() - began)
    for reason in found.reasons if tell is not None else ():
        tell(reason)  # type: ignore[misc]
    return found


def diagnose_orientation(
    scan: PtychoDataContainer | RawData,
    config: TrainingConfig,
    runtime: Runtime = DEFAULT_RUNTIME,
    *,
    progress: Progress = no_progress,
) -> OrientationFinding:
    """The cheap form, for a result that explains its frames badly: does another orientation do better?

    Only the first round is made, with the engine of the config where it makes steps, else with ``numpy``. A probe that
    is in focus, such as one estimated from the mean pattern, does not tell a turn by 180°.

    Args:
        scan: as it was solved; with the probe that solving started from.
        config: names the engine.
        runtime: what does the work.
        progress: told of each trial.

    Returns:
        The finding; one with ``how = "none"`` where nothing can be tried.
    """
    raw, among = _frames_to_try(scan)
    if len(among) < LEAST_FRAMES:
        return _unknown(f"{len(among)} frames with light are too few to tell")
    if raw.probe is None:
        return _unknown("the scan has no probe to try with")
    began = time.perf_counter()
    try:
        engine = stepping_engine(config.backend)
    except ConfigError:
        engine = stepping_engine("numpy")
    try:
        found = _by_trials(raw, among, SWEEPS, engine, runtime, progress, rounds=1)
    except DataError as error:
        return _unknown(str(error))
    return replace(found, seconds=time.perf_counter() - began)


def _frames_to_try(scan: ScanInput, frames: NDArray[np.int64] | None = None) -> tuple[RawData, NDArray[np.int64]]:
    """A scan, and those of its frames (n,) that have light, are not far above all others, and may be learned from."""
    if isinstance(scan, PtychoDataContainer):
        raw, among = scan.raw, scan.train_frames
        raw = raw if raw.probe is not None else raw.with_probe(scan.probe)
    else:
        raw = ensure_raw(scan)
        among = np.arange(raw.n_frames)
    among = among if frames is None else np.intersect1d(among, frames)
    among = np.setdiff1d(among, outlying_frames(raw.frame_totals))
    return raw, among[raw.frame_totals[among] > 0]


def _unknown(reason: str) -> OrientationFinding:
    return OrientationFinding(orientation="none", certain=False, alike=ORIENTATIONS, how="none", reasons=(reason,))


def _by_shadow(raw: RawData) -> OrientationFinding | None:
    """The orientation that the motion of the frames shows; None where they do not move as one picture."""
    axes = axes_of_shadow(raw)
    if axes is None:
        return None
    turn = f" --rotate {axes.rotate_deg:.3g}" if axes.turned else ""
    said = (
        f"its frames move as positions in orientation '{axes.orientation}' would have them (near field, "
        f"{axes.agreement:.0%} of the pairs of frames agree)"
    )
    if axes.orientation != "none" or turn:
        said += f": use --orientation {axes.orientation}{turn}"
    return OrientationFinding(
        orientation=axes.orientation,
        certain=True,
        alike=(axes.orientation,),
        how="shadow",
        reasons=(said,),
        rotate_deg=axes.rotate_deg if axes.turned else None,
        n_frames=raw.n_frames,
    )


def _by_trials(
    raw: RawData,
    among: NDArray[np.int64],
    sweeps: int,
    engine: ReconstructionBackend,
    runtime: Runtime,
    progress: Progress,
    *,
    rounds: int = 2,
) -> OrientationFinding:
    """Try all words with a fixed probe; those that are not told apart once more, on more frames and with it refined."""
    assert raw.probe is not None
    last = _round(raw, among, FIRST_FRAMES, TrialPlan(epochs=sweeps), engine, runtime, progress)
    twin = twin_likeness(raw.probe) >= TWIN_LIKENESS and not raw.propagation.is_near
    if rounds > 1 and not _told(last.alike, twin):
        plan = TrialPlan(epochs=2 * sweeps, probe_from=2)
        last = _round(raw, among, SECOND_FRAMES, plan, engine, runtime, progress)
    alike = last.alike
    winner = "none" if "none" in alike else alike[0]
    gained, needed = last.gain(next((word for word in last.ranked if word not in alike), last.ranked[-1]))
    return OrientationFinding(
        orientation=winner,
        certain=len(alike) == 1,
        alike=(winner, *(word for word in alike if word != winner)),
        trials=tuple(last.trials[word] for word in last.ranked),
        needed=needed,
        gained=gained,
        n_frames=last.n_frames,
        n_heldout=last.n_heldout,
        reasons=tuple(_reasons(raw, among, alike, twin)),
    )


def _told(alike: tuple[str, ...], twin: bool) -> bool:
    """Whether more sweeps would tell no more."""
    return len(alike) == 1 or (twin and set(alike) == {alike[0], composed(alike[0], HALF_TURN)})


def _with_probe_axes(
    found: OrientationFinding,
    raw: RawData,
    among: NDArray[np.int64],
    sweeps: int,
    engine: ReconstructionBackend,
    runtime: Runtime,
) -> OrientationFinding:
    """The finding, with whether the probe lies on the axes of the positions rather than those of the frames."""
    assert raw.probe is not None
    region = trial_region(raw, among, FIRST_FRAMES)
    right = oriented(region.raw, found.orientation)
    turned = right.with_probe(oriented_probe(raw.probe, found.orientation), calibrated=raw.probe_calibrated)
    variants = {"as stored": right, "turned": turned}
    plan = TrialPlan(epochs=sweeps)
    contest = hold_contest(variants, region.heldout, "probe", plan=plan, engine=engine, runtime=runtime)
    if contest.alike != ("turned",):
        return found
    before, after = (contest.trials[name].heldout_deviance for name in variants)
    why = (
        f"the probe explains the frames better when it is turned like the positions (held-out deviance {after:.4g}, "
        f"without that {before:.4g}): the frames are flipped against both"
    )
    return replace(found, probe_follows=True, reasons=(*found.reasons, why))


def trial_region(raw: RawData, among: NDArray[np.int64] | None, most: int) -> Region:
    """A region of at most so many frames, fewer of large ones, that costs about the same up from 128×128 pixels."""
    n = frames_for(raw.side, most)
    available = min(n, raw.n_frames if among is None else len(among))
    share = max(HELDOUT_SHARE, min(MOST_HELDOUT_SHARE, HELDOUT_FRAMES / max(available, 1)))
    return region_of(raw, among=among, most=n, heldout_share=share)


def _round(
    raw: RawData,
    among: NDArray[np.int64],
    most: int,
    plan: TrialPlan,
    engine: ReconstructionBackend,
    runtime: Runtime,
    progress: Progress,
) -> Contest:
    """Try all words on one region."""
    region = trial_region(raw, among, most)
    done = itertools.count(1)

    def after_each() -> None:
        progress(ProgressEvent(stage="orient", done=next(done), total=len(ORIENTATIONS)))

    variants = {word: oriented(region.raw, word) for word in ORIENTATIONS}
    return hold_contest(
        variants, region.heldout, "orientation", plan=plan, engine=engine, runtime=runtime, after_each=after_each
    )


def _reasons(raw: RawData, among: NDArray[np.int64], alike: tuple[str, ...], twin: bool) -> Iterator[str]:
    """Why words are not told apart."""
    if len(alike) == 1:
        return
    if twin and composed(alike[0], HALF_TURN) in alike:
        yield (
            "the probe is its own twin (its far field has a flat phase, as of a probe in focus), so that positions "
            "turned by 180° explain the frames exactly as well, with the conjugate object turned: only four classes of "
            "orientation can be told; a defocused or measured probe would tell all eight"
        )
    if spread := _line_of(raw.positions_px[among]):
        yield spread
    elif len(alike) > 2 or not twin:
        words = "all eight" if len(alike) == len(ORIENTATIONS) else ", ".join(alike)
        yield (
            f"{words} explain the held-out frames equally well within what noise and the frames drawn "
            "allow: the object, or what the region shows of it, is symmetric or has too little contrast, or the probe "
            "is far off"
        )


def _line_of(positions_px: NDArray[np.float64]) -> str:
    """A sentence where positions lie on a line along an axis, so that some words do the same to them; else empty."""
    spread = np.ptp(positions_px, axis=0)
    if spread.min() > 0.02 * spread.max():
        return ""
    axis = "x" if spread[0] < spread[1] else "y"
    return f"positions lie on a line along {axis}, so that negating the other axis changes nothing"


def _jointly(
    raw: RawData,
    among: NDArray[np.int64],
    sweeps: int,
    engine: ReconstructionBackend,
    runtime: Runtime,
    progress: Progress,
) -> OrientationFinding:
    """A probe is searched with the orientation, and then the eight are tried with what was found."""
    from .find_probe import find_probe

    guess = find_probe(raw, frames=among, orientations=ORIENTATIONS, engine=engine, runtime=runtime, progress=progress)
    if not guess.convincing:
        why = "; ".join((*guess.doubts, guess.describe()))
        found = _unknown(f"it has no probe, and none was found to try with ({why}); give one (--probe FILE)")
        return replace(found, probe=guess)
    probed = raw.with_probe(guess.probe)
    found = _by_trials(probed, among, sweeps, engine, runtime, progress)
    best = str(found.trials[0].tried["orientation"])
    # the sign of the defocus was not known, so that the turn goes with it
    alike = tuple(dict.fromkeys([*found.alike, composed(best, HALF_TURN), guess.orientation]))
    word = "none" if "none" in alike else guess.orientation
    if word == composed(guess.orientation, HALF_TURN):
        guess = replace(guess, orientation=word, probe=read_only(twin_of(guess.probe)))
    turn = (
        "the scan brings no probe, and a turn by 180° explains a far field as well with the other sign of the defocus: "
        f"'{word}' is {'how it was read' if word == 'none' else 'the one with the sample downstream of the focus'}"
    )
    return replace(
        found,
        orientation=word,
        certain=False,
        alike=(word, *(other for other in alike if other != word)),
        reasons=(turn, *(reason for reason in found.reasons if "own twin" not in reason)),
        probe=guess,
    )
