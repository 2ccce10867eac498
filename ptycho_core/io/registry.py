"""Readers by content: a file is examined once, then the first reader that recognises it reads it.

Order matters only where dialects share a container: the one with the more telling keys comes first. Suffixes are not
looked at, so a scan named ``.dat`` is read and a renamed image is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..data.raw import RawData
from ..errors import ConfigError, DataError, suggest
from .candidate import Candidate, examine
from .cxi import read_cxi, recognises_cxi
from .hdf5 import read_hdf5, recognises_hdf5
from .npz import read_npz, recognises_npz
from .tike import read_tike, recognises_tike

__all__ = ["READERS", "Reader", "choose_reader", "read_scan"]


@dataclass(frozen=True)
class Reader:
    """One dialect.

    Attributes:
        name: of the dialect.
        title: what it is, with the names it is recognised by.
        kind: container, as in ``Candidate.kind``.
        recognises: whether an examined file is of this dialect.
        read: read it; the second argument is the caller's ``measurement``.
    """

    name: str
    title: str
    kind: str
    recognises: Callable[[Candidate], bool]
    read: Callable[[Candidate, str | None], RawData]


READERS = (
    Reader("tike", "NPZ or .npz.bz2 with data, scan, probe", "npz", recognises_tike, read_tike),
    Reader("npz", "NPZ with diff3d or diffraction, xcoords, ycoords, probeGuess", "npz", recognises_npz, read_npz),
    Reader("cxi", "CXI (HDF5) with entry_1/…, far field", "hdf5", recognises_cxi, read_cxi),
    Reader("hdf5", "HDF5 with frames, positions_px", "hdf5", recognises_hdf5, read_hdf5),
)


def _dialects() -> str:
    return "; ".join(f"{reader.name}: {reader.title}" for reader in READERS)


def choose_reader(path: Path | str, dialect: str | None = None) -> tuple[Reader, Candidate]:
    """Examine a file and find its reader.

    Args:
        path: the file.
        dialect: name of a reader to use whatever the names in the file are, or None to choose by content.

    Raises:
        ConfigError: no such dialect.
        DataError: the file cannot be read, or is of no dialect.
    """
    named = {reader.name: reader for reader in READERS}
    if dialect is not None and dialect not in named:
        raise ConfigError(f"dialect = {dialect!r}; allowed: {', '.join(named)}.{suggest(dialect, named)}")
    file = examine(path)
    if file is None:
        raise DataError(f"{path}: not a scan in any known dialect, by its first bytes. Known: {_dialects()}.")
    if file.kind == "bundle":
        raise DataError(f"{path}: is a trained model, not a scan; use it as `ptycho reconstruct --model {path} DATA`.")
    if dialect is not None:
        if named[dialect].kind != file.kind:
            raise DataError(f"{path}: is {file.kind.upper()}, but dialect {dialect!r} is {named[dialect].title}.")
        return named[dialect], file
    for reader in READERS:
        if reader.recognises(file):
            return reader, file
    held = ", ".join(sorted(file.names)) or "nothing"
    raise DataError(
        f"{path}: {file.kind.upper()} that is no scan in any known dialect. It holds: {held}. Known: {_dialects()}."
    )


def read_scan(path: Path | str, *, measurement: str | None = None, dialect: str | None = None) -> RawData:
    """Read a scan of any known dialect.

    Args:
        path: the file.
        measurement: ``amplitude`` or ``counts`` (``intensity`` means counts), for files that do not state it.
        dialect: ``npz``, ``tike``, ``cxi`` or ``hdf5``; None tells it from the content.

    Returns:
        The validated scan; ``source.assumptions`` says what was assumed.

    Raises:
        DataError: the file is missing, damaged, of no known dialect, or no usable scan.
        ConfigError: `measurement` or `dialect` is none of the allowed words.
    """
    reader, file = choose_reader(path, dialect)
    try:
        return reader.read(file, measurement)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); copy or export it again.") from error
