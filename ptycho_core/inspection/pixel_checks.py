"""The checks of detector pixels: by the rules that ``--mask auto`` masks by, see ``io.settle.pixels``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..data.raw import RawData
from ..io.settle.pixels import bright_lines, dead_and_hot, is_cut_off
from ..text import counted
from .facts import Facts
from .finding import Finding, grave, pixels_of, some

__all__ = ["check_lines", "check_pixels", "check_stuck", "suspects"]

_MASK = "Mask them: --mask auto, or --mask FILE."


def check_stuck(raw: RawData, facts: Facts) -> list[Finding]:
    """Pixels that hold a nonsense value in every frame: gaps between modules, unmasked.

    They hold one and the same value in every frame, which is the largest of a type (65535, 2³¹−1, 2³²−1 and the like),
    or more than ten times what any pixel that varies has. Grave where a fifth of all counts is in them.
    """
    stuck = facts.stuck > 0
    if not stuck.any():
        return []
    share = float(facts.stuck.sum()) / float(facts.stuck.sum() + facts.mean.sum())
    facts.figures["stuck_share"] = share
    values = some(f"{v:.10g}" for v in np.unique(facts.stuck[stuck]))
    text = (
        f"{counted(stuck.sum(), 'pixel holds', 'pixels hold')} {values} in every frame, {share:.0%} of all counts, as "
        f"files mark gaps, dead and overflown pixels: {pixels_of(stuck)}. They would be fitted as light. {_MASK}"
    )
    return [grave(text) if share >= 0.2 else Finding("warning", text)]


def check_pixels(raw: RawData, facts: Facts) -> list[Finding]:
    """Saturated, dead and hot pixels; grave where half of all counts were cut off at the highest value."""
    n = facts.n_looked_at
    dead, hot, saturated = _defects(raw, facts)
    n_peak = int(facts.at_peak.sum())
    found = {"dead_pixels": dead, "hot_pixels": hot, "saturated_pixels": saturated}
    facts.figures.update({name: int(pixels.sum()) for name, pixels in found.items()})
    out = []
    if saturated.any():
        text = f"{counted(saturated.sum(), 'pixel looks', 'pixels look')} saturated at {facts.peak:.6g} counts"
        text += f" ({counted(n_peak, 'time')})"
        share = n_peak * facts.peak / (n * float(facts.mean.sum()))
        text = f"{text}: {pixels_of(saturated)}. {_MASK}"
        out.append(grave(f"{text} They hold {share:.0%} of all counts.") if share > 0.5 else Finding("warning", text))
    if dead.any():
        text = f"{counted(dead.sum(), 'pixel is', 'pixels are')} 0 amid or beside light, so dead: {pixels_of(dead)}"
        out.append(Finding("warning", f"{text}. {_MASK}"))
    if hot.any():
        text = (
            f"{counted(hot.sum(), 'pixel is', 'pixels are')} hot, steady and far above what is around: {pixels_of(hot)}"
        )
        out.append(Finding("warning", f"{text}. {_MASK}"))
    return out or [Finding("ok", "No saturated, dead or hot pixels.")]


def _defects(raw: RawData, facts: Facts) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Dead, hot and saturated pixels (N, N)."""
    N = raw.side
    good = np.ones((N, N), dtype=bool) if raw.mask is None else raw.mask
    dead, hot = dead_and_hot(facts.pixels, good & (facts.stuck == 0), (N // 2, N // 2))
    return dead, hot, (facts.at_peak > 0) & is_cut_off(facts.peak, int(facts.at_peak.sum()), facts.near_peak)


def suspects(raw: RawData, facts: Facts) -> NDArray[np.bool_]:
    """Pixels (N, N) that are stuck, dead, hot or saturated."""
    return np.asarray(np.any([facts.stuck > 0, *_defects(raw, facts)], axis=0))


def check_lines(raw: RawData, facts: Facts) -> list[Finding]:
    """Rows and columns brighter than their neighbours by one factor, as larger pixels at the border of a chip are.

    A near field is an image of the sample and the beam, in which such lines may be what is there.
    """
    if raw.propagation.is_near:
        return []
    good = np.ones(facts.mean.shape, dtype=bool) if raw.mask is None else raw.mask
    out = []
    for axis, lines in bright_lines(facts.mean, facts.n_looked_at, good & (facts.stuck == 0)).items():
        facts.figures[f"bright_{axis}"] = sorted(lines)
        if lines:
            listed = some(f"{line} ({factor:.2g} times)" for line, factor in sorted(lines.items()))
            out.append(
                Finding(
                    "warning",
                    f"{axis.capitalize()} {listed} are brighter than those beside them by one factor, as larger pixels "
                    f"at the border of a chip are. {_MASK}",
                )
            )
    return out
