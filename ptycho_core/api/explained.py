"""Whether an image has found anything: what held-out frames say when its contrast is drawn back (PROBE-2)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer
from ..data.probe_guess import ProbeTrial
from ..data.results import Image
from ..data.trials import Trial
from ..errors import BackendError
from ..physics.merit import SUMS, frame_sums, gain_squared
from ..protocol import ReconstructionBackend, SupportsExpectedCounts
from .score import oracle_counts

__all__ = ["KEPT", "judged_trial", "null_misfits"]

KEPT = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)
"""Parts of an image's contrast that are tried."""

_UNSEEN = 0.5
"""Counts in all training frames together that a pixel may yet have had: where none was seen, one in a held-out frame
would else cost more than all that an object explains."""


def _drawn_back(image: Image, kept: float) -> Image:
    """O = ō + a (O − ō) where it is lit, ō of the mean phase and the root mean square modulus of what is lit."""
    weight = image.coverage.astype(np.float64)
    mean = complex(np.sum(image.object * weight) / weight.sum())
    level = math.sqrt(float(np.sum(np.abs(image.object) ** 2 * weight) / weight.sum()))
    flat = level * (mean / abs(mean) if mean else 1.0)
    obj = np.where(weight > 0, flat + kept * (image.object - flat), 0)
    return replace(image, object=obj.astype(np.complex64))


def _misfits(
    image: Image, scan: PtychoDataContainer, engine: ReconstructionBackend, counts: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The sums (n, 8) of each held-out frame, at the level that suits them together."""
    raw, frames = scan.raw, scan.heldout_frames
    forward = engine.expected_counts if isinstance(engine, SupportsExpectedCounts) else oracle_counts
    rate = np.asarray(forward(image, scan, frames), np.float64)
    level = 0.0 if raw.background is None else np.asarray(raw.background, np.float64)
    good = 1.0 if raw.mask is None else raw.mask
    light, dark = float(np.sum(good * (rate - level))), float(np.sum(good * level + 0 * rate))
    measured = float(counts.sum(dtype=np.float64))
    gain = gain_squared(light + dark, measured, dark) if measured > dark and light > 0 else 1.0
    rate = level + gain * (rate - level) + _UNSEEN / len(scan.train_frames)
    return frame_sums(rate, counts, raw.mask)


def null_misfits(scan: PtychoDataContainer) -> NDArray[np.float64]:
    """Deviance (n,) of each held-out frame where there is no object: every frame is the mean of the training frames."""
    raw = scan.raw
    counts = raw.read_counts(scan.heldout_frames)
    mean = raw.subset(scan.train_frames).mean_pattern()
    level = counts.sum(dtype=np.float64) / (len(counts) * mean.sum())
    rate = np.broadcast_to(level * mean + _UNSEEN / len(scan.train_frames), counts.shape)
    return frame_sums(rate, counts, raw.mask)[:, SUMS.index("deviance")]


def judged_trial(
    trial: Trial, image: Image, scan: PtychoDataContainer, engine: ReconstructionBackend, null: NDArray[np.float64]
) -> ProbeTrial:
    """A trial with what is left of it when its image is drawn back towards a flat object.

    Args:
        trial: what :func:`.trials.try_scan` found.
        image: the image of it.
        scan: that it was made of, with the held-out frames that judge.
        engine: that made it.
        null: (n,) of :func:`null_misfits`.
    """
    known = {name: getattr(trial, name) for name in Trial.__dataclass_fields__}
    nothing = ProbeTrial(**known, kept=0.0, best_misfit=math.inf, null_misfit=math.inf, floor=0.0, trust=0.0)
    if not math.isfinite(trial.misfit) or not len(scan.heldout_frames):
        return nothing
    counts = scan.raw.read_counts(scan.heldout_frames)
    try:
        sums = {kept: _misfits(_drawn_back(image, kept), scan, engine, counts) for kept in KEPT}
    except BackendError as error:
        if type(error) is not BackendError:
            raise
        return nothing
    rows = {kept: of[:, SUMS.index("deviance")] for kept, of in sums.items()}
    kept = min(rows, key=lambda name: float(rows[name].mean()))
    # a mean of few counts is worse than a smooth pattern without an object; what that gains is no evidence of one
    without = min((null, rows[0.0]), key=lambda some: float(some.mean()))
    gains = without - rows[kept]
    spread = float(gains.std(ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    return replace(
        nothing,
        kept=kept,
        best_misfit=float(rows[kept].mean()),
        null_misfit=float(without.mean()),
        floor=float(sums[kept][:, SUMS.index("deviance_floor")].mean()),
        trust=float(gains.mean()) / spread if spread > 0 else 0.0,
    )
