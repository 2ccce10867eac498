"""Models in files, and which probe and constants a scan is reconstructed with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .. import legacy
from ..bundle import Bundle, read_bundle
from ..config import InferenceConfig
from ..data.container import PtychoDataContainer
from ..data.results import Scored
from ..errors import ArchiveError, DataError
from ..io.result_switch import where_it_lies
from ..plugins.capabilities import check_inference_capabilities, check_scan_capabilities
from ..plugins.guard import engine_at_work
from ..plugins.registry import LoadedBackend, describe_backend, load_backend, load_described, refuse_missing
from ..plugins.returned import check_model
from ..protocol import Capabilities, Progress, ReconstructionBackend, TrainedModel
from ..runtime import Runtime
from .observe import Observer
from .prepare import ScanInput, ensure_raw
from .stages import check_crop, image_of, need_training_frames

__all__ = [
    "BUNDLE_NAME",
    "apply_model",
    "check_applicable",
    "container_for",
    "load_model",
    "load_with_engine",
    "save_model",
]

BUNDLE_NAME = "model.ptycho"


def container_for(model: TrainedModel, data: ScanInput, same_scan: bool) -> PtychoDataContainer:
    """A scan to reconstruct with a model: with its own probe and constants, or the model's.

    Args:
        model: the model.
        data: a path or a RawData, of which every frame with counts makes the image; or a container.
        same_scan: see :func:`ptycho_core.reconstruct`.

    Raises:
        DataError: no usable scan, or frames of another size than the model's probe where that is to be used.
    """
    made = data.checked() if isinstance(data, PtychoDataContainer) else None
    raw = made.raw if made is not None else ensure_raw(data)  # type: ignore[arg-type]
    if same_scan or raw.probe is None:
        if model.probe.shape[-1] != raw.side:
            raise DataError(
                f"{raw.source.path or 'scan'}: frames are {raw.side}×{raw.side} but the model's probe is "
                f"{model.probe.shape[-1]}×{model.probe.shape[-1]}; give the scan a probe of its own size."
            )
        raw = raw.with_probe(model.probe, calibrated=raw.probe_calibrated)
    statistics = model.statistics if same_scan else None
    if made is None:
        return PtychoDataContainer.of(raw, statistics=statistics)
    if not same_scan:
        return made
    assert raw.probe is not None
    return replace(made, raw=raw, probe=raw.probe, statistics=model.statistics)


def apply_model(
    engine: ReconstructionBackend,
    model: TrainedModel,
    scan: Callable[[], PtychoDataContainer],
    config: InferenceConfig,
    runtime: Runtime,
    progress: Progress,
) -> Scored:
    """Make and score an image with an engine that is at hand; `scan` is read once the config has been accepted.

    Raises:
        PtychoError: see :func:`ptycho_core.reconstruct`.
    """
    check_inference_capabilities(config, engine.capabilities, engine.name, runtime)
    container = scan()
    check_applicable(engine, container, config)
    return image_of(engine, model, container, config, runtime, progress)


def check_applicable(engine: ReconstructionBackend, scan: PtychoDataContainer, config: InferenceConfig) -> None:
    """Refuse a scan that an engine cannot make an image of.

    Raises:
        ConfigError: something in it that the engine would leave out, or a crop larger than its frames.
        DataError: no frame of it makes the image.
    """
    check_scan_capabilities(scan.raw, engine.capabilities, engine.name)
    check_crop(config, scan.raw.side)
    need_training_frames(scan)


def load_with_engine(
    path: Path | str,
    *,
    backend: str | None = None,
    observer: Observer | None = None,
    before_import: Callable[[Bundle, str, Capabilities | None], None] | None = None,
) -> tuple[TrainedModel, LoadedBackend]:
    """As :func:`load_model`, with the engine that read it, which is described and imported once.

    Args:
        path: the bundle.
        backend: see :func:`load_model`.
        observer: told of the time that importing takes.
        before_import: called with the bundle, the engine's name and what its plugin says that it can do: what is wrong
            with the rest of a job is told before a framework takes seconds to start.
    """
    path, watcher = where_it_lies(Path(path)), observer or Observer()
    bundle = read_bundle(path)
    name = backend or bundle.backend
    if name != bundle.backend and bundle.generator is None:
        raise ArchiveError(
            f"{path}: it was made by engine '{bundle.backend}', a solver: it holds a finished object and no network, "
            f"so engine '{name}' cannot use it. Load it with backend = {bundle.backend!r}."
        )
    if not bundle.history.get("train_loss"):
        raise ArchiveError(f"{path}: its history has no losses of the training (train_loss); it is no trained model.")
    legacy.update_legacy_dict(legacy.params.cfg, bundle.config, side=bundle.side)
    spec, distribution = describe_backend(name)
    refuse_missing(spec)
    if spec.capabilities is not None:
        _refuse_unknown(bundle, name, spec.capabilities, path)
    if before_import is not None:
        before_import(bundle, name, spec.capabilities)
    with watcher.stage("start_up"), watcher.importing(spec):
        engine = load_described(spec, distribution)
    _refuse_unknown(bundle, name, engine.capabilities, path)
    with engine_at_work(name, "load"):
        return check_model(engine.backend.load(path), name), engine


def _refuse_unknown(bundle: Bundle, name: str, can: Capabilities, path: Path) -> None:
    """Refuse a network that an engine does not know.

    Raises:
        ArchiveError: it names both engines.
    """
    if bundle.generator is not None and bundle.generator not in can.generators:
        raise ArchiveError(
            f"{path}: it holds a network of architecture '{bundle.generator}', made by engine "
            f"'{bundle.backend}'; engine '{name}' "
            f"knows {', '.join(can.generators) or 'none'}. Load it with backend = {bundle.backend!r}."
        )


def load_model(path: Path | str, *, backend: str | None = None) -> TrainedModel:
    """Read a model bundle with the engine that made it, or with another that knows its generator.

    Args:
        path: the bundle.
        backend: engine name; None takes the one that made the bundle.

    Raises:
        ArchiveError: damaged, foreign, too new or unsafe, or not for this engine; then both engines are named.
        BackendError: the engine is unknown, missing or broken.
    """
    return load_with_engine(path, backend=backend)[0]


def save_model(model: TrainedModel, path: Path | str, *, backend: ReconstructionBackend | None = None) -> None:
    """Write a model as a bundle, with the engine that made it.

    Args:
        model: from training or :func:`load_model`.
        path: file, by convention named ``model.ptycho``.
        backend: the engine, where it is at hand; None loads the one that the model names.

    Raises:
        ArchiveError: the model could not be read back.
        OutputError: the file cannot be written; an older one is still there.
        BackendError: the engine is unknown, missing or broken, or failed.
    """
    engine = load_backend(model.backend) if backend is None else backend
    with engine_at_work(engine.name, "save"):
        engine.save(model, Path(path))
