"""What the axes of a picture show, carried in a text chunk of the PNG itself.

A page can so say the value under the pointer from the picture alone, and a picture that is mailed without its page
still has its numbers. Content is plain JSON in ASCII.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["VALUES_KEY", "Values", "array_values", "curve_values", "point_values", "values_text"]

VALUES_KEY = "ptycho-values"
"""Keyword of the text chunk."""

MOST_VALUES = 320
"""Pixels along a side of an image that a picture carries the values of."""

_MOST_POINTS = 5000
_LEVELS = 65000
_BLANK = 65535


@dataclass(frozen=True, kw_only=True)
class Values:
    """What the axes of a figure show.

    Attributes:
        axes: they are of.
        kind: ``array``, ``points`` or ``curves``.
        content: plain JSON data, see :func:`array_values`, :func:`point_values` and :func:`curve_values`.
    """

    axes: Axes
    kind: str
    content: Mapping[str, Any]


def array_values(axes: Axes, values: NDArray[Any], name: str, unit: str = "", most: int = MOST_VALUES) -> Values:
    """The values of an image that fills its axes.

    Args:
        axes: of the image.
        values: (h, w) real, rows from the top; NaN where it is blank. Told to a 65000th of their range.
        name: what they are.
        unit: of them, or empty.
        most: pixels along a side that are told; of a larger image every second, third, …
    """
    step = max(1, -(-max(values.shape) // most))
    shown = np.asarray(values, np.float64)[::step, ::step]
    known = np.isfinite(shown)
    low, high = (float(shown[known].min()), float(shown[known].max())) if known.any() else (0.0, 0.0)
    levels = np.where(known, shown - low, 0.0) / (high - low or 1.0) * _LEVELS
    coded = np.where(known, np.round(levels), _BLANK).astype("<u2")
    content = {
        "name": name,
        "unit": unit,
        "shape": list(shown.shape),
        "low": low,
        "high": high,
        "levels": _LEVELS,
        "data": base64.b64encode(coded.tobytes()).decode("ascii"),
    }
    return Values(axes=axes, kind="array", content=content)


def _limits(axes: Axes) -> list[float]:
    """Left, right, bottom and top of axes in their own coordinates."""
    return [*map(float, axes.get_xlim()), *map(float, axes.get_ylim())]


def point_values(axes: Axes, x: ArrayLike, y: ArrayLike, texts: list[str]) -> Values | None:
    """A text for each point (n,) of a scatter plot; None of more points than a page should carry."""
    if len(texts) > _MOST_POINTS:
        return None
    pairs = np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)], axis=1)
    content = {"limits": _limits(axes), "points": np.round(pairs, 3).tolist(), "texts": texts}
    return Values(axes=axes, kind="points", content=content)


def curve_values(axes: Axes, x_name: str, curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Values:
    """Curves by name, x (n,) and y (n,) each; a page tells their values at the x that is nearest to the pointer."""
    plain = {
        name: [[_short(v) for v in np.asarray(part, np.float64)] for part in pair] for name, pair in curves.items()
    }
    log = [axes.get_xscale() == "log", axes.get_yscale() == "log"]
    return Values(axes=axes, kind="curves", content={"limits": _limits(axes), "log": log, "x": x_name, "curves": plain})


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


def values_text(values: Iterable[Values]) -> str:
    """The text of the chunk; empty where there is nothing to tell."""
    told = []
    for value in values:
        box = value.axes.get_position()
        # in parts of the picture, from its top, as pages count
        frame = [round(float(v), 5) for v in (box.x0, 1 - box.y1, box.width, box.height)]
        told.append({"kind": value.kind, "frame": frame, **value.content})
    return json.dumps(told, ensure_ascii=True, allow_nan=False) if told else ""
