"""Room on a disk, asked before hours of work whose result would not fit there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import OutputError

__all__ = ["check_room"]


def _free(folder: Path) -> int | None:
    """Bytes that this process may still write, or None where that is not told (a network drive, a quota)."""
    try:
        if not hasattr(os, "statvfs"):
            return shutil.disk_usage(folder).free
        found = os.statvfs(folder)
    except OSError:
        return None
    blocks = found.f_bfree if os.geteuid() == 0 else found.f_bavail  # some are kept for root
    return blocks * found.f_frsize if found.f_blocks else None


def check_room(folder: Path, at_least: int) -> None:
    """Refuse a folder on whose disk a result cannot fit.

    Args:
        folder: that is there.
        at_least: bytes that the result takes for certain; more may be needed.

    Raises:
        OutputError: fewer are free.
    """
    free = _free(folder)
    if free is not None and free < at_least:
        raise OutputError(
            f"{folder}: the result takes at least {at_least / 1e6:.1f} MB and {free / 1e6:.1f} MB are free on its "
            "disk; make room there or choose another folder with --out. Nothing was written."
        )
