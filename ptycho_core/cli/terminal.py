"""What standard output and standard error can take: any encoding, a closed handle, a full disk, a reader that is gone.

A terminal gets what it can show. Where its encoding lacks a character, a plain one stands for it (``x`` for ``×``),
else its escape; nothing that a command says may fail for how it looks.
"""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

__all__ = [
    "PLAIN",
    "HelpAsked",
    "can_show",
    "fill_missing_handles",
    "forgiving_streams",
    "give_up",
    "is_loss",
    "is_terminal",
    "put",
]

PLAIN = "ptycho.plain"
"""Name of the error handler of encoding that writes a plain character for one that a terminal lacks."""

_PLAIN_FOR = {
    **{"×": "x", "µ": "u", "μ": "u", "≤": "<=", "≥": ">=", "≈": "~", "±": "+-", "−": "-", "·": "*", "→": "->"},
    **{"–": "-", "—": "-", "…": "...", "‘": "'", "’": "'", "“": '"', "”": '"', "«": '"', "»": '"', "\u00a0": " "},
    **{"√": "sqrt ", "Σ": "sum ", "Δ": "d", "∂": "d", "λ": "lambda", "π": "pi", "ψ": "psi", "Å": "A", "½": "1/2"},
    **{"°": " deg", "²": "^2", "³": "^3", "⁻": "^-", "¹": "1", "⁶": "6", "ō": "o"},
}


class HelpAsked(Exception):  # noqa: N818 - nothing went wrong
    """``--help`` stands in a command line; its message is the text to show."""


_GONE = {errno.EPIPE, errno.EBADF, errno.EIO, errno.ENXIO, errno.ECONNRESET}
"""A reader that has seen enough, a handle or a terminal that is closed: nobody misses what is not written."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN_FOR.get(c) or c.encode("unicode_escape").decode("ascii") for c in lacking), error.end


codecs.register_error(PLAIN, _plain)  # a name that only this module gives to a stream


def can_show(stream: TextIO | None, text: str) -> bool:
    """Whether a stream takes every character of a text as it is."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return False
    return True


def fill_missing_handles() -> None:
    """Put the null device on standard handles that are closed, in a process that was started for the command.

    Else the first file that is opened gets the number of one, and what a library writes to standard error goes into it.
    """
    with suppress(OSError):
        while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(handle)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", errors=PLAIN, closefd=False))  # noqa: SIM115


@contextmanager
def forgiving_streams() -> Iterator[None]:
    """Have standard output and standard error show what they can while the block runs, whoever writes to them."""
    changed: list[tuple[TextIO, str]] = []
    for stream in (sys.stdout, sys.stderr):
        reconfigure, errors = getattr(stream, "reconfigure", None), getattr(stream, "errors", None)
        if reconfigure is not None and errors is not None:
            with suppress(OSError, ValueError):  # closed, or with something in it that cannot be written
                reconfigure(errors=PLAIN)
                changed.append((stream, errors))
    try:
        yield
    finally:
        for stream, errors in changed:
            with suppress(OSError, ValueError):
                stream.reconfigure(errors=errors)  # type: ignore[attr-defined]


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; one that is closed, or of a program and cannot tell, is none."""
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, TypeError, ValueError):
        return False


def put(stream: TextIO | None, text: str) -> OSError | None:
    """Write to a stream and flush it.

    Returns:
        What the operating system had against it, or None.
    """
    if stream is None:
        return None
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:  # a stream of a kind that cannot be told how to
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, errors=PLAIN).decode(encoding))
        stream.flush()
    except OSError as error:
        return error
    except ValueError:  # closed
        return None
    return None


def is_loss(error: OSError) -> bool:
    """Whether somebody misses what could not be written: a full disk, and not a reader that has gone."""
    return error.errno not in _GONE


def give_up(stream: TextIO) -> None:
    """Send what else goes to a stream nowhere, so that what waits in it is no error when the process ends."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    with suppress(OSError, ValueError):
        stream.flush()
