"""Pictures of a reconstruction, as PNG bytes: object, probe, coverage; drawn as ``canvas`` draws.

Display conventions: rows run downwards, as in the arrays; what of an object is shown is in ``views``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.container import Role
from ..data.results import Scored
from ..physics.probe import mode_powers
from .canvas import (
    BLANK,
    FAINT,
    FINE_DPI,
    HELDOUT,
    INK,
    TRAIN,
    UNUSED,
    Picture,
    carry,
    colour_bar,
    complex_colours,
    draw_colour_wheel,
    draw_scale_bar,
    drawn_text,
    image_size,
    new_figure,
    place,
    png_bytes,
    scale_bar,
    scan_axes,
    title,
)
from .values import array_values
from .views import LIMITS, MAX_SHOWN_PX, ObjectView, object_view, paired_views, well_covered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# whoever draws pictures has the parts from here too
__all__ = [
    "BLANK",
    "FAINT",
    "HELDOUT",
    "INK",
    "LIMITS",
    "MAX_SHOWN_MODES",
    "TRAIN",
    "ObjectView",
    "Picture",
    "amplitude_figure",
    "colour_bar",
    "complex_colours",
    "coverage_figure",
    "draw_positions",
    "draw_scale_bar",
    "drawn_text",
    "image_size",
    "new_figure",
    "object_view",
    "paired_views",
    "phase_figure",
    "place",
    "png_bytes",
    "probe_figure",
    "scale_bar",
    "scan_axes",
    "title",
]

_MOST_TOLD = 128

MAX_SHOWN_MODES = 8
"""Modes of a probe that are drawn, the strongest."""


def _object_figure(
    image: NDArray[np.float32],
    limits: tuple[float, float],
    cmap: str,
    texts: tuple[str, str],
    view: ObjectView,
    pixel_size_m: float | None,
    extend: str,
) -> Figure:
    import matplotlib

    across, up = image_size(image.shape, 3.55, 4.4)
    figure = new_figure(max(across + 1.1, 3.2), up + 0.5, FINE_DPI)
    axes = place(figure, 0.12, 0.12, across, up)
    colours = matplotlib.colormaps[cmap].with_extremes(bad=BLANK)
    shown = axes.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set(xticks=[], yticks=[])
    title(axes, texts[0])
    draw_scale_bar(axes, (across, up), image.shape[1] * view.step_px, pixel_size_m)
    colour_bar(figure, shown, axes, texts[1], extend=extend)
    name, _, unit = texts[1].partition(" (")
    carry(figure, array_values(axes, image, name, unit.rstrip(")")))
    return figure


@Picture
def amplitude_figure(view: ObjectView, pixel_size_m: float | None, heading: str = "Amplitude of the object") -> Figure:
    """Amplitude of the object, grey, with scale bar and colour bar."""
    texts = (heading, "amplitude")
    return _object_figure(view.amplitude, view.amplitude_limits, "gray", texts, view, pixel_size_m, "both")


@Picture
def phase_figure(view: ObjectView, pixel_size_m: float | None, heading: str = "Phase of the object") -> Figure:
    """Phase of the object: grey while it stays on part of the circle, cyclic colours when it goes around."""
    cmap, extend = ("twilight", "neither") if view.phase_wraps else ("gray", "both")
    texts = (heading, "phase (rad)")
    return _object_figure(view.phase, view.phase_limits, cmap, texts, view, pixel_size_m, extend)


@Picture
def probe_figure(probe: NDArray[np.complex64], pixel_size_m: float | None) -> Figure:
    """Probe modes in complex colours, each scaled to its own peak, with its fraction of the power.

    Args:
        probe: (P, N, N) complex64; at most the 8 strongest modes are drawn.
        pixel_size_m: side of an object pixel, metres, or None.
    """
    powers = mode_powers(probe)
    order = np.argsort(-powers, kind="stable")[:MAX_SHOWN_MODES]
    columns = min(len(order), 2)
    rows = -(-len(order) // columns)
    side, gap, legend = (2.9 if len(order) == 1 else 1.58), 0.12, 1.45
    height = max(rows * (side + 0.34) + 0.12, 2.05)
    figure = new_figure(columns * (side + gap) + gap + legend - 0.12, height)
    told = []
    for place_number, mode in enumerate(order):
        row, column = divmod(place_number, columns)
        bottom = height - (row + 1) * (side + 0.34)
        axes = place(figure, gap + column * (side + gap), bottom, side, side)
        axes.imshow(complex_colours(probe[mode], float(np.abs(probe[mode]).max())), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        told.append(array_values(axes, np.abs(probe[mode]), "amplitude", "", _MOST_TOLD))
        text = f"Mode {mode + 1}: {powers[mode]:.1%}"
        title(axes, f"{text} of the power" if len(order) == 1 else text)
        draw_scale_bar(axes, (side, side), probe.shape[-1], pixel_size_m)
    draw_colour_wheel(figure, columns * (side + gap) + gap + 0.28, height / 2 - 0.05)
    carry(figure, *told)
    return figure


@Picture
def coverage_figure(scored: Scored) -> Figure:
    """How often each pixel was lit, the frame centres by role, and the outline of the well-covered region."""
    import matplotlib

    made = scored.image
    coverage = made.coverage
    smooth, threshold = well_covered(coverage)
    across, up = image_size(coverage.shape, 3.05, 4.2)
    figure = new_figure(max(across + 1.65, 3.4), up + 0.95)
    axes = scan_axes(figure, made, 0.65, 0.5, (across, up))
    y, x = (float(v) for v in made.origin_px)
    height, width = coverage.shape
    step = max(1, -(-max(coverage.shape) // MAX_SHOWN_PX))
    image = coverage[::step, ::step]
    extent = (x - 0.5, x + width - 0.5, y + height - 0.5, y - 0.5)
    shown = axes.imshow(
        image, cmap=matplotlib.colormaps["viridis"], vmin=0, extent=extent, aspect="auto", interpolation="nearest"
    )
    if threshold > 0 and min(image.shape) > 1:
        xs, ys = x + step * np.arange(image.shape[1]), y + step * np.arange(image.shape[0])
        axes.contour(
            xs, ys, smooth[::step, ::step], levels=[threshold], colors="white", linewidths=0.8, linestyles="dashed"
        )
    draw_positions(axes, made.positions_px, scored.scan.role)
    title(axes, "Coverage and frame centres")
    colour_bar(figure, shown, axes, "times lit (Σ|probe|² / max|probe|²)")
    carry(figure, array_values(axes, image, "lit", "times"))
    return figure


def draw_positions(axes: Axes, positions_px: NDArray[np.float64], role: NDArray[np.int8]) -> None:
    """Dots at the frame centres (M, 2), those held out in their own colour and crosses where unused, with a legend."""
    size = float(np.clip(2000 / len(positions_px), 0.4, 10))
    y, x = positions_px.T
    train = role == Role.TRAIN
    axes.scatter(x[train], y[train], s=size, c="black", edgecolors="none", alpha=0.75)
    handles = []
    # the kinds differ in shape as well, for eyes that do not tell the colours apart
    looks: tuple[tuple[Role, str, dict[str, Any]], ...] = (
        (Role.HELDOUT, "held out", {"c": HELDOUT, "s": 2.5 * size, "edgecolors": "none"}),
        (Role.UNUSED, "not used", {"c": UNUSED, "s": 3.5 * size, "marker": "x", "linewidths": 1.2}),
    )
    for what, name, look in looks:
        some = role == what
        if some.any():
            handles.append(axes.scatter(x[some], y[some], label=f"{name} ({some.sum()})", **look))
    if handles:
        legend = axes.legend(
            handles=handles, loc="lower right", fontsize=8, framealpha=0.95, borderpad=0.4, labelcolor="white"
        )
        legend.get_frame().set_facecolor(INK)  # crosses and words are white
