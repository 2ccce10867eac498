"""Inspection of a scan before hours are spent on it: what is in it, what will be assumed, what looks wrong.

A finding is ``ok``, ``note`` (worth knowing), ``warning`` (look before you trust a result) or ``error`` (it cannot be
reconstructed as it is). Bad content never raises; it becomes a finding. Every command that reads a scan looks at it
with :func:`examine`, and a *grave* finding refuses it there (:func:`refuse_grave`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.propagation import Propagation
from ..data.raw import RawData
from ..data.recording import Recording
from ..errors import DataError, MissingPackageError, ReaderError
from ..io.candidate import Candidate
from ..io.guarded import settling
from ..io.measurement import UnstatedMeasurementError, unstated_note
from ..io.registry import choose_reader, recorded
from ..io.settle import scan_of
from ..limits import within
from ..plugins.readers import InstalledReader
from ..reader_protocol import ReadOptions
from .checks import CHECKS, DESPITE_FINDINGS, Finding
from .facts import Facts

__all__ = ["DESPITE_FINDINGS", "Check", "Finding", "ScanInspection", "examine", "inspect_scan", "refuse_grave"]

Check = Callable[[RawData, Facts], list[Finding]]
"""Looks at one thing of a scan and says what it found."""


LARGE_BYTES = 2**30
"""Size of a scan's counts, as float32, above which an inspection looks at some of its frames only."""

_LOOKED_AT_PX = 2**22
_LEAST_FRAMES = 12


