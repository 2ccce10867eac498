"""What is in a scan, as a page: the mean pattern, positions and beams, counts, bad pixels, findings with their fix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.raw import RawData
from ..text import html_text as escape
from ..text import shell_words
from .canvas import (
    BLANK,
    FAINT,
    FINE_DPI,
    HELDOUT,
    INK,
    TRAIN,
    Picture,
    carry,
    colour_bar,
    framed,
    image_size,
    new_figure,
    place,
    title,
)
from .page import page, written_now
from .parts import captioned, card, humanised, length, table, words
from .values import array_values, curve_values, point_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LookedAt", "inspection_page"]

_LEVELS = {"error": "Error", "warning": "Warning", "note": "Note", "ok": "Good"}
_MOST_GRID = 700
_MOST_DISCS = 20000


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """What an inspection measured on a scan.

    Attributes:
        raw: the scan.
        mean: (N, N) mean counts of each pixel.
        stuck: (N, N) counts of pixels that hold one nonsense value in every frame, else 0.
        at_peak: (N, N) in how many frames each pixel has the largest counts.
        figures: what it found, by name.
    """

    raw: RawData
    mean: NDArray[np.float64]
    stuck: NDArray[np.float64]
    at_peak: NDArray[np.int64]
    figures: Mapping[str, Any]


@Picture
def _mean_figure(seen: LookedAt) -> Figure:
    """Mean counts of each pixel on a log scale, bad pixels blank, with the centre of the beam."""
    import matplotlib
    from matplotlib.colors import LogNorm

    good = np.ones(seen.mean.shape, bool) if seen.raw.mask is None else seen.raw.mask
    shown = np.where(good & (seen.stuck == 0), seen.mean, np.nan)
    known = shown[np.isfinite(shown) & (shown > 0)]
    top = float(known.max()) if known.size else 1.0
    low = max(top * 1e-6, float(np.percentile(known, 1)) if known.size else 0.1)
    figure = new_figure(4.6, 3.95, FINE_DPI)
    axes = place(figure, 0.5, 0.48, 3.1, 3.1)
    colours = matplotlib.colormaps["inferno"].with_extremes(under="black", bad=BLANK)
    filled = np.where(np.isfinite(shown), np.maximum(shown, low / 2), np.nan)
    drawn = axes.imshow(filled, norm=LogNorm(low, max(top, low * 1.01)), cmap=colours, interpolation="nearest")
    centre = seen.figures.get("beam_centre_px")
    if centre is not None and np.isfinite(centre).all():
        axes.plot(centre[1], centre[0], marker="+", color="#7fd1ff", markersize=14, markeredgewidth=1.2)
    axes.set_xlabel("x (detector pixels)", fontsize=9, color=INK)
    axes.set_ylabel("y (detector pixels)", fontsize=9, color=INK)
    title(axes, "Mean pattern")
    colour_bar(figure, drawn, axes, "mean counts", extend="both")
    carry(figure, array_values(axes, shown, "mean", "counts"))
    return figure


def _beams(
    positions: NDArray[np.float64], width: float
) -> tuple[NDArray[np.float64], tuple[float, float, float, float]]:
    """How many beams, taken for discs of a width, lie over each place; and left, right, bottom, top of that map."""
    from scipy.signal import fftconvolve

    low, high = positions.min(axis=0) - width / 2, positions.max(axis=0) + width / 2
    step = max(1.0, float((high - low).max()) / _MOST_GRID)
    shape = tuple(int(n) for n in np.ceil((high - low) / step) + 1)
    centres = np.zeros(shape)
    at = np.clip(np.floor((positions - low) / step + 0.5).astype(int), 0, np.array(shape) - 1)
    np.add.at(centres, (at[:, 0], at[:, 1]), 1)
    radius = width / 2 / step
    r = np.arange(-int(np.ceil(radius)), int(np.ceil(radius)) + 1)
    disc = (r[:, None] ** 2 + r**2 <= radius**2).astype(float)
    beams = np.round(fftconvolve(centres, disc, mode="same"))
    top, left = (float(v) for v in low - step / 2)
    return np.maximum(beams, 0), (left, left + shape[1] * step, top + shape[0] * step, top)


@Picture
def _positions_figure(seen: LookedAt) -> Figure:
    """Frame centres, and how many beams lie over each place where the width of the beam is known."""
    import matplotlib

    positions, width = seen.raw.positions_px, seen.figures.get("probe_width_px")
    span = np.maximum(np.ptp(positions, axis=0), 1.0)
    pad = float(width) if width is not None and np.isfinite(width) else 0.06 * float(span.max())
    across, up = image_size((int(span[0] + pad) + 1, int(span[1] + pad) + 1), 3.05, 4.2)
    figure = new_figure(max(across, 1.6) + 1.6, max(up, 1.0) + 0.95)
    axes = place(figure, 0.65, 0.5, max(across, 1.6), max(up, 1.0))
    carried = None
    if width is not None and np.isfinite(width) and width > 0 and len(positions) <= _MOST_DISCS:
        beams, extent = _beams(positions, float(width))
        colours = matplotlib.colormaps["viridis"]
        drawn = axes.imshow(beams, extent=extent, cmap=colours, vmin=0, aspect="auto", interpolation="nearest")
        colour_bar(figure, drawn, axes, "beams over a place", extend="neither")
        dots: dict[str, Any] = {"c": "black", "alpha": 0.75}
        carried = array_values(axes, beams, "beams")
    else:
        low, high = positions.min(axis=0) - pad / 2, positions.max(axis=0) + pad / 2
        axes.set(xlim=(low[1], high[1]), ylim=(high[0], low[0]))
        axes.set_facecolor("#f4f6f8")
        dots = {"c": TRAIN}
    size = float(np.clip(2400 / len(positions), 0.5, 14))
    axes.scatter(positions[:, 1], positions[:, 0], s=size, linewidths=0, **dots)
    axes.set_xlabel("x (object pixels)", fontsize=9, color=INK)
    axes.set_ylabel("y (object pixels)", fontsize=9, color=INK)
    title(axes, f"{len(positions)} frame centres")
    if carried is None:
        texts = [f"frame {number}" for number in seen.raw.frame_numbers]
        carried = point_values(axes, positions[:, 1], positions[:, 0], texts)
    carry(figure, carried)
    return figure


@Picture
def _counts_figure(seen: LookedAt) -> Figure:
    """Counts of each frame in the order of the scan, and how often each value occurs."""
    totals = seen.raw.frame_totals
    known = np.isfinite(totals)
    frames = np.arange(len(totals))
    figure = new_figure(4.6, 4.5)
    axes = place(figure, 0.85, 2.75, 3.6, 1.35)
    axes.plot(frames[known], totals[known], color=TRAIN, linewidth=0.7, marker="o", markersize=1.6)
    dark = known & (totals == 0)
    if dark.any():
        axes.plot(frames[dark], totals[dark], "x", color=HELDOUT, markersize=5, label=f"no counts ({dark.sum()})")
        axes.legend(fontsize=8, framealpha=0.9, edgecolor="none")
    framed(axes, "frame, in the order of the scan", "counts")
    title(axes, "Counts of each frame")
    carry(figure, curve_values(axes, "frame", {"counts": (frames[known], totals[known])}))
    bars = place(figure, 0.85, 0.5, 3.6, 1.35)
    bars.hist(totals[known], bins=min(60, max(8, int(known.sum() ** 0.5))), color=TRAIN)
    framed(bars, "counts of a frame", "frames")
    for each in (axes, bars):
        each.ticklabel_format(axis="both", style="sci", scilimits=(-3, 5), useMathText=True)
        for offset in (each.xaxis.get_offset_text(), each.yaxis.get_offset_text()):
            offset.set_fontsize(8)
    return figure


@Picture
def _mask_figure(seen: LookedAt) -> Figure:
    """Which pixels are used: masked ones, those that hold one value, and those that reach the largest counts often."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    kinds = ("used", "masked", "stuck at one value")
    colours = ("#dfe6ee", INK, HELDOUT)
    shown = np.zeros(seen.mean.shape, np.int64)
    if seen.raw.mask is not None:
        shown[~seen.raw.mask] = 1
    shown[seen.stuck > 0] = 2
    figure = new_figure(4.6, 4.15, FINE_DPI)
    axes = place(figure, 0.55, 0.48, 3.1, 3.1)
    axes.imshow(shown, cmap=ListedColormap(list(colours)), vmin=-0.5, vmax=2.5, interpolation="nearest")
    axes.set_xlabel("x (detector pixels)", fontsize=9, color=INK)
    axes.set_ylabel("y (detector pixels)", fontsize=9, color=INK)
    title(axes, "Pixels of the detector")
    patches = [
        Patch(facecolor=colour, edgecolor=FAINT, linewidth=0.5, label=f"{name}\n({int((shown == i).sum())})")
        for i, (name, colour) in enumerate(zip(kinds, colours, strict=True))
        if i == 0 or (shown == i).any()
    ]
    axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    return figure


