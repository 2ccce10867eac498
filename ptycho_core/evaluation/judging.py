"""The three questions of a verdict, each answered by statistics with a stated doubt (see ``evaluation.verdict``)."""

from __future__ import annotations

import math

from ..physics.merit import Figures
from .measured import Judged, Measured

__all__ = [
    "DIAGNOSED_BELOW",
    "FORETOLD",
    "NOISE_FACTOR",
    "OVERFITTED",
    "PATTERNED",
    "SEEN",
    "SPARSE",
    "SURE",
    "alike",
    "foretells",
    "foretells_little",
    "foretells_unseen",
    "foretold_at_most",
    "foretold_share",
    "judge_of",
    "noise_factor",
    "percent",
    "structure_of",
    "too_dark",
    "uncounted",
    "visible",
]

NOISE_FACTOR = 1.2
"""Times the noise that still count as the noise: the last epochs of a descent leave a tenth to a fifth of low counts,
and no eye sees it in a picture. The figure is told all the same."""

FORETOLD = 0.5
"""Share of the structure of unseen frames that an image of them foretells at least."""

DIAGNOSED_BELOW = 0.75
"""Share below which it is worth some seconds to look for the cause; a good start on real data reaches 0.8 and more."""

SURE = 3.0
"""Standard deviations that make a finding: one chance in a thousand."""

SEEN = 5.0
"""Standard deviations that structure would have stood out by, before its absence means anything."""

SPARSE = 0.05
"""Relative difference of frames that a sample with little structure causes: where even that would have stood out and
nothing did, there was nothing to see; where it would not, it is too dark to say."""

PATTERNED = 0.3
"""Relative difference of a mean frame from an even detector that any diffraction pattern exceeds many times over."""

OVERFITTED = 2.0
"""Times the deviance of training frames that held-out ones have where the image explains its own frames too well."""


def noise_factor(train: Figures, heldout: Figures | None) -> float:
    """Times the noise that the misfit is: √ of the mean reduced deviance of training and held-out frames."""
    if heldout is None or not math.isfinite(heldout.deviance):
        return math.sqrt(max(train.deviance, 0.0))
    return math.sqrt(max((train.deviance + heldout.deviance) / 2, 0.0))


def judge_of(measured: Measured) -> tuple[Judged, float]:
    """The frames that judge, and what of S a fit explains of their noise: nothing, but of frames it was fitted to."""
    if measured.heldout is not None and measured.heldout.n_frames:
        return measured.heldout, 0.0
    return measured.training, measured.freedom * measured.training.n_frames


def structure_of(measured: Measured) -> tuple[float, float]:
    """What the judging frames have beyond their mean, and its standard deviation."""
    judge, _ = judge_of(measured)
    if uncounted(measured):  # their noise is unknown, and less than that of counts: what there is is structure
        return judge.spread, 0.0
    return judge.structure, judge.structure_sd


def foretold_share(measured: Measured) -> float:
    """S/C: which part of how the judging frames differ is foretold; NaN where they differ by no more than noise."""
    judge, fitted = judge_of(measured)
    structure, sd = structure_of(measured)
    return (judge.foretold - fitted) / structure if structure > SURE * sd else math.nan


def foretells(measured: Measured) -> bool:
    """Whether there is evidence that frames are as the image says: the score test."""
    judge, fitted = judge_of(measured)
    return judge.foretold - fitted > SURE * judge.sd


def foretells_little(measured: Measured) -> bool:
    """Whether less than half of the structure is foretold, beyond doubt in either.

    Of frames that were fitted nothing is taken off: how much of their noise a fit explains is known as an upper limit
    only, and at low dose that is more than the structure of an honest scan.
    """
    judge, _ = judge_of(measured)
    structure, sd = structure_of(measured)
    return structure > SURE * sd and judge.foretold + 2 * judge.sd < FORETOLD * (structure - 2 * sd)


def foretold_at_most(measured: Measured) -> float:
    """S/C, where of frames that were fitted nothing is taken off."""
    return judge_of(measured)[0].foretold / structure_of(measured)[0]


def alike(measured: Measured) -> bool:
    """Whether frames differ by no more than noise."""
    return measured.unlikeness <= SURE * measured.unlikeness_sd and not uncounted(measured)


def visible(sd: float) -> float:
    """The relative difference that would have stood out."""
    return math.sqrt(SEEN * sd) if math.isfinite(sd) else math.inf


def foretells_unseen(measured: Measured) -> bool:
    """The score test, of held-out frames only: frames that were fitted prove nothing where all are alike."""
    return measured.heldout is not None and bool(measured.heldout.n_frames) and foretells(measured)


def uncounted(measured: Measured) -> bool:
    """Whether values vary less than counts do: scaled, averaged or normalised, so that no noise can be told."""
    return measured.unlikeness < -SEEN * measured.unlikeness_sd


def too_dark(measured: Measured) -> bool:
    """Whether there is neither evidence for an image nor light enough for its absence to mean anything."""
    return not foretells(measured) and math.isnan(foretold_share(measured))


def percent(part: float) -> str:
    """A part as percent, to two digits or, of large ones, to the unit."""
    return f"{100 * part:.0f} %" if abs(part) >= 0.1 else f"{100 * part:.2g} %"
