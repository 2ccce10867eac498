"""What a run leaves behind: a file for programs, pictures, and a report to mail to a colleague.

``write_results`` prepares every file under a temporary name and renames them all at the end, ``summary.json`` last: a
run that fails or is killed while it writes leaves the earlier results as they were.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import report_figures as figures
from . import report_plots as plots
from .config import TrainingConfig
from .config_mapping import config_to_mapping
from .data.raw import RawData
from .data.results import Reconstruction, Refined
from .errors import DataError
from .io.atomic import atomic_path, ensure_output_folder
from .io.reconstruction_file import plain_json, write_reconstruction
from .report_html import render_report
from .report_stages import STAGE_FILES, Stage, draw_stages, stage_summaries

if TYPE_CHECKING:
    from .metrics import Comparison, FourierRingCorrelation

__all__ = ["RunRecord", "Stage", "run_summary", "write_results"]

_SUMMARY_VERSION = 1
_OPTIONAL_FILES = ("frc.png", *STAGE_FILES)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything the results of one run are written from.

    Attributes:
        title: heading of the report.
        reconstruction: the result.
        raw: the scan that was reconstructed; its frames are those of `reconstruction`, in the same order.
        config: what it was made with.
        history: name → one value an epoch.
        engine: engine name.
        versions: package → version.
        seconds: stage → seconds; ``total``, when it is there, is that of the whole run.
        peak_memory_bytes: largest memory of the process, or None when it was not measured.
        warnings: one sentence each; those of the reader are added from `raw`.
        heldout: (n,) int64 frames of `raw` that no weight was trained on, or None; they take part in the image.
        comparison: scores against a truth, or None.
        half_data_frc: correlation of two reconstructions from half of the frames each, or None.
        stages: every image made on the way, the result last; empty where there was nothing but the result.
        refined: what refining gave, or None where nothing was refined.
        provenance: plain data on where the result came from.
    """

    title: str
    reconstruction: Reconstruction
    raw: RawData
    config: TrainingConfig
    history: Mapping[str, Sequence[float]]
    engine: str
    versions: Mapping[str, str]
    seconds: Mapping[str, float]
    peak_memory_bytes: int | None = None
    warnings: Sequence[str] = ()
    heldout: NDArray[np.int64] | None = None
    comparison: Comparison | None = None
    half_data_frc: FourierRingCorrelation | None = None
    stages: tuple[Stage, ...] = ()
    refined: Refined | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        M = len(self.reconstruction.positions_px)
        if self.raw.n_frames != M:
            raise DataError(
                f"report: the scan has {self.raw.n_frames} frames but {M} were reconstructed; pass the scan used."
            )
        if self.heldout is not None and len(self.heldout) and not 0 <= self.heldout.min() <= self.heldout.max() < M:
            raise DataError(f"report: held-out frames must be numbers of the {M} frames of the scan.")

    @property
    def all_warnings(self) -> list[str]:
        """Warnings of the run and of the reader, each once."""
        return list(dict.fromkeys([*self.warnings, *self.raw.source.warnings]))

    @property
    def total_seconds(self) -> float:
        """Seconds of the whole run, or of all its stages when the whole was not measured."""
        return self.seconds.get("total", sum(self.seconds.values()))

    @property
    def heldout_r_factor(self) -> float | None:
        """R-factor of the held-out frames, or None when there are none or they hold no counts."""
        if self.heldout is None or len(self.heldout) == 0:
            return None
        r = self.reconstruction.r_factor_of(self.heldout)
        return r if np.isfinite(r) else None

    @property
    def training_r_factor(self) -> float:
        """R-factor of the frames that are not held out."""
        kept = np.arange(self.raw.n_frames)
        return self.reconstruction.r_factor_of(kept if self.heldout is None else np.setdiff1d(kept, self.heldout))


