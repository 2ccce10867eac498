"""Curves, maps and patterns of a run, as PNG bytes: what tells whether the picture can be trusted.

The house rules of :mod:`ptycho_core.report.figures` hold here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data.container import Role
from ..data.results import Scored
from .figures import (
    BLANK,
    FAINT,
    HELDOUT,
    INK,
    TRAIN,
    Picture,
    colour_bar,
    drawn_text,
    image_size,
    new_figure,
    place,
    scan_axes,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..data.findings import FourierRingCorrelation

__all__ = ["framed", "frc_figure", "losses_figure", "patterns_figure", "r_map_figure"]

_COLOURS = (TRAIN, HELDOUT, "#3f8f5b", "#7a4fa3", "#8c6d31")


def framed(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Label the axes of a curve, with a grid behind it."""
    axes.set_xlabel(xlabel, fontsize=9, color=INK)
    axes.set_ylabel(ylabel, fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dde3ea", linewidth=0.6)
    axes.set_axisbelow(True)


@Picture
def losses_figure(history: Mapping[str, Sequence[float]]) -> Figure:
    """Every loss of the history against the epoch, on a log scale unless one is not positive."""
    # wide on the left: over less than a decade every tick is labelled, as in 2.3 × 10⁻³
    figure = new_figure(6.8, 3.3)
    axes = place(figure, 1.2, 0.5, 4.3, 2.45)
    title(axes, "Losses")
    framed(axes, "epoch", "loss (per measured count)")
    names = sorted((n for n in history if "loss" in n and len(history[n])), key=lambda n: (n != "train_loss", n))
    curves = {n: np.asarray(history[n], dtype=float) for n in names}
    if not any(np.isfinite(v).any() for v in curves.values()):
        axes.text(0.5, 0.5, "no losses were recorded", transform=axes.transAxes, ha="center", color=FAINT, fontsize=9)
        return figure
    positive = all((v[np.isfinite(v)] > 0).all() for v in curves.values())
    axes.set_yscale("log" if positive else "linear")
    for (name, values), colour in zip(curves.items(), _COLOURS * len(curves), strict=False):
        epochs = np.arange(1, len(values) + 1)
        shown = {"train_loss": "training", "test_loss": "held out"}.get(name, drawn_text(name))
        axes.plot(epochs, values, color=colour, linewidth=1.4, marker="o", markersize=2.5, label=shown)
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(which="both", labelsize=8)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False, borderaxespad=0.0)
    return figure


def _marker_area(scored: Scored, width_in: float) -> float:
    """Area (points²) of a dot about as wide as the mean spacing of the frames, on axes that wide."""
    positions = scored.image.positions_px
    height, width = np.maximum(np.ptp(positions, axis=0), 1.0)
    spacing_px = np.sqrt(height * width / len(positions))
    return float(np.clip((0.9 * 72 * spacing_px * width_in / scored.image.object.shape[1]) ** 2, 2, 200))


@Picture
def r_map_figure(scored: Scored) -> Figure:
    """R-factor of each frame at its place in the scan, and how often each value occurs beside what noise allows."""
    import matplotlib

    r, image = scored.frame_r_factors(), scored.image
    known = np.isfinite(r)
    is_heldout = scored.scan.role == Role.HELDOUT
    ring = known & is_heldout
    across, up = image_size(image.object.shape, 4.2, 5.2)
    figure = new_figure(max(across, 2.4) + 1.75, up + 2.55)
    axes = scan_axes(figure, image, 0.65, 2.0, (across, up))
    axes.set_facecolor("#f4f6f8")
    title(axes, "R-factor of each frame")
    y, x = image.positions_px.T
    low, high = np.percentile(r[known], (1, 99)) if known.any() else (0.0, 1.0)
    size = _marker_area(scored, across)
    colours = matplotlib.colormaps["viridis"]
    dots = axes.scatter(
        x[known], y[known], c=r[known], s=size, cmap=colours, vmin=low, vmax=max(high, low * 1.01 + 1e-12), linewidths=0
    )
    handles = []
    if ring.any():
        rings = axes.scatter(x[ring], y[ring], s=size, facecolors="none", edgecolors=HELDOUT, linewidths=1.1)
        rings.set_label("held out")
        handles.append(rings)
    if not known.all():
        handles.append(axes.scatter(x[~known], y[~known], marker="x", c=INK, s=14, linewidths=0.8, label="not used"))
    if handles:
        axes.legend(handles=handles, loc="lower right", fontsize=7.5, framealpha=0.9)
    colour_bar(figure, dots, axes, "R-factor", extend="both")
    bars = place(figure, 0.65, 0.5, max(across, 2.4), 0.95)
    framed(bars, "R-factor of a frame; dashed: shot noise alone", "frames")
    if known.any():
        floor = scored.train.r_factor_floor
        low, high = min(float(r[known].min()), floor), float(r[known].max())
        edges = np.linspace(low * 0.98, high * 1.02 + 1e-12, 41)
        bars.hist([r[known & ~is_heldout], r[ring]], bins=edges.tolist(), stacked=True, color=[TRAIN, HELDOUT])
        bars.axvline(floor, color=INK, linewidth=1.0, linestyle="dashed")
    return figure


