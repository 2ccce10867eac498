"""Small text files that people write: settings, mappings, tables of numbers. They are read whole, up to a length."""

from __future__ import annotations

from pathlib import Path

from ..errors import PtychoError
from .regular import check_regular

__all__ = ["read_small_text"]


def read_small_text(path: Path, error: type[PtychoError], *, what: str, most_bytes: int, advice: str = "") -> str:
    """The text of a regular file of bounded length.

    Args:
        path: the file.
        error: what to raise.
        what: it is, for the message: ``a settings file``.
        most_bytes: that it may have.
        advice: for who gives something else than text.

    Raises:
        PtychoError: of the class `error`: it cannot be read, is longer, or is no UTF-8.
    """
    check_regular(path, error, what=what)
    try:
        with open(path, "rb") as stream:
            content = stream.read(most_bytes + 1)
    except (OSError, ValueError) as reason:  # a name with a null character is no OSError
        said = getattr(reason, "strerror", None) or reason
        raise error(f"{path}: cannot be read ({said}); check the name of {what}.") from reason
    if len(content) > most_bytes:
        raise error(f"{path}: has more than {most_bytes} bytes; {what} has no more{f'. {advice}' if advice else ''}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(
            f"{path}: is no UTF-8 text ({reason.reason} at byte {reason.start}); {advice or f'{what} is text'}."
        ) from reason
