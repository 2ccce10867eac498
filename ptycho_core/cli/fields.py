"""The fields of settings classes as options: dotted names, types, defaults, and what the docstring says of each."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from ..config import EngineOptions, ModelConfig
from ..config_mapping import config_in
from ..io.settings_text import attribute_docs
from ..plugins.generators import installed_generators

__all__ = ["Field", "fields_of"]


@dataclasses.dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
        name: dotted (``model.width``).
        hint: its annotation; ``dict[str, Any]`` for the options of engines, whose class the engine decides.
        default: of its class.
        text: its entry in the docstring, without the full stop.
    """

    name: str
    hint: Any
    default: Any
    text: str


def fields_of(config_type: type, prefix: str = "") -> Iterator[Field]:
    """Every field of a settings class, nested ones included, in the order of the class."""
    hints, docs = typing.get_type_hints(config_type), attribute_docs(config_type)
    for field in dataclasses.fields(config_type):
        name, hint = f"{prefix}{field.name}", hints[field.name]
        nested = config_in(hint)
        if nested is ModelConfig:
            yield Field(f"{name}.generator", str, ModelConfig().generator, attribute_docs(ModelConfig)["generator"])
            yield from _sizes_of_generators(f"{name}.")
        elif nested is not None:
            yield from fields_of(nested, f"{name}.")
        elif EngineOptions in typing.get_args(hint):
            yield Field(name, dict[str, Any], None, docs[field.name])
        else:
            yield Field(name, hint, field.default, docs[field.name])


def _sizes_of_generators(prefix: str) -> Iterator[Field]:
    """Every size of every generator that ships or that an installed engine registers, once, with whose it is."""
    found: dict[str, Field] = {}
    whose: dict[str, list[str]] = {}
    for _, record in installed_generators():
        for field in fields_of(record.sizes, prefix):
            found.setdefault(field.name, field)
            whose.setdefault(field.name, []).append(record.name)
    for name, field in found.items():
        names = ", ".join(dict.fromkeys(whose[name]))
        yield dataclasses.replace(field, text=f"{names}: {field.text}")
