"""Text from files, names and libraries, made fit to be shown: on a terminal, in a log, in a report.

A name in a file is anybody's words. Control characters move a terminal's cursor or write its clipboard, format
characters turn the direction of what follows, and lone surrogates (names of files that are no UTF-8) cannot be written
at all. Each of them is shown as its escape, so that nothing is lost and nothing acts.
"""

from __future__ import annotations

import unicodedata

__all__ = ["MOST_CHARACTERS", "printable", "shortened"]

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
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in keep or unicodedata.category(c) not in _ACTING else c.encode("unicode_escape").decode() for c in text
    )


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text of bounded length: what is too long loses its middle, and says how much."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]} … ({len(text) - 2 * head} characters left out) … {text[len(text) - head :]}"
