"""What reading a file may cost. A file of kilobytes can ask for terabytes; these are the limits and their options."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .errors import ConfigError

__all__ = ["DEFAULT_LIMITS", "MEGABYTE", "Limits"]

MEGABYTE = 10**6


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of reading, each with an option that raises it (docs/security.md).

    Attributes:
        memory_mb: megabytes of 10⁶ bytes that reading a file may take beyond its own size: for arrays read whole, what
            is decompressed, and the library that reads it. ``--max_memory``.
        seconds: seconds of processor time that one step of reading may take; waiting for a slow disk does not count.
            ``--max_seconds``.
        canvas_px: object pixels that the positions of a scan may span. ``--max_canvas``.
        objects: groups, datasets and links of an HDF5 file, members of an archive, files of a folder.
            ``--max_objects``.
        guard: read in a child process whose death or excess is an error of the file. Without it a damaged file can end
            or stop this process. ``--no_guard``. Where there are no POSIX processes there is no guard.
    """

    memory_mb: float = 768.0
    seconds: float = 8.0
    canvas_px: int = 2**28
    objects: int = 100_000
    guard: bool = os.name == "posix"

    def __post_init__(self) -> None:
        for name in ("memory_mb", "seconds", "canvas_px", "objects"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ConfigError(f"Limits.{name} = {value!r}; it must be a finite number > 0.")


DEFAULT_LIMITS = Limits()
"""What holds where nobody says anything."""
