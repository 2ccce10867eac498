"""Tiny scans and configs for the tests of the PyTorch engine: asymmetric, sub-pixel, two modes, in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from core.physics_problem import smooth_probe

from ptycho_backend_torch.backend import TorchBackend, TorchModel
from ptycho_core.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract

EXACT = InferenceConfig(accelerator="cpu", precision="32")

CONFIG = TrainingConfig(
    model=ModelConfig(width=4, depth=2),
    inference=EXACT,
    group_size=4,
    epochs=2,
    schedule="constant",
    accelerator="cpu",
    precision="32",
    seed=1,
)
"""A base that tests vary: single precision, so that what they compare is not rounding."""


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
    rate = expected_counts(extract(obj, corners, N), probe, rest, scale, level)
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
    )


def train(raw: RawData, config: TrainingConfig, test: RawData | None = None, **more: Any) -> TorchModel:
    """Group a scan by the config, one group a frame unless it says otherwise, and train on it."""
    groups = PtychoDataContainer.for_training(
        raw, config.group_size, n_groups=config.n_groups or raw.n_frames, neighbor_pool_size=config.neighbor_pool_size,
        seed=config.seed,
    )  # fmt: skip
    held_out = None
    if test is not None:
        held_out = PtychoDataContainer.for_reconstruction(test, config.group_size, statistics=groups.statistics)
    return TorchBackend().train(groups, held_out, config, **more)


def vary(config: TrainingConfig = CONFIG, **changes: Any) -> TrainingConfig:
    """The config with some fields replaced; ``model`` and ``inference`` take mappings of theirs."""
    for name in ("model", "inference"):
        if name in changes:
            if changes[name].get("generator") == "cnn":  # it has no depth and no sweeps of its own
                changes[name] = {"depth": ModelConfig.depth, "sweeps": ModelConfig.sweeps} | changes[name]
            changes[name] = replace(getattr(config, name), **changes[name])
    return replace(config, **changes)


def weights_of(model: TorchModel) -> dict[str, np.ndarray]:
    """Name → every number that training decides."""
    arrays = {name: value.numpy().copy() for name, value in model.generator.state_dict().items()}
    return arrays | {"probe": model.probe, "scale": np.array(model.scale)}


def assert_same_model(one: TorchModel, other: TorchModel) -> None:
    """Two models are the same to the last bit, history included."""
    a, b = weights_of(one), weights_of(other)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert dict(one.history) == dict(other.history)


def differ(one: TorchModel, other: TorchModel) -> bool:
    """Whether any weight of the network differs."""
    a, b = one.generator.state_dict(), other.generator.state_dict()
    return any(not bool((a[name] == b[name]).all()) for name in a)
