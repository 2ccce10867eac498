"""What reading a file may cost. A file of kilobytes can ask for terabytes; these are the limits and their options.

They hold for a block of work (``within``), which is everything that is done for one file: readers ask for them where
they read, and so do the helpers that many readers share (decision 45).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from .errors import ConfigError

__all__ = ["DEFAULT_LIMITS", "MEGABYTE", "Limits", "limits_at_work", "memory_left", "within"]

MEGABYTE = 10**6


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of reading, each with an option that raises it (docs/security.md).

    Attributes:
        memory_mb: megabytes of 10⁶ bytes that reading a file may take beyond its own size: for arrays read whole, what
            is decompressed, and the library that reads it. ``--max_memory``.
        seconds: seconds of processor time that one step of reading may take; waiting for a slow disk does not count.
            ``--max_seconds``.
        canvas_px: object pixels that the positions of a scan may span where its frames have fewer; frames that overlap
            have more. ``--max_canvas``.
        objects: groups, datasets and links of an HDF5 file, members of an archive; ten times as many files of a folder
            or a store, and parts of a virtual dataset, of which each frame may be one. ``--max_objects``.
        nesting: groups in groups, structures in structures. ``--max_nesting``.
        external: whether an HDF5 file may have its data in files outside of its own folder. ``--allow_external``.
        guard: read in a child process whose death or excess is an error of the file. Without it a damaged file can end
            or stop this process. ``--no_guard``. Where there are no POSIX processes there is no guard.
    """

    memory_mb: float = 768.0
    seconds: float = 8.0
    canvas_px: int = 2**26
    objects: int = 100_000
    nesting: int = 64
    external: bool = False
    guard: bool = os.name == "posix"

    def __post_init__(self) -> None:
        for name in ("memory_mb", "seconds", "canvas_px", "objects", "nesting"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ConfigError(f"Limits.{name} = {value!r}; it must be a finite number > 0.")

    @property
    def array_bytes(self) -> int:
        """Bytes that an array may have which is read whole: besides it there are copies of it."""
        return int(self.memory_mb * MEGABYTE / 3)

    @property
    def files(self) -> int:
        """Files of a folder or a store, and parts of a virtual dataset: a scan may have one or more for each frame."""
        return 10 * self.objects

    def decompressed_bytes(self, compressed_bytes: int) -> int:
        """Bytes that something may have which is decompressed whole; sparse frames of counts shrink a hundredfold."""
        return max(self.array_bytes, 100 * compressed_bytes)


DEFAULT_LIMITS = Limits()
"""What holds where nobody says anything."""


def memory_left() -> int | None:
    """Bytes of memory that this process may still take, by the machine and its control group; None where none says."""
    known = [_number("/proc/meminfo", "MemAvailable:", 1024)]
    most, used = _number("/sys/fs/cgroup/memory.max"), _number("/sys/fs/cgroup/memory.current")
    if most is not None and used is not None:
        known.append(max(most - used, 0))
    return min((left for left in known if left is not None), default=None)


def _number(path: str, name: str = "", unit: int = 1) -> int | None:
    """The number behind a name in a file of the system, or None."""
    try:
        with open(path, encoding="ascii") as file:
            words = file.read(4096).split()
        return int(words[words.index(name) + 1 if name else 0]) * unit
    except (OSError, ValueError, IndexError):  # not there, or "max"
        return None


_of_this_block: ContextVar[Limits] = ContextVar("limits of reading", default=DEFAULT_LIMITS)


@contextmanager
def within(limits: Limits) -> Iterator[None]:
    """Have limits hold for what is read in the block."""
    token = _of_this_block.set(limits)
    try:
        yield
    finally:
        _of_this_block.reset(token)


def limits_at_work() -> Limits:
    """The limits that hold for the file that is being read."""
    return _of_this_block.get()
