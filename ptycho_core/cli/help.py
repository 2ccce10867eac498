"""What ``--help`` and ``--help-all`` show, wrapped to the terminal.

``--help`` fits a screen: what the command is for, the options that people use, and where the rest is told. All options,
by groups, are in ``--help-all``. argparse writes neither: its own form is one long list, and does not wrap a text that
has a table in it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..text import printable

__all__ = ["Page", "first_sentence", "terminal_width", "two_columns", "wrapped"]

_NARROWEST, _WIDEST = 40, 120
"""Columns: below the first nothing can be laid out, beyond the second lines are hard to read."""

_NAMES = 26
"""Columns that names of options may take; a longer one has a line of its own."""

_FEW = 14
"""Options that a short page shows whatever they are."""

USUAL = (
    "--object", "--n_frames", "--N", "--photons", "--measurement", "--probe", "--orientation", "--backend", "--preset",
    "--epochs", "--accelerator", "--threads", "--seed", "--config",
)  # fmt: skip
"""Options that most people use, besides those that a command has for itself; in the order of the short page."""


def terminal_width() -> int:
    """Columns of the terminal, or of ``COLUMNS``; 80 where there is none."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, _NARROWEST), _WIDEST)


def first_sentence(text: str) -> str:
    """What a text says first: to its first full stop that ends a sentence, or its first semicolon."""
    return re.split(r"(?<=\w\w)\.\s+|;\s", text, maxsplit=1)[0].rstrip(".")


def wrapped(text: str, width: int, indent: str = "", hanging: str = "") -> list[str]:
    """A paragraph as lines; words that are longer than a line, such as file names, stay whole."""
    how = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=hanging or indent, **how)  # type: ignore[arg-type]


def _paragraphs(text: str, width: int) -> Iterator[str]:
    """A text with blank lines between paragraphs, and rows ``  name  what it is`` that stay rows."""
    waiting: list[str] = []

    def flush() -> list[str]:
        lines = wrapped(" ".join(waiting), width)
        waiting.clear()
        return lines

    for line in text.splitlines():
        row = re.fullmatch(r"  (\S.*?)(?:\s{2,}(\S.*))?", line)
        if row is None and line.startswith("   ") and not waiting:
            yield line.rstrip()
        elif row is not None:
            yield from flush()
            yield from two_columns(row[1], row[2] or "", width)
        elif line.strip():
            waiting.append(line.strip())
        else:
            yield from flush()
            yield ""
    yield from flush()


def two_columns(name: str, text: str, width: int, column: int = _NAMES) -> list[str]:
    """A name and what it is, in two columns."""
    start = " " * column
    if not text:
        return [f"  {name}"]
    if len(name) + 4 > column:
        return [f"  {name}", *wrapped(text, width, start)]
    return wrapped(text, width, f"  {name}".ljust(column), start)


@dataclass(frozen=True)
class Page:
    """What a parser has to say of itself.

    Attributes:
        usage: one line.
        summary: paragraphs; of the short page the first alone.
        groups: heading → its arguments and options; what has no heading stands under ``""``.
        example: command lines.
        command: name of the command.
    """

    usage: str
    summary: str
    groups: Mapping[str, Sequence[argparse.Action]]
    example: str
    command: str

    def _options(self) -> list[argparse.Action]:
        return [a for actions in self.groups.values() for a in actions if a.option_strings]

    @property
    def is_short(self) -> bool:
        """Whether all there is fits the short page."""
        return len(self._options()) <= _FEW

    def short(self, width: int) -> str:
        """The page of ``--help``."""
        if self.is_short:
            return self.full(width)
        by_name = {a.option_strings[-1]: a for a in self._options()}
        own = [a for a in self.groups.get("", ()) if a.option_strings and a.option_strings[-1] not in USUAL]
        usual = [by_name[name] for name in USUAL if name in by_name]
        lines = [self.usage, "", *_paragraphs(self.summary.partition("\n\n")[0], width), ""]
        lines += self._arguments(width)
        lines += ["options that people use:"]
        for action in [*own, *usual]:
            lines += _option(action, width, short=True)
        lines += ["", "more:", *_more(self.command, by_name, width)]
        return "\n".join([*lines, *self._example(width)])

    def full(self, width: int) -> str:
        """The page of ``--help-all``."""
        lines = [self.usage, "", *_paragraphs(self.summary, width), "", *self._arguments(width)]
        for title, actions in self.groups.items():
            options = [a for a in actions if a.option_strings]
            if options:
                lines += [*wrapped(f"{title or 'options'}:", width)]
                for action in options:
                    lines += _option(action, width, short=False)
                lines.append("")
        return "\n".join([*lines[:-1], *self._example(width)])

    def _arguments(self, width: int) -> list[str]:
        found = [a for actions in self.groups.values() for a in actions if not a.option_strings]
        rows = [line for a in found for line in two_columns(str(a.metavar), a.help or "", width)]
        return ["arguments:", *rows, ""] if rows else []

    def _example(self, width: int) -> list[str]:
        lines = [wrapped(line, width - 2, "  ", "      ") for line in self.example.splitlines()]
        return ["", "example:", *(" \\\n".join(parts) for parts in lines)]


def _option(action: argparse.Action, width: int, *, short: bool) -> list[str]:
    name = ", ".join(action.option_strings).replace("--help_all", "--help-all")
    text = (action.help or "").replace("%%", "%")
    if short:
        said, default = re.fullmatch(r"(.*?)( \(default: [^()]*\))?", text, re.DOTALL).groups()  # type: ignore[union-attr]
        text = first_sentence(said) + ("" if default in (None, " (default: null)") else default)
    return two_columns(f"{name} {_value(action)}".rstrip(), printable(text), width)


def _value(action: argparse.Action) -> str:
    """How the value of an option is shown."""
    if action.nargs == 0:
        return ""
    if action.metavar is None and action.choices is not None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _more(command: str, known: Iterable[str], width: int) -> list[str]:
    rows = {f"ptycho {command} --help-all": "every option, by groups"}
    if "--epochs" in known:
        rows["ptycho settings"] = "every setting, as a file for --config"
        rows["ptycho backends NAME"] = "what an engine can do, and its own options"
    column = max(map(len, rows)) + 4
    return [line for name, text in rows.items() for line in two_columns(name, text, width, column)]
