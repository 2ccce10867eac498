"""Which datasets an HDF5 file holds, those behind soft, hard and external links included, without reading any.

The file is gone through twice: first along its hard links alone, which never leave it, to see what other files it leads
to (``h5_beside``) and that it is of bounded size; only then is any other link followed. All of it is done with the
identifiers of HDF5 itself, since a path of thousands of names takes the library long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.h5_file import open_h5
from ..errors import DataError
from ..limits import Limits, limits_at_work
from .h5_beside import Surroundings

__all__ = ["Names", "check_surroundings", "names_in"]

_CHARACTERS = 200
"""Characters of a path, in the mean over as many paths as there may be objects."""


@dataclass
class Names:
    """What was found.

    Attributes:
        shapes: path without the leading slash → shape and dtype, or what a link that leads nowhere names.
        beside: other files that it has data in, as it names them.
    """

    shapes: dict[str, str] = field(default_factory=dict)
    beside: dict[str, None] = field(default_factory=dict)


def names_in(h5: Any) -> Names:
    """List every path at which a dataset lies; a group that links to one of its own ancestors is not entered again.

    Args:
        h5: an open file.

    Raises:
        DataError: it leads to files that it may not lead to, or has more objects, or groups in groups, than is allowed.
    """
    import h5py

    beside = check_surroundings(h5)
    listing = _Listing(str(h5.file.filename), limits_at_work(), Names(beside=beside))
    root = h5.id if isinstance(h5.id, h5py.h5g.GroupID) else h5py.h5g.open(h5.id, b"/")
    info = h5py.h5o.get_info(root)
    listing.group(root, "", ((info.fileno, info.addr),))
    return listing.found


def check_surroundings(h5: Any) -> dict[str, None]:
    """The other files that an HDF5 file has data in, as it names them, all of which may be read.

    Args:
        h5: an open file.

    Raises:
        DataError: they lie outside of its folder, and that is not allowed; or it has too many objects or groups in
            groups.
    """
    around = Surroundings(Path(os.fsdecode(h5.file.filename)), limits_at_work())
    _look_through(h5, around.main, around)
    return around.named


# --- along hard links -----------------------------------------------------------------------------------------------


def _look_through(h5: Any, file: Path, around: Surroundings) -> None:
    """Check every link and every dataset of one file, and the files that they lead to."""
    import h5py

    met, n_links = set(), 0
    to_do = [(h5py.h5g.open(h5.file.id, b"/"), "", 0)]
    while to_do:
        group, where, depth = to_do.pop()
        for name, kind in _links(group):
            n_links += 1
            if n_links > around.limits.objects:
                raise _too_many(file, around.limits)
            inside = f"{where}/{_text(name)}"
            if kind == h5py.h5l.TYPE_EXTERNAL:
                named, _ = group.links.get_val(name)
                _enter(around.check_link(file, inside, os.fsdecode(named)), around)
            if kind != h5py.h5l.TYPE_HARD:
                continue
            info = h5py.h5o.get_info(group, name)
            if info.addr in met:
                continue
            met.add(info.addr)
            if info.type == h5py.h5o.TYPE_DATASET:
                for source in around.check_dataset(file, inside, h5py.h5d.open(group, name)):
                    _enter(source, around)
            elif info.type == h5py.h5o.TYPE_GROUP:
                if depth >= around.limits.nesting:
                    raise _too_deep(file, around.limits)
                to_do.append((h5py.h5g.open(group, name), inside, depth + 1))


def _enter(path: Path | None, around: Surroundings) -> None:
    """Look through another file, once."""
    if path is None or (real := os.path.realpath(path)) in around.looked_at:
        return
    around.looked_at.add(real)
    try:
        with open_h5(path, follow=True) as h5:
            _look_through(h5, path, around)
    except DataError as error:
        if "still being written" not in str(error):  # whoever wants what is in there says so
            raise
    except OSError:
        return  # a damaged one cannot be entered by anybody


def _links(group: Any) -> Iterator[tuple[bytes, int]]:
    """Name and kind of every link of a group, in the order of names."""
    found: list[tuple[bytes, int]] = []
    group.links.iterate(lambda name, info: found.append((name, int(info.type))), info=True)
    yield from found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _too_many(file: Path | str, limits: Limits) -> DataError:
    return DataError(
        f"{file}: has more than {limits.objects} links to groups and datasets; it is damaged, or made so that reading "
        "does not end. If it does have so many, allow more with --max_objects (Limits.objects)."
    )


def _too_deep(file: Path | str, limits: Limits) -> DataError:
    return DataError(
        f"{file}: has groups in groups more than {limits.nesting} deep; it is damaged, or made so that reading does "
        "not end. If it does go so deep, allow more with --max_nesting (Limits.nesting)."
    )


# --- along all links ------------------------------------------------------------------------------------------------


@dataclass
class _Listing:
    """The paths of a file as they are found."""

    file: str
    limits: Limits
    found: Names
    n_links: int = 0
    n_characters: int = 0

    def group(self, group: Any, prefix: str, above: tuple[tuple[int, int], ...]) -> None:
        """List what is in a group, and in the groups in it."""
        import h5py

        for name, kind in _links(group):
            path = f"{prefix}{_text(name)}"
            self._count(path)
            try:
                info = h5py.h5o.get_info(group, name)
                if info.type == h5py.h5o.TYPE_DATASET:
                    self.found.shapes[path] = _described(h5py.h5d.open(group, name))
                elif info.type == h5py.h5o.TYPE_GROUP and (here := (info.fileno, info.addr)) not in above:
                    if len(above) > self.limits.nesting:  # by links alone
                        raise _too_deep(self.file, self.limits)
                    self.group(h5py.h5g.open(group, name), f"{path}/", (*above, here))
            except (KeyError, OSError, RuntimeError) as error:
                if kind == h5py.h5l.TYPE_HARD:
                    raise
                self.found.shapes[path] = _dangling(group, name, kind, error)

    def _count(self, path: str) -> None:
        self.n_links += 1
        self.n_characters += len(path)
        if self.n_links > self.limits.objects or self.n_characters > _CHARACTERS * self.limits.objects:
            raise _too_many(self.file, self.limits)


def _dangling(group: Any, name: bytes, kind: int, error: BaseException) -> str:
    import h5py

    value = group.links.get_val(name)
    file, path = value if kind == h5py.h5l.TYPE_EXTERNAL else (None, value)
    beside = "" if file is None else f" of {_text(file)}"
    held = "still being written" if "lock" in str(error) else "not there"
    return f"link to {_text(path)}{beside}, {held}"


def _described(dataset: Any) -> str:
    shape = dataset.shape
    try:
        return f"{shape} {dataset.dtype}"
    except (TypeError, ValueError):  # a type that NumPy has not
        return f"{shape} of a type that is not read"
