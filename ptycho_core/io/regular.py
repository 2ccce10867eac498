"""Only a regular file is read: a pipe would be waited for without end, a device read without end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ..errors import DataError, PtychoError

__all__ = ["check_regular", "irregular", "is_same_file"]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def irregular(path: Path | str) -> str:
    """What lies at a path where it is no regular file, in words; links are followed. Empty where it is one, or nothing.

    Raises:
        ValueError: no path.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return "a link that leads in a circle" if error.errno == errno.ELOOP else ""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def check_regular(path: Path | str, error: type[PtychoError] = DataError, *, what: str = "a file") -> None:
    """Refuse what is there and is no regular file, before it is opened; links are followed.

    A path at which nothing is, or that may not be looked at, passes: whoever opens it says so better.

    Args:
        path: of a file that is to be read.
        error: what to raise.
        what: is asked for, for the message: ``a scan``, ``a model bundle``.

    Raises:
        PtychoError: of the class `error`.
    """
    try:
        kind = irregular(path)
    except ValueError as reason:  # a name with a null character
        raise error(f"{str(path)!r}: no name of a file ({reason}).") from reason
    if kind:
        advice = "Name the file in it" if kind == "a folder" else "Write it to one first"
        raise error(f"{path}: is {kind}; {what} is read from a regular file only. {advice}.")


def is_same_file(a: Path, b: Path) -> bool:
    """Whether two paths lead to one file or folder, by whatever names and links."""
    try:
        return a.samefile(b)
    except OSError:  # one of them is not there
        return False
