"""Images beside each other, as a page: figures, ring correlations, each image on one scale, and where they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.compared import ComparedImage, ComparedImages
from ..physics.gauge import taken_off
from ..text import html_text as escape
from ..text import shell_words
from . import plots
from .canvas import (
    BLANK,
    FINE_DPI,
    Picture,
    carry,
    colour_bar,
    draw_scale_bar,
    image_size,
    new_figure,
    place,
    title,
)
from .page import page, written_now
from .parts import captioned, card, decibels, duration, length, switch, table, words
from .resolution import comparison_rows
from .values import array_values
from .views import LIMITS

__all__ = ["comparison_page", "figures_table", "pairs_table", "why_not_defined"]

_MOST_SIDES = 8
"""Images that the switch of a page holds."""

_MOST_SHOWN_PX = 1400


def _number(value: float | None, form: str) -> str:
    return "–" if value is None or not math.isfinite(value) else format(value, form)


def figures_table(images: tuple[ComparedImage, ...]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Headings and a row for each image of what its file tells of it, columns that nobody fills left out."""

    def half_period(image: ComparedImage) -> str:
        if image.half_period_px is None:
            return "–"
        if not math.isfinite(image.half_period_px):
            return "nothing resolved"
        metres = "" if image.pixel_size_m is None else f" = {length(image.half_period_px * image.pixel_size_m)}"
        return f"{image.half_period_px:.2f} px{metres}"

    columns = {
        "engine": [image.engine or "–" for image in images],
        "deviance": [_number(image.figure("train", "deviance"), ".4g") for image in images],
        "held out": [_number(image.figure("heldout", "deviance"), ".4g") for image in images],
        "R-factor": [_number(image.figure("train", "r_factor"), ".4f") for image in images],
        "Fourier error": [_number(image.figure("train", "fourier_error"), ".5f") for image in images],
        "half period, half-bit": [half_period(image) for image in images],
        "time": ["–" if image.seconds is None else duration(image.seconds) for image in images],
    }
    known = {name: texts for name, texts in columns.items() if any(text != "–" for text in texts)}
    rows = [(image.name, *(texts[i] for texts in known.values())) for i, image in enumerate(images)]
    return ["image", *known], rows if known else []


def pairs_table(compared: ComparedImages) -> tuple[list[str], list[tuple[str, ...]]]:
    """Headings and a row for each pair of images: correlation, and the half period up to which they agree."""
    rows: list[tuple[str, ...]] = []
    for (i, j), score in compared.pairs.items():
        half = score.frc.half_period_px(score.frc.cutoff_half_bit)
        agree = f"{half:.2f} px" if math.isfinite(half) else "nowhere"
        names = compared.images[i].name, compared.images[j].name
        rows.append((*names, f"{score.correlation:.4f}", decibels(score.phase_psnr_db), agree))
    return ["image", "and", "correlation", "phase PSNR", "agree to (half period, half-bit)"], rows


def why_not_defined(compared: ComparedImages) -> list[str]:
    """Why scores are not defined, one sentence each; none where all are."""
    scores = [*(score for score in compared.scores if score is not None), *compared.pairs.values()]
    named = {
        "amplitude": [(score.amplitude_psnr_db, score.amplitude_ssim) for score in scores],
        "phase": [(score.phase_psnr_db, score.phase_ssim) for score in scores],
    }
    return [
        f"scores of the {what} need contrast, and what an image is compared with has one and the same {what} where "
        "both are known"
        for what, pairs in named.items()
        if any(math.isnan(psnr) for psnr, _ in pairs)
    ] + (
        ["SSIM needs a window of 7 × 7 pixels that both images know"]
        if any(math.isnan(ssim) and not math.isnan(psnr) for pairs in named.values() for psnr, ssim in pairs)
        else []
    )


@dataclass(frozen=True)
class _Shown:
    """Images on the reference's pixels, as they are drawn: (h, w) complex, NaN outside the region of all."""

    images: Mapping[str, NDArray[np.complex64]]
    reference: NDArray[np.complex64]
    step_px: int
    pixel_size_m: float | None


