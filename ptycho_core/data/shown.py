"""How a value shows itself: one line in a console, a card in a notebook, pictures when they are asked for.

One line says what a value is and how large, and never prints an array. Cards and pictures need matplotlib and code of
rooms above this one, so they are made by ``ptycho_core.notebook``, which is imported by its name when somebody looks:
a scan in a job without anybody to look at it costs nothing. This module is the only place below that does so, and
tests/core/test_layers.py holds it to that.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ..text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "card",
    "extent",
    "file_name",
    "from_above",
    "length",
    "length_unit",
    "line",
    "plot",
    "rounded",
    "settings_line",
    "size",
    "stated",
]

MOST_IN_LINE = 160
"""Characters of one text in a line."""

_UNITS = ((1.0, "m"), (1e-3, "mm"), (1e-6, "µm"), (1e-9, "nm"), (1e-12, "pm"))


def from_above(module: str, name: str) -> Callable[..., Any]:
    """A function of a room above this one, imported when it is wanted.

    Args:
        module: of this package, such as ``notebook.cards``.
        name: of the function.
    """
    found: Callable[..., Any] = getattr(importlib.import_module(f"ptycho_core.{module}"), name)
    return found


def card(value: Any) -> str:
    """What a notebook shows of a value: HTML with small pictures in it, and nothing that acts."""
    made: str = from_above("notebook.cards", "card")(value)
    return made


def plot(value: Any, kind: str) -> Figure:
    """A figure of a value; see ``notebook.plotting``.

    Raises:
        ConfigError: it has no figure of that kind; the message lists those that it has.
    """
    figure: Figure = from_above("notebook.plotting", "plot")(value, kind)
    return figure


def line(name: str, *parts: str) -> str:
    """One line for a console: ``Name(part, part)``, of bounded length, in which what files say only shows."""
    return f"{name}({', '.join(one_line(part, MOST_IN_LINE) for part in parts if part)})"


def file_name(path: str | None) -> str:
    """The name of the file that a scan came from, without its folders, as Python writes a text."""
    return repr(one_line(PurePath(path).name, MOST_IN_LINE)) if path else "arrays"


def size(shape: tuple[int, ...]) -> str:
    """A shape in words: ``234×233``."""
    return "×".join(str(n) for n in shape)


def rounded(value: float | None, digits: int = 4) -> str:
    """A figure in words, ``–`` where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def length_unit(metres: float) -> tuple[float, str]:
    """The unit that suits a length, metres, and its name: the largest of which it is one at least."""
    return next((known for known in _UNITS if metres >= known[0] * (1 - 1e-9)), _UNITS[-1])


def length(metres: float | None, digits: int = 4) -> str:
    """A length with its unit, empty where it is not known."""
    if metres is None:
        return ""
    factor, unit = length_unit(metres)
    return f"{metres / factor:.{digits}g} {unit}"


def extent(shape: tuple[int, ...], pixel_size_m: float | None) -> str:
    """Side lengths (y × x) of so many object pixels, empty where their size is not known."""
    return "" if pixel_size_m is None else " × ".join(length(n * pixel_size_m) for n in shape)


def stated(config: Any) -> dict[str, Any]:
    """Name → value of those fields of a frozen settings class that differ from their defaults."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        given = field.default
        if field.default_factory is not dataclasses.MISSING:
            given = field.default_factory()
        if given is dataclasses.MISSING or value != given:
            found[field.name] = value
    return found


def settings_line(config: Any) -> str:
    """One line of a frozen settings class: those fields that differ from their defaults, as they would be given."""
    return line(type(config).__name__, *(f"{name}={value!r}" for name, value in stated(config).items()))
