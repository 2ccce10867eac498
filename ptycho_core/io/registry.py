"""Readers by content: a file is examined once, then the first reader that recognises it reads it.

Order matters only where dialects share a container: readers state a priority, and the one that goes by the more telling
names is asked first. Suffixes are not looked at, so a scan named ``.dat`` is read and a renamed image is not.
"""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from ..data.propagation import Propagation
from ..data.raw import RawData
from ..data.recording import Recording
from ..errors import ConfigError, DataError, MissingPackageError, ReaderError, suggest
from ..limits import within
from ..plugins.readers import InstalledReader, find_reader, readers_by_priority
from ..reader_protocol import READER_VERSION, ReaderSpec, ReadOptions
from ..text import listed
from .candidate import Candidate, examine
from .claims import check_claims
from .direct_frames import direct_frames
from .guarded import as_data_error, guarded_frames, in_child, warm_up
from .readers.arrays import arrays_of
from .settle import scan_of

__all__ = ["choose_reader", "expect", "read_recording", "read_scan", "recorded"]


_LINKED_FILE = 40_000
"""Bytes that reading is given more for each file that a scan leads to: opening one takes as long as reading so many."""

_KINDS = {"other": "neither NPZ nor HDF5", "folder": "a folder, or several files"}


def choose_reader(
    path: Path | str, dialect: str | None = None, options: ReadOptions | None = None
) -> tuple[InstalledReader, Candidate]:
    """Examine a file and find its reader, in the guarded child but where the file is a zip: Python alone reads those.

    Args:
        path: the file.
        dialect: name of a reader to use whatever the names in the file are, or None to choose by content.
        options: what the caller says of the file, whether it may still be being written and what it is mapped by.

    Raises:
        ConfigError: no such dialect, or a dialect and a mapping.
        DataError: the file cannot be read, is of no dialect, or of two that are as telling as each other.
        ReaderError: two readers share a name, or the one that was named is broken.
    """
    said = options or ReadOptions()
    if _is_zip(Path(path)):
        with as_data_error(path), within(said.limits):
            return _chosen(path, dialect, said)
    more = 100 * _size(Path(path)) if _starts_with(Path(path), b"BZh") else 0
    found: tuple[InstalledReader, Candidate] = in_child(
        _chosen, path, dialect, said, about=path, limits=said.limits, more_bytes=2 * more
    )
    return found


def expect(path: Path | str, options: ReadOptions) -> None:
    """Have ready what reading a file will take, while the caller still does something else."""
    if options.limits.guard and not _is_zip(Path(path)):
        warm_up()


def _is_zip(path: Path) -> bool:
    return _starts_with(path, b"PK\x03\x04", b"PK\x05\x06")


def _starts_with(path: Path, *magics: bytes) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(8).startswith(magics)
    except OSError:
        return False


def _chosen(path: Path | str, dialect: str | None, options: ReadOptions) -> tuple[InstalledReader, Candidate]:
    named = None if dialect is None else find_reader(dialect)
    readers, broken = ([], []) if named else readers_by_priority()
    file = examine(path, options.follow) or Candidate(Path(path), "other", (), {})
    if file.kind == "bundle":
        raise DataError(f"{path}: is a trained model, not a scan; use it as `ptycho reconstruct --model {path} DATA`.")
    if options.mapping is not None:
        if named is not None:
            raise ConfigError(f"dialect = {dialect!r} and a mapping ({options.mapping}) are given both; keep one.")
        return _by_mapping(file), file
    if named is not None:
        if named.spec.kind != file.kind:
            kind = _KINDS.get(file.kind, file.kind.upper())
            raise DataError(f"{path}: is {kind}, but dialect {dialect!r} is {named.spec.title}. Leave out --dialect.")
        return named, file
    passed_over: list[str] = []
    for _, level in groupby(readers, key=lambda reader: reader.spec.priority):
        found = [reader for reader in level if _recognises(reader, file, passed_over)]
        if len(found) > 1:
            raise DataError(
                f"{path}: recognised by {' and by '.join(reader.who for reader in found)}; say which with "
                f"dialect={found[0].name!r} (--dialect {found[0].name})."
            )
        if found:
            return replace(found[0], passed_over=tuple(passed_over)), file
    raise _unknown(path, file, readers, [*broken, *passed_over])


def _by_mapping(file: Candidate) -> InstalledReader:
    """The reader that does what a mapping says, with a file of any container."""
    spec = ReaderSpec(
        name="mapped",
        title="what a mapping names",
        kind=file.kind,
        module="ptycho_core.io.readers.mapped",
        protocol_version=READER_VERSION,
    )
    return InstalledReader(spec, "ptycho-core")