def _drawn(seen: LookedAt) -> dict[str, bytes]:
    """Name → PNG of what could be drawn."""
    drawings: dict[str, Callable[[], bytes]] = {
        "mean": partial(_mean_figure, seen),
        "positions": partial(_positions_figure, seen),
        "counts": partial(_counts_figure, seen),
        "mask": partial(_mask_figure, seen),
    }
    images = {}
    for name, draw in drawings.items():
        try:
            images[name] = draw()
        except (ValueError, ArithmeticError, IndexError):  # of a scan with nothing to draw; the page says so
            continue
    return images


def _pictures(seen: LookedAt) -> str:
    images, raw = _drawn(seen), seen.raw
    width = seen.figures.get("probe_width_px")
    some = (
        "" if raw.looked_at is None else f" {seen.figures.get('frames_looked_at')} of {raw.n_frames} frames were read."
    )
    beams = (
        "How many beams lie over each place, each taken for a disc as wide as the probe. Places under one beam alone "
        "are not determined by overlap."
        if width is not None
        else "No probe is known, so neither is its width."
    )
    parts = [
        captioned(images, "mean", "Mean pattern", f"Mean counts of each pixel; blank where it is bad.{some}"),
        captioned(images, "positions", "Frame centres and beams over each place", f"{beams} y runs downwards."),
        captioned(images, "counts", "Counts of each frame", "Jumps and slopes are of the source or the shutter."),
        captioned(images, "mask", "Pixels of the detector by use", "Bad pixels take no part in anything."),
    ]
    return f"<h2>What is in it</h2><div class='grid'>{''.join(parts)}</div>"


