"""Words of a command line as values: what a field's annotation allows, and how it is said to people."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config_checks import fits
from ..errors import ConfigError
from .settings_file import read_yaml

__all__ = ["default_text", "placeholder", "type_text", "typed_value"]

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    Path: "a path",
    dict: 'a mapping such as {"algorithm": "lsq"}',
    tuple: "a list such as [a,b]",
}

_PLACEHOLDERS: dict[Any, str] = {
    bool: "true|false", int: "N", float: "NUMBER", str: "WORD", Path: "PATH", dict: "{...}", tuple: "[A,B]"
}  # fmt: skip


def _choices(hint: Any) -> tuple[list[Any], bool]:
    """The types that an annotation allows, and whether None is one of them."""
    origin = typing.get_origin(hint)
    options = [hint] if origin in (None, tuple, dict) else list(typing.get_args(hint))
    return [option for option in options if option is not type(None)], type(None) in options


def type_text(hint: Any) -> str:
    """What a value must be, in words."""
    options, optional = _choices(hint)
    text = " or ".join(_WORDS[typing.get_origin(option) or option] for option in options)
    return f"{text} or null" if optional else text


def placeholder(hint: Any) -> str:
    """What stands for a value in a list of options."""
    options, _ = _choices(hint)
    return _PLACEHOLDERS[typing.get_origin(options[0]) or options[0]]


def default_text(default: Any) -> str:
    """A default as it would be given on a command line."""
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    return f"[{','.join(map(str, default))}]" if isinstance(default, tuple) else str(default)


def typed_value(text: str, hint: Any) -> Any:
    """The value that a word stands for.

    Args:
        text: as given: ``true``, ``null``, ``1e-3``, ``[a,b]``, ``{"a": 1}``, or text.
        hint: annotation of the field.

    Raises:
        ValueError: it stands for none that the field can have.
    """
    options, optional = _choices(hint)
    if optional and text == "null":
        return None
    for option in options:
        try:
            return _of_type(text, option)
        except ValueError:
            continue
    raise ValueError(text)


def _of_type(text: str, option: Any) -> Any:
    if option is bool and text in ("true", "false"):
        return text == "true"
    if option is int and re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    if option is float and math.isfinite(float(text)):
        return float(text)
    if option in (str, Path):
        return option(text)
    if typing.get_origin(option) in (tuple, dict):
        return _of_yaml(text, option)
    raise ValueError(text)


def _of_yaml(text: str, option: Any) -> Any:
    """A list or a mapping in YAML's short form, which JSON is."""
    try:
        found = read_yaml(text, "value")
    except ConfigError as error:
        raise ValueError(text) from error
    if typing.get_origin(option) is dict:
        if isinstance(found, Mapping):
            return dict(found)
    elif isinstance(found, list) and fits(tuple(found), option):
        return tuple(found)
    raise ValueError(text)
