"""What every picture is drawn with: figures of known size, axes in inches, bars, and the values that a page can tell.

Figures are drawn on their own Agg canvas and never through pyplot, so nothing is shared between threads and no setting
of the caller's matplotlib is read or changed beyond its defaults. Sizes are worked out in inches: automatic layout
draws each figure several times over. No figure is much wider than :data:`WIDEST_IN`: on a phone it is as wide as the
screen, and its smallest letters can still be read.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec

import numpy as np
from numpy.typing import NDArray

from ..data.results import Image
from ..text import one_line
from .values import VALUES_KEY, Values, values_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Picture",
    "carry",
    "colour_bar",
    "complex_colours",
    "draw_colour_wheel",
    "draw_scale_bar",
    "drawn_text",
    "framed",
    "image_size",
    "new_figure",
    "place",
    "png_bytes",
    "scale_bar",
    "scan_axes",
    "title",
]

WIDEST_IN = 4.7
"""Inches: at 400 pixels of a phone letters of 8 points are still 8 pixels high."""

DPI = 150
FINE_DPI = 220
INK = "#1f2933"
FAINT = "#626e7b"
BLANK = "#e4e9ef"
TRAIN = "#1f5a94"
HELDOUT = "#d9601a"
UNUSED = "#ffffff"
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


def new_figure(width_in: float, height_in: float, dpi: int = DPI) -> Figure:
    """An empty white figure on its own Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def carry(figure: Figure, *values: Values | None) -> None:
    """Have the PNG of a figure carry what its axes show; None is nothing."""
    figure.ptycho_values = [value for value in values if value is not None]  # type: ignore[attr-defined]


def png_bytes(figure: Figure) -> bytes:
    """Render a figure, at its own dots an inch, with the values that it carries."""
    buffer = io.BytesIO()
    told = values_text(getattr(figure, "ptycho_values", ()))
    figure.savefig(buffer, format="png", dpi=figure.dpi, metadata={VALUES_KEY: told} if told else {})
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


def complex_colours(wave: NDArray[Any], peak: float) -> NDArray[np.float64]:
    """Colours (..., 3) of complex values: hue is phase (red 0, green 2π/3), brightness is the amplitude over `peak`."""
    from matplotlib.colors import hsv_to_rgb

    hue = np.mod(np.angle(wave) / (2 * math.pi), 1.0)
    value = np.clip(np.abs(wave) / peak, 0, 1) if peak > 0 else np.zeros(wave.shape)
    return np.asarray(hsv_to_rgb(np.stack([hue, np.full(wave.shape, 0.95), value], axis=-1)), dtype=np.float64)


def draw_colour_wheel(figure: Figure, left_in: float, bottom_in: float) -> None:
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
    axes.text(0, -1.75, "phase (rad)\naround, amplitude\noutwards", ha="center", va="top", fontsize=8, color=FAINT)


def scan_axes(figure: Figure, image: Image, left_in: float, bottom_in: float, size_in: tuple[float, float]) -> Axes:
    """Axes in scan coordinates over the whole canvas, y downwards."""
    height, width = image.object.shape
    y, x = (float(v) for v in image.origin_px)
    axes = place(figure, left_in, bottom_in, *size_in)
    axes.set(xlim=(x - 0.5, x + width - 0.5), ylim=(y + height - 0.5, y - 0.5))
    axes.set_xlabel("x (object pixels)", fontsize=9, color=INK)
    axes.set_ylabel("y (object pixels)", fontsize=9, color=INK)
    return axes


def framed(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Label the axes of a curve, with a grid behind it."""
    axes.set_xlabel(xlabel, fontsize=9, color=INK)
    axes.set_ylabel(ylabel, fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dde3ea", linewidth=0.6)
    axes.set_axisbelow(True)