def _log_limits(counts: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of a log colour scale: below one photon there is nothing to see, unless the whole pattern is that faint."""
    top = float(np.nanpercentile(counts, 99.95))
    top = top if top > 0 else float(np.nanmax(counts))
    return min(max(top * 1e-5, 1.0), top * 1e-2), top


@Picture
def patterns_figure(scored: Scored) -> Figure:
    """Measured and predicted counts of the best, the median and the worst frame, and their difference.

    Predicted by the forward model that the image was scored through.

    Counts share one log colour scale. The difference is of amplitudes, √predicted − √measured, in which shot noise has
    the same spread everywhere: about ½ wherever there are more than a few counts.
    """
    import matplotlib
    from matplotlib.colors import LogNorm, Normalize

    raw = scored.scan.raw
    chosen = [(name, frame) for name, frame in scored.typical_frames().items() if frame in scored.examples]
    if not chosen:
        figure = new_figure(6.4, 1.2)
        figure.text(0.5, 0.5, "no frame has counts", ha="center", va="center", color=FAINT, fontsize=9)
        return figure
    frames = np.array([frame for _, frame in chosen])
    measured = raw.read_counts(frames).astype(np.float64)
    predicted = np.stack([scored.examples[frame] for _, frame in chosen]).astype(np.float64)
    difference = np.sqrt(predicted) - np.sqrt(measured)
    if raw.mask is not None:
        for values in (measured, predicted, difference):
            values[:, ~raw.mask] = np.nan
    spread = max(float(np.nanpercentile(np.abs(difference), 99.5)), 1e-6)
    low, high = _log_limits(measured)
    # no counts has no logarithm, and must not look like a masked pixel
    measured, predicted = np.maximum(measured, low / 2), np.maximum(predicted, low / 2)
    log_norm, linear_norm = LogNorm(low, high), Normalize(-spread, spread)
    log_colours = matplotlib.colormaps["inferno"].with_extremes(under="black", bad=BLANK)
    signed_colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad=BLANK)
    side, gap, left, bar_room = 2.25, 0.12, 0.95, 0.95
    figure = new_figure(left + 3 * side + 2 * gap + 2 * bar_room, 3 * (side + gap) + 0.45)
    r = scored.frame_r_factors()
    for row, (name, frame) in enumerate(chosen):
        for column, values in enumerate((measured, predicted, difference)):
            signed = column == 2
            left_in = left + column * (side + gap) + (bar_room if signed else 0)
            axes = place(figure, left_in, 0.12 + (2 - row) * (side + gap), side, side)
            norm, colours = (linear_norm, signed_colours) if signed else (log_norm, log_colours)
            image = axes.imshow(values[row], norm=norm, cmap=colours, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if row == 0:
                title(axes, ("Measured", "Predicted", "√predicted − √measured")[column])
            if column == 0:
                text = f"{name}\nframe {raw.frame_numbers[frame]}\nR-factor\n{r[frame]:.4f}"
                axes.text(-0.05, 0.5, text, transform=axes.transAxes, ha="right", va="center", fontsize=8.5, color=INK)
            elif row == 1:
                label = "√counts (shot noise ≈ ±0.5)" if signed else "counts"
                colour_bar(figure, image, axes, label, extend="both")
    return figure


@Picture
def frc_figure(curves: Mapping[str, FourierRingCorrelation]) -> Figure:
    """Fourier ring correlations against spatial frequency, with the usual thresholds."""
    figure = new_figure(5.6, 3.6)
    axes = place(figure, 0.7, 0.5, 4.5, 2.75)
    title(axes, "Fourier ring correlation")
    framed(axes, "spatial frequency (cycles per object pixel)", "correlation")
    for (name, curve), colour in zip(curves.items(), _COLOURS * len(curves), strict=False):
        axes.plot(curve.frequency, curve.correlation, color=colour, linewidth=1.4, label=drawn_text(name))
    finest = max(curves.values(), key=lambda c: len(c.frequency))
    axes.plot(
        finest.frequency, finest.half_bit, color=FAINT, linewidth=0.9, linestyle="dotted", label="half-bit threshold"
    )
    for level, name in ((0.5, "½"), (1 / 7, "1/7")):
        axes.axhline(level, color=FAINT, linewidth=0.8, linestyle="dashed")
        axes.text(0.502, level, name, fontsize=8, color=FAINT, va="center", ha="left")
    axes.set(xlim=(0, 0.5), ylim=(-0.05, 1.05))
    axes.legend(loc="lower left", fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")
    return figure
