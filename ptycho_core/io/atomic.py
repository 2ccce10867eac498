"""Atomic output: every file is written under a temporary name, flushed to disk and renamed.

A killed process leaves the old file or the new one, never a half of either. It may leave the temporary one too; that
is removed by whoever writes the same file next. The temporary is locked while it is written (``flock``, which ends with
its process): one whose lock is free belongs to nobody.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError
from .regular import irregular

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]

__all__ = ["atomic_path", "ensure_output_folder", "flush_folder", "sweep_temporaries", "write_bytes", "write_text"]

_TEMPORARY = re.compile(r"\.(?P<of>.+)\.(?P<id>[0-9a-f]{32}|[a-z0-9_]{8})\.partial(?P<suffix>\.[^.]+)?", re.DOTALL)
"""The short ids are of temporaries that earlier versions made, and did not lock."""

_LONGEST = 160
"""Bytes of a name that are taken into that of its temporary, which has 255 on most systems."""

_NO_FOLLOW = os.O_NOFOLLOW if hasattr(os, "O_NOFOLLOW") else 0


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    The temporary file is there, empty and locked, while the block runs. A library that locks what it writes, as HDF5
    does, has to be told not to; ``io.h5_output`` does that.

    Raises:
        OutputError: the folder is missing or cannot be written, or what would be replaced is no regular file.
    """
    target = Path(path)
    kind = irregular(target)
    if kind:  # renaming would put a file in the place of a device
        raise OutputError(f"{target}: is {kind}; only a regular file is replaced. Choose another name.")
    sweep_temporaries(target.parent, of=target.name)
    try:
        handle, temporary = _claim(target)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "make room there, or choose another folder" if full else "choose a folder that exists and is writable"
        raise OutputError(f"{target}: cannot write there ({error.strerror}); {advice}.") from error
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OutputError:
        raise  # of a file written inside this block: it names the culprit already
    except OSError as error:
        raise OutputError(f"{target}: writing failed ({error.strerror or error}); nothing was replaced.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        os.close(handle)


def _claim(target: Path) -> tuple[int, Path]:
    """Make a temporary file for a target, and hold its lock; it is shared like any other file (umask)."""
    head = os.fsdecode(os.fsencode(target.name)[:_LONGEST])
    suffix = target.suffix if len(os.fsencode(target.suffix)) < 40 else ""
    while True:
        temporary = target.parent / f".{head}.{uuid.uuid4().hex}.partial{suffix}"
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if not _lock(handle) or _is_still_there(handle, temporary):
            return handle, temporary
        os.close(handle)  # it was taken for a leftover before it was locked


def _lock(handle: int) -> bool:
    """Take the lock of an open file; False where somebody has it, or there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_still_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def sweep_temporaries(folder: Path, *, of: str | None = None) -> None:
    """Remove temporary files of this module whose process is gone; what looks otherwise, or is locked, stays.

    Args:
        folder: where to look; one that is not there has none.
        of: of this file only; None for all, also those that earlier versions left, which is for whoever holds the
            folder.
    """
    head = None if of is None else os.fsdecode(os.fsencode(of)[:_LONGEST])
    try:
        names = [name for name in os.listdir(folder) if ".partial" in name]
    except OSError:
        return
    for name in names:
        found = _TEMPORARY.fullmatch(name)
        if found is None or (found["suffix"] or "") not in ("", Path(found["of"]).suffix):
            continue
        if head is None or (found["of"] == head and len(found["id"]) == 32):
            with suppress(OSError):
                _remove_if_free(folder / name)


def _remove_if_free(path: Path) -> None:
    # to be written, since a lock on a network drive asks for that; a pipe of that name may be there
    handle = os.open(path, os.O_RDWR | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0))
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode) and _lock(handle) and _is_still_there(handle, path):
            path.unlink()
    finally:
        os.close(handle)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, content.encode("utf-8"))


def flush_folder(path: Path) -> None:
    """Have the names in a folder on the disk, where platform and file system can."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def ensure_output_folder(path: Path | str) -> Path:
    """Make an output folder, and prove that it can be written, before hours are spent on its content.

    Raises:
        OutputError: it cannot be made or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"{folder}: the output folder cannot be written ({error.strerror}); choose another with --out."
        ) from error
    return folder