def _shown(compared: ComparedImages) -> _Shown | None:
    """Crop to the box that all have in common, and take off the reference's global phase and ramp."""
    found = {
        image.name: made
        for image, made in zip(compared.images, compared.aligned, strict=True)
        if made is not None and image is not compared.reference
    }
    if not found or compared.reference_object is None:
        return None
    region = np.all([np.isfinite(made) for made in found.values()], axis=0)
    if not region.any():
        return None
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    step = max(1, -(-max(box[0].stop - box[0].start, box[1].stop - box[1].start) // _MOST_SHOWN_PX))
    thin = (slice(box[0].start, box[0].stop, step), slice(box[1].start, box[1].stop, step))
    off = taken_off(np.where(region, compared.reference_object, 0), region.astype(np.float32))
    flat = np.conj(off.wave(compared.reference_object.shape))[thin]
    known = region[thin]

    def ready(obj: NDArray[np.complex64]) -> NDArray[np.complex64]:
        return np.where(known, obj[thin] * flat, np.nan).astype(np.complex64)

    images = {name: ready(made) for name, made in found.items()}
    return _Shown(images, ready(compared.reference_object), step, compared.reference.pixel_size_m)


def _limits(values: list[NDArray[np.float32]], *, signed: bool = False) -> tuple[float, float]:
    known = np.concatenate([value[np.isfinite(value)] for value in values])
    if signed:
        most = max(float(np.percentile(np.abs(known), LIMITS[1])), 1e-6)
        return -most, most
    low, high = (float(v) for v in np.percentile(known, LIMITS))
    return (low, high) if high - low > 1e-6 else (low - 1e-3, high + 1e-3)


@Picture
def _picture(
    values: NDArray[np.float32],
    limits: tuple[float, float],
    heading: str,
    label: str,
    cmap: str,
    step_px: int,
    pixel_size_m: float | None,
) -> Any:
    import matplotlib

    across, up = image_size(values.shape, 3.5, 4.4)
    figure = new_figure(max(across + 1.15, 3.2), up + 0.5, FINE_DPI)
    axes = place(figure, 0.12, 0.12, across, up)
    colours = matplotlib.colormaps[cmap].with_extremes(bad=BLANK)
    drawn = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    title(axes, heading)
    draw_scale_bar(axes, (across, up), values.shape[1] * step_px, pixel_size_m)
    colour_bar(figure, drawn, axes, label, extend="both")
    name, _, unit = label.partition(" (")
    carry(figure, array_values(axes, values, name, unit.rstrip(")")))
    return figure


def _angle(z: NDArray[np.complex64]) -> NDArray[np.float32]:
    return np.asarray(np.angle(z), np.float32)


def _sides(compared: ComparedImages, shown: _Shown) -> tuple[str, str]:
    """The images in turn on one scale, and their differences from the reference in turn on another."""
    reference = f"{'the truth' if compared.is_truth else 'the reference'}: {compared.reference.name}"
    everything = dict(list(shown.images.items())[: _MOST_SIDES - 1]) | {reference: shown.reference}
    phases = {name: _angle(z) for name, z in everything.items()}
    amplitudes = {name: np.abs(z).astype(np.float32) for name, z in everything.items()}
    scales = _limits(list(phases.values())), _limits(list(amplitudes.values()))
    how = (shown.step_px, shown.pixel_size_m)
    same = "Each with the reference's global phase, ramp and scale, all on one grey scale."
    images = []
    for name in everything:
        pictures = {
            "phase": _picture(phases[name], scales[0], "Phase", "phase (rad)", "gray", *how),
            "amplitude": _picture(amplitudes[name], scales[1], "Amplitude", "amplitude", "gray", *how),
        }
        images.append((name, _pair(pictures, name, same)))
    others = [name for name in everything if name != reference]
    turns = {name: _angle(everything[name] * np.conj(shown.reference)) for name in others}
    excess = {name: amplitudes[name] - amplitudes[reference] for name in others}
    ends = _limits(list(turns.values()), signed=True), _limits(list(excess.values()), signed=True)
    differences = []
    for name in others:
        pictures = {
            "phase": _picture(turns[name], ends[0], "Difference of phase", "phase (rad)", "RdBu_r", *how),
            "amplitude": _picture(excess[name], ends[1], "Difference of amplitude", "amplitude", "RdBu_r", *how),
        }
        text = "The image less the reference, after alignment; the phase as the angle of their quotient."
        differences.append((name, _pair(pictures, f"{name} less {compared.reference.name}", text)))
    return switch("image", images), switch("difference", differences)


def _pair(pictures: Mapping[str, bytes], name: str, caption: str) -> str:
    parts = (captioned(pictures, what, f"{what} of {name}", caption, "large") for what in pictures)
    return f'<div class="grid">{"".join(parts)}</div>'


def comparison_page(compared: ComparedImages, command: tuple[str, ...] = ()) -> str:
    """The whole page.

    Args:
        compared: the images and their scores.
        command: words of the command that asked for it, or none.
    """
    against = "the truth" if compared.is_truth else "the last of them"
    heads, rows = figures_table(compared.images)
    content = card("What the files tell", table(rows, heads)) if rows else ""
    if compared.reasons:
        items = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in compared.reasons.items())
        content += f'<aside class="warnings"><strong>Not scored</strong><ul>{items}</ul></aside>'
    scored = [(i, s) for i, s in zip(compared.images, compared.scores, strict=True) if s is not None]
    by_name = [(image.name, dict(comparison_rows(score, compared.reference.pixel_size_m))) for image, score in scored]
    lines = [(name, *(column[name] for _, column in by_name)) for name in by_name[0][1]] if by_name else []
    content += f"<h2>Against {escape(against)}: {escape(compared.reference.name)}</h2>"
    content += card("Scores", table(lines, ["figure", *(name for name, _ in by_name)]))
    if compared.pairs:
        pair_heads, pair_rows = pairs_table(compared)
        content += card("Each against each", table(pair_rows, pair_heads))
    undefined = "".join(f"<li>{escape(text)}.</li>" for text in why_not_defined(compared))
    content += card("Not defined", f'<ul class="notes">{undefined}</ul>') if undefined else ""
    shown = _shown(compared)
    if shown is not None:
        images, differences = _sides(compared, shown)
        content += f"<h2>The images</h2>{images}<h2>Where they differ from {escape(against)}</h2>{differences}"
    curves = {image.name: score.frc for image, score in scored}
    if curves:
        drawn = {"frc": plots.frc_figure(curves, compared.reference.pixel_size_m)}
        text = (
            f"How well spatial frequencies agree with {against}. A dot is where a curve meets the half-bit one. "
            "Images of one scan share its noise: their agreement says how alike they are, not how true."
        )
        if compared.is_truth:
            text = "How well spatial frequencies agree with the truth, for which ½ is the customary threshold."
        curve = captioned(drawn, "frc", "Fourier ring correlation", text)
        content += f'<h2>Resolution</h2><div class="grid">{curve}</div>'
    if command:
        line = shell_words(["ptycho", *command])
        content += f"<h2>How it was made</h2>{card('The command', f'<pre class=command>{words(line)}</pre>')}"
    names = ", ".join(image.name for image in compared.images)
    footer = "Images and numbers are all inside this file; comparison.json beside it has the numbers for programs."
    return page(f"Comparison of {len(compared.images)} images", f"{names} · {written_now()}", content, footer)
