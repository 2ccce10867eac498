"""The facade: train, reconstruct, and both in one call, with any engine (specs/60-run-cdi-example).

It only arranges: which engine, which data, in which order, and that what comes back is sound. No engine has a branch
of its own here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import legacy
from .bundle import read_bundle
from .config import InferenceConfig, TrainingConfig
from .data.container import PtychoDataContainer
from .data.orientation import orient_container, orient_scan
from .data.raw import RawData
from .data.results import CdiResult, CdiResults, Reconstruction
from .errors import ArchiveError, BackendProtocolError, ConfigError, DataError
from .plugins.capabilities import check_capabilities, check_inference_capabilities, check_scan_capabilities
from .plugins.guard import engine_at_work
from .plugins.registry import backend_distribution, backend_spec, load_backend
from .plugins.returned import check_model, check_reconstruction
from .prepare import ScanInput, check_container, ensure_container, ensure_raw, prepare_scan
from .protocol import Progress, ReconstructionBackend, TrainedModel, no_progress
from .provenance import collect_provenance
from .refinement.facade import refine

__all__ = [
    "check_capabilities",
    "ensure_container",
    "load_model",
    "prepare_scan",
    "reconstruct",
    "refine",
    "run_cdi_example",
    "save_model",
    "train_cdi_model",
]


@dataclass(frozen=True)
class _Orientation:
    """The old names flip_x, flip_y and transpose, which exist at this edge only."""

    flip_y: bool = False
    flip_x: bool = False
    transpose: bool = False

    def apply(self, data: ScanInput) -> ScanInput:
        """Return the data as they are when nothing is asked, so that a path is read where all paths are."""
        if not (self.flip_y or self.flip_x or self.transpose):
            return data
        if isinstance(data, PtychoDataContainer):
            return orient_container(
                check_container(data), flip_y=self.flip_y, flip_x=self.flip_x, transpose=self.transpose
            )
        return orient_scan(ensure_raw(data), flip_y=self.flip_y, flip_x=self.flip_x, transpose=self.transpose)


def _known_side(data: ScanInput) -> int | None:
    """N of data in memory; a path is not opened before the engine has accepted the config."""
    if isinstance(data, PtychoDataContainer):
        return data.raw.side
    return data.side if isinstance(data, RawData) else None


def _choose_engine(config: TrainingConfig, side: int | None) -> ReconstructionBackend:
    """Do the old handshake, import the engine, and have it accept the config, in that order."""
    legacy.update_legacy_dict(legacy.params.cfg, config, side=side)
    engine = load_backend(config.backend)
    check_capabilities(config, engine.capabilities, config.backend)
    return engine


def _check_crop(central_crop_px: int | None, side: int) -> None:
    if central_crop_px is not None and central_crop_px > side:
        raise ConfigError(
            f"M = inference.central_crop_px = {central_crop_px} is larger than the patches, which are {side}×{side}; "
            f"allowed: 1 to {side}."
        )


def _provenance(
    config: TrainingConfig, train: PtychoDataContainer, test: PtychoDataContainer | None
) -> dict[str, object]:
    out = collect_provenance(
        config,
        train.raw.source,
        engine_packages=backend_spec(config.backend).requires,
        test_source=None if test is None else test.raw.source,
    )
    return out | {"engine": {"name": config.backend, "distribution": backend_distribution(config.backend)}}


def _train(
    engine: ReconstructionBackend,
    train: ScanInput,
    test: ScanInput | None,
    config: TrainingConfig,
    progress: Progress,
) -> CdiResults:
    """Make containers, train once, check and bind the results. Called by the two public functions only."""
    train_container = ensure_container(train, config, for_training=True, stacklevel=4)
    check_scan_capabilities(train_container.raw, engine.capabilities, config.backend)
    _check_crop(config.inference.central_crop_px, train_container.raw.side)
    if test is None:
        warnings.warn(
            "no test data: the model is trained without a held-out loss, and amplitude and phase will be None. "
            "Give a test scan (RawData.split makes one).",
            UserWarning,
            stacklevel=3,
        )
        test_container = None
    else:
        test_container = ensure_container(
            test, config, statistics=train_container.statistics, for_training=False, like=train_container
        )
        check_scan_capabilities(test_container.raw, engine.capabilities, config.backend)
    with engine_at_work(config.backend, "train", progress) as relay:
        model = engine.train(train_container, test_container, config, progress=relay)
        check_model(model, config.backend)
    if model.backend != config.backend:
        raise BackendProtocolError(
            f"engine '{config.backend}' returned a model that calls itself {model.backend!r}; the names must be equal."
        )
    return CdiResults(
        backend=config.backend,
        train_container=train_container,
        test_container=test_container,
        history=dict(model.history),
        model=model,
        checkpoint_path=model.checkpoint_path,
        reconstructed_obj=None,
        reconstruction=None,
        probe=model.probe,
        config=config,
        provenance=_provenance(config, train_container, test_container),
    )


def train_cdi_model(
    train: ScanInput,
    test: ScanInput | None,
    config: TrainingConfig,
    *,
    progress: Progress = no_progress,
) -> CdiResults:
    """Train the engine that ``config.backend`` names.

    Args:
        train: scan to learn from: RawData, a container, or a path. ``n_subsample``, ``probe_modes`` and, where the scan
            has no probe, an initial one are applied to it.
        test: held-out scan of the same experiment, for the ``test_loss``; it takes over the training scan's probe.
        config: everything else.
        progress: called after each step; it may raise ``Cancelled``.

    Returns:
        The results of :class:`CdiResults`, with ``reconstruction`` and ``reconstructed_obj`` None.

    Warns:
        UserWarning: no test data; ``nphotons`` off by more than 10 %.

    Raises:
        ConfigError: a field that the engine does not honour, before data are read.
        DataError: no usable scan.
        BackendError: the engine is unknown, missing, broken, or failed; see its subclasses.
    """
    engine = _choose_engine(config, _known_side(train))
    return _train(engine, train, test, config, progress)


def run_cdi_example(
    train: ScanInput,
    test: ScanInput | None,
    config: TrainingConfig,
    *,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int | None = None,
    do_stitching: bool = False,
    progress: Progress = no_progress,
) -> CdiResult:
    """Train, and reconstruct the test scan if asked; unpacks as ``amplitude, phase, results``.

    Args:
        train: scan to learn from: RawData, a container, or a path.
        test: held-out scan of the same experiment, or None.
        config: everything else.
        flip_x: negate the x scan coordinate of both scans.
        flip_y: negate the y scan coordinate of both scans.
        transpose: exchange the axes of every patch, by exchanging those of frames, mask, background and probe.
        M: side of the central crop of each patch used in stitching, pixels; overrides ``inference.central_crop_px``.
        do_stitching: reconstruct the test scan with the model's refined probe; amplitude and phase are None without.
        progress: called after each step; it may raise ``Cancelled``.

    Returns:
        Amplitude (H, W) float32, phase (H, W) float32 radians in (−π, π], and the results.

    Warns:
        UserWarning: as :func:`train_cdi_model`.

    Raises:
        CollapseError: the reconstructed object is constant.
        PtychoError: as :func:`train_cdi_model`.
    """
    if M is not None:
        config = replace(config, inference=replace(config.inference, central_crop_px=M))
    engine = _choose_engine(config, _known_side(train))
    orientation = _Orientation(flip_y, flip_x, transpose)
    test = None if test is None else orientation.apply(test)
    results = _train(engine, orientation.apply(train), test, config, progress)
    test_container = results["test_container"]
    if not do_stitching or test_container is None:
        return CdiResult(None, None, results)
    model = results["model"]
    done = reconstruct(model, test_container, config.inference, backend=engine, same_scan=True, progress=progress)
    results["reconstruction"] = done
    results["reconstructed_obj"] = done.object
    results["probe"] = done.probe
    return CdiResult(np.abs(done.object), _phase(done.object), results)


def _phase(obj: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Phase in (−π, π]; the angle of −1 − 0i would be −π."""
    phase = np.angle(obj)
    return np.where(phase <= -np.float32(np.pi), np.float32(np.pi), phase)


