"""The part of a report that says what is resolved: ring correlations, of halves of the frames or against a truth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..data.run import Run
from .parts import NOT_DEFINED, captioned, card, decibels, length, table

if TYPE_CHECKING:
    from ..data.findings import Comparison, FourierRingCorrelation

__all__ = ["comparison_rows", "resolution", "resolution_rows", "resolution_section"]


def _known(value: float, text: str) -> str:
    return text if math.isfinite(value) else NOT_DEFINED


def _psnr(value: float, peak: str) -> str:
    """A PSNR, with the peak that it is of, where there is one."""
    return decibels(value) + (f", peak {peak}" if math.isfinite(value) else "")


def resolution(curve: FourierRingCorrelation, cutoff: float, pixel_size_m: float | None) -> str:
    """Half-period resolution at a cut-off of a ring correlation, in words."""
    half_period = curve.half_period_px(cutoff)
    if math.isinf(half_period):
        return "nothing resolved"
    text = f"{half_period:.2f} px"
    if pixel_size_m is not None:
        text += f" = {length(half_period * pixel_size_m)}"
    if cutoff >= curve.frequency[-1]:
        text += ", the limit of the pixels: it never falls so far"
    return text


def resolution_rows(curve: FourierRingCorrelation, pixel_size_m: float | None) -> list[tuple[str, str]]:
    """Half-period resolution at each threshold, the half-bit first: it knows how many pixels a ring has."""
    cutoffs = (
        ("the half-bit curve", curve.cutoff_half_bit),
        ("1/7", curve.cutoff_one_seventh),
        ("½", curve.cutoff_half),
    )
    return [(f"Half period where FRC falls to {name}", resolution(curve, cut, pixel_size_m)) for name, cut in cutoffs]


def comparison_rows(c: Comparison, pixel_size_m: float | None) -> list[tuple[str, str]]:
    """Scores against a truth, in words."""
    return [
        ("Amplitude PSNR", _psnr(c.amplitude_psnr_db, f"{c.amplitude_peak:.3g}")),
        ("Phase PSNR", _psnr(c.phase_psnr_db, f"{c.phase_peak_rad:.3g} rad")),
        ("Amplitude SSIM", _known(c.amplitude_ssim, f"{c.amplitude_ssim:.4f}")),
        ("Phase SSIM", _known(c.phase_ssim, f"{c.phase_ssim:.4f}")),
        ("Complex correlation, mean removed", _known(c.correlation, f"{c.correlation:.4f}")),
        *resolution_rows(c.frc, pixel_size_m),
        ("Shift undone", f"y {c.shift_px[0]:+.2f}, x {c.shift_px[1]:+.2f} px"),
        ("Phase ramp undone", f"y {c.ramp_rad_per_px[0]:+.2g}, x {c.ramp_rad_per_px[1]:+.2g} rad/px"),
        ("Pixels compared", f"{c.n_pixels:,}"),
    ]


def _halves(run: Run) -> str:
    """What two halves of the frames have in common, for what both have wrong agrees in both."""
    n = len(run.scan.used_frames)
    own = "each refined by itself" if run.refined is not None else "each solved by itself"
    return (
        f"Each half has {n // 2} of the {n} used frames, drawn at random, and no frame is in both; they were {own}. "
        "They share the probe that they began with, the positions as they were read, the pixels of the detector and "
        "the settings. An error of those is in both images alike, and no ring correlation shows it."
    )


def resolution_section(run: Run, images: Mapping[str, bytes]) -> str:
    """Scores against the truth and ring correlations, as far as there are any; empty without."""
    pixel_size_m, score, halves = run.scan.raw.geometry.pixel_size_m, run.result.comparison, run.result.half_data_frc
    if score is None and halves is None:
        return ""
    tables, what = "", []
    if halves is not None:
        tables += card("Half against half of the frames", table(resolution_rows(halves, pixel_size_m)))
        what.append("between images from half of the frames each")
    if score is not None:
        tables += card("Against the truth", table(comparison_rows(score, pixel_size_m)))
        what.append("with the truth")
    caption = (
        f"How well spatial frequencies agree {' and '.join(what)}. A dot is where a curve meets the half-bit one. "
    )
    caption += _halves(run) if halves is not None else "Against a truth ½ is the customary threshold."
    curves = captioned(images, "frc.png", "Fourier ring correlation", caption)
    return f"<h2>Resolution</h2><div class='grid'><div class='stack'>{tables}</div>{curves}</div>"
