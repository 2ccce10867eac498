"""A trained model applied to a scan: ``reconstruct``, and the same with a folder of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import InferenceConfig
from ..data.container import PtychoDataContainer
from ..data.results import Scored
from ..data.run import Run, Stage
from ..io.result_folder import RESULT_NAMES
from ..plugins.capabilities import check_inference_capabilities
from ..plugins.registry import LoadedBackend, load_backend
from ..protocol import Capabilities, Progress, ReconstructionBackend, TrainedModel, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from .accept import ScanSource, look_at, read_source
from .extras import extra
from .judge import judge
from .machine import machine_words, refuse_absent
from .models import BUNDLE_NAME, apply_model, check_applicable, container_for
from .observe import Observer
from .outcome import check_room_for_image, first_stage_name, made_run, opened_folder, write_run
from .prepare import ScanInput
from .stages import image_of

__all__ = ["apply_and_report", "check_application", "reconstruct"]


def reconstruct(
    model: TrainedModel,
    data: ScanInput,
    config: InferenceConfig | None = None,
    runtime: Runtime = DEFAULT_RUNTIME,
    *,
    backend: str | ReconstructionBackend | None = None,
    same_scan: bool = False,
    progress: Progress = no_progress,
) -> Scored:
    """Make an image of a scan with a trained model, of each training frame once, and score it.

    Args:
        model: from training or :func:`load_model`.
        data: a path or a RawData, of which every frame with counts is used; or a container, whose roles are kept.
        config: how the model is applied; None takes what the model was trained with.
        runtime: what does the work.
        backend: engine or its name; None takes the model's own.
        same_scan: the scan is of the experiment the model was trained on: the model's refined probe and statistics are
            used. Otherwise the scan's own probe, or the model's where the scan has none, and the scan's own intensity.
        progress: called after each step; it may raise ``Cancelled``.

    Raises:
        ConfigError: a field that the engine does not honour, before data are read.
        DataError: no usable scan.
        BackendError: the engine is unknown, missing, broken, or returned what the protocol does not allow.
        CollapseError: the object is constant.
    """
    engine = load_backend(backend or model.backend) if isinstance(backend, str | None) else backend
    inference = model.config.inference if config is None else config
    return apply_model(engine, model, lambda: container_for(model, data, same_scan), inference, runtime, progress)


def check_application(config: InferenceConfig, runtime: Runtime, name: str, can: Capabilities | None) -> None:
    """Refuse what an engine cannot do before it is imported, as far as its plugin says what it can.

    Raises:
        ConfigError: a field that it does not honour, or hardware that is not there.
    """
    if can is not None:
        check_inference_capabilities(config, can, name, runtime)
        refuse_absent(runtime.accelerator, name)


def apply_and_report(
    model: TrainedModel,
    engine: LoadedBackend,
    scan: ScanSource,
    config: InferenceConfig,
    runtime: Runtime = DEFAULT_RUNTIME,
    *,
    out: Path | str | None = None,
    overwrite: bool = False,
    same_scan: bool = False,
    title: str | None = None,
    despite_findings: bool = False,
    inputs: Sequence[Path] = (),
    provenance: dict[str, Any] | None = None,
    progress: Progress = no_progress,
    observer: Observer | None = None,
) -> Run:
    """As :func:`reconstruct`, on the way that :func:`ptycho_core.run` goes: checks, notices, and a folder of results.

    Args:
        model: the model.
        engine: that applies it.
        scan: see :func:`ptycho_core.run`.
        config: how the model is applied.
        runtime: what does the work.
        out: folder for the results; None writes nothing.
        overwrite: replace a finished result that lies there.
        same_scan: see :func:`reconstruct`.
        title: heading of the report; None takes the name of the file.
        despite_findings: see :func:`ptycho_core.run`.
        inputs: further files that the caller has read, which are left alone wherever they lie.
        provenance: further plain data to keep with the results.
        progress: called after each step; it may raise ``Cancelled``.
        observer: who watches.

    Raises:
        PtychoError: as :func:`reconstruct` and :func:`ptycho_core.run`.
    """
    watcher = observer or Observer()
    check_inference_capabilities(config, engine.capabilities, engine.name, runtime)
    watcher.working(machine_words(engine, runtime))
    read = read_source(scan, watcher)
    raw = read.raw if isinstance(read, PtychoDataContainer) else read
    look_at(raw, watcher, despite_findings=despite_findings)
    container = container_for(model, read, same_scan)
    check_applicable(engine.backend, container, config)
    files = [*inputs, *([Path(raw.source.path)] if raw.source.path else [])]
    with opened_folder(out, overwrite, files, watcher, RESULT_NAMES - {BUNDLE_NAME}) as folder:
        check_room_for_image(folder, container)
        with watcher.stage("reconstruct"):
            scored = image_of(engine.backend, model, container, config, runtime, progress)
        stage = Stage(name=first_stage_name(model.config), scored=scored, seconds=watcher.seconds["reconstruct"])
        with watcher.stage("verdict", finishes=True):
            verdict = extra(watcher, "verdict", lambda: judge(scored, container.probe, engine.backend))
        done = made_run((stage,), model, engine, replace(model.config, inference=config), runtime, watcher, title=title)
        done = replace(done, provenance={**done.provenance, **(provenance or {})}, verdict=verdict)
        return done if folder is None else write_run(done, folder, watcher, None)