def _is_partition(container: PtychoDataContainer) -> bool:
    counted = container.frame_indices[container.counted]
    return bool((np.bincount(counted, minlength=container.raw.n_frames) == 1).all())


def _container_for(model: TrainedModel, data: ScanInput, same_scan: bool) -> PtychoDataContainer:
    """Lay a scan out for reconstruction, with its own probe or the model's."""
    if isinstance(data, PtychoDataContainer):
        container = check_container(data)
        if not same_scan and _is_partition(container):
            return container
        raw, statistics = replace(container.raw, probe=container.probe), container.statistics
    else:
        container, raw, statistics = None, ensure_raw(data), None
    if same_scan or raw.probe is None:
        if model.probe.shape[-1] != raw.side:
            raise DataError(
                f"{raw.source.path or 'scan'}: frames are {raw.side}×{raw.side} but the model's probe is "
                f"{model.probe.shape[-1]}×{model.probe.shape[-1]}; give the scan a probe of its own size."
            )
        raw = raw.with_probe(model.probe, calibrated=raw.probe_calibrated)
    if same_scan:
        statistics = model.statistics
    if container is not None and _is_partition(container):
        return PtychoDataContainer.from_groups(raw, container.frame_indices, container.counted, statistics)
    group_size = min(model.config.group_size, raw.n_frames)
    return PtychoDataContainer.for_reconstruction(raw, group_size, statistics=statistics)


