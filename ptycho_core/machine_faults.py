"""Errors of the machine, whichever code meets them: no room, no handles, a disk or a network drive that fails."""

from __future__ import annotations

import errno

__all__ = ["MACHINE_FAULTS", "NAMES_AND_PERMISSIONS"]

_NAMES = (
    *("ENOSPC", "EDQUOT", "EFBIG", "EMFILE", "ENFILE", "ENOMEM", "EROFS"),
    *("EIO", "ENXIO", "ENODEV", "EREMOTEIO", "ENOMEDIUM", "EMEDIUMTYPE", "EUCLEAN"),
    *("ESTALE", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENOTCONN", "ENOLCK", "EMLINK"),
)  # fmt: skip

MACHINE_FAULTS = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))
"""Numbers that no code of ours or of an engine is to blame for."""

NAMES_AND_PERMISSIONS = frozenset({
    errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY,
    errno.EXDEV, errno.ENOTEMPTY, errno.ETXTBSY,
})  # fmt: skip
"""Numbers that a command's own files may end with: what was asked for cannot be opened, or not be written there."""
