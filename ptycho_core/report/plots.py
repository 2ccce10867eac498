"""Maps and patterns of a run, as PNG bytes: what tells whether the picture can be trusted.

The house rules of :mod:`ptycho_core.report.canvas` hold here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data.container import Role
from ..data.results import Scored
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
    scan_axes,
    title,
)
from .curves import epochs_figure, frc_figure, losses_figure
from .values import array_values, point_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "epochs_figure",
    "framed",
    "frc_figure",
    "losses_figure",
    "moves_figure",
    "patterns_figure",
    "r_map_figure",
]

_MOST_ARROWS = 3000
_MOST_TOLD = 128
"""Pixels along a side of each of nine patterns whose values are told."""


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
    across, up = image_size(image.object.shape, 3.05, 4.2)
    figure = new_figure(max(across, 2.4) + 1.65, up + 2.5)
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
    numbers = scored.scan.raw.frame_numbers
    texts = [
        f"frame {numbers[j]}: R {r[j]:.4f}" if known[j] else f"frame {numbers[j]}: not used" for j in range(len(r))
    ]
    carry(figure, point_values(axes, x, y, texts))
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
    true = (measured, predicted, difference)
    # no counts has no logarithm, and must not look like a masked pixel
    measured, predicted = np.maximum(measured, low / 2), np.maximum(predicted, low / 2)
    log_norm, linear_norm = LogNorm(low, high), Normalize(-spread, spread)
    log_colours = matplotlib.colormaps["inferno"].with_extremes(under="black", bad=BLANK)
    signed_colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad=BLANK)
    side, gap, left, bar_room = 1.12, 0.08, 0.16, 1.02
    figure = new_figure(left + 3 * (side + gap) + bar_room, 3 * (side + 0.32) + 0.5, FINE_DPI)
    r, told = scored.frame_r_factors(), []
    rows = ((measured, "Measured"), (predicted, "Predicted"), (difference, "√predicted − √measured"))
    top = 3 * (side + 0.32)
    for row, (images, heading) in enumerate(rows):
        signed = row == 2
        norm, colours = (linear_norm, signed_colours) if signed else (log_norm, log_colours)
        for column, (name, frame) in enumerate(chosen):
            bottom = top - (row + 1) * (side + 0.32) + 0.1
            axes = place(figure, left + column * (side + gap), bottom, side, side)
            drawn = axes.imshow(images[column], norm=norm, cmap=colours, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if column == 0:
                title(axes, heading)
            if row == 0:
                text = f"{name}: frame {raw.frame_numbers[frame]}\nR {r[frame]:.4f}"
                axes.text(0, 1.24, text, transform=axes.transAxes, ha="left", va="bottom", fontsize=8, color=INK)
            told.append(array_values(axes, true[row][column], heading, "√counts" if signed else "counts", _MOST_TOLD))
            if column == len(chosen) - 1:
                label = "√counts" if signed else "counts"
                colour_bar(figure, drawn, axes, label, extend="both")
    carry(figure, *told)
    return figure


@Picture
def moves_figure(scored: Scored, pixel_size_m: float | None) -> Figure:
    """Arrows from where each frame was read to where it was refined to, enlarged alike, with one that says how long.

    Args:
        scored: the image, with its positions as used and those of its scan as read.
        pixel_size_m: side of an object pixel, metres, for lengths in nm; None tells them in object pixels.
    """
    import matplotlib

    image, used = scored.image, scored.scan.used_frames
    read = scored.scan.raw.positions_px[used]
    moved = image.positions_px[used] - read
    unit, name = (1.0, "px") if pixel_size_m is None else (pixel_size_m * 1e9, "nm")
    length = np.hypot(*moved.T) * unit
    across, up = image_size(image.object.shape, 3.05, 4.2)
    figure = new_figure(max(across, 2.4) + 1.65, up + 1.0)
    axes = scan_axes(figure, image, 0.65, 0.5, (across, up))
    axes.set_facecolor("#f4f6f8")
    shown = np.unique(np.linspace(0, len(used) - 1, min(len(used), _MOST_ARROWS)).astype(np.int64))
    typical = max(float(np.percentile(length, 90)), 1e-12)
    spacing = float(np.sqrt(np.prod(np.maximum(np.ptp(read, axis=0), 1.0)) / len(used)))
    scale = typical / unit / (1.6 * spacing)  # a long arrow reaches past the next frame
    arrows = axes.quiver(
        read[shown, 1], read[shown, 0], moved[shown, 1], moved[shown, 0], length[shown],
        angles="xy", scale_units="xy", scale=scale, width=0.0045, cmap=matplotlib.colormaps["viridis"].resampled(256),
    )  # fmt: skip
    arrows.set_clim(0, max(float(np.percentile(length, 99)), 1e-12))
    colour_bar(figure, arrows, axes, f"length ({name})", extend="max")
    title(axes, f"Corrections of positions, drawn {1 / scale:.0f}× as long")
    texts = [
        f"frame {number}: y {dy * unit:+.3g}, x {dx * unit:+.3g} {name}"
        for number, (dy, dx) in zip(scored.scan.raw.frame_numbers[used], moved, strict=True)
    ]
    carry(figure, point_values(axes, read[:, 1], read[:, 0], texts))
    return figure
