"""Inspection of a scan before hours are spent on it: what is in it, what will be assumed, what looks wrong.

A finding is ``ok``, ``note`` (worth knowing), ``warning`` (look before you trust a result) or ``error`` (it cannot be
reconstructed as it is). Bad content never raises; it becomes a finding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .data.raw import RawData
from .errors import DataError
from .inspection_checks import CHECKS, Facts, Finding
from .io.candidate import Candidate
from .io.measurement import UnstatedMeasurementError, unstated_note
from .io.registry import choose_reader

__all__ = ["Finding", "ScanInspection", "inspect_scan"]


@dataclass(frozen=True, kw_only=True)
class ScanInspection:
    """What was found in a file. Facts are None when the file could not be read that far.

    Attributes:
        path: the file.
        dialect: name of the reader, or None.
        contents: shape and dtype of every array in the file, by name.
        measurement: ``amplitude`` or ``counts``, as stated by file or caller; None when nobody does.
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
    read: Callable[[Candidate, str | None], RawData], file: Candidate, measurement: str | None
) -> tuple[RawData | None, str | None, list[Finding]]:
    """Read a scan; when nobody states its measurement, go on with what the values look like, and say so."""
    try:
        raw = read(file, measurement)
    except UnstatedMeasurementError as error:
        guess = error.guess or "counts"
        supposed, _, findings = _read(read, file, guess)
        note = Finding("note", f"Everything below supposes {guess}; it changes with the measurement.")
        return supposed, None, [Finding("error", str(error)), note, *findings]
    except (DataError, OSError) as error:
        return None, None, [Finding("error", str(error))]
    return raw, raw.source.measurement, []


def inspect_scan(path: Path | str, *, measurement: str | None = None) -> ScanInspection:
    """Inspect a file of any known dialect; needs no measurement.

    Args:
        path: the file.
        measurement: as for ``read_scan``; without it, an unstated measurement is a finding.

    Returns:
        What was found; nothing in the file makes this raise.

    Raises:
        ConfigError: `measurement` is none of the allowed words.
    """
    try:
        reader, file = choose_reader(path)
    except (DataError, OSError) as error:
        return ScanInspection(path=str(path), findings=[Finding("error", str(error))])
    raw, stated, findings = _read(reader.read, file, measurement)
    if raw is None:
        return ScanInspection(path=str(path), dialect=reader.name, contents=file.shapes, findings=findings)
    facts = Facts.of(raw)
    findings += [Finding("warning", text) for text in raw.source.warnings]
    for check in CHECKS:
        findings += check(raw, facts)
    return ScanInspection(
        path=str(path),
        dialect=reader.name,
        contents=file.shapes,
        measurement=stated,
        assumptions=tuple(a for a in raw.source.assumptions if stated or a != unstated_note(raw.source.measurement)),
        n_frames=raw.n_frames,
        side=raw.side,
        n_probe_modes=0 if raw.probe is None else len(raw.probe),
        facts={key: _plain(value) for key, value in facts.figures.items()},
        findings=findings,
    )


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist()
