"""Why an image is not better than it is: what trials found, what is plain to see, and how the rest is spread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..data.verdict import Reason
from ..physics.merit import Figures
from .judging import FORETOLD, OVERFITTED, foretells, judge_of, noise_factor, percent, too_dark, uncounted
from .measured import Measured

__all__ = [
    "OVERLAPPING",
    "PROBE_ADVICE",
    "Alternative",
    "Circumstances",
    "causes",
    "cautions",
    "spread_causes",
    "unknown",
]

WHITE = 0.05
"""Correlation of what is left with that of the next pixel below which it is as grainy as noise; speckles give more."""

GAIN = 3.0
"""Variance over mean, the same where few counts are expected and where many are, that makes values out to be no counts.
A misfit of the model grows with the counts; a photon that stands for more than one unit does not."""

LIKE_FLAT = 1.5
"""Times the contrast that noise makes of an empty field, below which an image has none of its own."""

FIXED = 0.3
"""Part of the misfit that must be the same in every frame to be named."""

INTENSITY = 0.05
"""Part of the misfit that must be a factor of each frame; the object takes up most of such a factor."""

FEW = 0.5
"""Part of the misfit that must lie in a twentieth of the frames."""

SLIPPED, SURE = 1.7, 8.0
"""Times worse that frames after a point of the scan are explained than those before, and standard errors of it, to name
the point: an honest scan whose sample changes along it has 1.25, one with a frame lost on its way 3.7 by 19."""

DEFICIT, AT_PEAK, PEAK = 0.05, 8, 100
"""What makes saturation: so much missing where most is expected, and so many samples at the same largest count."""

LIMITED = 0.1
"""Part of the positions stopped at their limit that is too many."""

CHANGED = 0.5
"""Correlation of a probe with the one begun with, at its best shift, below which it is another."""

HOLES = 0.02
"""Part of the scanned field that may be hardly lit."""

OVERLAPPING = 0.2
"""Overlap below which frames share so little that the steps are to blame, and not the probe."""

PROBE_ADVICE = "give a better probe (--probe)"

_HOLES_ADVICE = "scan in finer steps, or solve separate fields by themselves (--frames)"
_GAIN_ADVICE = "give the stored value of one photon (--gain auto or a number)"


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """What a trial found that explains held-out frames better than what was used.

    Attributes:
        name: ``pixels``, ``orientation``, ``probe`` or ``samples``.
        words: a clause: what is likely the matter.
        option: what explains the frames better.
        advice: what to do, with the option.
        figure: Fourier error of held-out frames with it.
        beside: the same with what was used, by a trial of the same length.
    """

    name: str
    words: str
    option: str
    advice: str
    figure: float
    beside: float


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What else is known of a run; all of it may be left out.

    Attributes:
        alternatives: what trials found.
        stats: ``Image.stats`` of what refining made.
        positions_at_limit: part of the positions that were stopped at their limit, or None where none were refined.
        half_data_cutoff: cycles per pixel up to which images of two halves of the frames agree, or None.
        refined: whether an image was refined with trials of modes and positions.
        validated: whether held-out frames have chosen anything, such as when to stop: then they are a validation.
        searched: what trials were made of without finding anything better, as words.
    """

    alternatives: tuple[Alternative, ...] = ()
    stats: Mapping[str, Any] = field(default_factory=dict)
    positions_at_limit: float | None = None
    half_data_cutoff: float | None = None
    refined: bool = False
    validated: bool = False
    searched: tuple[str, ...] = ()

    @property
    def judges(self) -> str:
        """What held-out frames are to be called."""
        return "validation frames" if self.validated else "held-out frames"


def causes(measured: Measured, known: Circumstances) -> tuple[Reason, ...]:
    """What the matter is with positions, probe or sample: what trials found, and what is plain to see."""
    found = [
        Reason(
            name=other.name,
            text=f"{other.words}: {other.option} explains held-out frames at {other.figure:.4f} instead of "
            f"{other.beside:.4f}",
            figure=other.figure,
            advice=other.advice,
        )
        for other in known.alternatives
    ]
    if measured.overlap > 0.5 and measured.extent_px < measured.diameter_px / 2:
        found.append(
            Reason(
                name="one_place",
                text=f"all positions lie within {measured.extent_px:.3g} pixels, and the probe is "
                f"{measured.diameter_px:.3g} wide",
                figure=measured.extent_px,
                advice="check the unit of the positions and the pixel size",
            )
        )
    if measured.probe_likeness < CHANGED:
        found.append(
            Reason(
                name="probe_changed",
                text=f"the probe had to change beyond recognition (correlation {measured.probe_likeness:.2f} with the "
                "one begun with)",
                figure=measured.probe_likeness,
                advice=PROBE_ADVICE,
            )
        )
    return tuple(found)