@dataclass(frozen=True, kw_only=True)
class ScanInspection:
    """What was found in a file. Facts are None when the file could not be read that far.

    Attributes:
        path: the file.
        dialect: name of the reader, or None.
        contents: shape and dtype of every array in the file, by name.
        measurement: ``amplitude`` or ``counts``, as stated by file or caller; None when nobody does.
        propagation: from the object to the detector, as it was read.
        assumptions: what reading it assumes.
        n_frames: M.
        side: N, pixels.
        n_probe_modes: P; 0 without a probe.
        facts: figures, plain JSON values: mean counts, steps, overlap and the like, units in the names.
        findings: in the order of the checks.
    """

    path: str
    dialect: str | None = None
    contents: dict[str, str] = field(default_factory=dict)
    measurement: str | None = None
    propagation: Propagation | None = None
    assumptions: tuple[str, ...] = ()
    n_frames: int | None = None
    side: int | None = None
    n_probe_modes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether nothing forbids a reconstruction."""
        return all(finding.level != "error" for finding in self.findings)

    def to_mapping(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self) | {"assumptions": list(self.assumptions), "usable": self.usable}


def _read(
    reader: InstalledReader, file: Candidate, options: ReadOptions
) -> tuple[RawData | None, str | None, list[Finding]]:
    """Read a scan; when nobody states its measurement, go on with what the values look like, and say so."""
    try:
        recording = recorded(reader, file, options)
        raw = scan_of(recording, _within_reach(recording, options))
    except UnstatedMeasurementError as error:
        guess = error.guess or "counts"
        supposed, _, findings = _read(reader, file, dataclasses.replace(options, measurement=guess))
        note = Finding("note", f"Everything below supposes {guess}; it changes with the measurement.")
        return supposed, None, [Finding("error", str(error)), note, *findings]
    except (DataError, MissingPackageError) as error:
        return None, None, [Finding("error", str(error))]
    return raw, raw.source.measurement, []


def _within_reach(recording: Recording, options: ReadOptions) -> ReadOptions:
    """The options, so that of a scan too large to be read while somebody waits only some frames are looked at."""
    M, height, width = recording.frames.shape
    if options.look_at is not None or 4 * M * height * width <= LARGE_BYTES:
        return options
    few = min(max(_LOOKED_AT_PX // (height * width), _LEAST_FRAMES), M)
    return dataclasses.replace(options, look_at=few)


def examine(raw: RawData, facts: Facts | None = None) -> list[Finding]:
    """What the checks find in a scan that has been read; its frames are gone through once, the file is not read anew.

    Args:
        raw: the scan.
        facts: figures of it, where they are at hand; the checks add theirs.

    Returns:
        Findings in the order of the checks. What the reader warned of (``raw.source.warnings``) is not among them.
    """
    with settling(raw.source.path or "scan"):
        measured = Facts.of(raw) if facts is None else facts
        return [finding for check in CHECKS for finding in check(raw, measured)]


def refuse_grave(findings: Iterable[Finding], raw: RawData, *, despite: bool = False) -> None:
    """Refuse a scan with grave findings.

    Args:
        findings: of :func:`examine`.
        raw: the scan, for its name.
        despite: whether to let it pass.

    Raises:
        DataError: a finding is grave; the message says what to do, and the option that overrides.
    """
    grave = [finding for finding in findings if finding.grave]
    if despite or not grave:
        return
    name = raw.source.path or "scan"
    text = " ".join(finding.text.removeprefix(f"{name}: ") for finding in grave)
    raise DataError(f"{name}: {text} To go on all the same, give {grave[0].override}=True (--{grave[0].override}).")


def inspect_scan(
    path: Path | str,
    *,
    measurement: str | None = None,
    propagation: Propagation | None = None,
    dialect: str | None = None,
    options: ReadOptions | None = None,
    further: Sequence[Check] = (),
    seen: Callable[[RawData, Facts], None] | None = None,
) -> ScanInspection:
    """Inspect a file of any known dialect; needs no measurement.

    Args:
        path: the file.
        measurement: as for ``read_scan``; without it, an unstated measurement is a finding.
        propagation: as for ``read_scan``.
        dialect: as for ``read_scan``.
        options: as for ``read_scan``.
        further: checks that the caller has besides, made last and only where nothing forbids a reconstruction.
        seen: called with the scan and what was measured on it, usable or not, for whoever shows it.

    Returns:
        What was found; nothing in the file makes this raise. Of a scan above :data:`LARGE_BYTES` some frames only are
        looked at, spread over it, and a finding says how many.

    Raises:
        ConfigError: `measurement` is none of the allowed words.
    """
    said = options or ReadOptions()
    try:
        reader, file = choose_reader(path, dialect, said)
    except (DataError, ReaderError, OSError) as error:
        return ScanInspection(path=str(path), findings=[Finding("error", str(error))])
    if measurement is not None:
        said = dataclasses.replace(said, measurement=measurement)
    if propagation is not None:
        said = dataclasses.replace(said, propagation=propagation)
    raw, stated, findings = _read(reader, file, said)
    if raw is None:
        return ScanInspection(path=str(path), dialect=reader.name, contents=file.shapes, findings=findings)
    findings += [Finding("warning", text) for text in raw.source.warnings]
    try:
        with within(said.limits), settling(path):
            facts = Facts.of(raw)
            findings += examine(raw, facts)
            if all(finding.level != "error" for finding in findings):
                findings += [finding for check in further for finding in check(raw, facts)]
            if seen is not None:
                seen(raw, facts)
    except DataError as error:  # a frame that cannot be read, of a file whose header is sound
        findings.append(Finding("error", str(error)))
        return ScanInspection(path=str(path), dialect=reader.name, contents=file.shapes, findings=findings)
    return ScanInspection(
        path=str(path),
        dialect=reader.name,
        contents=file.shapes,
        measurement=stated,
        propagation=raw.propagation,
        assumptions=tuple(a for a in raw.source.assumptions if stated or a != unstated_note(raw.source.measurement)),
        n_frames=raw.n_frames,
        side=raw.side,
        n_probe_modes=0 if raw.probe is None else len(raw.probe),
        facts={key: _plain(value) for key, value in facts.figures.items()},
        findings=findings,
    )


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist()
