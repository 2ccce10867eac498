"""A scan is read, looked at as ``inspect`` looks, and accepted or refused, before anything is made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..data.container import PtychoDataContainer
from ..data.raw import RawData
from ..inspection.examine import examine, refuse_grave
from ..protocol import Progress, no_progress
from ..runtime import Runtime
from .observe import Observer
from .prepare import ProbeSearch, ScanInput, ensure_container, ensure_raw
from .stages import Engines

__all__ = ["ScanSource", "accepted_scans", "files_read", "known_side", "look_at", "read_source"]

ScanSource = ScanInput | Callable[[], RawData]
"""A scan, or a function that reads it: it is called when the engines have accepted the config."""


def known_side(scan: object) -> int | None:
    """N of data in memory; a path is not opened before the engine has accepted the config."""
    if isinstance(scan, PtychoDataContainer):
        return scan.raw.side
    return scan.side if isinstance(scan, RawData) else None


def read_source(scan: ScanSource, observer: Observer) -> RawData | PtychoDataContainer:
    """The scan in memory, or open; roles that a container has are kept.

    Raises:
        DataError: no usable scan.
    """
    if isinstance(scan, PtychoDataContainer):
        return scan.checked()
    with observer.stage("read"):
        return ensure_raw(scan() if callable(scan) else scan)


def look_at(raw: RawData, observer: Observer, *, despite_findings: bool) -> None:
    """Tell what the reader and the checks of ``inspect`` have to warn of.

    Raises:
        DataError: a grave finding; the message says how to go on all the same.
    """
    with observer.stage("check"):
        findings = examine(raw)
    refuse_grave(findings, raw, despite=despite_findings)
    for text in (*raw.source.warnings, *(f.text for f in findings if f.level in ("warning", "error"))):
        observer.notice(text)


def accepted_scans(
    scans: Sequence[ScanSource],
    engines: Engines,
    observer: Observer,
    *,
    despite_findings: bool,
    progress: Progress = no_progress,
) -> list[PtychoDataContainer]:
    """Read scans, look at them, give their frames roles, and find a probe from those to learn from if one has none.

    All are read and looked at before an engine is imported, which takes seconds.

    Raises:
        DataError: no usable scan, or one with a grave finding.
        ConfigError: something in it that an engine would leave out, or sampling that it cannot satisfy.
    """
    read = [_looked_at(scan, engines, observer, despite_findings=despite_findings) for scan in scans]
    engines.load_all()
    return [_with_roles(one, engines, observer, progress) for one in read]


def _raw_of(read: RawData | PtychoDataContainer) -> RawData:
    return read.raw if isinstance(read, PtychoDataContainer) else read


def _looked_at(
    scan: ScanSource, engines: Engines, observer: Observer, *, despite_findings: bool
) -> RawData | PtychoDataContainer:
    read = read_source(scan, observer)
    engines.check_scan(_raw_of(read))
    look_at(_raw_of(read), observer, despite_findings=despite_findings)
    return read


def _with_roles(
    read: RawData | PtychoDataContainer, engines: Engines, observer: Observer, progress: Progress
) -> PtychoDataContainer:
    if _raw_of(read).probe is not None:
        return ensure_container(read, engines.config, tell=observer.notice)
    search = ProbeSearch(runtime=engines.runtime, most_modes=engines.most_modes(), progress=progress)
    with observer.stage("probe"):
        return ensure_container(read, engines.config, tell=observer.notice, search=search)


def files_read(scans: Sequence[PtychoDataContainer], runtime: Runtime) -> list[Path]:
    """Files that a job reads and must leave alone."""
    given = [scan.raw.source.path for scan in scans]
    return [Path(path) for path in (*given, runtime.resume_from) if path is not None]
