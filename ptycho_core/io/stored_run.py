"""A finished result folder read back, strictly: the image with its stages, and what the summary alone says of the run.

The files must be those that the summary lists, by their hashes, and the summary what this program writes: a folder may
come from anywhere. What is wrong with it is one ``DataError`` that names the folder and what was found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.findings import Comparison, FourierRingCorrelation, PositionReport
from ..data.raw import Source
from ..data.verdict import KINDS, Reason, Verdict
from ..errors import DataError
from ..runtime import Runtime
from ..text import listed, one_line
from .result_folder import read_result_summary, verify_result
from .result_names import IMAGE_NAME, SUMMARY_NAME
from .stored_reconstruction import StoredReconstruction, read_reconstruction

__all__ = ["MODEL_NAME", "LostFrames", "StoredRun", "comparison_in", "read_stored_run", "source_in", "verdict_in"]

MODEL_NAME = "model.ptycho"

_NEEDED = (IMAGE_NAME, MODEL_NAME)
_OLDEST = 2
"""Format of a reconstruction from which on frames have roles and figures."""


@dataclass(frozen=True)
class LostFrames:
    """The place of the frames of a run that was read back without its scan.

    Attributes:
        shape: (M, N, N) of the frames that there were.
        folder: of the results.
    """

    shape: tuple[int, int, int]
    folder: Path

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """There are none.

        Raises:
            DataError: always; it says how to have them.
        """
        raise DataError(
            f"{self.folder}: a result folder does not hold the frames, and this needs them; load it with its scan: "
            "load_run(folder, scan=True) reads the file that it was made of, load_run(folder, scan=...) takes a file "
            "or a scan."
        )


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """What a result folder says.

    Attributes:
        folder: that it was read from.
        image: the result, with its earlier stages in ``stages``.
        engine: name of the engine that trained.
        makers: name, engine and seconds of each stage, the result last.
        refinement: engine, kept, note, history and position report of refining, or None.
        comparison: of the last stage with a truth, plain data, or None.
        runtime: what did the work.
        seconds: stage → wall-clock seconds.
        peak_memory_bytes: or None.
        warnings: of the run, and of files beside the image that were changed since.
    """

    folder: Path
    image: StoredReconstruction
    engine: str
    makers: tuple[tuple[str, str, float], ...]
    refinement: Mapping[str, Any] | None
    comparison: tuple[Mapping[str, Any] | None, ...]
    runtime: Runtime
    seconds: Mapping[str, float]
    peak_memory_bytes: int | None
    warnings: tuple[str, ...]


class _Summary:
    """Fields of a summary, each asked for by its type."""

    def __init__(self, folder: Path, content: Mapping[str, Any]) -> None:
        self.folder, self.content = folder, content

    def get(self, name: str, kind: type | tuple[type, ...], of: Mapping[str, Any] | None = None) -> Any:
        """The value of a field.

        Raises:
            DataError: it is missing, or of another type.
        """
        value = (self.content if of is None else of).get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise DataError(
                f"{self.folder}: {name} in {SUMMARY_NAME} is a {type(value).__name__}, which this program does not "
                "write there; the folder is damaged or foreign. Run again, or read reconstruction.h5 alone."
            )
        return value

    def numbers(self, name: str, of: Mapping[str, Any]) -> dict[str, float]:
        """Name → finite number."""
        found = self.get(name, dict, of)
        return {
            one_line(str(key)): float(self.get(key, (int, float), found)) for key in found if math.isfinite(found[key])
        }


def read_stored_run(folder: Path | str) -> StoredRun:
    """Read a result folder back.

    Args:
        folder: of a run of this program.

    Raises:
        DataError: there is no finished result, it is of a training alone or of an old version, a file was changed
            since, or what it says is not what this program writes.
    """
    where = Path(folder)
    content = read_result_summary(where)
    if content is None:
        raise DataError(f"{where}: no finished result of this program ({SUMMARY_NAME}); give the folder of a run.")
    if content.get("kind") != "run":
        raise DataError(f"{where}: the result of a training, without an image; load its {MODEL_NAME} by load_model.")
    changed = verify_result(where)
    files = content.get("files")
    known = files if isinstance(files, dict) else {}
    missing = [name for name in _NEEDED if name in changed or name not in known]
    if missing:
        raise DataError(
            f"{where}: {listed(missing)} is not the file that {SUMMARY_NAME} lists, by its hash; it was changed or is "
            "gone since the run. Take the folder from where it was copied from, or run again."
        )
    image = read_reconstruction(where / IMAGE_NAME)
    if image.format_version < _OLDEST or image.role is None or image.frame_sums is None:
        raise DataError(f"{where}: of an early version, which kept no figures of frames; run again to take it up.")
    try:
        return _assembled(_Summary(where, content), image, changed)
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        # what JSON of anybody's can hold in place of what is written here has no end; a value class refused this one
        raise DataError(
            f"{where}: {SUMMARY_NAME} is not what this program writes ({one_line(str(error), 200)})."
        ) from error


def _assembled(summary: _Summary, image: StoredReconstruction, changed: list[str]) -> StoredRun:
    content = summary.content
    stages = summary.get("stages", list)
    names = [one_line(summary.get("name", str, stage)) for stage in stages if isinstance(stage, Mapping)]
    if not names or len(names) != len(stages) or set(names[:-1]) != set(image.stages) or len(set(names)) != len(names):
        raise DataError(
            f"{summary.folder}: {SUMMARY_NAME} tells of the stages {listed(map(str, names)) or 'none'}, {IMAGE_NAME} "
            f"has {listed(image.stages) or 'none'} before the last; the folder is damaged or foreign."
        )
    engines = [summary.get("engine", str, stage) for stage in stages]
    seconds = [float(summary.get("seconds", (int, float), stage)) for stage in stages]
    refinement = content.get("refinement")
    comparisons = tuple(stage.get("comparison") for stage in stages)
    memory = content.get("peak_memory_bytes")
    return StoredRun(
        folder=summary.folder,
        image=image,
        engine=one_line(summary.get("engine", str)),
        makers=tuple(zip(names, map(one_line, engines), seconds, strict=True)),
        refinement=None if refinement is None else _refinement(summary, summary.get("refinement", dict)),
        comparison=comparisons,
        runtime=_runtime(summary.get("runtime", dict)),
        seconds=summary.numbers("seconds", content),
        peak_memory_bytes=memory if isinstance(memory, int) and memory > 0 else None,
        warnings=(
            *(one_line(str(text)) for text in summary.get("warnings", list)),
            *(f"{name} in the result folder was changed since the run" for name in changed),
        ),
    )


def _refinement(summary: _Summary, given: Mapping[str, Any]) -> dict[str, Any]:
    history = summary.get("history", dict, given)
    positions = given.get("positions")
    return {
        "engine": one_line(summary.get("engine", str, given)),
        "kept": summary.get("kept", bool, given),
        "note": one_line(summary.get("note", str, given)),
        "history": {one_line(str(name)): _curve(values) for name, values in history.items()},
        "positions": None if positions is None else _report(positions),
    }


def _curve(values: Any) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def _report(given: Mapping[str, Any]) -> PositionReport:
    """What became of the positions; NaN for a figure that is null."""
    names = [field.name for field in fields(PositionReport) if field.name != "at_limit"]
    numbers: dict[str, Any] = {name: math.nan if given[name] is None else float(given[name]) for name in names}
    return PositionReport(**numbers, at_limit=int(given["at_limit"]))


def _runtime(given: Mapping[str, Any]) -> Runtime:
    known = {field.name for field in fields(Runtime)}
    values = {name: value for name, value in given.items() if name in known}
    for name in ("output_dir", "resume_from"):
        if values.get(name) is not None:
            values[name] = Path(values[name])
    return Runtime(**{**values, "loggers": tuple(values.get("loggers", ()))})


def source_in(provenance: Mapping[str, Any]) -> Source:
    """Where the scan came from, by the provenance of its result; what it cannot say is left at its default."""
    given = provenance.get("data")
    if not isinstance(given, Mapping):
        return Source()
    texts: dict[str, Any] = {
        name: given[name] for name in ("path", "dialect", "measurement") if isinstance(given.get(name), str)
    }
    lists: dict[str, Any] = {
        name: tuple(given[name]) for name in ("assumptions", "warnings") if isinstance(given.get(name), list)
    }
    details = given.get("details")
    return Source(**texts, **lists, details=dict(details) if isinstance(details, Mapping) else {})


def verdict_in(given: Mapping[str, Any]) -> Verdict | None:
    """A verdict from its plain data, None where there is none.

    Raises:
        DataError: it is not what this program writes.
    """
    if not given:
        return None
    try:
        reasons = tuple(
            Reason(
                name=one_line(str(r["name"])),
                text=one_line(str(r["text"])),
                figure=math.nan if r["figure"] is None else float(r["figure"]),
                advice=one_line(str(r["advice"])),
            )
            for r in given["reasons"]
        )
        if given["kind"] not in KINDS:
            raise ValueError(f"kind {given['kind']!r}")
        return Verdict(
            kind=given["kind"],
            sentence=one_line(str(given["sentence"])),
            reasons=reasons,
            advice=tuple(one_line(str(text)) for text in given["advice"]),
            figures={str(k): math.nan if v is None else float(v) for k, v in given["figures"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"the verdict is not what this program writes ({one_line(str(error), 200)}).") from error


def comparison_in(given: Mapping[str, Any] | None, frc: FourierRingCorrelation | None) -> Comparison | None:
    """A comparison with the truth from its plain data and its curve, None where there is none.

    Raises:
        DataError: it is not what this program writes.
    """
    if given is None or frc is None:
        return None
    try:
        numbers: dict[str, Any] = {
            field.name: math.nan if given[field.name] is None else float(given[field.name])
            for field in fields(Comparison)
            if field.name not in ("frc", "shift_px", "ramp_rad_per_px", "n_pixels")
        }
        pairs: dict[str, Any] = {
            name: (float(given[name][0]), float(given[name][1])) for name in ("shift_px", "ramp_rad_per_px")
        }
        return Comparison(**numbers, **pairs, n_pixels=int(given["n_pixels"]), frc=frc)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(
            f"the comparison with the truth is not what this program writes ({one_line(str(error), 200)})."
        ) from error
