"""Which datasets an HDF5 file holds, those behind soft, hard and external links included, without reading any."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Names", "names_in"]

_MOST = 100_000
"""Names that are listed: links can make more paths than any file has datasets."""
_DEEPEST = 32


@dataclass
class Names:
    """What was found.

    Attributes:
        shapes: path without the leading slash → shape and dtype, or what a link that leads nowhere names.
        beside: other files that links lead to, as the links name them.
    """

    shapes: dict[str, str] = field(default_factory=dict)
    beside: dict[str, None] = field(default_factory=dict)


def names_in(h5: Any) -> Names:
    """List every path at which a dataset lies; a group that links to one of its own ancestors is not entered again.

    Args:
        h5: an open file.
    """
    found = Names()
    _walk(h5, "", (_identity(h5),), found)
    return found


def _identity(item: Any) -> tuple[int, int]:
    """File and address, equal for one object however it is reached."""
    import h5py

    info = h5py.h5o.get_info(item.id)
    return int(info.fileno), int(info.addr)


def _walk(group: Any, prefix: str, above: tuple[tuple[int, int], ...], found: Names) -> None:
    import h5py

    for name in group:
        if len(found.shapes) >= _MOST:
            return
        path, link = f"{prefix}{name}", group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            found.beside[link.filename] = None
        try:
            item = group[name]
            if isinstance(item, h5py.Dataset):
                found.shapes[path] = _described(item)
            elif isinstance(item, h5py.Group) and len(above) < _DEEPEST and (here := _identity(item)) not in above:
                _walk(item, f"{path}/", (*above, here), found)
        except (KeyError, OSError, RuntimeError) as error:
            if isinstance(link, h5py.HardLink):
                raise
            beside = f" of {link.filename}" if isinstance(link, h5py.ExternalLink) else ""
            held = "still being written" if "lock" in str(error) else "not there"
            found.shapes[path] = f"link to {link.path}{beside}, {held}"


def _described(item: Any) -> str:
    try:
        return f"{item.shape} {item.dtype}"
    except (TypeError, ValueError):  # a type that NumPy has not
        return f"{item.shape} of a type that is not read"
