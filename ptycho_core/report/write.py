"""What a run leaves behind: a file for programs, pictures, and a report to mail to a colleague.

Everything is written into a folder that is not yet the result: ``io.result_folder`` hashes the files and puts them in
place in one step.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config_mapping import config_to_mapping
from ..data.container import Role
from ..data.results import Refined
from ..data.run import Run
from ..io.reconstruction_file import figures_of, plain_json, write_reconstruction
from ..io.result_folder import NOTHING_REPLACED, SUMMARY_NAME, as_output_error
from ..protocol import TrainedModel
from ..runtime import runtime_to_mapping
from . import figures, plots
from .extras import draw_extras, extra_summary
from .html import render_report
from .probe_pictures import draw_probe
from .stages import draw_stages, stage_summaries

__all__ = ["SUMMARY_VERSION", "run_summary", "write_model_summary", "write_results", "write_summary"]

SUMMARY_VERSION = 2
"""1, of version 0.1, had one figure, called R-factor, that is ``fourier_error`` here."""


def run_summary(run: Run) -> dict[str, Any]:
    """The content of ``summary.json``: plain JSON data, NaN as null."""
    scored, scan = run.scored, run.scan
    raw, image = scan.raw, scored.image
    summary: dict[str, Any] = plain_json(
        {
            "schema_version": SUMMARY_VERSION,
            "kind": "run",
            "title": run.title,
            "verdict": None if run.verdict is None else run.verdict.to_mapping(),
            "figures": figures_of(scored),
            "frames": {role.name.lower(): len(scan.frames(role)) for role in Role} | {"all": raw.n_frames},
            "dropped": dict(scored.dropped),
            "warnings": list(run.warnings),
            "engine": run.engine,
            "versions": {"python": platform.python_version(), **run.provenance.get("versions", {})},
            "seconds": dict(run.seconds),
            "peak_memory_bytes": run.peak_memory_bytes,
            "side_px": raw.side,
            "object_shape": image.object.shape,
            "origin_px": image.origin_px,
            "pixel_size_m": raw.geometry.pixel_size_m,
            "propagation": asdict(raw.propagation),
            "probe_modes": len(image.probe),
            "probe_guess": None if run.probe_guess is None else run.probe_guess.to_mapping(),
            **extra_summary(image),
            "scale": image.scale,
            "mean_counts": raw.frame_totals[scan.used_frames].mean(),
            "final_losses": {k: v[-1] for k, v in run.history.items() if len(v)},
            "comparison": None if run.result.comparison is None else run.result.comparison.to_mapping(),
            "half_data_frc": None if run.result.half_data_frc is None else run.result.half_data_frc.to_mapping(),
            "stages": stage_summaries(run.stages),
            "refinement": _refinement_summary(run.refined),
            "config": config_to_mapping(run.config),
            "runtime": runtime_to_mapping(run.runtime),
            "provenance": dict(run.provenance),
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


def _draw(run: Run, view: figures.ObjectView) -> dict[str, bytes]:
    """File name → PNG."""
    scored, pixel_size_m = run.scored, run.scan.raw.geometry.pixel_size_m
    images = {
        "object_amplitude.png": figures.amplitude_figure(view, pixel_size_m),
        "object_phase.png": figures.phase_figure(view, pixel_size_m),
        "probe.png": figures.probe_figure(scored.image.probe, pixel_size_m),
        "coverage.png": figures.coverage_figure(scored),
        "losses.png": plots.losses_figure(run.history),
        "r_map.png": plots.r_map_figure(scored),
        "patterns.png": plots.patterns_figure(scored),
    }
    curves = {}
    if run.result.comparison is not None:
        curves["against the truth"] = run.result.comparison.frc
    if run.result.half_data_frc is not None:
        curves["half against half"] = run.result.half_data_frc
        for stage in run.stages[:-1]:
            if stage.half_data_frc is not None:
                curves[f"half against half, {stage.name}"] = stage.half_data_frc
    if curves:
        images["frc.png"] = plots.frc_figure(curves)
    images |= draw_probe(run) | draw_extras(scored, pixel_size_m)
    return images | draw_stages(run.stages, run.refined, pixel_size_m)


def write_results(folder: Path, run: Run) -> None:
    """Write reconstruction.h5, the pictures and report.html into an empty folder.

    Args:
        folder: that a result is staged in.
        run: the run.

    Raises:
        OutputError: a file cannot be written.
    """
    view = figures.object_view(run.image.object, run.image.coverage)
    images = _draw(run, view)
    page = render_report(run, images, view)
    with as_output_error(folder, NOTHING_REPLACED):
        write_reconstruction(folder / "reconstruction.h5", run)
        for name, png in images.items():
            (folder / name).write_bytes(png)
        (folder / "report.html").write_text(page, encoding="utf-8")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with as_output_error(path, NOTHING_REPLACED):
        path.write_text(text + "\n", encoding="utf-8")


def write_summary(folder: Path, run: Run) -> None:
    """Write ``summary.json``, which is complete but for what the folder knows: the run's id and the files' hashes."""
    _write_json(folder / SUMMARY_NAME, run_summary(run))


def write_model_summary(
    folder: Path,
    model: TrainedModel,
    provenance: Mapping[str, Any],
    warnings: Sequence[str],
    seconds: Mapping[str, float],
) -> None:
    """Write the ``summary.json`` of a training without an image."""
    summary = {
        "schema_version": SUMMARY_VERSION,
        "kind": "model",
        "engine": model.backend,
        "warnings": list(warnings),
        "seconds": dict(seconds),
        "final_losses": {k: v[-1] for k, v in model.history.items() if len(v)},
        "config": config_to_mapping(model.config),
        "provenance": dict(provenance),
    }
    _write_json(folder / SUMMARY_NAME, plain_json(summary))
