"""Which other files an HDF5 file leads to, and whether they may be read: those in its own folder, and no others.

An HDF5 file names other files in three ways: external links, the sources of virtual datasets, and external storage
(raw bytes of any file at all). Each of them would put a file of this machine into a result, for whoever wrote the scan.
They are looked for as HDF5 looks for them, so that what is judged is what would be read, and judged by presence: a file
that leads outside is refused, whether or not what lies there would be used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..limits import Limits
from .regular import check_regular

__all__ = ["Surroundings", "places"]

_BLOCK = re.compile(r"%(%|b)")
"""In the name of a virtual source: ``%b`` is the number of a block, ``%%`` a per cent sign."""

_FILE_BLOCKS = 10**6
"""Numbers of blocks that are tried."""


@dataclass
class Surroundings:
    """The files that one HDF5 file leads to, directly or through others.

    Attributes:
        main: the file that was asked for.
        limits: whether others may lie outside of its folder, and how many there may be.
        named: files that it names itself, as it names them.
        looked_at: files that were looked through already, resolved.
        n_parts: parts of virtual datasets that were met.
    """

    main: Path
    limits: Limits
    named: dict[str, None] = field(default_factory=dict)
    looked_at: set[str] = field(default_factory=set)
    n_parts: int = 0

    def __post_init__(self) -> None:
        self.looked_at.add(os.path.realpath(self.main))

    def check_link(self, file: Path, where: str, named: str) -> Path | None:
        """The file that an external link leads to, which may be read; None where none is there.

        Args:
            file: with the link.
            where: its path in there, for messages.
            named: the name of the file that it leads to.

        Raises:
            DataError: it lies outside, or is no regular file.
        """
        return self._checked(file, where, "a link to", named, places(named, file), hdf5=True)

    def check_dataset(self, file: Path, where: str, dataset: Any) -> Iterator[Path]:
        """Check where the values of a dataset lie.

        Args:
            file: with the dataset.
            where: its path in there, for messages.
            dataset: its identifier (``h5py.h5d.DatasetID``).

        Yields:
            The files of its virtual sources that are there.

        Raises:
            DataError: they lie outside, or in no regular file, or in more files than is allowed.
        """
        import h5py

        made = dataset.get_create_plist()
        for number in range(made.get_external_count()):
            named = os.fsdecode(made.get_external(number)[0])
            self._checked(file, where, "stored in", named, [Path(named)], hdf5=False)
        if made.get_layout() != h5py.h5d.VIRTUAL:
            return
        seen: set[str] = set()
        for number in range(made.get_virtual_count()):
            self._counted(file)
            pattern = made.get_virtual_filename(number)
            if pattern == "." and made.get_virtual_dsetname(number).strip("/") == where.strip("/"):
                raise DataError(f"{file}: {where!r} is a virtual dataset of itself; the file is damaged.")
            if pattern in seen or pattern == ".":
                continue
            seen.add(pattern)
            for named in _blocks(pattern):
                self._counted(file)
                found = self._checked(file, where, "a virtual dataset of", named, places(named, file), hdf5=True)
                if found is None:
                    break  # HDF5 takes blocks up to the first that is not there
                yield found

    def _counted(self, file: Path) -> None:
        self.n_parts += 1
        if self.n_parts > self.limits.files:
            raise DataError(
                f"{self.main}: its virtual datasets have more than {self.limits.files} parts"
                f"{'' if file == self.main else f' (in {file.name})'}; it is damaged, or made so that reading does not "
                "end. If it does have so many, allow more with --max_objects (Limits.objects)."
            )

    def _checked(
        self, file: Path, where: str, what: str, named: str, candidates: list[Path], *, hdf5: bool
    ) -> Path | None:
        """The first of some places at which a file is that HDF5 would take."""
        if file == self.main:
            self.named[named] = None
        for place in candidates:
            if not _is_there(place):
                continue
            real = os.path.realpath(place)
            if not self.limits.external and not self._inside(real):
                raise DataError(
                    f"{file}: {where!r} is {what} {named!r}, which is {real}, outside of the scan's folder "
                    f"{_folder_of(self.main)}. Copy it into that folder, or allow it with --allow_external "
                    "(allow_external=True), if you trust the file."
                )
            check_regular(real, what=f"what {where!r} of {file} leads to")
            if not hdf5 or _is_hdf5(real):
                return place
        return None

    def _inside(self, real: str) -> bool:
        """Whether a file lies in the folder of the scan, or of what a link with the scan's name leads to."""
        folders = {os.path.realpath(_folder_of(self.main)), os.path.dirname(os.path.realpath(self.main))}
        return any(Path(real).is_relative_to(folder) for folder in folders)


def _folder_of(file: Path) -> str:
    return os.path.dirname(os.path.abspath(file))


def places(named: str, file: Path) -> list[Path]:
    """Where HDF5 looks for a file that another names, in order, without what environment variables say.

    An absolute name as it is, then its last part like a relative one: beside the file, in the working directory, beside
    the file that a symbolic link with its name leads to.
    """
    relative = os.path.basename(named) if os.path.isabs(named) else named
    beside = [_folder_of(file), os.getcwd(), os.path.dirname(os.path.realpath(file))]
    first = [Path(named)] if os.path.isabs(named) else []
    return list(dict.fromkeys([*first, *(Path(folder, relative) for folder in beside)]))


def _is_there(place: Path) -> bool:
    try:
        os.stat(place)
    except (OSError, ValueError):
        return False
    return True


def _is_hdf5(path: str) -> bool:
    """Whether HDF5 would open a file; of one that it would not it tries the next place."""
    import h5py

    try:
        return bool(h5py.is_hdf5(path))
    except (OSError, ValueError):
        return False


def _blocks(pattern: str) -> Iterator[str]:
    """Names of the files that the name of a virtual source stands for: one, or those of all blocks from 0 on."""
    if "b" not in _BLOCK.findall(pattern):
        yield pattern.replace("%%", "%")
        return
    for number in range(_FILE_BLOCKS):
        block = {"%": "%", "b": str(number)}
        yield _BLOCK.sub(lambda found: block[found[1]], pattern)  # noqa: B023  # it is called at once
