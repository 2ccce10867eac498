"""Figures that a report has not, or not in one: the object as a pair, positions and moves, deviance by frame, frames.

They keep the house rules of :mod:`ptycho_core.report.figures`, and are drawn by its parts.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.container import Role
from ..data.raw import RawData
from ..data.results import Image, Scored
from ..data.run import Run
from ..data.shown import length, length_unit
from ..physics.merit import SUMS
from ..report.canvas import (
    BLANK,
    FAINT,
    HELDOUT,
    INK,
    TRAIN,
    colour_bar,
    draw_scale_bar,
    framed,
    image_size,
    new_figure,
    place,
    title,
)
from ..report.curves import epochs_told
from ..report.views import object_view
from ..text import counted
from .thumbnails import small_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "deviance_figure",
    "frames_figure",
    "losses_figure",
    "mean_figure",
    "object_figure",
    "positions_figure",
    "shown",
]

_MEASURES = {
    "deviance": "reduced deviance (1: noise)",
    "fourier_error": "Fourier error",
    "loss": "loss (per measured count)",
}
_MOVED_PX = 0.01
_MOST_ARROWS = 3000
_SHOWN_FRAMES = 4
_SCREEN_DPI = 96
_NOTEBOOK_DPI = 120


def shown(figure: Figure) -> Figure:
    """The figure, which a notebook shows at the size that it is in inches, whether pyplot was ever imported or not."""
    figure._repr_png_ = partial(_as_png, figure)  # type: ignore[attr-defined]  # IPython asks for it by this name
    return figure


def _as_png(figure: Figure) -> tuple[bytes, dict[str, int]]:
    width, height = (round(float(side) * _SCREEN_DPI) for side in figure.get_size_inches())
    drawn = figure.get_dpi()
    figure.set_dpi(_NOTEBOOK_DPI)
    try:
        figure.canvas.draw()
        rgba = np.array(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]  # an Agg canvas has it
    finally:
        figure.set_dpi(drawn)
    return small_png(rgba), {"width": width, "height": height}


def _unit(span_px: float, pixel_size_m: float | None) -> tuple[float, str]:
    """Length of an object pixel in a unit that suits a span, and the name of the unit."""
    if pixel_size_m is None:
        return 1.0, "object pixels"
    factor, name = length_unit(span_px * pixel_size_m)
    return pixel_size_m / factor, name


def object_figure(image: Image, pixel_size_m: float | None) -> Figure:
    """Phase and amplitude of an object side by side, each with its colour bar, and one scale bar."""
    import matplotlib

    view = object_view(image.object, image.coverage)
    label = "phase (rad), unwrapped" if view.phase_unwrapped else "phase (rad)"
    across, up = image_size(view.phase.shape, 3.7, 4.4)
    step = max(across, 1.4) + 1.15
    figure = new_figure(2 * step, up + 0.5)
    parts: tuple[tuple[NDArray[np.float32], tuple[float, float], str, str, str], ...] = (
        (view.phase, view.phase_limits, "twilight" if view.phase_wraps else "gray", "Object phase", label),
        (view.amplitude, view.amplitude_limits, "gray", "Object amplitude", "amplitude"),
    )
    for number, (values, limits, cmap, heading, quantity) in enumerate(parts):
        axes = place(figure, 0.12 + number * step, 0.12, across, up)
        colours = matplotlib.colormaps[cmap].with_extremes(bad=BLANK)
        drawn = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
        axes.set(xticks=[], yticks=[])
        title(axes, heading)
        if number == 0:
            draw_scale_bar(axes, (across, up), values.shape[1] * view.step_px, pixel_size_m)
        colour_bar(figure, drawn, axes, quantity, extend="neither" if cmap == "twilight" else "both")
    return figure


def _map_axes(
    positions_px: NDArray[np.float64], pixel_size_m: float | None, *, bar: bool
) -> tuple[Figure, Axes, float, float]:
    """A figure with axes in scan coordinates, y downwards; an object pixel in their unit; area of a dot, points²."""
    low, high = positions_px.min(axis=0), positions_px.max(axis=0)
    margin = 0.04 * max(float((high - low).max()), 1.0)
    height, width = (high - low) + 2 * margin
    unit, name = _unit(float(max(height, width)), pixel_size_m)
    across, up = image_size((int(np.ceil(height)), int(np.ceil(width))), 4.6, 5.2)
    across, up = max(across, 1.2), max(up, 1.2)
    figure = new_figure(max(across, 2.2) + (1.85 if bar else 1.0), up + 1.0)
    axes = place(figure, 0.75, 0.5, across, up)
    (y0, x0), (y1, x1) = (low - margin) * unit, (high + margin) * unit
    axes.set(xlim=(x0, x1), ylim=(y1, y0))
    axes.set_xlabel(f"x ({name})", fontsize=9, color=INK)
    axes.set_ylabel(f"y ({name})", fontsize=9, color=INK)
    spacing = np.sqrt(max(height * width, 1.0) / len(positions_px))
    area = float(np.clip((0.65 * 72 * spacing * across / width) ** 2, 2, 160))
    return figure, axes, unit, area


def positions_figure(
    positions_px: NDArray[np.float64],
    pixel_size_m: float | None,
    *,
    role: NDArray[np.int8] | None = None,
    nominal_px: NDArray[np.float64] | None = None,
) -> Figure:
    """Frame centres by role, and arrows to them from where they were read, enlarged so that they can be seen.

    Args:
        positions_px: (M, 2) float64 frame centres (y, x) as used, object pixels.
        pixel_size_m: side of an object pixel, metres, or None.
        role: (M,) role of each frame; None draws all alike.
        nominal_px: (M, 2) float64 as read, or None.
    """
    known = np.full(len(positions_px), Role.TRAIN, np.int8) if role is None else role
    figure, axes, unit, area = _map_axes(positions_px, pixel_size_m, bar=False)
    looks: tuple[tuple[Role, str, dict[str, Any]], ...] = (
        (Role.TRAIN, "trained on", {"c": TRAIN, "s": min(area, 12)}),
        (Role.HELDOUT, "held out", {"c": HELDOUT, "s": min(1.8 * area, 26), "marker": "D"}),
        (Role.UNUSED, "not used", {"c": FAINT, "s": min(2 * area, 26), "marker": "x"}),
    )
    for what, word, look in looks:
        y, x = (positions_px[known == what] * unit).T
        if len(x):
            axes.scatter(x, y, label=f"{word} ({len(x)})", linewidths=0.8 if what == Role.UNUSED else 0, **look)
    heading = f"{len(positions_px)} frame centres"
    if nominal_px is not None:
        heading = _draw_moves(axes, nominal_px, positions_px, known != Role.UNUSED, unit, pixel_size_m) or heading
    title(axes, heading)
    if role is not None:
        axes.legend(loc="lower right", fontsize=7.5, framealpha=0.9)
    return figure


def _draw_moves(
    axes: Axes,
    nominal_px: NDArray[np.float64],
    positions_px: NDArray[np.float64],
    used: NDArray[np.bool_],
    unit: float,
    pixel_size_m: float | None,
) -> str:
    """Arrows of the moves of the used frames, and words for them; nothing where none moved."""
    moves = (positions_px - nominal_px)[used]
    lengths = np.hypot(*moves.T)
    if not len(lengths) or float(lengths.max()) < _MOVED_PX:
        return ""
    step = -(-len(moves) // _MOST_ARROWS)
    some, start = moves[::step], nominal_px[used][::step]
    spacing = np.sqrt(max(float(np.prod(np.ptp(nominal_px, axis=0))), 1.0) / len(nominal_px))
    # of those that moved: where few did, most lengths are 0
    usual = float(np.percentile(lengths[lengths >= _MOVED_PX], 99))
    times = max(1.0, float(f"{1.5 * spacing / usual:.1g}"))
    axes.quiver(
        start[:, 1] * unit, start[:, 0] * unit, some[:, 1] * unit * times, some[:, 0] * unit * times,
        angles="xy", scale_units="xy", scale=1, color=INK, width=0.003,
    )  # fmt: skip
    rms = float(np.sqrt(np.mean(lengths**2)))
    long = f"{rms:.2f} px" if pixel_size_m is None else f"{rms:.2f} px ({length(rms * pixel_size_m, 3)})"
    return f"Moved by {long} rms; arrows {times:g}×"


def deviance_figure(scored: Scored) -> Figure:
    """Deviance of each frame over what shot noise leaves of it, at its place in the scan: 1 is noise alone."""
    import matplotlib

    sums = scored.frame_sums
    error, floor = sums[:, SUMS.index("deviance")], sums[:, SUMS.index("deviance_floor")]
    ratio = np.full(len(sums), np.nan)
    np.divide(error, floor, out=ratio, where=floor > 0)
    known = np.isfinite(ratio)
    positions = scored.image.positions_px
    figure, axes, unit, area = _map_axes(positions, scored.scan.raw.geometry.pixel_size_m, bar=True)
    y, x = (positions * unit).T
    low, high = np.percentile(ratio[known], (1, 99)) if known.any() else (0.0, 1.0)
    dots = axes.scatter(
        x[known], y[known], c=ratio[known], s=area, cmap=matplotlib.colormaps["viridis"],
        vmin=low, vmax=max(high, low * 1.01 + 1e-12), linewidths=0,
    )  # fmt: skip
    held = known & (scored.scan.role == Role.HELDOUT)
    if held.any():
        axes.scatter(x[held], y[held], s=area, facecolors="none", edgecolors=HELDOUT, linewidths=1.1, label="held out")
    if not known.all():
        axes.scatter(x[~known], y[~known], marker="x", c=INK, s=14, linewidths=0.8, label="not used")
    if held.any() or not known.all():
        axes.legend(loc="lower right", fontsize=7.5, framealpha=0.9)
    title(axes, "Deviance of each frame")
    colour_bar(figure, dots, axes, "deviance / that of shot noise alone", extend="both")
    return figure


def losses_figure(run: Run) -> Figure:
    """How well frames were explained after each epoch, of training and of refining side by side, as in the report."""
    halves = [("Training", run.history)]
    if run.refined is not None and any(len(values) for values in run.refined.history.values()):
        halves.append(("Refining", run.refined.history))
    figure = new_figure(4.3 * len(halves) + 0.2, 3.2)
    words = {"train": ("frames trained on", TRAIN), "test": ("held out", HELDOUT)}
    for number, (heading, history) in enumerate(halves):
        axes = place(figure, 0.85 + 4.3 * number, 0.5, 3.3, 2.35)
        title(axes, heading)
        measure = epochs_told(history)
        framed(axes, "epoch", _MEASURES[measure])
        drawn = [role for role in words if len(history.get(f"{role}_{measure}", ()))]
        for role in drawn:
            label, colour = words[role]
            values = np.asarray(history[f"{role}_{measure}"], dtype=float)
            axes.plot(np.arange(1, len(values) + 1), values, color=colour, lw=1.4, marker="o", ms=2.5, label=label)
        if drawn:
            from matplotlib.ticker import MaxNLocator

            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(fontsize=8, frameon=False)
        else:
            axes.text(0.5, 0.5, "none recorded", transform=axes.transAxes, ha="center", color=FAINT, fontsize=9)
    return figure


def _log_panel(
    figure: Figure, box: tuple[float, float, float], counts: NDArray[np.float64], mask: NDArray[np.bool_] | None
) -> tuple[Axes, Any]:
    """A diffraction pattern on a log scale; bad pixels are blank, and no counts are black."""
    import matplotlib
    from matplotlib.colors import LogNorm

    left, bottom, side = box
    top = max(float(counts.max()), 1e-12)
    low = max(top * 1e-6, min(1.0, top * 1e-2))
    values = np.maximum(counts, low / 2)
    if mask is not None:
        values = np.where(mask, values, np.nan)
    axes = place(figure, left, bottom, side, side)
    colours = matplotlib.colormaps["inferno"].with_extremes(under="black", bad=BLANK)
    drawn = axes.imshow(values, norm=LogNorm(low, top), cmap=colours, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    return axes, drawn


def mean_figure(raw: RawData) -> Figure:
    """Mean pattern of all frames that were looked at, on a log scale; every one of them is read."""
    figure = new_figure(5.0, 4.1)
    axes, drawn = _log_panel(figure, (0.15, 0.15, 3.6), raw.mean_pattern(), raw.mask)
    title(axes, f"Mean of {counted(raw.n_looked_at, 'frame')}")
    colour_bar(figure, drawn, axes, "counts", extend="min")
    return figure


def frames_figure(raw: RawData) -> Figure:
    """Four frames, evenly spread over the scan, each on its own log scale."""
    known = np.arange(raw.n_frames) if raw.looked_at is None else raw.looked_at
    chosen = known[np.unique(np.linspace(0, len(known) - 1, min(_SHOWN_FRAMES, len(known))).round().astype(np.int64))]
    side, step = 2.1, 3.0
    figure = new_figure(step * len(chosen) + 0.1, side + 0.5)
    for number, (frame, counts) in enumerate(zip(chosen, raw.read_counts(chosen), strict=True)):
        box = (0.12 + step * number, 0.12, side)
        axes, drawn = _log_panel(figure, box, counts.astype(np.float64), raw.mask)
        title(axes, f"Frame {raw.frame_numbers[frame]}")
        colour_bar(figure, drawn, axes, "counts" if number == len(chosen) - 1 else "", extend="min")
    return figure
