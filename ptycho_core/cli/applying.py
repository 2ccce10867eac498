"""What a file of settings says of a model that is applied: which model, by which engine, and whether to its own scan.

``ptycho reconstruct`` leaves it under ``apply`` in the ``settings.yaml`` of its result, so that the file repeats it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config_checks import shown
from ..errors import ArchiveError, ConfigError, suggest
from ..io.regular import check_regular
from ..io.result_switch import where_it_lies
from ..io.settings_text import APPLY
from ..text import one_line, shell_words
from .options import Options
from .settings_file import read_settings

__all__ = ["applied", "said_by_file", "with_applied"]

_KINDS: dict[str, tuple[type, str]] = {
    "model": (str, "the path of a model bundle"),
    "sha256": (str, "the SHA-256 of that file"),
    "backend": (str, "the name of an engine"),
    "same_scan": (bool, "true or false"),
}


def with_applied(options: Options) -> Options:
    """The options with what ``apply`` in the file of ``--config`` says, below the command line.

    Raises:
        ConfigError: it names the file; something there that cannot be said, or another model than it was; or no model
            is named at all.
    """
    said = _said(Path(options["config"])) if options["config"] else {}
    if options["model"] is not None and said.get("sha256") not in (None, _sha256(Path(options["model"]))):
        said = {}  # how another model was applied says nothing of this one
    found = {
        "model": options["model"] or said.get("model"),
        "backend": options["backend"] or said.get("backend"),
        "same_scan": options["same_scan"] or said.get("same_scan", False),
    }
    if found["model"] is None:
        raise ConfigError(
            "no model is named; give --model BUNDLE (model.ptycho, as 'run' and 'train' write it), or --config with "
            "the settings.yaml of a reconstruction. See 'ptycho reconstruct --help'."
        )
    if options["model"] is None and "sha256" in said:
        held = _sha256(Path(found["model"]))
        if held not in (None, said["sha256"]):
            again = shell_words(["--model", found["model"]])
            raise ConfigError(
                f"{options['config']}: {APPLY}.model = {shown(found['model'])} is another file now than the one of "
                f"these settings (its SHA-256 is {held}); give {again} to apply it all the same."
            )
    return {**options, **found}


def said_by_file(given: Options, options: Options) -> str | None:
    """What the file of ``--config`` decided of a model, for people; None where the command line did.

    Args:
        given: on the command line.
        options: with what the file says, see :func:`with_applied`.
    """
    if (given["model"], given["same_scan"]) == (options["model"], options["same_scan"]):
        return None
    how = ", for the scan that it was made from (--same_scan)" if options["same_scan"] else ""
    return f"{one_line(options['model'])}{how}, as {one_line(options['config'])} says"


def _said(path: Path) -> dict[str, Any]:
    """The part of a file, checked."""
    said = read_settings(path).get(APPLY) or {}
    if not isinstance(said, Mapping):
        raise ConfigError(f"{path}: '{APPLY}' must hold 'name: value' settings: {', '.join(_KINDS)}.")
    for name, value in said.items():
        if name not in _KINDS:
            raise ConfigError(f"{path}: {APPLY} has no setting {name!r}.{suggest(str(name), _KINDS)}")
        kind, words = _KINDS[name]
        if not isinstance(value, kind) or value == "":
            raise ConfigError(f"{path}: {APPLY}.{name} = {shown(value)}; it must be {words}.")
    return dict(said)


def applied(options: Options, engine: str) -> dict[str, Any]:
    """What is applied, for the settings of the result: plain data by the names that a file has it under.

    Args:
        options: with what a file says, see :func:`with_applied`.
        engine: that applies it.
    """
    path = options["model"]
    return {"model": path, "sha256": _sha256(Path(path)), "backend": engine, "same_scan": options["same_scan"]}


def _sha256(path: Path) -> str | None:
    """Of a model; None where it cannot be read, which whoever loads it says better."""
    check_regular(path, ArchiveError, what="a model bundle")
    try:
        with open(where_it_lies(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None