def _recognises(reader: InstalledReader, file: Candidate, passed_over: list[str]) -> bool:
    try:
        return reader.recognises(file)
    except (ReaderError, MissingPackageError) as error:
        passed_over.append(f"{error} It was passed over.")
        return False


def _unknown(path: Path | str, file: Candidate, readers: list[InstalledReader], wrong: list[str]) -> DataError:
    known = ", ".join(reader.name for reader in readers)
    if file.kind == "other":
        what = f"{path}: not a scan in any known dialect, by its first bytes."
    elif file.kind == "folder":
        what = f"{path}: a folder that is no scan in any known dialect; name the scan file, or a pattern with '*'."
    else:
        held = listed(sorted(file.names)) or "nothing"
        what = f"{path}: {file.kind.upper()} that is no scan in any known dialect. It holds: {held}."
    draft = ""
    if arrays_of(file) is not None:
        draft = (
            f"To say which array is what, draft a mapping (ptycho inspect --suggest-mapping {path} > mapping.yaml), "
            f"look it over, and give it (ptycho run {path} --map mapping.yaml)."
        )
    names = f"Known: {known or 'none'} ('ptycho readers' tells more)."
    return DataError(" ".join(filter(None, [what, draft, names, *wrong])))


def read_recording(path: Path | str, options: ReadOptions, dialect: str | None = None) -> Recording:
    """What a file holds of a scan, with nothing settled that the caller says beside it.

    Raises:
        DataError, ConfigError, ReaderError: as :func:`read_scan`.
    """
    reader, file = choose_reader(path, dialect, options)
    return recorded(reader, file, options)


def recorded(reader: InstalledReader, file: Candidate, options: ReadOptions) -> Recording:
    """What a reader makes of a file that it was chosen for, read in the guarded child, and its frames too.

    An NPZ is read here: Python and NumPy alone do it.

    Raises:
        DataError, ConfigError, ReaderError: as :func:`read_scan`.
    """
    if file.kind == "npz" and file.names and file.content is None:
        with as_data_error(file.path), within(options.limits):
            recording = _record(reader, file, options)
    else:
        grown = 0 if file.kind in ("hdf5", "folder") else options.limits.decompressed_bytes(_size(file.path))
        more = 2 * grown if grown > options.limits.array_bytes else 0
        more += _LINKED_FILE * len(file.beside)
        recording = in_child(_record, reader, file, options, about=file.path, limits=options.limits, more_bytes=more)
    return replace(recording, frames=guarded_frames(recording.frames, file.path, options.limits))


def _record(reader: InstalledReader, file: Candidate, options: ReadOptions) -> Recording:
    recording = reader.record(file, options)
    check_claims(recording, file.path, options.limits)
    return replace(recording, frames=direct_frames(recording.frames))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read_scan(
    path: Path | str,
    *,
    measurement: str | None = None,
    dialect: str | None = None,
    propagation: Propagation | None = None,
    options: ReadOptions | None = None,
    **said: Any,
) -> RawData:
    """Read a scan of any known dialect.

    Args:
        path: the file; a folder, or a pattern with ``*``, where each frame is a file.
        measurement: ``amplitude`` or ``counts`` (``intensity`` means counts), for files that do not state it.
        dialect: name of a reader (``npz``, ``tike``, ``cxi``, ``hdf5``, or one that was installed); None tells it from
            the content.
        propagation: how waves get to the detector, for files that do not state it: ``Propagation("near_field", F)``.
            Without it a file that says nothing is a far-field one, unless the frames tell otherwise.
        options: all that the caller says of the file; None makes them of the other arguments.
        **said: fields of :class:`~ptycho_core.reader_protocol.ReadOptions`: ``crop=256``, ``energy_eV=8800``,
            ``mask="auto"``, ``orientation="transpose"``, ``frames="0:100"`` …

    Returns:
        The validated scan; ``source.assumptions`` says what was assumed, ``source.warnings`` what looks wrong and which
        reader was passed over because it failed.

    Raises:
        DataError: the file is missing, damaged, of no known dialect, or no usable scan.
        ConfigError: an argument has a value that it cannot have, or is none.
        ReaderError: two readers share a name, or the one that was named is broken.
    """
    given = {"measurement": measurement, "propagation": propagation} | said
    known = {field.name for field in fields(ReadOptions)}
    for name in given.keys() - known:
        raise ConfigError(f"read_scan has no argument {name!r}.{suggest(name, known)}")
    given = {name: value for name, value in given.items() if value is not None}
    settled = replace(options or ReadOptions(), **given)
    return scan_of(read_recording(path, settled, dialect), settled)