def spread_causes(measured: Measured, train: Figures, heldout: Figures | None, known: Circumstances) -> list[Reason]:
    """Causes by how what is left is spread over pixels, frames and counts, the largest share first."""
    residual, found = measured.residual, list[tuple[float, Reason]]()

    def add(weight: float, name: str, text: str, figure: float, advice: str = "") -> None:
        found.append((weight, Reason(name=name, text=text, figure=figure, advice=advice)))

    if uncounted(measured):
        text = "values vary far less than counts of photons would, so that the noise is not known"
        add(9, "no_counts", text, measured.unlikeness, _GAIN_ADVICE)
        return [reason for _, reason in found]
    factor = noise_factor(train, heldout)
    few, many = residual.dispersion
    if abs(residual.whiteness) < WHITE and few > GAIN and 0.6 < many / few < 1.6:
        text = f"what is left is as grainy as noise, only {factor:.2g} times as large: the values may be no counts"
        add(1, "gain", text, factor, _GAIN_ADVICE)
    if residual.bright_deficit > DEFICIT and residual.at_peak >= AT_PEAK and residual.peak >= PEAK:
        text = f"{residual.at_peak} samples stand at the highest count {residual.peak:.0f}: the detector saturates"
        add(0.9, "saturation", text, float(residual.at_peak), "mask what is saturated (--mask)")
    if residual.fixed_share > FIXED:
        where = "few pixels" if residual.fixed_in_few > 0.5 else "the same places of the detector"
        text = f"{percent(residual.fixed_share)} of the misfit lies in {where} in every frame"
        advice = (
            "mask bad pixels (--mask)"
            if residual.fixed_in_few > 0.5
            else "give the background (--background) or a mask (--mask)"
        )
        add(residual.fixed_share, "fixed_pattern", text, residual.fixed_share, advice)
    if residual.floor_counts > 0.1:
        text = f"an even background of {residual.floor_counts:.3g} counts a pixel lies under all frames"
        add(0.8, "background", text, residual.floor_counts, "take it off (--background)")
    if residual.intensity_share > INTENSITY:
        text = f"the intensity differs by {percent(residual.intensity_spread)} from frame to frame beyond counting"
        advice = "fit an intensity for each frame (--refinement.frame_scale)"
        add(max(residual.intensity_share, 0.45), "intensity", text, residual.intensity_spread, advice)
    worse = max(residual.step_factor, 1 / residual.step_factor)
    if worse > SLIPPED and residual.step_sigma > SURE:
        at = residual.step_frame
        side, other = ("from", "before") if residual.step_factor > 1 else ("before", "from")
        text = (
            f"frames {side} about number {at} are explained {worse:.2g} times worse than those {other} it: one may be "
            "lost or doubled there, or the sample moved"
        )
        part = f"0:{at}" if residual.step_factor > 1 else f"{at}:"
        advice = f"compare frames with positions from there, or solve the good part by itself (--frames {part})"
        add(0.95, "slipped", text, worse, advice)
    if residual.few_frames_share > FEW:
        some = ", ".join(map(str, residual.worst_frames[:4]))
        text = f"{percent(residual.few_frames_share)} of the misfit lies in a twentieth of the frames ({some}, …)"
        add(
            residual.few_frames_share,
            "few_frames",
            text,
            residual.few_frames_share,
            "look at these frames, and leave bad ones out (--frames)",
        )
    if known.positions_at_limit is not None and known.positions_at_limit > LIMITED:
        text = f"{percent(known.positions_at_limit)} of the positions were stopped at their limit"
        add(0.5, "positions_at_limit", text, known.positions_at_limit, "raise --refinement.position_limit_px")
    found += [(0.4, reason) for reason in _overfitting(measured, train, heldout)]
    found += [(0.3, reason) for reason in _coherence(known)]
    return [reason for _, reason in sorted(found, key=lambda pair: -pair[0])]