def run_summary(record: RunRecord) -> dict[str, Any]:
    """The content of ``summary.json``: plain JSON data, NaN as null."""
    reconstruction, raw = record.reconstruction, record.raw
    n_heldout = 0 if record.heldout is None else len(record.heldout)
    summary: dict[str, Any] = plain_json(
        {
            "schema_version": _SUMMARY_VERSION,
            "title": record.title,
            "r_factor": reconstruction.r_factor,
            "r_factor_heldout": record.heldout_r_factor,
            "r_factor_training": record.training_r_factor,
            "frames": raw.n_frames,
            "frames_heldout": n_heldout,
            "dropped": dict(reconstruction.dropped),
            "warnings": record.all_warnings,
            "engine": record.engine,
            "versions": dict(record.versions),
            "seconds": dict(record.seconds),
            "peak_memory_bytes": record.peak_memory_bytes,
            "side_px": raw.side,
            "object_shape": reconstruction.object.shape,
            "origin_px": reconstruction.origin_px,
            "pixel_size_m": raw.geometry.pixel_size_m,
            "probe_modes": len(reconstruction.probe),
            "scale": reconstruction.scale,
            "mean_counts": reconstruction.frame_totals.mean(),
            "final_losses": {k: v[-1] for k, v in record.history.items() if len(v)},
            "comparison": None if record.comparison is None else record.comparison.to_mapping(),
            "half_data_frc": None if record.half_data_frc is None else record.half_data_frc.to_mapping(),
            "stages": stage_summaries(record.stages, record.heldout),
            "refinement": _refinement_summary(record.refined),
            "config": config_to_mapping(record.config),
            "provenance": dict(record.provenance),
        }
    )
    return summary


def _refinement_summary(refined: Refined | None) -> dict[str, Any] | None:
    if refined is None:
        return None
    return {
        "engine": refined.engine,
        "kept": refined.kept,
        "note": refined.note,
        "history": dict(refined.history),
        "positions": None if refined.positions is None else asdict(refined.positions),
    }


def _draw(record: RunRecord, view: figures.ObjectView) -> dict[str, bytes]:
    """File name → PNG."""
    reconstruction, pixel_size_m = record.reconstruction, record.raw.geometry.pixel_size_m
    images = {
        "object_amplitude.png": figures.amplitude_figure(view, pixel_size_m),
        "object_phase.png": figures.phase_figure(view, pixel_size_m),
        "probe.png": figures.probe_figure(reconstruction.probe, pixel_size_m),
        "coverage.png": figures.coverage_figure(reconstruction, record.heldout),
        "losses.png": plots.losses_figure(record.history),
        "r_map.png": plots.r_map_figure(reconstruction, record.heldout),
        "patterns.png": plots.patterns_figure(reconstruction, record.raw),
    }
    curves = {}
    if record.comparison is not None:
        curves["against the truth"] = record.comparison.frc
    if record.half_data_frc is not None:
        curves["half against half"] = record.half_data_frc
        for stage in record.stages[:-1]:
            if stage.half_data_frc is not None:
                curves[f"half against half, {stage.name}"] = stage.half_data_frc
    if curves:
        images["frc.png"] = plots.frc_figure(curves)
    return images | draw_stages(record.stages, record.refined, pixel_size_m)


def write_results(folder: Path | str, record: RunRecord) -> dict[str, Path]:
    """Write reconstruction.h5, the pictures, report.html and, last, summary.json into a folder.

    Args:
        folder: made when it is not there; an earlier result in it is replaced only once all new files are complete.
        record: the run.

    Returns:
        file name → path of every file written.

    Raises:
        OutputError: the folder or a file cannot be written.
    """
    started = time.perf_counter()
    target = ensure_output_folder(folder)
    view = figures.object_view(record.reconstruction.object, record.reconstruction.coverage)
    images = _draw(record, view)
    page = render_report(record, images, view)
    names = ["summary.json", "report.html", *images, "reconstruction.h5"]
    with ExitStack() as stack:
        # A stack unwinds backwards, and leaving a context renames its file: the first name here is renamed last.
        temporary = {name: stack.enter_context(atomic_path(target / name)) for name in names}
        write_reconstruction(
            temporary["reconstruction.h5"],
            record.reconstruction,
            history=record.history,
            config=record.config,
            provenance=record.provenance,
            pixel_size_m=record.raw.geometry.pixel_size_m,
            stages={stage.name: stage.reconstruction for stage in record.stages[:-1]},
        )
        for name, png in images.items():
            temporary[name].write_bytes(png)
        temporary["report.html"].write_text(page, encoding="utf-8")
        summary = run_summary(record)
        summary["files"] = sorted(names)
        summary["seconds"].setdefault("report", round(time.perf_counter() - started, 3))
        text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
        temporary["summary.json"].write_text(text + "\n", encoding="utf-8")
    for name in set(_OPTIONAL_FILES) - set(names):
        (target / name).unlink(missing_ok=True)  # left by an earlier run, and no part of this result
    return {name: target / name for name in sorted(names)}