def _findings(findings: Sequence[Mapping[str, Any]]) -> str:
    order = list(_LEVELS)
    ordered = sorted(findings, key=lambda finding: order.index(str(finding["level"])))
    items = "".join(
        f'<li class="{escape(str(finding["level"]))}"><strong>{_LEVELS[str(finding["level"])]}</strong>'
        f"<span>{words(str(finding['text']))}{_override(finding)}</span></li>"
        for finding in ordered
    )
    return f'<ul class="findings">{items}</ul>'


def _override(finding: Mapping[str, Any]) -> str:
    return words(f" To go on all the same: --{finding['override']}.") if finding.get("override") else ""


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(item)}" for name, item in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_said, value)) or "–"
    return "–" if value is None else str(value)


def inspection_page(mapping: Mapping[str, Any], seen: LookedAt | None, command: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        mapping: an inspection as plain data (``ScanInspection.to_mapping``).
        seen: what was measured, or None of a file that could not be read so far.
        command: words of the command that asked for it, or none.
    """
    findings = mapping["findings"]
    worst = "no-image" if not mapping["usable"] else ""
    problems = sum(finding["level"] == "warning" for finding in findings)
    if not worst and problems:
        worst = "above-noise"
    sentence = "Not usable as it is" if not mapping["usable"] else "Usable"
    if mapping["usable"] and problems:
        sentence += f", with {problems} warning{'s' if problems > 1 else ''} to look at before a result is trusted"
    facts = [("Dialect", mapping["dialect"]), ("Measurement", mapping["measurement"])]
    if mapping["n_frames"] is not None:
        facts.append(("Frames", f"{mapping['n_frames']} of {mapping['side']}×{mapping['side']} pixels"))
        facts.append(("Probe modes", str(mapping["n_probe_modes"]) if mapping["n_probe_modes"] else "no probe"))
    if seen is not None:
        pixel = seen.raw.geometry.pixel_size_m
        facts.append(("Propagation", str(seen.raw.propagation)))
        facts.append(("Object pixel", "size not known" if pixel is None else length(pixel)))
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(str(v or 'not stated'))}</dd></div>" for k, v in facts)
    assumed = "".join(f"<li>{words(text)}</li>" for text in mapping["assumptions"])
    figures = [(humanised(name), _said(value)) for name, value in dict(mapping["facts"]).items()]
    contents = list(dict(mapping["contents"]).items())
    content = (
        f'<section class="verdict {worst}"><strong>{escape(sentence)}.</strong></section>'
        f'<dl class="facts">{cells}</dl><h2>Findings</h2>{_findings(findings)}'
        + (card("Assumed in reading", f'<ul class="notes">{assumed}</ul>') if assumed else "")
        + ("" if seen is None else _pictures(seen))
        + "<h2>In numbers</h2><div class='cards'>"
        + (card("Figures", table(figures)) if figures else "")
        + (card("Arrays in the file", table(contents)) if contents else "")
        + "</div>"
    )
    if command:
        line = shell_words(["ptycho", *command])
        content += card("The command", f'<pre class="command">{words(line)}</pre>')
    footer = "What 'ptycho inspect' measures, and no image of the object. All is inside this file."
    return page(f"Inspection of {_name(mapping)}", f"{mapping['path']} · {written_now()}", content, footer)


def _name(mapping: Mapping[str, Any]) -> str:
    from pathlib import PurePath

    return PurePath(str(mapping["path"])).name or str(mapping["path"])