def _overfitting(measured: Measured, train: Figures, heldout: Figures | None) -> list[Reason]:
    """Frames that were not seen are explained much worse than those that were; or some of them are."""
    judge = measured.heldout
    if heldout is None or judge is None or heldout.deviance < OVERFITTED * train.deviance:
        return []
    if judge.usual_deviance < OVERFITTED * train.deviance:
        text = (
            f"single held-out frames are far off (deviance {heldout.deviance:.3g} in the mean, "
            f"{judge.usual_deviance:.3g} in the median), as at the rim of a scan"
        )
        return [Reason(name="few_heldout", text=text, figure=heldout.deviance, advice="")]
    ratio = heldout.deviance / max(train.deviance, 1e-3)
    why = (
        f"neighbours overlap by {percent(measured.overlap)} only"
        if measured.overlap < 0.6
        else "the frames are too few"
    )
    text = f"{why}: held-out ones are explained {ratio:.2g} times worse than those that the image was made of"
    return [Reason(name="overfitted", text=text, figure=ratio, advice="scan in finer steps, or more frames")]


def _coherence(known: Circumstances) -> list[Reason]:
    """Modes: taken up, or never tried."""
    modes, stats = int(known.stats.get("took_up_modes", 0)), known.stats
    last = max((n for n in range(2, 13) if f"tried_mode_{n}_gain" in stats), default=0)
    paid = last and stats[f"tried_mode_{last}_gain"] > stats[f"tried_mode_{last}_gain_needed"]
    if modes and paid:
        words = "a second mode" if modes == 1 else f"{modes} extra modes"
        return [
            Reason(
                name="partial_coherence",
                text=f"the beam is partly coherent ({words} of the probe made the fit better, and more were not tried)",
                figure=float(modes),
                advice="try more modes (--refinement.probe_modes)",
            )
        ]
    if known.refined:
        return []
    text = "the image was not refined (probe modes and positions are as they were given)"
    return [Reason(name="not_refined", text=text, figure=math.nan, advice="refine it (--refine auto)")]


def unknown(known: Circumstances) -> Reason:
    """What is said where nothing speaks for anything."""
    searched = f"; {', '.join(known.searched)} did no better" if known.searched else ""
    return Reason(
        name="unknown",
        text=f"the misfit shows neither in single pixels nor in single frames{searched}",
        figure=math.nan,
        advice="try --preset best, more modes, or a better probe",
    )


def cautions(measured: Measured, known: Circumstances) -> list[Reason]:
    """What to beware of in an image that is explained to the noise."""
    judge, _ = judge_of(measured)
    found = []
    if too_dark(measured):
        text = f"{measured.total_photons:.3g} counts in all are too few to tell an image from none"
        found.append(Reason(name="too_dark", text=text, figure=measured.total_photons, advice="count longer"))
    elif judge is measured.heldout and judge.predicted > 0 and judge.foretold < FORETOLD * judge.predicted:
        share = judge.foretold / judge.predicted
        text = f"only {percent(share)} of its detail is confirmed by held-out frames, the rest is noise"
        found.append(
            Reason(name="noisy", text=text, figure=share, advice="count longer, or run fewer epochs (--epochs)")
        )
    elif judge is measured.training and not foretells(measured):
        text = "without held-out frames it cannot be told from an image of noise"
        found.append(
            Reason(name="unproved", text=text, figure=math.nan, advice="hold frames out (--test_fraction 0.05)")
        )
    contrast = max(measured.contrast_amplitude, measured.contrast_phase_rad)
    if contrast < LIKE_FLAT * measured.contrast_noise and not too_dark(measured):
        text = f"its contrast ({percent(contrast)}) is no more than noise makes of an empty field"
        found.append(Reason(name="no_contrast", text=text, figure=contrast, advice="compare with a scan of empty beam"))
    if known.half_data_cutoff is not None and known.half_data_cutoff <= 0:
        text = "images made from two halves of the frames do not agree"
        found.append(Reason(name="half_data", text=text, figure=0.0))
    if measured.holes > HOLES:
        text = f"{percent(measured.holes)} of the area within the outline of the positions is hardly lit"
        found.append(Reason(name="holes", text=text, figure=measured.holes, advice=_HOLES_ADVICE))
    return found
