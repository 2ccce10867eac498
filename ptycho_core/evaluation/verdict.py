"""A verdict on an image: explained to the noise, to so many times the noise, or not an image; and why (VERDICT-1 … 6).

Three questions are asked in turn, and each is one of statistics, not of taste:

1. Do the frames differ at all, beyond noise? Where they do not although there is light enough to see it, nothing was
   measured that an image could be made of: noise, an empty beam, a sample without contrast.
2. Does the image foretell how the frames that it has not seen differ? ``physics.evidence`` says which share of their
   structure it foretells; less than half of it, beyond doubt, is no image of it. A wrong orientation, wrong positions
   and a wrong probe foretell two fifths at most, a right start nine tenths. The dose does not enter, but for the doubt.
3. How far is what is left above the noise? The deviance of training frames is too low by what was fitted of their
   noise, that of held-out frames too high by the same, so that the mean of the two is 1 for a model that fits.

What is likely to be the cause is told by how the rest is spread: over pixels, over frames, over counts; and by what
trials found that were made for it (``api.diagnose``).
"""

from __future__ import annotations

import math

from ..data.verdict import Reason, Verdict
from ..physics.merit import Figures
from .causes import OVERLAPPING, PROBE_ADVICE, Alternative, Circumstances, causes, cautions, spread_causes, unknown
from .judging import (
    DIAGNOSED_BELOW,
    FORETOLD,
    NOISE_FACTOR,
    PATTERNED,
    SEEN,
    SPARSE,
    alike,
    foretells_little,
    foretells_unseen,
    foretold_at_most,
    foretold_share,
    judge_of,
    noise_factor,
    percent,
    too_dark,
    uncounted,
    visible,
)
from .measured import Measured

__all__ = ["Alternative", "Circumstances", "needs_diagnosis", "noise_factor", "weigh"]

LEAST_UNCOVERED = 3
"""Held-out frames that must lie in the dark to be called no overlap, where the distances of frames speak of one."""


def needs_diagnosis(measured: Measured, train: Figures, heldout: Figures | None) -> bool:
    """Whether trials of other orientations and probes are worth their time.

    Args:
        measured: of the image.
        train: figures of the training frames.
        heldout: of the held-out frames, or None.
    """
    if alike(measured):
        return False
    share = foretold_share(measured)
    above = noise_factor(train, heldout) > NOISE_FACTOR or foretells_little(measured)
    return above and not share >= DIAGNOSED_BELOW


def weigh(measured: Measured, train: Figures, heldout: Figures | None, known: Circumstances | None = None) -> Verdict:
    """Give a verdict.

    Args:
        measured: what was measured on the image.
        train: figures of merit of the training frames.
        heldout: those of the held-out frames, or None.
        known: what else is known.
    """
    known = known or Circumstances()
    figures = _figures(measured, train, heldout)
    against = _no_image(measured)
    if against is not None:
        reasons = (against, *causes(measured, known))
        return _verdict("no_image", f"NOT AN IMAGE: {against.text}", reasons, figures, likely=reasons[1:])
    factor = figures["noise_factor"]
    proof = _proof(measured, known)
    if too_dark(measured):
        reasons = tuple(cautions(measured, known))
        return _verdict("noise", "explained to the noise", reasons, figures, beware=reasons)
    if uncounted(measured):
        reasons = (*causes(measured, known), *spread_causes(measured, train, heldout, known))
        return _verdict(
            "above_noise", f"explained to an unknown multiple of the noise{proof}", reasons, figures, likely=reasons
        )
    if factor <= NOISE_FACTOR and not known.alternatives:
        reasons = tuple(cautions(measured, known))
        return _verdict("noise", f"explained to the noise ({factor:.2f} ×){proof}", reasons, figures, beware=reasons)
    reasons = (*causes(measured, known), *spread_causes(measured, train, heldout, known))
    if not reasons:
        reasons = (unknown(known),)
    lead = f"explained to {factor:.3g} × the noise{proof}"
    further = tuple(cautions(measured, known))
    return _verdict("above_noise", lead, (*reasons, *further), figures, likely=reasons)


def _verdict(
    kind: str,
    lead: str,
    reasons: tuple[Reason, ...],
    figures: dict[str, float],
    *,
    likely: tuple[Reason, ...] = (),
    beware: tuple[Reason, ...] = (),
) -> Verdict:
    """The line: what came out, why most likely (two causes at most), and what to do first."""
    sentence = lead
    if likely and likely[0].name == "unknown":
        sentence += f"; no cause was found ({likely[0].text})"
    elif likely:
        sentence += ", likely because " + "; and ".join(reason.text for reason in likely[:2])
    if beware:
        sentence += "; but " + "; and ".join(reason.text for reason in beware[:2])
    advice = tuple(dict.fromkeys(reason.advice for reason in (*likely, *reasons) if reason.advice))
    said = [reason.advice for reason in (*(likely or reasons[:1]), *beware) if reason.advice]
    if said and said[0] not in sentence:
        sentence += f". {said[0][0].upper()}{said[0][1:]}"
    return Verdict(kind=kind, sentence=sentence, reasons=reasons, advice=advice, figures=figures)


