"""What a reader of scan files is: its description, and the two functions of its module (specs/40-plugins)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .data.propagation import Propagation

if TYPE_CHECKING:
    from .data.raw import RawData
    from .io.candidate import Candidate

__all__ = ["ACCEPTED_READER_VERSIONS", "READER_VERSION", "ReadOptions", "Reader", "ReaderSpec"]

READER_VERSION = 1
"""Version of this protocol."""

ACCEPTED_READER_VERSIONS = (1, 1)
"""First and last version of the protocol that this host accepts."""


@dataclass(frozen=True, kw_only=True)
class ReaderSpec:
    """What a reader's hook returns: enough to list it, and to know which files to ask it about.

    Attributes:
        name: of the dialect, the word in ``--dialect``; equal to the name of the entry point.
        title: what the files are, with the names they are recognised by.
        kind: container that its files are: ``npz``, ``hdf5``, or ``other`` for what is neither.
        module: module with the functions of :class:`Reader`; it is imported when there is a file of that container.
        protocol_version: version of this protocol that it was written for.
        priority: readers of one container are asked from the highest down; the more telling the names that a reader
            goes by, the higher. Ours are at 10 and 20.
        requires: top-level modules that must be importable.
        extra: what to pip install when one is missing.
    """

    name: str
    title: str
    kind: str
    module: str
    protocol_version: int
    priority: int = 0
    requires: tuple[str, ...] = ()
    extra: str = ""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What the caller says of a file beside what is in it.

    Attributes:
        measurement: ``amplitude`` or ``counts`` (``intensity`` means counts), where the file does not state it.
        propagation: how waves get to the detector, where the file does not state it; a reader refuses one that
            contradicts the file.
    """

    measurement: str | None = None
    propagation: Propagation | None = None


class Reader(Protocol):
    """The module of a reader, or anything else with these two functions."""

    def recognises(self, file: Candidate, /) -> bool:
        """Whether an examined file is of this dialect, by its names; nothing is read for it."""

    def read(self, file: Candidate, options: ReadOptions, /) -> RawData:
        """Read the scan.

        Raises:
            DataError: it is no usable scan; the message says what was found, and the fix.
        """
