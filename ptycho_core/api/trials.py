"""Short solves of a piece of a scan, to find out what is not known of it: a probe, an orientation.

A trial takes a compact region of at most some 160 frames, so that it costs the same for scans of any size, and judges
by frames that are held out at random within it. It descends from the flat object with the steps of an engine, as every
solver here does (``enginekit.descent``), and core scores what comes out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer
from ..data.frames import ArrayFrames
from ..data.raw import RawData, read_only
from ..data.results import Image
from ..data.trials import Trial, best_of
from ..enginekit.descent import Descent, batch_size_for, descend
from ..enginekit.state import flat_image
from ..errors import BackendError, ConfigError, DataError
from ..physics.merit import SUMS
from ..plugins.guard import engine_at_work
from ..plugins.registry import load_backend
from ..protocol import Constraints, Quantity, ReconstructionBackend, SupportsStepping
from ..runtime import DEFAULT_RUNTIME, Runtime
from ..stopping import safe_point
from .score import score

__all__ = [
    "Region",
    "Trial",
    "TrialPlan",
    "best_of",
    "frames_for",
    "region_frames",
    "region_of",
    "stepping_engine",
    "try_scan",
]

MOST_FRAMES = 160
"""Frames of a region: enough to tell a right start from a wrong one, few enough to try dozens."""

HELDOUT_SHARE = 0.1
"""Part of a region's frames that only judge."""

FEWEST_FRAMES = 32
"""Frames of a region at least, however large they are: as many as tell real scans' orientations beyond doubt."""

_PIXELS_AT_FULL = 128**2
_LEAST_HELDOUT = 4
_LOOKED_AT = 200
_LEAST_LOOKED_AT = 8
_PIXELS_LOOKED_AT = 2**25
_LEAST_LIT = 0.3


@dataclass(frozen=True, kw_only=True)
class Region:
    """A piece of a scan in memory, to try things on.

    Attributes:
        raw: its frames, with all else that the scan has.
        heldout: (n,) int64 frames of `raw` that only judge.
        frames: (m,) int64 the frames of the scan that it has.
    """

    raw: RawData
    heldout: NDArray[np.int64]
    frames: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """How a trial descends.

    Attributes:
        epochs: passes over the frames.
        probe_from: first epoch, from 0, in which the probe is refined too; None leaves it as it is given.
        support: radius of the circle about the middle of its window that a refined probe is kept within, pixels, or
            None. Its power is kept.
        positions_from: first epoch in which positions are refined too, or None.
        position_limit_px: farthest that a position may move.
        seed: of the order of the frames.
    """

    epochs: int = 6
    probe_from: int | None = None
    support: float | None = None
    positions_from: int | None = None
    position_limit_px: float = 2.0
    seed: int = 0


def stepping_engine(engine: str | ReconstructionBackend = "numpy") -> ReconstructionBackend:
    """The engine of a name, or the engine itself, which must make steps.

    Raises:
        ConfigError: it does not.
        BackendError: the engine is unknown, missing or broken.
    """
    found = load_backend(engine) if isinstance(engine, str) else engine
    if not (isinstance(found, SupportsStepping) and found.capabilities.stepping):
        raise ConfigError(
            f"engine '{found.name}' makes no steps for trials (capabilities.stepping is false); "
            "take one that does, such as 'numpy'."
        )
    return found