def reconstruct(
    model: TrainedModel,
    data: ScanInput,
    config: InferenceConfig,
    *,
    backend: str | ReconstructionBackend | None = None,
    same_scan: bool = False,
    without: NDArray[np.int64] | None = None,
    progress: Progress = no_progress,
) -> Reconstruction:
    """Reconstruct a scan with a trained model; every frame is used once.

    Args:
        model: from training or :func:`load_model`.
        data: RawData, a path, or a container (one whose groups repeat frames is laid out anew).
        config: how the model is applied.
        backend: engine or its name; None takes the model's own.
        same_scan: the scan is of the experiment the model was trained on: the model's refined probe and statistics are
            used. Otherwise the scan's own probe, or the model's where the scan has none, and the scan's own intensity.
        without: (n,) frames that the image is made without; they are scored like all frames.
        progress: called after each step; it may raise ``Cancelled``.

    Raises:
        ConfigError: a field that the engine does not honour, before data are read.
        DataError: no usable scan.
        BackendError: the engine is unknown, missing, broken, or returned what the protocol does not allow.
        CollapseError: the object is constant.
    """
    engine = load_backend(backend or model.backend) if isinstance(backend, str | None) else backend
    check_inference_capabilities(config, engine.capabilities, engine.name)
    container = _container_for(model, data, same_scan)
    container = container if without is None else container.without(without)
    check_scan_capabilities(container.raw, engine.capabilities, engine.name)
    _check_crop(config.central_crop_px, container.raw.side)
    with engine_at_work(engine.name, "reconstruct", progress) as relay:
        result = engine.reconstruct(model, container, config, progress=relay)
        return check_reconstruction(result, container, engine.name, model.config.collapse_threshold)


def load_model(path: Path | str, *, backend: str | None = None) -> TrainedModel:
    """Read a model bundle with the engine that made it, or with another that knows its generator.

    Args:
        path: the bundle.
        backend: engine name; None takes the one that made the bundle.

    Raises:
        ArchiveError: damaged, foreign, too new or unsafe, or not for this engine; then both engines are named.
        BackendError: the engine is unknown, missing or broken.
    """
    path = Path(path)
    bundle = read_bundle(path)
    name = backend or bundle.backend
    if name != bundle.backend and bundle.generator is None:
        raise ArchiveError(
            f"{path}: it was made by engine '{bundle.backend}', a solver: it holds a finished object and no network, "
            f"so engine '{name}' cannot use it. Load it with backend = {bundle.backend!r}."
        )
    legacy.update_legacy_dict(legacy.params.cfg, bundle.config, side=bundle.side)
    engine = load_backend(name)
    known = engine.capabilities.generators
    if bundle.generator is not None and bundle.generator not in known:
        raise ArchiveError(
            f"{path}: it holds the generator '{bundle.generator}', made by engine '{bundle.backend}'; engine '{name}' "
            f"knows {', '.join(known) or 'none'}. Load it with backend = {bundle.backend!r}."
        )
    with engine_at_work(name, "load"):
        return check_model(engine.load(path), name)


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
