"""Pictures and words for what an image may have beside object and probe: slices, and what each frame takes of modes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.results import Image, Scored
from .canvas import (
    BLANK,
    FINE_DPI,
    Picture,
    colour_bar,
    draw_scale_bar,
    image_size,
    new_figure,
    place,
    scan_axes,
    title,
)
from .figures import MAX_SHOWN_MODES
from .views import object_view

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_extras", "extra_facts", "extra_pictures", "extra_summary", "slices_figure", "weights_figure"]

MAX_SHOWN_SLICES = 12


def _shown_slices(L: int) -> NDArray[np.int64]:
    """Numbers of the slices that are drawn: all, or some from the first to the last."""
    return np.unique(np.linspace(0, L - 1, min(L, MAX_SHOWN_SLICES)).round().astype(np.int64))


@Picture
def slices_figure(image: Image, pixel_size_m: float | None) -> Figure:
    """Phase and amplitude of each slice (L, H, W), a row a slice, all on one scale for each; at most 12 are drawn."""
    import matplotlib

    assert image.slices is not None
    chosen = _shown_slices(len(image.slices))
    views = [object_view(image.slices[number], image.coverage) for number in chosen]
    across, up = image_size(views[0].phase.shape, 1.45, 1.9)
    gap, bar_room, head = 0.02, 0.88, 0.3
    figure = new_figure(2 * (across + gap + bar_room) + 0.15, len(views) * (up + head) + 0.15, FINE_DPI)
    wraps = any(view.phase_wraps for view in views)
    parts: tuple[tuple[str, list[NDArray[np.float32]], list[tuple[float, float]], str, str], ...] = (
        (
            "phase",
            [view.phase for view in views],
            [view.phase_limits for view in views],
            "twilight" if wraps else "gray",
            "phase (rad)",
        ),
        (
            "amplitude",
            [view.amplitude for view in views],
            [view.amplitude_limits for view in views],
            "gray",
            "amplitude",
        ),
    )
    for column, (what, pictures, limits, cmap, label) in enumerate(parts):
        low, high = min(low for low, _ in limits), max(high for _, high in limits)
        colours = matplotlib.colormaps[cmap].with_extremes(bad=BLANK)
        for row, (number, picture) in enumerate(zip(chosen, pictures, strict=True)):
            bottom = (len(views) - 1 - row) * (up + head) + 0.12
            axes = place(figure, 0.12 + column * (across + gap + bar_room), bottom, across, up)
            shown = axes.imshow(picture, cmap=colours, vmin=low, vmax=high, aspect="auto")
            axes.set(xticks=[], yticks=[])
            title(axes, f"Slice {number + 1}: {what}")
            if row == 0:
                draw_scale_bar(axes, (across, up), picture.shape[1] * views[row].step_px, pixel_size_m)
            colour_bar(figure, shown, axes, label, extend="neither" if wraps and what == "phase" else "both")
    return figure


def _columns(weights: NDArray[np.float32]) -> list[tuple[str, NDArray[np.float32]]]:
    """What is drawn of weights (M, P): one map where a frame takes all modes alike, else one for each that differs."""
    if (weights == weights[:, :1]).all():
        return [("Intensity of each frame", weights[:, 0])]
    differ = np.flatnonzero(np.ptp(weights, axis=0) > 0)[:MAX_SHOWN_MODES]
    shown = differ if len(differ) else np.arange(min(weights.shape[1], MAX_SHOWN_MODES))
    return [(f"Weight of mode {mode + 1}", weights[:, mode]) for mode in shown]


@Picture
def weights_figure(scored: Scored) -> Figure:
    """Map over the scan of what each frame takes of the probe's modes; unused frames are left out."""
    import matplotlib

    image, used = scored.image, scored.scan.used_frames
    assert image.mode_weights is not None
    maps = _columns(image.mode_weights)
    across, up = image_size(image.object.shape, 3.05, 4.2 if len(maps) == 1 else 2.2)
    height = up + 0.95
    figure = new_figure(max(across + 1.6, 3.4), len(maps) * height)
    y, x = image.positions_px[used].T
    size = float(np.clip(12000 / len(used), 3, 60))
    for number, (heading, weights) in enumerate(maps):
        axes = scan_axes(figure, image, 0.65, (len(maps) - 1 - number) * height + 0.5, (across, up))
        axes.set_facecolor("#f4f6f8")
        values = weights[used]
        low, high = (float(v) for v in np.percentile(values, (1, 99)))
        room = max(1e-3 * max(abs(low), abs(high)), 1e-6) if high - low < 1e-6 else 0.0
        dots = axes.scatter(
            x,
            y,
            c=values,
            s=size,
            cmap=matplotlib.colormaps["viridis"],
            vmin=low - room,
            vmax=high + room,
            linewidths=0,
        )
        title(axes, heading)
        colour_bar(figure, dots, axes, "intensity" if heading.startswith("Intensity") else "weight", extend="both")
    return figure


def draw_extras(scored: Scored, pixel_size_m: float | None) -> dict[str, Callable[[], bytes]]:
    """File name → what draws it, of what there is: ``slices.png``, ``weights.png``."""
    image = scored.image
    drawn: dict[str, Callable[[], bytes]] = {}
    if image.slices is not None:
        drawn["slices.png"] = partial(slices_figure, image, pixel_size_m)
    if image.mode_weights is not None:
        drawn["weights.png"] = partial(weights_figure, scored)
    return drawn


def extra_pictures(image: Image) -> list[tuple[str, str, str]]:
    """(file name, alternative text, caption) of the same pictures, in the order of a page."""
    found = []
    if image.slices is not None:
        L = len(image.slices)
        some = "" if len(_shown_slices(L)) == L else f" {MAX_SHOWN_SLICES} of {L} are shown."
        found.append(
            (
                "slices.png",
                "Phase and amplitude of each slice of the object",
                "The slices of the object, upstream first, on one scale; the object above is their product. In each a "
                f"global phase and a ramp were taken off.{some}",
            )
        )
    if image.mode_weights is not None:
        whose = (
            "By them the expected counts of a frame are the weighted sum of what its modes give."
            if not image.forward_model
            else f"What they do to the modes is a matter of the forward model of engine {image.forward_model}."
        )
        found.append(("weights.png", "Map of what each frame takes of the probe", f"Each dot is a frame. {whose}"))
    return found


def extra_facts(image: Image) -> list[tuple[str, str]]:
    """Rows of a table: name and words of what there is."""
    rows = []
    if image.slices is not None and image.slice_spacing_m is not None:
        rows.append(("Slices", f"{len(image.slices)}, {image.slice_spacing_m * 1e6:.4g} µm apart"))
    if image.mode_weights is not None:
        columns = _columns(image.mode_weights)
        alike = columns[0][0].startswith("Intensity")
        text = f"intensity ± {float(np.std(columns[0][1])):.2%}" if alike else "a weight for each mode"
        rows.append(("Frames differ by", text))
    if image.forward_model:
        rows.append(("Explained by", f"the forward model of engine {image.forward_model} alone"))
    return rows


def extra_summary(image: Image) -> Mapping[str, Any]:
    """The same as plain data for ``summary.json``; None for what there is not."""
    weights = image.mode_weights
    return {
        "slices": None if image.slices is None else len(image.slices),
        "slice_spacing_m": image.slice_spacing_m,
        "mode_weights_spread": None if weights is None else [float(v) for v in np.std(weights, axis=0)],
        "forward_model": image.forward_model or None,
    }