def _liveliness(raw: RawData, frames: NDArray[np.int64]) -> NDArray[np.float64]:
    """Σ(√k − √(c k̄))² of each of some frames (n,): how many counts differ from an object that is not there."""
    rows = [raw.read_counts(part) for part in np.array_split(frames, max(1, len(frames) * raw.side**2 // 2**21))]
    mean = sum(counts.sum(axis=0, dtype=np.float64) for counts in rows) / len(frames)
    total, out = max(float(mean.sum()), 1e-12), []
    for counts in rows:
        level = counts.sum(axis=(1, 2), dtype=np.float64) / total
        expected = np.sqrt(level[:, None, None] * mean)
        out.append(np.sum((np.sqrt(counts) - expected) ** 2, axis=(1, 2)))
    return np.concatenate(out)


def _compact(raw: RawData, among: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The most lively compact part of some frames: what lies nearest to one of them."""
    from scipy.spatial import cKDTree

    places = raw.positions_px[among]
    tree = cKDTree(places)
    n = min(len(among), _LOOKED_AT, max(_LEAST_LOOKED_AT, _PIXELS_LOOKED_AT // raw.side**2))
    looked = np.unique(np.linspace(0, len(among) - 1, n).astype(np.int64))
    lively = _liveliness(raw, among[looked])
    _, near = tree.query(places[looked], k=most)
    reach = np.linalg.norm(places[near[:, -1]] - places[looked], axis=1)
    # a centre at the rim of the scan has its neighbours on one side only; they overlap less
    inner = reach <= 1.3 * np.median(reach)
    value = np.full(len(among), np.nan)
    value[looked] = lively
    score_of = np.array([np.nanmean(value[row]) if np.isfinite(value[row]).any() else 0.0 for row in near])
    best = int(np.argmax(np.where(inner, score_of, -1.0)))
    return np.sort(among[near[best]])


def frames_for(side: int, most: int = MOST_FRAMES) -> int:
    """Frames of a region that costs about the same up from 128×128 pixels: fewer of large ones, 32 at least.

    Args:
        side: N of the frames.
        most: of small ones.
    """
    return max(min(most, FEWEST_FRAMES), min(most, most * _PIXELS_AT_FULL // side**2))


def region_frames(
    raw: RawData,
    *,
    among: NDArray[np.int64] | None = None,
    most: int = MOST_FRAMES,
    heldout_share: float = HELDOUT_SHARE,
    seed: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The frames of a compact, lively and bright piece of a scan, and those of them that are held out at random.

    Args:
        raw: the scan; a probe is not needed.
        among: (n,) frames that may be looked at; None: all. Frames without counts are left out.
        most: frames of the region.
        heldout_share: part of them that only judge.
        seed: decides which.

    Returns:
        (m,) int64 frames of the scan, and (h,) int64 which of these m only judge.

    Raises:
        DataError: fewer than eight frames with counts.
    """
    name = raw.source.path or "scan"
    frames = np.arange(raw.n_frames) if among is None else np.asarray(among, np.int64)
    totals = raw.frame_totals[frames]
    if np.isfinite(totals).any():  # those that are not known yet are NaN
        frames = frames[~(totals <= _LEAST_LIT * np.nanmedian(totals))]
    if len(frames) < 2 * _LEAST_HELDOUT:
        raise DataError(
            f"{name}: {len(frames)} of its frames have light enough to try anything on; at least "
            f"{2 * _LEAST_HELDOUT} are needed. Give the probe and the orientation."
        )
    if len(frames) > most:
        frames = _compact(raw, frames, most)
    held = max(_LEAST_HELDOUT, round(heldout_share * len(frames)))
    heldout = np.sort(np.random.default_rng(seed).permutation(len(frames))[:held])
    return frames.astype(np.int64), heldout.astype(np.int64)


def region_of(
    raw: RawData,
    *,
    among: NDArray[np.int64] | None = None,
    most: int = MOST_FRAMES,
    heldout_share: float = HELDOUT_SHARE,
    seed: int = 0,
) -> Region:
    """The piece of :func:`region_frames` in memory, some of its frames held out.

    Args:
        raw: the scan; a probe is not needed.
        among: see there.
        most: see there.
        heldout_share: see there.
        seed: see there.

    Raises:
        DataError: fewer than eight frames with counts.
    """
    frames, heldout = region_frames(raw, among=among, most=most, heldout_share=heldout_share, seed=seed)
    view = raw.subset(frames)
    counts = np.concatenate([part for _, part in view.chunks()])
    piece = replace(view, frames=ArrayFrames(read_only(counts)))
    return Region(raw=piece, heldout=heldout, frames=frames)


def try_scan(
    raw: RawData,
    heldout: NDArray[np.int64],
    tried: Mapping[str, Any],
    *,
    plan: TrialPlan | None = None,
    engine: ReconstructionBackend,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> tuple[Trial, Image]:
    """Solve a scan briefly from the flat object, and score what comes out.

    Args:
        raw: a scan with a probe, such as that of a :class:`Region` with one.
        heldout: (n,) frames of it that only judge.
        tried: what this trial is to be known by.
        plan: how; None takes the defaults.
        engine: that makes the steps, of :func:`stepping_engine`.
        runtime: what does the work.

    Returns:
        The trial, and the image it ended with. A descent that diverged is a trial with figures of infinity, and the
        flat image.

    Raises:
        DataError: no probe, or nothing to learn from.
        BackendError: the engine broke.
    """
    safe_point()
    began, plan = time.perf_counter(), plan or TrialPlan()
    scan = PtychoDataContainer.of(raw, heldout=heldout)
    image, scored = flat_image(scan), None
    try:
        with engine_at_work(engine.name, "a trial"):
            image = _descended(engine, image, scan, plan, runtime)
        scored = score(image, scan, engine.name, engine)
    except BackendError as error:
        if type(error) is not BackendError:  # a broken promise is the engine's fault, not that of what was tried
            raise
    seconds = time.perf_counter() - began
    if scored is None:
        worst = dict.fromkeys(("misfit", "heldout_deviance", "train_deviance", "fourier_error"), math.inf)
        return Trial(tried=dict(tried), **worst, seconds=seconds), image
    judged = scored.heldout or scored.train
    frames = scan.heldout_frames if scored.heldout else scan.train_frames
    return Trial(
        tried=dict(tried),
        misfit=float(scored.frame_sums[frames, SUMS.index("deviance")].mean()),
        heldout_deviance=judged.deviance,
        train_deviance=scored.train.deviance,
        fourier_error=judged.fourier_error,
        seconds=seconds,
    ), scored.image


def _descended(
    engine: ReconstructionBackend, image: Image, scan: PtychoDataContainer, plan: TrialPlan, runtime: Runtime
) -> Image:
    """The image after the epochs of a plan; quantities join one after another, on one stepper."""
    assert isinstance(engine, SupportsStepping)
    loss = "poisson" if "poisson" in engine.capabilities.losses else engine.capabilities.losses[0]
    stepper = engine.stepper(image, scan, loss, runtime)
    power = image.scale * float(np.sum(np.abs(image.probe.astype(np.complex128)) ** 2))
    none = plan.epochs
    probe_from = none if plan.probe_from is None else plan.probe_from
    positions_from = none if plan.positions_from is None else plan.positions_from
    starts = sorted({0, *(s for s in (probe_from, positions_from) if s < plan.epochs)})
    for start, end in zip(starts, [*starts[1:], plan.epochs], strict=True):
        wanted: list[Quantity] = ["object"]
        wanted += ["probe"] if start >= probe_from else []
        wanted += ["positions"] if start >= positions_from else []
        steps = Descent(
            epochs=end - start,
            batch_size=batch_size_for(len(scan.train_frames)),
            wanted=tuple(wanted),
            position_limit_px=plan.position_limit_px,
            constraints=Constraints(power=power, support=plan.support),
            seed=plan.seed,
            first_order=start,
            full_steps=1.0 if end < plan.epochs else 0.6,
        )
        descend(
            stepper,
            steps,
            frames=scan.train_frames,
            heldout=np.zeros(0, np.int64),
            after_epoch=lambda epoch, train, held: None,
            choose=False,
            name=scan.raw.source.path or "scan",
        )
    return stepper.image()
