"""The checks of an inspection: each looks at one thing and returns what it found, in sentences with figures.

A finding is *grave*, and refuses a run, only where an image could mean nothing. The rules, each stated again at its
check: pixels that hold one nonsense value in every frame and a fifth of all counts; values cut off at the highest one
that are half of all counts; a mask that leaves less than 1 % of the pixels; zero frequency at the corner beyond doubt;
a near-field scan whose geometry is known; nine tenths of the frames without a neighbour to overlap with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from ..data.raw import RawData
from ..data.roles import outlying_frames
from ..errors import DataError
from ..io.centre import estimate_centre
from ..io.far_field import FEW_PX, MOST_PX, ShadowMotion, check_propagation, instrument, measure_shadow_motion
from ..io.measurement import guess_measurement
from ..io.shadow_axes import axes_of_shadow
from ..physics.forward import mode_intensity
from ..physics.propagation import fresnel_number_of, propagate, wavelength_m
from ..text import counted
from .facts import Facts
from .finding import DESPITE_FINDINGS, Finding, grave, some
from .pixel_checks import check_lines, check_pixels, check_stuck

__all__ = ["CHECKS", "DESPITE_FINDINGS", "Finding"]

_LEAST_FRAMES = 5  # of fewer no frame is held out, and each pixel of the object is seen a few times at most
_GROUPS_ASKED = 256  # totals that several frames share, of which the frames are read once more
_TELLING_PIXELS = 16  # with light, of which fewer are the same by chance


def _frame_names(raw: RawData, chosen: NDArray[np.bool_]) -> str:
    return some(raw.frame_numbers[chosen])


def _are(chosen: NDArray[np.bool_]) -> str:
    return "is" if chosen.sum() == 1 else "are"


def check_size(raw: RawData, facts: Facts) -> list[Finding]:
    """How much there is, and how bright; grave where the mask leaves less than 1 % of the pixels."""
    N, mask = raw.side, raw.mask
    bad = 0 if mask is None else int((~mask).sum())
    facts.figures["masked_pixels"] = bad
    out = [
        Finding(
            "ok", f"{counted(raw.n_frames, 'frame')} of {N}×{N}, {facts.figures['mean_counts']:.4g} counts a frame."
        )
    ]
    if raw.looked_at is not None:
        text = f"The scan is large: {raw.n_looked_at} of its {raw.n_frames} frames, spread over it, were looked at."
        out.append(Finding("note", f"{text} What is said of counts and pixels holds for those."))
    text = f"The mask hides {bad} of {N * N} pixels ({bad / (N * N):.1%})."
    if bad > 0.9 * N * N:
        text = f"{text} True means good; is it inverted?"
        out.append(grave(text) if bad > 0.99 * N * N else Finding("warning", text))
    elif bad:
        out.append(Finding("note", text))
    if 1 < raw.n_frames < _LEAST_FRAMES:
        text = f"Only {counted(raw.n_frames, 'frame')}: almost any image fits so few, and good figures prove nothing."
        out.append(Finding("warning", text))
    if facts.figures["mean_counts"] < 1000:
        out.append(Finding("warning", f"Only {facts.figures['mean_counts']:.3g} counts a frame; expect a noisy image."))
    return out


def check_values(raw: RawData, facts: Facts) -> list[Finding]:
    """Counts or amplitudes, by the values."""
    M = raw.n_frames
    chosen = np.arange(M) if raw.looked_at is None else raw.looked_at
    sample = raw.read_counts(chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), 8)).astype(np.int64)])
    stored = np.sqrt(sample) if raw.source.measurement == "amplitude" else sample
    guess = guess_measurement(stored)
    facts.figures["values_look_like"] = guess
    if guess is None:
        text = "By their values frames could be counts or amplitudes: neither they nor their squares are whole numbers."
        return [Finding("note", text)]
    if guess != raw.source.measurement:
        return []  # the reader warned of it already
    why = {"counts": "whole numbers, as counts are", "amplitude": "roots of whole numbers, as amplitudes are"}[guess]
    return [Finding("ok", f"Stored values are {why}; read as {guess}.")]


def check_totals(raw: RawData, facts: Facts) -> list[Finding]:
    """Frames without counts, frames far above all others, and frames that do not fit in by their total."""
    totals = raw.frame_totals
    known = np.isfinite(totals)
    empty, lit = known & (totals == 0), totals[known & (totals > 0)]
    glaring = np.zeros(len(totals), dtype=bool)
    glaring[outlying_frames(totals)] = True
    middle = float(np.median(lit))
    deviation = 1.4826 * float(np.median(np.abs(lit - middle)))
    odd = known & ~empty & ~glaring & (np.abs(totals - middle) > max(6 * deviation, 0.15 * middle))
    facts.figures.update({"zero_count_frames": int(empty.sum()), "outlying_frames": int((odd | glaring).sum())})
    out = []
    if empty.any():
        out.append(
            Finding(
                "warning",
                f"{counted(empty.sum(), 'frame has', 'frames have')} no counts, so {_are(empty)} not used: "
                f"{_frame_names(raw, empty)}.",
            )
        )
    if glaring.any():
        text = (
            f"{counted(glaring.sum(), 'frame has', 'frames have')} {totals[glaring].min():.4g} counts or more, ten "
            f"times as many as any other (median {middle:.4g}), so {_are(glaring)} not used: "
            f"{_frame_names(raw, glaring)}. Leave them out with --frames."
        )
        out.append(Finding("warning", text))
    if odd.any():
        text = (
            f"{counted(odd.sum(), 'frame does', 'frames do')} not fit, with a total far from the median {middle:.4g} "
            f"(from {totals[odd].min():.4g} to {totals[odd].max():.4g}): {_frame_names(raw, odd)}. "
            "Shutter, beam loss or a wrong frame? Look at them, and leave out what is wrong with --frames."
        )
        out.append(Finding("warning", text))
    return out or [Finding("ok", f"Frame totals agree: median {middle:.4g}, spread {deviation / middle:.1%}.")]


def check_repeats(raw: RawData, facts: Facts) -> list[Finding]:
    """Frames that are copies of another one from elsewhere: the noise of light makes no two alike."""
    totals = raw.frame_totals
    known = np.flatnonzero(np.isfinite(totals) & (totals > 0))
    order = known[np.argsort(totals[known], kind="stable")]
    again = np.zeros(len(totals), dtype=bool)
    groups = np.split(order, np.flatnonzero(np.diff(totals[order])) + 1)
    for group in [alike for alike in groups if len(alike) > 1][:_GROUPS_ASKED]:
        first: dict[bytes, int] = {}
        for number in group:
            counts = raw.read_counts(np.array([number]))[0]
            if np.count_nonzero(counts) < _TELLING_PIXELS:
                continue
            other = first.setdefault(sha256(counts.tobytes()).digest(), int(number))
            again[number] = np.abs(raw.positions_px[number] - raw.positions_px[other]).max() > 1e-6
    facts.figures["repeated_frames"] = int(again.sum())
    if not again.any():
        return []
    text = (
        f"{counted(again.sum(), 'frame is a copy', 'frames are copies')}, count by count, of one at another position: "
        f"{_frame_names(raw, again)}. The "
        "detector or its writer repeated them, so they are not of their positions, and frames after them may be "
        "shifted too. Leave them out with --frames."
    )
    return [Finding("warning", text)]


def check_centre(raw: RawData, facts: Facts) -> list[Finding]:
    """Zero frequency at pixel N/2, or at the corner, or elsewhere.

    Grave where the quarter of the frame around its corners has four fifths of the power, and ten times that of the
    quarter around its middle.
    """
    N, mean = raw.side, facts.mean
    if not mean.any():
        return []
    q = N // 4
    middle = float(mean[q : N - q, q : N - q].sum())
    corners = float(np.fft.fftshift(mean)[q : N - q, q : N - q].sum())
    centre = [float((mean * axis).sum() / mean.sum()) for axis in np.mgrid[:N, :N]]
    facts.figures.update({"beam_centre_px": centre, "power_in_corners": corners / float(mean.sum())})
    if corners > 2 * middle:
        text = (
            f"The corners hold {corners / mean.sum():.0%} of the power and the middle {middle / mean.sum():.0%}: zero "
            "frequency seems to sit at the corner. Apply fftshift to every frame before writing the file."
        )
        beyond_doubt = corners > 10 * middle and corners > 0.8 * float(mean.sum())
        return [grave(text) if beyond_doubt else Finding("warning", text)]
    off = math.hypot(centre[0] - N / 2, centre[1] - N / 2)
    where = f"The mean pattern's centre ({centre[0]:.1f}, {centre[1]:.1f}) is {off:.1f} pixels from N/2 = {N / 2:g}"
    if off > max(2.0, 0.06 * N):
        return [Finding("warning", f"{where}. Crop the frames about the beam: --centre auto finds it.")]
    return [Finding("ok", f"{where}.")]


def check_positions(raw: RawData, facts: Facts) -> list[Finding]:
    """Extent, step, duplicates, and overlap by the width of the probe.

    Grave where nine tenths of the frames have no other within N pixels: each would be an image of its own.
    """
    from scipy.spatial import cKDTree

    positions, N = raw.positions_px, raw.side
    extent = np.ptp(positions, axis=0)
    facts.figures["extent_px"] = extent
    if raw.n_frames < 2:
        return [Finding("warning", "One frame only; ptychography needs overlapping frames.")]
    nearest = cKDTree(positions).query(positions, k=2)[0][:, 1]
    twins = nearest < 1e-6
    step = float(np.median(nearest[~twins])) if (~twins).any() else 0.0
    facts.figures.update({"median_step_px": step, "duplicate_positions": int(twins.sum())})
    text = f"Positions span {extent[0]:.1f} × {extent[1]:.1f} px (y × x), median step to the nearest {step:.2f} px."
    out = [Finding("ok", text)]
    if twins.any():
        text = f"{counted(twins.sum(), 'frame shares its', 'frames share their')} position with another: "
        text += f"{_frame_names(raw, twins)}."
        out.append(Finding("warning", f"{text} Repeats, or positions that were not recorded?"))
    alone = nearest > N
    if alone.any():
        text = f"{counted(alone.sum(), 'frame overlaps', 'frames overlap')} with no other: {_frame_names(raw, alone)}."
        lost = f"{text} Are positions in object pixels, as they must be?"
        out.append(grave(lost) if alone.mean() >= 0.9 else Finding("warning", text))
    return out + _overlap(raw, facts, step)


def _overlap(raw: RawData, facts: Facts, step: float) -> list[Finding]:
    if raw.probe is None:
        text = f"No probe, so no estimate of overlap; the median step is {step / raw.side:.0%} of a frame's side."
        return [Finding("note", text)]
    intensity = np.sum(np.abs(raw.probe.astype(np.complex128)) ** 2, axis=0)
    area = float(intensity.sum() ** 2 / np.sum(intensity**2))  # of the uniform disk that is as concentrated
    width = 2 * math.sqrt(area / math.pi)
    overlap = 1 - step / width
    facts.figures.update({"probe_width_px": width, "overlap": overlap})
    text = f"The probe is about {width:.1f} px wide, so neighbours overlap by {max(overlap, 0):.0%} of that."
    if overlap < 0.5:
        return [Finding("warning", f"{text} Below about 60 % the object is poorly determined.")]
    if width > 0.8 * raw.side:
        return [Finding("warning", f"{text} It fills the frame's window; N may be too small for it.")]
    return [Finding("ok", text)]


def check_probe(raw: RawData, facts: Facts) -> list[Finding]:
    """Whether the probe at the detector looks like the mean pattern, and is on the scale of the counts."""
    if raw.probe is None:
        return [Finding("note", "No probe: it will be estimated from the mean pattern, or give --probe FILE.")]
    pattern = mode_intensity(propagate(raw.probe.astype(np.complex128), raw.propagation))
    field = "near field" if raw.propagation.is_near else "far field"
    good = np.ones(pattern.shape, dtype=bool) if raw.mask is None else raw.mask
    level = raw.background if raw.background is not None else np.zeros(pattern.shape)
    good = good & (facts.stuck == 0)
    measured = np.sqrt(np.maximum(facts.mean - level, 0))[good]
    likeness = float(np.corrcoef(np.sqrt(pattern)[good], measured)[0, 1]) if measured.any() else 0.0
    ratio = facts.figures["mean_counts"] / float(pattern.sum())
    facts.figures.update({"probe_likeness": likeness, "counts_per_probe_power": ratio})
    out, beside = [], "" if raw.propagation.is_near else _beside(pattern, good, raw, facts)
    if likeness < 0.7:
        text = f"The probe's {field} correlates only {likeness:.2f} with the mean pattern: a poor or a wrong probe."
        advice = beside or "Refine it (probe_trainable), or check its axes and size."
        out.append(Finding("warning", f"{text} {advice}"))
    elif beside:
        out.append(Finding("warning", f"The probe's {field} correlates {likeness:.2f} with the mean pattern. {beside}"))
    else:
        out.append(Finding("ok", f"The probe's {field} correlates {likeness:.2f} with the mean pattern."))
    if raw.probe_calibrated and not 0.2 < ratio < 1.5:
        text = f"The probe is declared calibrated, but its power is {1 / ratio:.3g} of the mean counts a frame."
        out.append(Finding("warning", f"{text} Declare it uncalibrated, or correct it."))
    elif not 0.8 < ratio < 1.25:
        text = f"The probe is not on the scale of the counts: mean counts are {ratio:.4g} times its power."
        out.append(Finding("note", f"{text} The intensity scale starts there."))
    else:
        out.append(Finding("ok", f"The probe is on the scale of the counts: mean counts are {ratio:.3f} of its power."))
    return out


def _beside(pattern: NDArray[np.float64], good: NDArray[np.bool_], raw: RawData, facts: Facts) -> str:
    """A sentence where the far field of the probe fits the mean pattern much better a pixel or more beside (FIND-5).

    One pixel off is a phase ramp of a whole turn over the window, which a probe that is not refined never loses.
    """
    if not (facts.mean * good).any():
        return ""
    estimate = estimate_centre(facts.mean, good, probe_intensity=pattern)
    (y, x), N = estimate.candidates["probe"], raw.side
    facts.figures["zero_frequency_px"] = [y, x]
    if not estimate.off_the_probe:
        return ""
    return (
        f"It fits {estimate.probe_likeness:.2f} with zero frequency at pixel ({y:.0f}, {x:.0f}) and not ({N // 2}, "
        f"{N // 2}), so one of them is off by a phase ramp: give --centre {y:.0f},{x:.0f}."
    )


def check_geometry(raw: RawData, facts: Facts) -> list[Finding]:
    """What is known of the instrument, and whether it agrees with itself."""
    g = raw.geometry
    known = {k: v for k, v in asdict(g).items() if v is not None and k != "radiation"}
    facts.figures.update(known)
    if not known:
        return [Finding("note", "No geometry in the file: images will be in pixels.")]
    out = [Finding("ok", "Geometry: " + ", ".join(f"{k} = {v:.6g}" for k, v in known.items()) + ".")]
    energy, z, p, pixel = instrument(g)
    if raw.propagation.fresnel_number is not None:
        expected = fresnel_number_of(energy, z, p, p / pixel, g.radiation)
        if abs(expected / raw.propagation.fresnel_number - 1) > 0.01:
            text = f"It is a {raw.propagation}, but that of the geometry, pixel_size · p / (λz), is {expected:.4g}."
            out.append(Finding("warning", f"{text} One of them is wrong."))
        return out
    expected = wavelength_m(energy, g.radiation) * z / (raw.side * p)
    if abs(expected / pixel - 1) > 0.01:
        text = f"pixel_size_m = {pixel:.6g}, but λz/(N p) of the geometry is {expected:.6g} m."
        out.append(Finding("warning", f"{text} If it made the positions, they are wrong by that factor."))
    return out


def check_regime(raw: RawData, facts: Facts) -> list[Finding]:
    """Far field or near field, by how the frames follow the sample; grave where the geometry is known."""
    most_px = MOST_PX if raw.looked_at is None else FEW_PX
    motion = measure_shadow_motion(raw.frames, raw.positions_px, raw.mask, most_px=most_px)
    if (motion is None or not motion.consistent) and raw.propagation.is_near:
        return [Finding("note", f"Read as {raw.propagation}; the frames do not tell whether it is one.")]
    if motion is None or not motion.consistent:
        return [Finding("ok", "Nothing speaks for near field: frames are not one magnified image that moves.")]
    facts.figures.update({"shadow_px_per_object_px": motion.detector_px_per_object_px, "beam_width_px": motion.beam_px})
    try:
        check_propagation(motion, raw.side, raw.geometry, raw.propagation, raw.source.path or "scan")
    except DataError as error:
        # without geometry, positions on a wrong scale look the same
        return [Finding("warning", str(error)) if raw.geometry.distance_m is None else grave(str(error))]
    if along := _other_axes(raw, motion):
        return [Finding("warning", along)]
    if raw.propagation.is_near:
        moved = motion.detector_px_per_object_px
        return [Finding("ok", f"A {raw.propagation}: frames move {moved:.3f} pixels when the beam moves by one.")]
    text = f"A defocused beam, about {motion.beam_px:.0f} of {raw.side} object pixels wide at the sample."
    return [Finding("ok", text)]


def _other_axes(raw: RawData, motion: ShadowMotion) -> str:
    """A sentence where the frames move along other axes than the positions (FIND-4); empty where they agree."""
    axes = axes_of_shadow(raw, motion)
    if axes is None or (axes.orientation == "none" and not axes.turned):
        return ""
    turn = f"--rotate {axes.rotate_deg:.3g} " if axes.turned else ""
    either = "" if raw.propagation.is_near else " (or with a turn by 180° besides)"
    return (
        f"Frames move along other axes than the positions ({axes.agreement:.0%} of the pairs agree): give {turn}"
        f"--orientation {axes.orientation}{either}."
    )


CHECKS: tuple[Callable[[RawData, Facts], list[Finding]], ...] = (
    check_size,
    check_values,
    check_totals,
    check_repeats,
    check_stuck,
    check_pixels,
    check_lines,
    check_centre,
    check_positions,
    check_probe,
    check_geometry,
    check_regime,
)
"""In the order of the report."""
