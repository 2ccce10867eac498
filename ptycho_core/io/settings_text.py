"""Settings as YAML that ``--config`` takes as it is: the exact ones of a run, or all there are, with their meaning.

What decides a result stands at the top level, as in a ``TrainingConfig``; what does the work under ``runtime``; how a
scan is read under ``reading``, by the names of the command's options.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..config import EngineOptions, InferenceConfig, ModelConfig, RefinementConfig, TrainingConfig
from ..runtime import Runtime

__all__ = ["APPLY", "READING", "attribute_docs", "comment", "meanings", "reading_of", "settings_lines", "yaml_value"]

READING = "reading"
"""Name of the part that says how a scan is read."""

APPLY = "apply"
"""Name of the part that says which model is applied, in the settings of an image that a model made."""

_WIDTH = 100

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*")
_WORDS_WITH_MEANING = {"true", "false", "null"}
_NO_TEXT = re.compile("[\ud800-\udfff]")

Meanings = Mapping[str, Any]
"""Name of a setting → what it is, in words; or, of a part, the meanings in it."""

_READ_AS = {"mapping": "map", "scan_step_m": "scan_step", "rotate_deg": "rotate"}
"""Field of ``ReadOptions`` → the option of the command, where the two are called differently."""


def attribute_docs(config_type: type) -> dict[str, str]:
    """The one-paragraph description of each field, from the ``Attributes`` section of its class or one it extends."""
    texts: dict[str, str] = {}
    for base in reversed(config_type.__mro__):
        section = (base.__doc__ or "").partition("Attributes:")[2]
        texts |= dict(re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, flags=re.MULTILINE))
    # None is written null on a command line and in YAML
    plain = {name: re.sub(r"\bNone\b", "null", re.sub(r"\s+", " ", text)) for name, text in texts.items()}
    return {name: text.replace("`", "").strip().rstrip(".") for name, text in plain.items()}


def meanings(sizes: type | None = None, options: Sequence[type[EngineOptions]] = ()) -> Meanings:
    """What each setting of a training and of its runtime means.

    Args:
        sizes: class of the network's sizes, where there is a network.
        options: classes of the settings that engines have for themselves.
    """
    own: dict[str, Any] = dict(attribute_docs(TrainingConfig))
    own["model"] = {"generator": attribute_docs(ModelConfig)["generator"]} | (attribute_docs(sizes) if sizes else {})
    own["inference"], own["refinement"] = attribute_docs(InferenceConfig), attribute_docs(RefinementConfig)
    own["options"] = {found.engine: attribute_docs(found) for found in options}
    return own | {"runtime": attribute_docs(Runtime)}


def yaml_value(value: Any) -> str:
    """A plain value as YAML reads it back: texts in quotes where they could be taken for something else."""
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS_WITH_MEANING:
            return value
        text = json.dumps(value, ensure_ascii=False)
        return "".join(char if char.isprintable() else rf"\U{ord(char):08x}" for char in text)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{yaml_value(str(k))}: {yaml_value(v)}" for k, v in value.items()) + "}"
    return "[" + ", ".join(map(yaml_value, value)) + "]"


def settings_lines(values: Mapping[str, Any], meaning: Meanings | None = None, level: int = 0) -> Iterator[str]:
    """The lines of a block of settings, each under its meaning where that is given.

    Args:
        values: name → plain value, or the values of a part.
        meaning: of each; None writes no comments.
        level: how deep the block lies.
    """
    indent = "  " * level
    for name, value in values.items():
        said = (meaning or {}).get(name)
        if isinstance(said, str):
            yield from comment(said, indent)
        key = yaml_value(str(name))
        if isinstance(value, str) and _NO_TEXT.search(value):
            yield f"{indent}# {key} is no UTF-8, which no file of text can hold; give it on the command line"
        elif isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from settings_lines(value, said if isinstance(said, Mapping) else None, level + 1)
        else:
            yield f"{indent}{key}: {yaml_value(value)}"


def comment(text: str, indent: str = "") -> list[str]:
    """A text as lines of comment."""
    how: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", **how)


def reading_of(provenance: Mapping[str, Any], read_with: Mapping[str, str] | None) -> dict[str, Any]:
    """How the scan of a run was read, by the names of the command's options.

    Args:
        provenance: of the run; the command leaves it there under ``reading``.
        read_with: ``source.details["read_with"]`` of a scan that a program read.
    """
    said = provenance.get(READING)
    if isinstance(said, Mapping):
        return dict(said)
    given = {_READ_AS.get(name, name): str(value) for name, value in (read_with or {}).items()}
    return {name: True if value == "True" else value.strip("()").replace(" ", "") for name, value in given.items()}
