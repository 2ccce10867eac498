"""Results in a folder: gathered, written beside the old ones, and moved into place when all are complete."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.raw import RawData
from ..data.results import Reconstruction, Refined
from ..io.atomic import write_text
from .session import Session

if TYPE_CHECKING:
    from ..metrics import Comparison, FourierRingCorrelation
    from ..report import Stage

__all__ = ["BUNDLE_NAME", "Outcome", "report_results", "staged"]

BUNDLE_NAME = "model.ptycho"


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder inside `folder`; when the block ends well, move its files into place.

    The old results stay whole until every new file is complete, and ``summary.json`` is moved last.
    """
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        yield partial
        for path in sorted(partial.iterdir(), key=lambda p: (p.name == "summary.json", p.name)):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that goes into the results of one command; see ``ptycho_core.report.RunRecord``.

    Attributes:
        title: heading of the report.
        trained_with: config of the model.
        engine: name of the engine.
        raw: the scan, as prepared.
        reconstruction: its image.
        history: name → one value an epoch.
        heldout: positions in `raw` of the held-out frames, or None.
        comparison: score against the truth, or None.
        half_data_frc: correlation of two half-data images, or None.
        stages: every image made on the way, the result last; empty where there was nothing but the result.
        refined: what refining gave, or None where nothing was refined.
        provenance: plain data on where it came from.
    """

    title: str
    trained_with: TrainingConfig
    engine: str
    raw: RawData
    reconstruction: Reconstruction
    history: Mapping[str, list[float]]
    heldout: NDArray[np.int64] | None = None
    comparison: Comparison | None = None
    half_data_frc: FourierRingCorrelation | None = None
    stages: tuple[Stage, ...] = ()
    refined: Refined | None = None
    provenance: Mapping[str, Any]


def report_results(outcome: Outcome, folder: Path, session: Session, *, bundle: Path | None = None) -> None:
    """Write every result into a folder, replacing earlier ones only when all are complete, and say what came out.

    Args:
        outcome: what to write.
        folder: the output folder.
        session: of the command; its notices, stage times and peak memory are part of the results.
        bundle: model bundle to put beside them.
    """
    from ..plugins.registry import backend_spec
    from ..provenance import package_versions
    from ..report import RunRecord, write_results

    begin = session.age()
    earlier = _files_of_summary(folder / "summary.json")
    with staged(folder) as partial:
        facts = session.facts()
        record = RunRecord(
            title=outcome.title,
            reconstruction=outcome.reconstruction,
            raw=outcome.raw,
            config=outcome.trained_with,
            history=outcome.history,
            engine=outcome.engine,
            versions={"python": platform.python_version(), **package_versions(backend_spec(outcome.engine).requires)},
            seconds=facts["seconds"],
            peak_memory_bytes=facts["peak_memory_bytes"],
            warnings=tuple(session.notices),
            heldout=outcome.heldout,
            comparison=outcome.comparison,
            half_data_frc=outcome.half_data_frc,
            stages=outcome.stages,
            refined=outcome.refined,
            provenance=dict(outcome.provenance),
        )
        written = write_results(partial, record)
        if bundle is not None:
            shutil.copyfile(bundle, partial / BUNDLE_NAME)
        session.add_seconds("report", session.age() - begin)
        _complete_summary(partial / "summary.json", session)
    for name in earlier - written.keys():  # a picture that only the earlier run had is no part of this result
        (folder / name).unlink(missing_ok=True)
    _say_outcome(outcome, folder, session)


def _files_of_summary(path: Path) -> set[str]:
    """Plain file names that an earlier summary lists; empty when there is none that can be read."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {name for name in names if isinstance(name, str) and name == Path(name).name}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _complete_summary(path: Path, session: Session) -> None:
    """Put the final times and memory into the summary: writing the report takes both, and it cannot know them."""
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary.update(session.facts())
    write_text(path, json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _say_outcome(outcome: Outcome, folder: Path, session: Session) -> None:
    reconstruction = outcome.reconstruction
    for stage in outcome.stages:
        held = stage.heldout_r_factor(outcome.heldout)
        tail = "" if held is None else f", held-out {held:.4f}"
        session.say(f"{stage.name:<10}R {stage.reconstruction.r_factor:.4f}{tail}, {stage.seconds:.1f} s")
    if outcome.refined is not None and outcome.refined.positions is not None:
        session.say(f"positions {outcome.refined.positions.describe()}")
    line = f"R-factor  {reconstruction.r_factor:.4f} over {len(reconstruction.frame_totals)} frames"
    if outcome.heldout is not None and len(outcome.heldout):
        line += f"; {reconstruction.r_factor_of(outcome.heldout):.4f} over the {len(outcome.heldout)} held-out ones"
    session.say(line)
    if outcome.comparison is not None:
        score = outcome.comparison
        session.say(
            f"truth     amplitude PSNR {score.amplitude_psnr_db:.1f} dB, phase PSNR {score.phase_psnr_db:.1f} dB, "
            f"correlation {score.correlation:.3f}"
        )
    if outcome.half_data_frc is not None:
        frc = outcome.half_data_frc
        cutoff = frc.cutoff_one_seventh
        session.say(f"half data FRC 1/7 at {cutoff:.3f} cycles/px, half period {frc.half_period_px(cutoff):.2f} px")
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in session.seconds.items())
    session.say(f"time      {session.age():.1f} s ({stages})")
    session.say(f"results   {folder / 'report.html'}")
