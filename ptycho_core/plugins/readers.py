"""Which readers of scan files are installed, and how their faults are told from those of a file (specs/40-plugins).

Readers come through the door that engines come through (:mod:`.discovery`). They differ in that every one of them that
knows a container is asked about every file of it; so one that fails is passed over, and that is said, where an engine
that fails ends the job.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..data.raw import RawData, Source
from ..data.recording import Recording, recording_of
from ..errors import ConfigError, DataError, MissingPackageError, PtychoError, ReaderError, suggest
from ..reader_protocol import ACCEPTED_READER_VERSIONS, ReaderSpec, ReadOptions
from .discovery import (
    READERS,
    Entry,
    PluginStatus,
    Versions,
    accepts,
    by_name,
    check_promises,
    conflict,
    describe,
    installed,
    is_missing,
    owner,
    pip_line,
)

if TYPE_CHECKING:
    from ..io.candidate import Candidate

__all__ = ["CONTAINERS", "InstalledReader", "ReaderStatus", "available_readers", "find_reader", "readers_by_priority"]

CONTAINERS = ("npz", "hdf5", "folder", "other")
"""What ``ReaderSpec.kind`` may be."""


@dataclass(frozen=True, kw_only=True)
class ReaderStatus(PluginStatus):
    """What is known of one reader without importing what it reads with.

    Attributes:
        kind: container of its files, or an empty text where that is not known.
        priority: readers of one container are asked from the highest down.
    """

    kind: str = ""
    priority: int = 0


@dataclass(frozen=True)
class InstalledReader:
    """A reader that an installed distribution offers.

    Attributes:
        spec: its description.
        distribution: installed distribution and version that offers it.
        passed_over: what is to be said of readers that could not be asked before this one was chosen.
    """

    spec: ReaderSpec
    distribution: str
    passed_over: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the dialect."""
        return self.spec.name

    @property
    def who(self) -> str:
        """The reader in words, with where it comes from."""
        return f"reader '{self.name}' ({self.distribution})"

    def recognises(self, file: Candidate) -> bool:
        """Whether a file is of its dialect; a file of another container is not.

        Raises:
            ReaderError: the reader failed, which is the cause.
            MissingPackageError: a module that it requires is not installed.
        """
        if file.kind != self.spec.kind:
            return False
        try:
            return bool(self._function("recognises")(file))
        except (MemoryError, MissingPackageError, ReaderError):
            raise
        except (Exception, SystemExit) as error:
            raise ReaderError(
                f"{self.who} failed in recognising {file.path}: {type(error).__name__}: {error}."
            ) from error

    def record(self, file: Candidate, options: ReadOptions) -> Recording:
        """Read a scan as it lies in the file; what was passed over is among its warnings.

        Raises:
            DataError: it is no usable scan; or the reader raised what is no error of this package, or returned no scan;
                or one of several scans was asked for, and files of this dialect hold one.
            MissingPackageError: a module that it requires is not installed.
        """
        if self.spec.one_scan and options.entry not in (None, "0"):
            raise DataError(
                f"{file.path}: entry {options.entry!r} was asked for (--entry, --scan_index), but a file of dialect "
                f"{self.name!r} holds one scan. Leave it out."
            )
        try:
            found = self._function("read")(file, options)
        except (PtychoError, MemoryError):
            raise
        except OSError as error:
            raise DataError(
                f"{file.path}: cannot be read ({error.strerror or error}); copy or export it again."
            ) from error
        except (Exception, SystemExit) as error:
            raise DataError(
                f"{file.path}: {self.who} failed in reading it: {type(error).__name__}: {error}. That is a fault of "
                "the reader; report it to its authors with the traceback, which --debug shows."
            ) from error
        if isinstance(found, RawData):
            found = recording_of(found)
        if not isinstance(found, Recording):
            raise DataError(
                f"{file.path}: {self.who} returned a {type(found).__name__}; it must be a Recording, or a RawData."
            )
        return replace(found, source=self._told(found.source, file))

    def _told(self, source: Source, file: Candidate) -> Source:
        """Provenance, with what holds for a file whichever reader it has."""
        assumptions = source.assumptions
        if file.beside:
            shown = ", ".join(file.beside[:3]) + (f" and {len(file.beside) - 3} more" if len(file.beside) > 3 else "")
            assumptions = (*assumptions, f"What lies in {shown} was read as if it lay in {file.path.name}.")
        return replace(source, assumptions=assumptions, warnings=(*source.warnings, *self.passed_over))

    def _function(self, name: str) -> Any:
        """A function of its module, which is imported for it."""
        absent = _absent(self.spec)
        if absent:
            raise MissingPackageError(
                f"{self.who} needs {', '.join(absent)}, which is not installed. Install it with: {pip_line(self.spec)}"
            )
        try:
            module: Any = importlib.import_module(self.spec.module)
        except (Exception, SystemExit) as error:
            raise ReaderError(
                f"{self.who}: its module {self.spec.module} cannot be imported: {type(error).__name__}: {error}."
            ) from error
        function = getattr(module, name, None)
        wanted = 1 if name == "recognises" else 2
        if not callable(function) or not accepts(function, wanted):
            raise ReaderError(
                f"{self.who}: its module {self.spec.module} must have a function {name} that takes {wanted} "
                f"argument{'s' if wanted > 1 else ''}: {'file' if wanted == 1 else 'file, options'}."
            )
        return function


