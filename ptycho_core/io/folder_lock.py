"""One command at a time in a folder: a lock file that names its owner.

The lock is the operating system's (``flock``), so that it ends with its process, however that ends, and a file left by
a killed one is no obstacle. The text of the file is there for whoever finds the folder in use. Where the platform or
the file system has no such locks, the file itself is the lock, and it is taken over only from a process of this
machine that is gone.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import OutputError

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK_NAME", "hold_folder", "sweep_locks"]

LOCK_NAME = ".ptycho.lock"

_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # some network file systems
_NO_FOLLOW = os.O_NOFOLLOW if hasattr(os, "O_NOFOLLOW") else 0  # the target of a link is not ours to write
_STALE = re.compile(re.escape(LOCK_NAME) + "-[0-9a-f]{32}")
_ADVICE = f"; if nothing runs there any more, delete {LOCK_NAME} in it"


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that exists while the block runs; it is released and removed however that ends.

    Raises:
        OutputError: another command holds it (its process and host are named), or no lock can be written there.
    """
    path = folder / LOCK_NAME
    try:
        handle = _take(path)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{folder}: the output folder cannot be written ({error.strerror}); choose another with --out."
        ) from error
    try:
        yield
    finally:
        _release(handle, path)


def _take(path: Path) -> int:
    if fcntl is None:
        return _take_by_creating(path)
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            created = True
        except FileExistsError:
            try:
                handle = os.open(path, os.O_RDWR | _NO_FOLLOW)
            except FileNotFoundError:  # released just now
                continue
            created = False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise _in_use(path) from None
        except OSError as error:
            if error.errno in _NO_LOCKS_HERE and created:
                _sign(handle, path)
                return handle
            os.close(handle)
            if error.errno not in _NO_LOCKS_HERE:
                raise
            return _take_by_creating(path)
        if _is_still_there(handle, path):
            _sign(handle, path)
            return handle
        os.close(handle)  # its owner removed the file between our opening and our locking it: that lock excludes nobody


def _is_still_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _take_by_creating(path: Path) -> int:
    """Lock by creating the file; one of a process of this machine that is gone is moved out of the way first."""
    found = _read(path)
    if found.get("host") == socket.gethostname() and not _is_running(found.get("pid")):
        stale = path.with_name(f"{path.name}-{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            os.rename(path, stale)
            if _read(stale) != found:  # somebody was faster, and this is the lock just taken
                os.rename(stale, path)
                raise _in_use(path, advice=_ADVICE)
            stale.unlink()
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        raise _in_use(path, advice=_ADVICE) from None
    _sign(handle, path)
    return handle


def sweep_locks(folder: Path) -> None:
    """Remove stale locks that a killed process was moving out of the way; the caller holds the folder."""
    for path in folder.glob(f"{LOCK_NAME}-*"):
        if _STALE.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with suppress(OSError):
                path.unlink()


def _sign(handle: int, path: Path) -> None:
    """Write the owner into a lock that was taken; one that cannot be written is given up."""
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        os.ftruncate(handle, 0)
        os.write(handle, (json.dumps(owner) + "\n").encode())
    except OSError:  # a full disk
        _release(handle, path)
        raise


def _release(handle: int, path: Path) -> None:
    """Remove the file before the lock ends: afterwards it may be another's."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a folder that became read-only; the next command takes the lock over
        pass
    finally:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)  # closing is not enough while a forked worker has the handle too
        os.close(handle)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_running(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0 or os.name == "nt":  # there, asking with signal 0 would interrupt it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _in_use(path: Path, *, advice: str = "") -> OutputError:
    found = _read(path)
    if {"pid", "host"} <= found.keys():
        since = f" since {found['started']}" if "started" in found else ""
        who = f"process {found['pid']} on host {found['host']}{since}"
    else:
        who = "another process"
    return OutputError(
        f"{path.parent}: the folder is in use by {who}; wait until it has ended or choose another folder with "
        f"--out{advice}."
    )
