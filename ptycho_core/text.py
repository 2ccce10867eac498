"""Text from files, names and libraries, made fit to be shown: on a terminal, in a log, in a report.

A name in a file is anybody's words. Control characters move a terminal's cursor or write its clipboard, format
characters turn the direction of what follows, and lone surrogates (names of files that are no UTF-8) cannot be written
at all. Each of them is shown as its escape, so that nothing is lost and nothing acts.
"""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

__all__ = [
    "MOST_CHARACTERS",
    "counted",
    "html_text",
    "json_escaped",
    "listed",
    "one_line",
    "plain_name",
    "printable",
    "shell_words",
    "shortened",
    "storable",
]

MOST_CHARACTERS = 2000
"""Characters of a message that are shown, half of them from its end."""

_ACTING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories: control, format, surrogate, private use, not assigned, line and paragraph separator."""


def printable(text: str, *, keep: str = "") -> str:
    r"""A text whose characters only show: every other one is written as its escape (``\x1b``, ``\u202e``).

    Args:
        text: anything.
        keep: characters that are left as they are, such as a line break.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or not _acts(c) else c.encode("unicode_escape").decode() for c in text)


def _acts(character: str) -> bool:
    return not character.isprintable() and unicodedata.category(character) in _ACTING


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text of bounded length: what is too long loses its middle, and says how much."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]} … ({len(text) - 2 * head} characters left out) … {text[len(text) - head :]}"


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names for a message: the first of them, each of bounded length, and how many more there are; printable."""
    found = list(names)
    shown = ", ".join(shortened(printable(name), 100) for name in found[:most])
    return f"{shown} and {len(found) - most} more" if len(found) > most else shown


def counted(n: int, one: str, several: str = "") -> str:
    """A number with its word, which may bring a verb: ``1 frame``, ``3 frames``; ``1 pixel is``, ``3 pixels are``.

    Args:
        n: how many.
        one: the word of one.
        several: that of none and of several; empty adds an s.
    """
    return f"{n} {one if n == 1 else several or f'{one}s'}"


def one_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text as one line of bounded length whose characters only show; white space of any kind is one space."""
    return shortened(printable(" ".join(shortened(text, most).split())), most)


def json_escaped(text: str) -> str:
    r"""A JSON document whose characters only show: ``\u202e`` stands for itself in it, and is read back as it was."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not _acts(c) else _json_escape(c) for c in text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def html_text(text: str) -> str:
    """A text for a page: printable, and without any mark-up."""
    return escape(printable(text, keep="\n\t"))


def plain_name(name: str, most_bytes: int = 200) -> str:
    """A name for a file of ours made of somebody else's: what would not show is ``_``, and its length is bounded.

    Args:
        name: without a folder.
        most_bytes: of its UTF-8 form; file systems take 255, endings of ours included.
    """
    shown = "".join("_" if _acts(c) else c for c in name)
    return shown.encode("utf-8")[:most_bytes].decode("utf-8", errors="ignore")


def storable(value: Any, most: int = 100_000) -> Any:
    """Plain data whose texts, names of entries included, only show and can be written as UTF-8.

    Args:
        value: mappings, lists, tuples and what else plain data are made of; anything else is left as it is.
        most: characters of a text that are kept.
    """
    if isinstance(value, str):
        return value if value.isprintable() and len(value) <= most else shortened(printable(value, keep="\n\t"), most)
    if isinstance(value, Mapping):
        return {storable(key, most): storable(item, most) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(storable(item, most) for item in value) if type(value) in (list, tuple) else value
    return value


def shell_words(words: Iterable[str]) -> str:
    r"""A command line to copy: words as a shell takes them, those that would not show by their bytes (``$'\x80'``)."""
    return " ".join(shlex.quote(word) if word.isprintable() else _ansi_quoted(word) for word in words)


def _ansi_quoted(word: str) -> str:
    shown = []
    for c in word:
        if c in "\\'":
            shown.append(f"\\{c}")
        elif c.isprintable():
            shown.append(c)
        else:  # a name of a file that is no UTF-8 has its bytes as surrogates
            errors = "surrogateescape" if "\udc80" <= c <= "\udcff" else "surrogatepass"
            shown += [f"\\x{byte:02x}" for byte in c.encode("utf-8", errors)]
    return f"$'{''.join(shown)}'"