def _absent(spec: ReaderSpec) -> list[str]:
    return [module for module in spec.requires if is_missing(module)]


def _reader(entry: Entry) -> InstalledReader:
    """Ask one plugin module.

    Raises:
        ReaderError: it is broken, or does not keep the hook.
    """
    who = f"reader '{entry.name}' ({owner(entry)}, {entry.value})"
    spec = describe(READERS, entry)
    if not isinstance(spec, ReaderSpec):
        raise ReaderError(f"{who}: ptycho_reader() returned {type(spec).__name__}; it must be a ReaderSpec.")
    check_promises(READERS, spec, entry.name, who, Versions(*ACCEPTED_READER_VERSIONS))
    if spec.kind not in CONTAINERS:
        raise ReaderError(
            f"{who}: kind = {spec.kind!r}; it must be one of {', '.join(CONTAINERS)}."
            f"{suggest(str(spec.kind), CONTAINERS)}"
        )
    if not (isinstance(spec.module, str) and all(part.isidentifier() for part in spec.module.split("."))):
        raise ReaderError(f"{who}: module = {spec.module!r}; it must be the name of a module.")
    if not isinstance(spec.priority, int):
        raise ReaderError(f"{who}: priority = {spec.priority!r}; it must be a whole number.")
    return InstalledReader(spec, owner(entry))


def _status(name: str, entries: Sequence[Entry]) -> ReaderStatus:
    owners = " and ".join(owner(e) for e in entries)
    if len(entries) > 1:
        detail = str(conflict(READERS, name, entries))
        return ReaderStatus(name=name, title="", distribution=owners, state="conflict", detail=detail, install="")
    try:
        spec = _reader(entries[0]).spec
    except ReaderError as error:
        return ReaderStatus(name=name, title="", distribution=owners, state="broken", detail=str(error), install="")
    absent = _absent(spec)
    return ReaderStatus(
        name=name,
        title=spec.title,
        distribution=owners,
        state="missing" if absent else "ready",
        detail=f"not installed: {', '.join(absent)}" if absent else "needs nothing more",
        install=pip_line(spec) if absent else "",
        kind=spec.kind,
        priority=spec.priority,
    )


def available_readers() -> list[ReaderStatus]:
    """List every reader that an installed distribution offers, with its state, in the order they are asked.

    Plugin modules are imported, nothing else. No plugin can make this fail.
    """
    found = [_status(name, entries) for name, entries in by_name(installed(READERS)).items()]
    return sorted(found, key=lambda status: (-status.priority, status.name))


def find_reader(name: str) -> InstalledReader:
    """Return the reader of a dialect.

    Raises:
        ConfigError: no distribution offers it.
        ReaderError: several do, or its plugin is broken.
    """
    known = by_name(installed(READERS))
    if name not in known:
        raise ConfigError(f"dialect = {name!r}; allowed: {', '.join(known) or 'none'}.{suggest(str(name), known)}")
    if len(known[name]) > 1:
        raise conflict(READERS, name, known[name])
    return _reader(known[name][0])


def readers_by_priority() -> tuple[list[InstalledReader], list[str]]:
    """Every reader that can be asked, the one with the most telling names first, and what is wrong with the others.

    Raises:
        ReaderError: two distributions claim one name, so that which one reads would be chance.
    """
    readers, broken = [], []
    for name, entries in by_name(installed(READERS)).items():
        if len(entries) > 1:
            raise conflict(READERS, name, entries)
        try:
            readers.append(_reader(entries[0]))
        except ReaderError as error:
            broken.append(str(error))
    return sorted(readers, key=lambda reader: (-reader.spec.priority, reader.name)), broken
