"""What a run leaves behind: a file for programs, pictures, and a report to mail to a colleague.

Everything is written into a folder that is not yet the result: ``io.result_folder`` hashes the files and puts them in
place in one step. The image comes first; what only looks comes after it, and costs itself alone where it fails.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..config_mapping import config_to_mapping
from ..data.container import Role
from ..data.results import Refined
from ..data.run import Run
from ..errors import Cancelled
from ..io.reconstruction_file import figures_of, plain_json, write_reconstruction
from ..io.result_folder import NOTHING_REPLACED, SUMMARY_NAME, as_output_error
from ..io.result_names import IMAGE_NAME, RESULT_NAMES
from ..protocol import TrainedModel
from ..runtime import runtime_to_mapping
from . import figures, plots
from .extras import draw_extras, extra_summary
from .html import render_report
from .probe_pictures import draw_probe
from .short import render_short_report
from .stages import draw_stages, stage_summaries

__all__ = [
    "SUMMARY_VERSION",
    "run_summary",
    "write_image",
    "write_looks",
    "write_model_summary",
    "write_results",
    "write_summary",
]

_log = logging.getLogger(__name__)

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


def _views(run: Run) -> tuple[figures.ObjectView, ...]:
    """How the object is shown: before refining and after on one scale, or as it is where nothing was refined."""
    image = run.image
    if len(run.stages) > 1:
        return figures.paired_views(run.stages[0].scored.image, image)
    return (figures.object_view(image.object, image.coverage),)


def _moved(run: Run) -> bool:
    """Whether the positions as used are not those that were read."""
    used = run.scan.used_frames
    return bool((run.image.positions_px[used] != run.scan.raw.positions_px[used]).any())


def _drawings(run: Run, views: Sequence[figures.ObjectView]) -> dict[str, Callable[[], bytes | None]]:
    """File name → what draws it; None where there is nothing to show."""
    scored, pixel_size_m, view = run.scored, run.scan.raw.geometry.pixel_size_m, views[-1]
    after, first = (" after refining" if len(views) > 1 else " of the object"), run.stages[0]
    noise = (scored.heldout or scored.train).fourier_error_floor
    images: dict[str, Callable[[], bytes | None]] = {
        "object_amplitude.png": partial(figures.amplitude_figure, view, pixel_size_m, f"Amplitude{after}"),
        "object_phase.png": partial(figures.phase_figure, view, pixel_size_m, f"Phase{after}"),
        "probe.png": partial(figures.probe_figure, scored.image.probe, pixel_size_m),
        "coverage.png": partial(figures.coverage_figure, scored),
        "losses.png": partial(plots.epochs_figure, run.history, f"Epochs of the {first.name}", noise),
        "r_map.png": partial(plots.r_map_figure, scored),
        "patterns.png": partial(plots.patterns_figure, scored),
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
        images["frc.png"] = partial(plots.frc_figure, curves, pixel_size_m)
    if _moved(run):
        images["moves.png"] = partial(plots.moves_figure, scored, pixel_size_m)
    images |= draw_probe(run) | draw_extras(scored, pixel_size_m)
    return images | draw_stages(run.stages, run.refined, pixel_size_m, views[0] if len(views) > 1 else None, noise)


def _draw(run: Run, views: Sequence[figures.ObjectView]) -> dict[str, bytes | Exception]:
    """File name → PNG, or what kept it from being drawn: a picture is not worth a run."""
    images: dict[str, bytes | Exception] = {}
    for name, draw in _drawings(run, views).items():
        try:
            png = draw()
        except Cancelled:
            raise
        except Exception as error:
            _log.debug("%s was not drawn", name, exc_info=True)
            images[name] = error
        else:
            if png is not None:
                images[name] = png
    return images


def write_image(folder: Path, run: Run) -> None:
    """Write reconstruction.h5, before anything that can fail for looks.

    Args:
        folder: that a result is staged in.
        run: the run.

    Raises:
        OutputError: the file cannot be written.
    """
    with as_output_error(folder, NOTHING_REPLACED):
        write_reconstruction(folder / IMAGE_NAME, run)


def write_looks(folder: Path, run: Run) -> tuple[str, ...]:
    """Write the pictures and report.html beside the image.

    A picture that cannot be drawn is left out, and a page that cannot be made is a short one without pictures.

    Args:
        folder: that a result is staged in.
        run: the run.

    Returns:
        one sentence for each thing that is not there, for whoever looks for it.

    Raises:
        OutputError: a file cannot be written.
    """
    notices: list[str] = []
    images: dict[str, bytes] = {}
    try:
        views = _views(run)
        drawn = _draw(run, views)
        images = {name: png for name, png in drawn.items() if isinstance(png, bytes)}
        notices += [f"{name} could not be drawn ({_words(e)})" for name, e in drawn.items() if isinstance(e, Exception)]
        told, files = replace(run, warnings=(*run.warnings, *notices)), _files_beside(folder, images)
        page: str | None = render_report(told, images, views, files)
    except Cancelled:
        raise
    except Exception as error:
        _log.debug("no report", exc_info=True)
        page = _short_page(run, error)
        what = "is a short one" if page else "is left out"
        notices.append(f"report.html could not be made ({_words(error)}) and {what}; reconstruction.h5 is whole")
    with as_output_error(folder, NOTHING_REPLACED):
        for name, png in images.items():
            (folder / name).write_bytes(png)
        if page is not None:
            (folder / "report.html").write_bytes(page.encode("utf-8", errors="backslashreplace"))
    return tuple(notices)


def _files_beside(folder: Path, images: Mapping[str, bytes]) -> list[str]:
    """Names of what will lie beside the report; the summary is written last."""
    return sorted({*(path.name for path in folder.iterdir()), *images, SUMMARY_NAME} & RESULT_NAMES)


def _short_page(run: Run, error: Exception) -> str | None:
    """A page of plain words, for when the report itself cannot be made; None where not even that can."""
    try:
        return render_short_report(run.title, _words(error), run_summary(run))
    except Exception:
        _log.debug("no short report", exc_info=True)
        return None


def _words(error: Exception) -> str:
    """An exception in one line of a bearable length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def write_results(folder: Path, run: Run) -> tuple[str, ...]:
    """Write reconstruction.h5, and then the pictures and report.html; see :func:`write_image`, :func:`write_looks`."""
    write_image(folder, run)
    return write_looks(folder, run)


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
