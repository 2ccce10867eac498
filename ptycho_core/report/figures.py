"""Pictures of a reconstruction, as PNG bytes, or as figures to draw on further.

Every function here is a :class:`Picture`: called, it returns the bytes of one PNG, and its ``figure`` the figure of
matplotlib that they are made of. Figures are drawn on their own Agg canvas and never through pyplot, so nothing is
shared between threads and no setting of the caller's matplotlib is read or changed beyond its defaults.
Sizes are worked out in inches: automatic layout draws each figure several times over.

Display conventions: rows run downwards, as in the arrays; colour limits are percentiles of the well-covered region, so
that one wild pixel at the rim does not decide the picture; what was removed or clipped is in :class:`ObjectView`.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec

import numpy as np
from numpy.typing import NDArray

from ..data.container import Role
from ..data.results import Image, Scored
from ..physics.probe import mode_powers
from ..physics.relative import LIT_FROM
from ..text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ObjectView",
    "Picture",
    "amplitude_figure",
    "coverage_figure",
    "object_view",
    "phase_figure",
    "probe_figure",
    "scale_bar",
]

DPI = 150
INK = "#1f2933"
FAINT = "#7b8794"
BLANK = "#e4e9ef"
TRAIN = "#1f5a94"
HELDOUT = "#d9601a"
UNUSED = "#ffffff"
LIMITS = (0.5, 99.5)
MAX_SHOWN_PX = 1400
MAX_SHOWN_MODES = 8
MOST_DRAWN = 120
"""Characters of a text in a picture."""


_P = ParamSpec("_P")


class Picture(Generic[_P]):
    """What draws one picture: called, it gives the bytes of a PNG; its ``figure`` gives the figure itself.

    Reports want bytes, notebooks a figure that can be drawn on further and saved in any format.
    """

    def __init__(self, draw: Callable[_P, Figure]) -> None:
        """Take the function that draws."""
        self.figure = draw
        functools.update_wrapper(self, draw)

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> bytes:
        """Draw, and render as PNG."""
        return png_bytes(self.figure(*args, **kwargs))


@dataclass(frozen=True, kw_only=True)
class ObjectView:
    """What of an object is shown, and what was done to it for showing.

    Attributes:
        amplitude: (h, w) float32, cropped to the well-covered region, NaN outside it.
        phase: (h, w) float32 radians in (−π, π], global phase removed, NaN outside the region.
        corner_px: row and column of the crop in the object.
        step_px: side of the block of object pixels averaged into one shown pixel; 1 shows every pixel.
        coverage_threshold: least coverage that counts as well covered.
        removed_phase_rad: global phase removed, so that the median phase is 0.
        amplitude_limits: percentiles of the amplitude in the region.
        phase_limits: percentiles of the phase in the region, or (−π, π) where the phase wraps.
        phase_wraps: whether the phase fills so much of the circle that it is shown on a cyclic colour scale.
    """

    amplitude: NDArray[np.float32]
    phase: NDArray[np.float32]
    corner_px: tuple[int, int]
    step_px: int
    coverage_threshold: float
    removed_phase_rad: float
    amplitude_limits: tuple[float, float]
    phase_limits: tuple[float, float]
    phase_wraps: bool


def _well_covered(coverage: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Smoothed coverage, and a tenth of that of the best-lit pixels: the region shown is where it is at least that.

    Smoothing over 5 pixels keeps the speckle of a probe's rim from fraying the outline. The threshold is 0, so that
    everything is shown, when nothing is lit.
    """
    from scipy.ndimage import uniform_filter

    smooth = np.asarray(uniform_filter(coverage, 5, mode="constant"), dtype=np.float32)
    lit = smooth[smooth > 0]
    return smooth, LIT_FROM * float(np.percentile(lit, 95)) if lit.size else 0.0


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _shrunk(values: NDArray[Any], mask: NDArray[np.bool_], step: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Average the masked-in pixels of step × step blocks; a block with none is masked out."""
    if step == 1:
        return values, mask
    height, width = (-(-n // step) * step for n in values.shape)
    pad = ((0, height - values.shape[0]), (0, width - values.shape[1]))
    blocks = (height // step, step, width // step, step)
    n = np.pad(mask, pad).reshape(blocks).sum(axis=(1, 3))
    total = np.pad(np.where(mask, values, 0), pad).reshape(blocks).sum(axis=(1, 3))
    return (total / np.maximum(n, 1)).astype(values.dtype), n > 0


def _widened(low: float, high: float) -> tuple[float, float]:
    """Limits with room between them: a constant image is drawn mid-grey, not as noise of its last bit."""
    least = 1e-3 * max(abs(low), abs(high), 1e-3)
    middle = (low + high) / 2
    return (low, high) if high - low > least else (middle - least, middle + least)


def object_view(obj: NDArray[np.complex64], coverage: NDArray[np.float32]) -> ObjectView:
    """Prepare an object for display.

    Args:
        obj: (H, W) complex64.
        coverage: (H, W) float32.
    """
    smooth, threshold = _well_covered(coverage)
    mask = smooth >= threshold
    rows, columns = _box(mask)
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    step = max(1, -(-max(shape) // MAX_SHOWN_PX))
    shown, mask = _shrunk(obj[rows, columns], mask[rows, columns], step)
    # A median has no meaning on a circle: turn the mean direction to 0 first, then take the median of what is left.
    mean_direction = float(np.angle(np.sum(shown[mask], dtype=np.complex128)))
    removed = mean_direction + float(np.median(np.angle(shown[mask] * np.exp(-1j * mean_direction))))
    phase = np.where(mask, np.angle(shown * np.exp(-1j * removed)), np.nan).astype(np.float32)
    amplitude = np.where(mask, np.abs(shown), np.nan).astype(np.float32)
    low, high = (float(v) for v in np.percentile(phase[mask], LIMITS))
    wraps = high - low > 1.6 * math.pi
    amplitude_low, amplitude_high = (float(v) for v in np.percentile(amplitude[mask], LIMITS))
    return ObjectView(
        amplitude=amplitude,
        phase=phase,
        corner_px=(rows.start, columns.start),
        step_px=step,
        coverage_threshold=threshold,
        removed_phase_rad=float(np.angle(np.exp(1j * removed))),
        amplitude_limits=_widened(amplitude_low, amplitude_high),
        phase_limits=(-math.pi, math.pi) if wraps else _widened(low, high),
        phase_wraps=wraps,
    )


_SMALLEST_M, _LARGEST_M = 1e-13, 1e3


def scale_bar(width_px: float, pixel_size_m: float | None) -> tuple[float, str]:
    """Length in object pixels and label of a scale bar of a round length, at most a third of a picture's width.

    Args:
        width_px: width of the picture, object pixels.
        pixel_size_m: side of an object pixel, metres, or None to label in pixels; so are sizes that no sample has.
    """
    unit = 1.0 if pixel_size_m is None else pixel_size_m
    limit = width_px * unit / 3
    if pixel_size_m is not None and not _SMALLEST_M < limit < _LARGEST_M:
        return scale_bar(width_px, None)
    power = 10.0 ** math.floor(math.log10(limit) + 1e-9)
    length = power * max(m for m in (1, 2, 5) if m == 1 or m * power <= limit * (1 + 1e-9))
    if pixel_size_m is None:
        return length, f"{length:g} px"
    units = ((1e-3, "mm"), (1e-6, "µm"), (1e-9, "nm"), (1e-12, "pm"))
    factor, name = next((u for u in units if length >= u[0] * (1 - 1e-9)), units[-1])
    return length / pixel_size_m, f"{length / factor:g} {name}"


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty white figure on its own Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """Render a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def place(figure: Figure, left_in: float, bottom_in: float, width_in: float, height_in: float) -> Axes:
    """Axes at a place given in inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left_in / width, bottom_in / height, width_in / width, height_in / height))
    axes.tick_params(labelsize=8, colors=INK, width=0.6, length=3)
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, edgecolor=FAINT)
    return axes


def drawn_text(text: str) -> str:
    """A text as matplotlib draws it letter by letter: it would take what stands between two ``$`` for a formula."""
    return one_line(text, MOST_DRAWN).replace("$", r"\$")


def title(axes: Axes, text: str) -> None:
    """Left-aligned title."""
    axes.set_title(drawn_text(text), loc="left", fontsize=10, color=INK, pad=6)


def colour_bar(
    figure: Figure, image: Any, axes: Axes, label: str, *, extend: str = "neither", gap_in: float = 0.1
) -> Axes:
    """A colour bar as high as the axes, to their right."""
    width, height = figure.get_size_inches()
    box = axes.get_position()
    side = place(figure, box.x1 * width + gap_in, box.y0 * height, 0.13, box.height * height)
    bar = figure.colorbar(image, cax=side, extend=extend)
    bar.set_label(drawn_text(label), fontsize=9, color=INK)
    bar.outline.set(linewidth=0.6, edgecolor=FAINT)
    side.tick_params(labelsize=8, colors=INK, width=0.6, length=3)
    return side


def draw_scale_bar(axes: Axes, size_in: tuple[float, float], width_px: float, pixel_size_m: float | None) -> None:
    """Draw a scale bar in the lower left corner of an image.

    Args:
        axes: of the image.
        size_in: width and height of the axes, inches.
        width_px: width of the image, object pixels.
        pixel_size_m: side of an object pixel, metres, or None.
    """
    from matplotlib.patches import Rectangle

    across, up = size_in
    length, label = scale_bar(width_px, pixel_size_m)
    bar = length / width_px * across
    plate = max(bar, 0.075 * len(label)) + 0.16

    def rectangle(left: float, bottom: float, width: float, height: float, **style: Any) -> None:
        corner = (left / across, bottom / up)
        axes.add_patch(
            Rectangle(corner, width / across, height / up, transform=axes.transAxes, linewidth=0, zorder=5, **style)
        )

    # dark on its own light plate: legible whatever lies under it
    rectangle(0.07, 0.07, plate, 0.3, facecolor="white", alpha=0.85)
    rectangle(0.07 + (plate - bar) / 2, 0.12, bar, 0.04, facecolor=INK)
    axes.text(
        (0.07 + plate / 2) / across, 0.18 / up, label,
        transform=axes.transAxes, ha="center", va="bottom", fontsize=8, color=INK, zorder=6,
    )  # fmt: skip


def image_size(shape: tuple[int, ...], width_in: float = 4.6, tallest_in: float = 5.6) -> tuple[float, float]:
    """Width and height in inches of an image with square pixels inside a box."""
    height, width = shape
    factor = min(width_in / width, tallest_in / height)
    # a scan of one line would be drawn as a hair
    return max(width * factor, 0.6), max(height * factor, 0.6)


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

    across, up = image_size(image.shape)
    figure = new_figure(max(across + 1.15, 3.2), up + 0.5)
    axes = place(figure, 0.15, 0.12, across, up)
    colours = matplotlib.colormaps[cmap].with_extremes(bad=BLANK)
    shown = axes.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set(xticks=[], yticks=[])
    title(axes, texts[0])
    draw_scale_bar(axes, (across, up), image.shape[1] * view.step_px, pixel_size_m)
    colour_bar(figure, shown, axes, texts[1], extend=extend)
    return figure


@Picture
def amplitude_figure(view: ObjectView, pixel_size_m: float | None) -> Figure:
    """Amplitude of the object, grey, with scale bar and colour bar."""
    texts = ("Object amplitude", "amplitude")
    return _object_figure(view.amplitude, view.amplitude_limits, "gray", texts, view, pixel_size_m, "both")


@Picture
def phase_figure(view: ObjectView, pixel_size_m: float | None) -> Figure:
    """Phase of the object: grey while it stays on part of the circle, cyclic colours when it goes around."""
    cmap, extend = ("twilight", "neither") if view.phase_wraps else ("gray", "both")
    texts = ("Object phase", "phase (rad)")
    return _object_figure(view.phase, view.phase_limits, cmap, texts, view, pixel_size_m, extend)


def complex_colours(wave: NDArray[Any], peak: float) -> NDArray[np.float64]:
    """Colours (..., 3) of complex values: hue is phase (red 0, green 2π/3), brightness is the amplitude over `peak`."""
    from matplotlib.colors import hsv_to_rgb

    hue = np.mod(np.angle(wave) / (2 * math.pi), 1.0)
    value = np.clip(np.abs(wave) / peak, 0, 1) if peak > 0 else np.zeros(wave.shape)
    return np.asarray(hsv_to_rgb(np.stack([hue, np.full(wave.shape, 0.95), value], axis=-1)), dtype=np.float64)


def _colour_wheel(figure: Figure, left_in: float, bottom_in: float) -> None:
    """The legend of :func:`complex_colours`: phase around, amplitude outwards."""
    size = 0.8
    axes = place(figure, left_in, bottom_in, size, size)
    r = np.linspace(-1, 1, 161)
    # y runs up here, so that phases grow counter-clockwise as on paper
    wave = r[None, :] + 1j * r[::-1, None]
    rgba = np.concatenate([complex_colours(wave, 1.0), (np.abs(wave) <= 1)[..., None].astype(float)], axis=-1)
    axes.imshow(rgba, extent=(-1, 1, -1, 1))
    axes.axis("off")
    for text, x, y in (("0", 1.2, 0), ("π/2", 0, 1.25), ("π", -1.2, 0), ("−π/2", 0, -1.25)):
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color=INK)
    axes.text(0, -1.75, "phase (rad) around,\namplitude outwards", ha="center", va="top", fontsize=7.5, color=FAINT)


@Picture
def probe_figure(probe: NDArray[np.complex64], pixel_size_m: float | None) -> Figure:
    """Probe modes in complex colours, each scaled to its own peak, with its fraction of the power.

    Args:
        probe: (P, N, N) complex64; at most the 8 strongest modes are drawn.
        pixel_size_m: side of an object pixel, metres, or None.
    """
    powers = mode_powers(probe)
    order = np.argsort(-powers, kind="stable")[:MAX_SHOWN_MODES]
    columns = min(len(order), 4)
    rows = -(-len(order) // columns)
    side, gap, legend = (2.9 if len(order) == 1 else 2.1), 0.12, 1.55
    figure = new_figure(columns * (side + gap) + gap + legend, rows * (side + 0.34) + 0.12)
    for place_number, mode in enumerate(order):
        row, column = divmod(place_number, columns)
        bottom = (rows - 1 - row) * (side + 0.34) + 0.12
        axes = place(figure, gap + column * (side + gap), bottom, side, side)
        axes.imshow(complex_colours(probe[mode], float(np.abs(probe[mode]).max())), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        title(axes, f"Mode {mode + 1}: {powers[mode]:.1%} of the power")
        draw_scale_bar(axes, (side, side), probe.shape[-1], pixel_size_m)
    _colour_wheel(figure, columns * (side + gap) + gap + 0.4, rows * (side + 0.34) / 2 - 0.15)
    return figure


def scan_axes(figure: Figure, image: Image, left_in: float, bottom_in: float, size_in: tuple[float, float]) -> Axes:
    """Axes in scan coordinates over the whole canvas, y downwards."""
    height, width = image.object.shape
    y, x = (float(v) for v in image.origin_px)
    axes = place(figure, left_in, bottom_in, *size_in)
    axes.set(xlim=(x - 0.5, x + width - 0.5), ylim=(y + height - 0.5, y - 0.5))
    axes.set_xlabel("x (object pixels)", fontsize=9, color=INK)
    axes.set_ylabel("y (object pixels)", fontsize=9, color=INK)
    return axes


@Picture
def coverage_figure(scored: Scored) -> Figure:
    """How often each pixel was lit, the frame centres by role, and the outline of the well-covered region."""
    import matplotlib

    made = scored.image
    coverage = made.coverage
    smooth, threshold = _well_covered(coverage)
    across, up = image_size(coverage.shape, 4.2, 5.2)
    figure = new_figure(max(across + 1.75, 3.4), up + 1.05)
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
        legend = axes.legend(handles=handles, loc="lower right", fontsize=7.5, framealpha=0.9, borderpad=0.4)
        legend.get_frame().set_facecolor(FAINT)  # both white crosses and black words are seen on it
