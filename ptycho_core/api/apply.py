"""A trained model applied to a scan: ``reconstruct``, and the same with a folder of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import InferenceConfig, RefinementConfig, TrainingConfig
from ..config_mapping import with_typed_options
from ..data.container import PtychoDataContainer
from ..data.raw import RawData
from ..data.results import Scored
from ..data.run import Run, Stage
from ..errors import Cancelled
from ..io.result_folder import RESULT_NAMES
from ..io.settings_text import APPLY
from ..plugins.capabilities import check_inference_capabilities, check_refinement_capabilities
from ..plugins.registry import (
    LoadedBackend,
    backend_spec,
    describe_backend,
    load_backend,
    load_described,
    refuse_missing,
)
from ..protocol import Capabilities, Progress, ReconstructionBackend, TrainedModel, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from .accept import ScanSource, look_at, read_source
from .extras import extra
from .judge import circumstances, judge
from .machine import machine_words, refuse_absent
from .models import BUNDLE_NAME, apply_model, check_applicable, container_for, load_model
from .observe import Observer
from .outcome import check_room_for_image, first_stage_name, made_run, opened_folder, write_run
from .prepare import ScanInput, ensure_container
from .refine import refiner_runtime
from .refining_stage import refined_or_first, refined_stage
from .saved import StoredModel
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
        model: from training, :func:`load_model`, or a run that was loaded.
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
    if isinstance(model, StoredModel):
        name = backend if isinstance(backend, str | None) else backend.name
        model = load_model(model.path, backend=name)
    engine = load_backend(backend or model.backend) if isinstance(backend, str | None) else backend
    inference = model.config.inference if config is None else config
    return apply_model(engine, model, lambda: container_for(model, data, same_scan), inference, runtime, progress)


def check_application(
    trained: TrainingConfig,
    config: InferenceConfig,
    runtime: Runtime,
    name: str,
    can: Capabilities | None,
    refinement: RefinementConfig | None = None,
) -> None:
    """Refuse what an engine cannot do before it is imported, as far as its plugin says what it can.

    Args:
        trained: what the model was trained with.
        config: how it is applied.
        runtime: what does the work.
        name: of the engine that applies it.
        can: what it can do; None where its plugin does not say.
        refinement: how the image is refined; None does not.

    Raises:
        ConfigError: a field that it does not honour, or hardware that is not there.
        BackendError: the engine that refines is unknown, or lacks a package.
    """
    if can is None:
        return
    check_inference_capabilities(config, can, name, runtime)
    refuse_absent(runtime.accelerator, name)
    if refinement is None or refinement.engine == "none":
        return
    full = _config_of(trained, name, config, refinement)
    refiner = full.refinement.engine if full.refinement.engine != "auto" else name
    if refiner != name:
        spec = backend_spec(refiner)
        refuse_missing(spec)
        can = spec.capabilities
    if can is not None:
        check_refinement_capabilities(full, can, refiner)


def _config_of(
    trained: TrainingConfig, name: str, config: InferenceConfig, refinement: RefinementConfig | None
) -> TrainingConfig:
    """What decides an image that a trained model makes, and that is refined afterwards or not."""
    if refinement is None:
        own = tuple(o for o in trained.options if o.engine == trained.backend)
        return replace(trained, inference=config, refinement=RefinementConfig(engine="none"), options=own)
    taking_part = {name, refinement.engine}
    options = tuple(o for o in trained.options if o.engine in taking_part)
    return replace(trained, backend=name, inference=config, refinement=refinement, options=options)


def _refiner(
    full: TrainingConfig, refinement: RefinementConfig | None, engine: LoadedBackend, observer: Observer
) -> LoadedBackend | None:
    """The engine that refines, imported; None where nothing is refined.

    Raises:
        ConfigError: it cannot.
        BackendError: it is unknown, missing or broken.
    """
    if refinement is None or refinement.engine == "none":
        return None
    name = engine.name if refinement.engine == "auto" else refinement.engine
    found = engine
    if name != engine.name:
        spec, distribution = describe_backend(name)
        with observer.stage("start_up"), observer.importing(spec):
            found = load_described(spec, distribution)
    check_refinement_capabilities(full, found.capabilities, name)
    return found


def _accepted(
    model: TrainedModel,
    read: RawData | PtychoDataContainer,
    same_scan: bool,
    roles: TrainingConfig | None,
    observer: Observer,
) -> PtychoDataContainer:
    """The scan to apply a model to; with `roles` some frames are held out, for refining to be judged by.

    A scan that the model was trained on holds out those that training did.
    """
    scan = container_for(model, read, same_scan)
    if roles is None or isinstance(read, PtychoDataContainer):
        return scan
    drawn = roles.n_subsample if same_scan else None
    plan = replace(roles, n_subsample=drawn, probe_modes=None, nphotons=None)
    parted = ensure_container(scan.raw, plan, tell=observer.notice)
    return replace(parted, probe=scan.probe, statistics=scan.statistics if same_scan else parted.statistics)


def apply_and_report(
    model: TrainedModel,
    engine: LoadedBackend,
    scan: ScanSource,
    config: InferenceConfig,
    runtime: Runtime = DEFAULT_RUNTIME,
    *,
    refinement: RefinementConfig | None = None,
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
        refinement: how the image is refined afterwards; some frames are held out then, as in a run. None does not.
        out: folder for the results; None writes nothing.
        overwrite: replace a finished result that lies there.
        same_scan: see :func:`reconstruct`.
        title: heading of the report; None takes the name of the file.
        despite_findings: see :func:`ptycho_core.run`.
        inputs: further files that the caller has read, which are left alone wherever they lie.
        provenance: further plain data to keep with the results. Where it has ``apply``, which model is applied, from
            where and by which engine, the settings that make the image again are left beside it.
        progress: called after each step; it may raise ``Cancelled``.
        observer: who watches.

    Raises:
        Cancelled: `progress` raised it; ``results_path`` and ``run`` hold the results where refining was stopped.
        PtychoError: as :func:`reconstruct` and :func:`ptycho_core.run`.
    """
    watcher = observer or Observer()
    check_inference_capabilities(config, engine.capabilities, engine.name, runtime)
    full = with_typed_options(_config_of(model.config, engine.name, config, refinement))
    refiner = _refiner(full, refinement, engine, watcher)
    _tell_machines(engine, refiner, full, runtime, watcher)
    read = read_source(scan, watcher)
    raw = read.raw if isinstance(read, PtychoDataContainer) else read
    look_at(raw, watcher, despite_findings=despite_findings)
    container = _accepted(model, read, same_scan, None if refiner is None else full, watcher)
    check_applicable(engine.backend, container, config)
    files = [*inputs, *([Path(raw.source.path)] if raw.source.path else [])]
    with opened_folder(out, overwrite, files, watcher, RESULT_NAMES - {BUNDLE_NAME}) as folder:
        check_room_for_image(folder, container)
        with watcher.stage("reconstruct"):
            first = image_of(engine.backend, model, container, config, runtime, progress)
        refined, stopped = refined_or_first(first, refiner, full, runtime, watcher, progress)
        made = Stage(name=first_stage_name(full), scored=first, seconds=watcher.seconds["reconstruct"])
        stages = (made, *refined_stage(refined, watcher.seconds.get("refine", 0.0)))
        scored = stages[-1].scored
        maker = refiner if refiner is not None and len(stages) > 1 else engine
        with watcher.stage("verdict", finishes=True):
            known = circumstances(scored, refined, None, full)
            verdict = extra(watcher, "verdict", lambda: judge(scored, container.probe, maker.backend, known))
        done = made_run(stages, model, engine, full, runtime, watcher, refined=refined, title=title)
        done = replace(done, provenance={**done.provenance, **(provenance or {})}, verdict=verdict)
        if folder is not None:
            done = write_run(done, folder, watcher, None, settings=APPLY in done.provenance)
    if stopped is not None:
        where = None if done.folder is None else str(done.folder)
        raise Cancelled(str(stopped), results_path=where, run=done) from stopped
    return done


def _tell_machines(
    engine: LoadedBackend, refiner: LoadedBackend | None, full: TrainingConfig, runtime: Runtime, observer: Observer
) -> None:
    """Say what the engines of a job work on."""
    jobs = [(engine, runtime)]
    if refiner is not None and refiner is not engine:
        jobs.append((refiner, refiner_runtime(full, runtime, refiner.name, refiner.capabilities)))
    observer.working(machine_words(jobs))
