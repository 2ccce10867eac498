"""Tiny scans and configs for the tests of engines with a network: asymmetric, sub-pixel, two modes, in seconds.

Nothing here imports a framework: an engine is passed in, as ``load_backend`` gives it.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from core.physics_problem import smooth_probe

from ptycho_core.api.score import score
from ptycho_core.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.enginekit.groups import GroupDraw, Groups, partition_of
from ptycho_core.enginekit.network_model import NetworkModel
from ptycho_core.enginekit.weights import initial_weights
from ptycho_core.errors import Cancelled
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.protocol import Progress, ReconstructionBackend, no_progress
from ptycho_core.runtime import Runtime

SINGLE = Runtime(accelerator="cpu", precision="32")
"""Single precision, so that what tests compare is not rounding."""


class Settings(NamedTuple):
    """What a training is given beside its scans (``engine.train(scans, *settings)``), with the fields of its config."""

    config: TrainingConfig
    runtime: Runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self.config, name)


class Applied(NamedTuple):
    """What applying a model is given beside its scan: ``engine.reconstruct(model, scan, *applied)``."""

    config: InferenceConfig
    runtime: Runtime


CONFIG = Settings(
    TrainingConfig(model=ModelConfig(width=4, depth=1), group_size=4, epochs=2, schedule="constant", seed=1), SINGLE
)
"""A base that tests vary. It names no engine of its own: see :func:`config_for`."""

EXACT = Applied(InferenceConfig(), SINGLE)

ALONE = {"model": {"sweeps": 0}}
"""Changes to the config that leave the network without a solver before it."""

ONE_STEP = {"epochs": 1, "batch_size": 10**6}
"""Changes to the config that put all groups in one step."""


def make_object(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Slabs of uneven size with a texture on top: strong enough to learn from, different along y and x."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phase = 0.9 * np.sin(0.35 * y + 0.1 * x) + 0.5 * ((x // 5) % 2) + 0.1 * rng.normal(size=(height, width))
    return (0.75 + 0.2 * np.cos(0.25 * x - 0.4 * y)) * np.exp(1j * phase)


def make_scan(
    N: int = 16,
    rows: int = 4,
    columns: int = 5,
    *,
    n_modes: int = 1,
    seed: int = 0,
    photons: float = 2e4,
    background: float = 0.0,
    bad: bool = False,
    noise: bool = True,
    flat: bool = False,
    calibrated: bool = False,
    propagation: Propagation = FAR_FIELD,
) -> RawData:
    """A jittered raster, taller steps than wide ones, on an object of which every patch is inside.

    Object pixel (0, 0) is scan point (0, 0). With `bad`, some pixels are masked and hold nonsense.
    """
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(rows) * 3.3, np.arange(columns) * 2.4, indexing="ij"), axis=-1)
    positions = (N - 1) / 2 + 1.5 + grid.reshape(-1, 2) + rng.uniform(-0.9, 0.9, (rows * columns, 2))
    corners, rest = integer_corners(positions, N)
    height, width = corners.max(axis=0) + N + 1
    obj = np.ones((height, width), complex) if flat else make_object(height, width)
    probe = smooth_probe(N, n_modes).astype(np.complex64)
    scale = photons / float(np.sum(np.abs(probe) ** 2))
    level = background * np.linspace(0.5, 1.5, N * N).reshape(N, N)
    rate = expected_counts(extract(obj, corners, N), probe, rest, scale, level, propagation)
    counts = rng.poisson(rate).astype(np.float32) if noise else rate.astype(np.float32)
    mask = None
    if bad:
        mask = np.ones((N, N), bool)
        mask[2:4, 5] = mask[N // 2, N // 2 + 1] = False
        counts[:, ~mask] = 1e9
    return RawData.from_arrays(
        counts,
        positions,
        probe * np.float32(np.sqrt(scale)) if calibrated else probe,
        probe_calibrated=calibrated,
        mask=mask,
        background=level if background else None,
        propagation=propagation,
    )


def config_for(engine: ReconstructionBackend, settings: Settings = CONFIG, **changes: Any) -> Settings:
    """The settings with some fields varied, for an engine."""
    return vary(settings, **changes, backend=engine.name)


def train(
    engine: ReconstructionBackend,
    raw: RawData | PtychoDataContainer,
    settings: Settings = CONFIG,
    test: RawData | None = None,
    *,
    progress: Progress = no_progress,
) -> NetworkModel:
    """Train the engine on all frames of a scan, one group a frame unless the config says otherwise.

    A container is taken as it is; all frames of `test` are held out.
    """
    scan = raw if isinstance(raw, PtychoDataContainer) else PtychoDataContainer.of(raw)
    scans = [scan] if test is None else [scan, held_out_scan(test, scan)]
    n_groups = settings.config.n_groups or len(scan.train_frames)
    return engine.train(scans, *config_for(engine, settings, n_groups=n_groups), progress=progress)


def held_out_scan(raw: RawData, like: PtychoDataContainer) -> PtychoDataContainer:
    """A second scan of one experiment, to be looked at only."""
    raw = raw.with_probe(like.probe, calibrated=like.raw.probe_calibrated)
    return PtychoDataContainer.of(raw, heldout=np.arange(raw.n_frames), statistics=like.statistics)


def train_groups(raw: RawData, settings: Settings = CONFIG, epoch: int = 0) -> Groups:
    """The groups that :func:`train` goes over in an epoch."""
    config = replace(settings.config, n_groups=settings.config.n_groups or raw.n_frames)
    return GroupDraw([PtychoDataContainer.of(raw)], config).groups(epoch)


def interrupted(
    engine: ReconstructionBackend, raw: RawData, settings: Settings, at: int, test: RawData | None = None
) -> Path | None:
    """Train until a step, and return the checkpoint left."""
    seen = []

    def stop(event):
        seen.append(event.done)
        if event.done == at:
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough") as caught:
        train(engine, raw, settings, test, progress=stop)
    assert seen[-1] == at
    assert seen == list(range(seen[0], at + 1))
    return None if caught.value.checkpoint_path is None else Path(caught.value.checkpoint_path)


def lay_out(raw: RawData, group_size: int = 4) -> Groups:
    """Every frame once."""
    return partition_of(PtychoDataContainer.of(raw), np.arange(raw.n_frames), group_size)


def image_of(engine: ReconstructionBackend, model: NetworkModel, raw: RawData, **changes: Any) -> Image:
    """A scan reconstructed in single precision on the CPU, unless told otherwise."""
    return engine.reconstruct(model, PtychoDataContainer.of(raw), *exact(**changes))


def patches_of(engine: ReconstructionBackend, model: NetworkModel, groups: Groups, **changes: Any) -> np.ndarray:
    """Patches of groups, in single precision on the CPU, unless told otherwise."""
    return engine.predict_patches(model, groups, replace(SINGLE, **changes))


def exact(**changes: Any) -> Applied:
    """:data:`EXACT` with some fields of its config or its runtime replaced."""
    return Applied(*_split(EXACT, changes))


def error_of(engine: ReconstructionBackend, raw: RawData, image: Image) -> float:
    """Fourier error of an image over all frames, with its best gain, as core scores it."""
    return score(image, PtychoDataContainer.of(raw), engine.name, engine).train.fourier_error


def vary(settings: Settings = CONFIG, **changes: Any) -> Settings:
    """The settings with some fields of either replaced; ``model`` and ``inference`` take mappings of theirs."""
    config = settings.config
    if "model" in changes:
        changes["model"] = model_of(config.network, **changes["model"])
    if "inference" in changes:
        changes["inference"] = replace(config.inference, **changes["inference"])
    return Settings(*_split(settings, changes))


def model_of(model: ModelConfig, **changes: Any) -> ModelConfig:
    """A network with some sizes replaced, or of another generator: of the sizes so far those that it has as well."""
    other = ModelConfig(generator=changes.get("generator", model.generator))
    kept = {name: value for name, value in model.sizes.plain().items() if name in other.sizes.plain()}
    return ModelConfig(**{"generator": model.generator, **kept, **changes})


def _split(pair: tuple[Any, Runtime], changes: dict[str, Any]) -> tuple[Any, Runtime]:
    """Config and runtime with some fields of either replaced."""
    own = {f.name for f in fields(Runtime)}
    of_config = {name: value for name, value in changes.items() if name not in own}
    of_runtime = {name: value for name, value in changes.items() if name in own}
    return replace(pair[0], **of_config), replace(pair[1], **of_runtime)


def weights_of(model: NetworkModel) -> dict[str, np.ndarray]:
    """Name → every number that training decides."""
    return {**model.weights, "probe": model.probe, "scale": np.array(model.scale)}


def assert_same_model(one: NetworkModel, other: NetworkModel) -> None:
    """Two models are the same to the last bit, history included."""
    a, b = weights_of(one), weights_of(other)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert dict(one.history) == dict(other.history)


def differ(one: NetworkModel, other: NetworkModel) -> bool:
    """Whether any weight of the network differs."""
    return any(not np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def untrained(engine: ReconstructionBackend, raw: RawData, settings: Settings = CONFIG) -> NetworkModel:
    """A model with the first weights, as training would start from."""
    statistics = PtychoDataContainer.of(raw).statistics
    config = config_for(engine, settings).config
    return NetworkModel(
        backend=engine.name,
        config=config,
        weights=initial_weights(config, raw.side),
        statistics=statistics,
        scale=statistics.scale,
        probe=raw.probe,
        history={"train_loss": [1.0]},
    )


def shaken(model: NetworkModel, seed: int = 3, size: float = 0.1) -> NetworkModel:
    """A model with noise on every weight, so that each of them matters."""
    rng = np.random.default_rng(seed)
    noisy = {name: value + size * rng.standard_normal(value.shape) for name, value in model.weights.items()}
    return replace(model, weights={name: value.astype(np.float32) for name, value in noisy.items()})


def without_network(model: NetworkModel, sweeps: int) -> NetworkModel:
    """A model whose network adds nothing: what remains is the solver, with some sweeps and the network's own one."""
    zeros = {name: np.zeros_like(model.weights[name]) for name in ("head.weight", "head.bias")}
    config = replace(model.config, model=replace(model.config.network, sweeps=sweeps))
    return replace(model, config=config, weights={**model.weights, **zeros})
