"""Small pictures for cards in a notebook, as PNG: without axes or words, a few kilobytes each, drawn in milliseconds.

A card is made whenever a cell ends with a value, so nothing here may cost more than a look: large objects are thinned
before anything is done with them, and of a scan no more than :data:`MOST_FRAMES` frames are read, whatever it holds.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.container import Role
from ..data.raw import RawData
from ..data.results import Image
from ..physics.probe import mode_powers
from ..report.canvas import complex_colours
from ..report.views import object_view

__all__ = ["MOST_FRAMES", "SIDE_PX", "mean_of_some", "object_pair", "pattern", "positions", "probe", "small_png"]

SIDE_PX = 180
"""Longest side of a small picture on the page; its PNG has up to twice as many pixels, for fine screens."""

MOST_FRAMES = 64
"""Frames of a scan that are read for a card."""

_THINNED = 4 * SIDE_PX
_FAINTEST = 1e-5
_DOTS = {Role.TRAIN: (58, 134, 200), Role.HELDOUT: (217, 96, 26), Role.UNUSED: (150, 150, 150)}


def small_png(rgba: NDArray[np.uint8]) -> bytes:
    """A picture (h, w, 4) as PNG with a palette of 256 colours, a third as large as with all of them.

    Notebooks keep their pictures, and are kept under version control.
    """
    from PIL import Image as Picture

    buffer = io.BytesIO()
    picture = Picture.fromarray(rgba)
    opaque = bool((rgba[..., 3] == 255).all())
    # with transparency there is one way to find a palette; without, the one that keeps greys and faint hues apart
    reduced = picture.convert("RGB").quantize(256, Picture.Quantize.MEDIANCUT) if opaque else picture.quantize(256)
    reduced.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _fitted(values: NDArray[Any]) -> NDArray[Any]:
    """A picture (h, w, ...) of at most 2 SIDE_PX: larger ones lose rows and columns; the page enlarges small ones."""
    step = -(-max(values.shape[:2]) // (2 * SIDE_PX))
    return values[::step, ::step]


def _coloured(values: NDArray[Any], limits: tuple[float, float], cmap: str) -> bytes:
    """A picture of values (h, w) in a colour scale; what is not a number is transparent."""
    import matplotlib

    scaled = np.clip((values - limits[0]) / max(limits[1] - limits[0], 1e-30), 0, 1)
    colours = matplotlib.colormaps[cmap].with_extremes(bad=(0, 0, 0, 0))
    return small_png(_fitted(colours(np.ma.masked_invalid(scaled), bytes=True)))


def object_pair(image: Image) -> tuple[bytes, bytes]:
    """Phase and amplitude of an object, cropped and scaled as the report shows them."""
    step = max(1, max(image.object.shape) // _THINNED)
    view = object_view(image.object[::step, ::step], image.coverage[::step, ::step])
    phase = _coloured(view.phase, view.phase_limits, "twilight" if view.phase_wraps else "gray")
    return phase, _coloured(view.amplitude, view.amplitude_limits, "gray")


def probe(modes: NDArray[np.complex64]) -> bytes:
    """The strongest mode of a probe (P, N, N): hue is phase, brightness is amplitude."""
    strongest = modes[int(np.argmax(mode_powers(modes)))]
    rgb = np.round(255 * complex_colours(strongest, float(np.abs(strongest).max()))).astype(np.uint8)
    return small_png(_fitted(np.concatenate([rgb, np.full((*rgb.shape[:2], 1), 255, np.uint8)], axis=-1)))


def positions(positions_px: NDArray[np.float64], role: NDArray[np.int8] | None = None) -> bytes:
    """Frame centres (M, 2) as dots, y downwards, in a colour for each role (M,); transparent between them."""
    low, span = positions_px.min(axis=0), np.maximum(np.ptp(positions_px, axis=0), 1e-9)
    box = np.clip(np.round(SIDE_PX * span / span.max()), SIDE_PX // 8, SIDE_PX).astype(int)
    dot = 1 if len(positions_px) > 1500 else 2 if len(positions_px) > 200 else 3
    places = np.round((positions_px - low) / span * (box - dot)).astype(int)
    rgba = np.zeros((*box, 4), np.uint8)
    known = np.full(len(positions_px), Role.TRAIN, np.int8) if role is None else role
    for what in (Role.TRAIN, Role.UNUSED, Role.HELDOUT):  # the few stand above the many
        y, x = places[known == what].T
        for down in range(dot):
            for right in range(dot):
                rgba[y + down, x + right] = (*_DOTS[what], 255)
    return small_png(rgba)


def mean_of_some(raw: RawData) -> tuple[NDArray[np.float64], int]:
    """Mean counts (N, N) of at most MOST_FRAMES frames, evenly spread over those looked at, and how many they are."""
    known = np.arange(raw.n_frames) if raw.looked_at is None else raw.looked_at
    chosen = known[np.unique(np.linspace(0, len(known) - 1, min(MOST_FRAMES, len(known))).round().astype(np.int64))]
    return raw.read_counts(chosen).mean(axis=0, dtype=np.float64), len(chosen)


def pattern(counts: NDArray[np.float64], mask: NDArray[np.bool_] | None) -> bytes:
    """A diffraction pattern (N, N) on a log scale of five decades; bad pixels are transparent."""
    top = max(float(counts.max()), 1e-30)
    shown = np.log10(np.maximum(counts / top, _FAINTEST))
    if mask is not None:
        shown = np.where(mask, shown, np.nan)
    return _coloured(shown, (np.log10(_FAINTEST), 0.0), "inferno")