def _figures(measured: Measured, train: Figures, heldout: Figures | None) -> dict[str, float]:
    judge, _ = judge_of(measured)
    residual = measured.residual
    return {
        "noise_factor": noise_factor(train, heldout),
        "train_deviance": train.deviance,
        "heldout_deviance": math.nan if heldout is None else heldout.deviance,
        "foretold_share": foretold_share(measured),
        "foretold_sigma": judge.foretold / judge.sd if judge.sd > 0 else math.nan,
        "comes_true_share": judge.foretold / judge.predicted if judge.predicted > 0 else math.nan,
        "judged_frames": float(judge.n_frames),
        "frames_differ_by": math.sqrt(max(measured.unlikeness, 0.0)),
        "frames_differ_sigma": measured.unlikeness / measured.unlikeness_sd,
        "contrast_amplitude": measured.contrast_amplitude,
        "contrast_phase_rad": measured.contrast_phase_rad,
        "contrast_noise": measured.contrast_noise,
        "overlap": measured.overlap,
        "holes": measured.holes,
        "probe_likeness": measured.probe_likeness,
        "fixed_share": residual.fixed_share,
        "intensity_spread": residual.intensity_spread,
        "few_frames_share": residual.few_frames_share,
        "whiteness": residual.whiteness,
    }


def _proof(measured: Measured, known: Circumstances) -> str:
    """What the held-out frames say for an image, in words."""
    judge, _ = judge_of(measured)
    share = foretold_share(measured)
    if measured.heldout is None or not judge.n_frames:
        return ", though no held-out frame proves it"
    if math.isnan(share):
        return ""
    return f", and it predicts {percent(min(max(share, 0.0), 1.0))} of how {known.judges} differ"


def _no_image(measured: Measured) -> Reason | None:
    """Why it is no image, or None where it may be one."""
    n = measured.covered + measured.uncovered + measured.apart
    if alike(measured) and not foretells_unseen(measured):
        return _nothing_there(measured)
    apart = measured.overlap < OVERLAPPING
    # one or two frames are easily those at the rim of a small scan
    if measured.uncovered > n / 2 and (apart or measured.uncovered >= LEAST_UNCOVERED):
        step = (1 - measured.overlap) * measured.diameter_px
        return Reason(
            name="no_overlap",
            text=(
                f"{'frames do not overlap' if apart else 'the probe lights too little for frames to overlap'}: "
                f"{measured.uncovered} of {n} held-out frames lie where others have hardly lit the object (the probe "
                f"is {measured.diameter_px:.3g} pixels wide, a step {step:.3g})"
            ),
            figure=measured.overlap,
            advice="check the unit of the positions, the pixel size and the probe" if apart else PROBE_ADVICE,
        )
    if foretells_little(measured):
        share = max(foretold_at_most(measured), 0.0)
        where = "held-out frames" if judge_of(measured)[0] is measured.heldout else "its own frames"
        return Reason(
            name="not_foretold",
            text=(
                f"it predicts only {percent(share)} of how {where} differ: frames do not follow the positions as they "
                "were read"
                if share < FORETOLD / 2
                else f"it predicts only {percent(share)} of how {where} differ"
            ),
            figure=share,
            advice="try --orientation auto, then --probe auto, and check the unit of the positions",
        )
    return None


def _nothing_there(measured: Measured) -> Reason | None:
    """What it means that all frames are alike; None where it is too dark to say."""
    even, differing = visible(measured.evenness_sd), visible(measured.unlikeness_sd)
    if measured.evenness <= SEEN * measured.evenness_sd and even < PATTERNED:
        return Reason(
            name="even_noise",
            text=(
                f"the frames are noise: all are alike, and their mean is even over the detector to {percent(even)}, "
                "without a diffraction pattern"
            ),
            figure=even,
            advice="check that the right dataset was read, and that the shutter was open",
        )
    if differing >= SPARSE:
        return None
    return Reason(
        name="frames_alike",
        text=(
            f"all frames are alike to the noise, and {percent(differing)} would have been seen: an empty beam, a "
            "sample without contrast, or too little light for it"
        ),
        figure=differing,
        advice="look whether the sample was in the beam, and count longer if it was",
    )
