"""Messages of the library in the words of the command: fields of configs are options, and Python's values are YAML's.

An error of the library names the field of a class (``TrainingConfig.epochs``), which is what a program has written. Who
typed a command line has written ``--epochs``, and reads that.
"""

from __future__ import annotations

import re

__all__ = ["in_option_words"]

_CLASSES = {
    "TrainingConfig": "--",
    "Runtime": "--",
    "RefinementConfig": "--refinement.",
    "InferenceConfig": "--inference.",
    "ModelConfig": "--model.",
    "SimulationConfig": "--",
    "PtychiOptions": "--options.ptychi.",
    "TensorflowOptions": "--options.tensorflow.",
}
"""Class of settings → how the options of its fields begin; those of others' engines stay as they are written."""

_FIELD = re.compile(rf"\b({'|'.join(_CLASSES)})\.(\w+)")
_NO_FIELD = re.compile(rf"\b({'|'.join(_CLASSES)}) has no field '")
_TWICE = re.compile(rf"\b(?:{'|'.join(_CLASSES)}): '")
_OF_RUNTIME = re.compile(r"\bruntime\.(?=\w+ = )")
_VALUE = re.compile(r"(?<== )(True|False|None)\b")
_TYPE = r"(?:float|int|bool|str|Path|None|tuple\[[^\]]*\])"
_KIND = re.compile(rf"(?: is an? \w+)?; it must be ({_TYPE}(?: \| {_TYPE})*)(?=\.)")
_IN_WORDS = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "text",
    "Path": "a path",
    "None": "null",
}
_YAML = {"True": "true", "False": "false", "None": "null"}
_FOR_PROGRAMS = re.compile(
    r" \((?:overwrite=True|allow_external=True|measurement='amplitude' or 'counts'|out|resume_from|Limits\.\w+"
    r"|Limits\(guard=False\))\)"
)
"""What stands behind an option for those who call the library."""


def in_option_words(text: str) -> str:
    """A message with options in place of the fields of configs.

    Args:
        text: of an error or a notice.
    """
    if (where := _NO_FIELD.search(text)) is not None:
        part = _CLASSES[where[1]].removeprefix("--").rstrip(".")
        text = _NO_FIELD.sub(f"there is no setting '{part + '.' if part else ''}", text)
    text = _TWICE.sub("'", text)
    text = _OF_RUNTIME.sub("--", text)
    text = _FIELD.sub(lambda m: f"{_CLASSES[m[1]]}{m[2]}", text)
    text = _VALUE.sub(lambda m: _YAML[m[1]], text)
    text = _KIND.sub(_kind, text)
    return _FOR_PROGRAMS.sub("", text)


def _kind(found: re.Match[str]) -> str:
    """What a value must be, in words."""
    words = [_IN_WORDS.get(kind, "a list") for kind in found[1].split(" | ")]
    return f"; it must be {' or '.join(words)}"
