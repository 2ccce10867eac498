"""What every frozen settings class checks of itself: types, choices and ranges, each answered in one sentence."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any

from .errors import ConfigError, suggest
from .text import shortened

__all__ = ["check_choice", "check_range", "check_types", "fits", "shown"]

_INT64 = range(-(2**63), 2**63)
"""Whole numbers that NumPy and every engine can hold."""

_MOST_SHOWN = 200
"""Characters of a value in a message."""


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value has the annotated type; an int passes for a float, a bool never for a number."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in typing.get_args(annotation))
    if origin is tuple:
        item = typing.get_args(annotation)[0]
        return isinstance(value, tuple) and all(fits(v, item) for v in value)
    if annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _is_finite(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and _INT64.start <= value < _INT64.stop
    return isinstance(value, origin or annotation)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def shown(value: Any) -> str:
    """A value in a message: as Python writes it, of bounded length whatever it is."""
    try:
        return shortened(repr(value), _MOST_SHOWN)
    except Exception:  # a whole number of more digits than Python writes, or an object of somebody's own
        return f"a {type(value).__name__} that cannot be shown"


def type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def check_types(config: Any) -> None:
    """Refuse a value that is not of its field's annotated type.

    Raises:
        ConfigError: the first that is not.
    """
    hints = typing.get_type_hints(type(config))
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if not fits(value, hints[f.name]):
            large = isinstance(value, int) and value not in _INT64
            said = "beyond 64 bits" if large else f"a {type(value).__name__}"
            raise ConfigError(
                f"{type(config).__name__}.{f.name} = {shown(value)} is {said}; it must be {type_name(hints[f.name])}."
            )


def check_choice(owner: str, name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a word that is none of those allowed.

    Raises:
        ConfigError: it is none; the nearest is suggested.
    """
    if value not in allowed:
        raise ConfigError(f"{owner}.{name} = {shown(value)}; allowed: {', '.join(allowed)}.{suggest(value, allowed)}")


def check_range(owner: str, name: str, value: float | None, low: float, high: float = math.inf) -> None:
    """Refuse a number out of range; None passes.

    Raises:
        ConfigError: it is.
    """
    if value is not None and not low <= value <= high:
        limit = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise ConfigError(f"{owner}.{name} = {shown(value)}; it must be {limit}.")
