"""The first part of ``run`` by itself: ``train``, on one scan or several, and the model in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import TrainingConfig
from ..errors import Cancelled, ConfigError
from ..io.result_folder import SUMMARY_NAME, ResultFolder
from ..io.result_names import SETTINGS_NAME
from ..protocol import Progress, TrainedModel, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from ..stopping import stoppable
from .accept import ScanSource, accepted_scans, files_read
from .attended import attended, kept_model
from .leftovers import beside_results
from .models import BUNDLE_NAME, save_model
from .observe import Observer
from .outcome import opened_folder, tell_of_kept
from .stages import Engines, Heard, check_number_of_scans, need_training_frames, provenance_of, train_on

__all__ = ["train"]


def train(
    scans: ScanSource | Sequence[ScanSource],
    config: TrainingConfig,
    runtime: Runtime = DEFAULT_RUNTIME,
    *,
    out: Path | str | None = None,
    overwrite: bool = False,
    despite_findings: bool = False,
    inputs: Sequence[Path] = (),
    provenance: dict[str, Any] | None = None,
    progress: Progress = no_progress,
    observer: Observer | None = None,
) -> TrainedModel:
    """Train the engine that ``config.backend`` names, on one scan or several.

    Args:
        scans: one scan, or several; a path or a RawData gets its roles here, so make a container with
            :func:`ensure_container` first to make an image of the same frames afterwards.
        config: everything else that decides the result.
        runtime: what does the work.
        out: folder for the model's bundle, with the checkpoints in ``training`` below it, whatever
            ``runtime.output_dir`` says; None writes nothing but checkpoints, where that says so.
        overwrite: replace a finished result that lies there.
        despite_findings: see :func:`ptycho_core.run`.
        inputs: see :func:`ptycho_core.run`.
        provenance: further plain data to keep with the model.
        progress: called after each step; it may raise ``Cancelled``.
        observer: who watches.

    Raises:
        ConfigError: a field that the engine does not honour, before data are read; or more scans than it takes.
        PtychoError: as :func:`ptycho_core.run`.
    """
    with attended(observer, progress) as (watcher, step):
        return _train(
            scans, config, runtime, watcher, step, out=out, overwrite=overwrite, despite_findings=despite_findings,
            inputs=inputs, provenance=provenance,
        )  # fmt: skip


def _train(
    scans: ScanSource | Sequence[ScanSource],
    config: TrainingConfig,
    runtime: Runtime,
    watcher: Observer,
    progress: Progress,
    *,
    out: Path | str | None,
    overwrite: bool,
    despite_findings: bool,
    inputs: Sequence[Path],
    provenance: dict[str, Any] | None,
) -> TrainedModel:
    """:func:`train`, watched."""
    several = isinstance(scans, Sequence) and not isinstance(scans, (str, Path))
    given: list[ScanSource] = list(scans) if several else [scans]  # type: ignore[arg-type, list-item]
    if not given:
        raise ConfigError("train needs at least one scan, and none is given.")
    how: dict[str, Any] = {"despite_findings": despite_findings, "progress": progress}
    with stoppable(watcher.check):
        engines = Engines(config, runtime, watcher)
        check_number_of_scans(engines.config.backend, engines.capabilities, len(given))
        made = accepted_scans(given, engines, watcher, **how)
    need_training_frames(made[0])
    files, writes = [*inputs, *files_read(made, runtime)], {BUNDLE_NAME, SETTINGS_NAME, SUMMARY_NAME}
    with opened_folder(out, overwrite, files, watcher, writes) as folder:
        runtime = beside_results(runtime, folder, watcher)
        heard = Heard(progress)
        try:
            with watcher.stage("train"):
                model = train_on(engines.trainer, made, engines.config, runtime, heard)
        except Cancelled as error:
            return kept_model(error, watcher, "the model")
        if heard.wish is not None:
            watcher.ended_early(f"training was whole when it was to stop ({heard.wish})")
        if folder is not None:
            kept = provenance_of(engines.config, runtime, engines.trainer, *made) | (provenance or {})
            _write_model(model, kept, folder, engines, watcher)
    return model


def _write_model(
    model: TrainedModel, provenance: dict[str, Any], folder: ResultFolder, engines: Engines, observer: Observer
) -> None:
    """Put a model into its folder, in one step."""
    from ..report.settings_file import write_model_settings
    from ..report.write import write_model_summary

    with folder.staged() as partial:
        with observer.stage("save", finishes=True):
            save_model(model, partial / BUNDLE_NAME, backend=engines.trainer.backend)
        write_model_settings(partial, engines.config, engines.runtime, provenance)
        write_model_summary(partial, model, provenance, observer.notices, observer.facts())
    tell_of_kept(folder, observer)
