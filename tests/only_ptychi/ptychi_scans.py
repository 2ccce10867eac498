"""Scans for the tests of the pty-chi engine: complex, asymmetric, sub-pixel, not square, in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter

from ptycho_backend_ptychi.options import PtychiOptions
from ptycho_core.api.score import score
from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image, Scored
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.likelihood import sample_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import add_modes, aperture_probe
from ptycho_core.plugins.registry import load_backend
from ptycho_core.protocol import no_progress
from ptycho_core.runtime import Runtime

N = 16
CONFIG = TrainingConfig(backend="ptychi", epochs=2, loss="amplitude", seed=3)
CPU = Runtime(accelerator="cpu")


def make_object(height: int = 46, width: int = 38, texture: float = 0.0) -> np.ndarray:
    """Complex, unlike its mirror images, its transpose and its conjugate; smooth but for `texture`, radians."""
    y, x = np.mgrid[:height, :width]
    amplitude = 0.8 + 0.15 * np.sin(x / 3.1 + y / 9) + 0.05 * (y > 25)
    grain = gaussian_filter(np.random.default_rng(5).normal(size=(height, width)), 1.2)
    phase = 0.7 * np.cos(y / 3.7 - x / 6.1) + 0.4 * (x > 20) * (y > 17) + texture * grain / grain.std()
    return amplitude * np.exp(1j * phase)


def make_probe(n_modes: int = 1, total: float = 1e5) -> np.ndarray:
    """An asymmetric probe; its phase has a kink that no shift explains."""
    ramp = np.arange(N)
    probe = aperture_probe(N, 5, defocus_px2=25.0, total=total)
    probe = probe * np.exp(0.3j * np.where(ramp > 9, ramp - 9, 0))[:, None] * (1 - 0.02 * ramp)
    return add_modes(probe.astype(np.complex64), n_modes, fraction=0.15)


def make_scan(
    n_modes: int = 1,
    *,
    step: float = 3.0,
    noise: bool = False,
    bad: bool = False,
    calibrated: bool = True,
    total: float = 1e5,
    positions_error: float = 0.0,
    background: float = 0.0,
    texture: float = 0.0,
) -> RawData:
    """A jittered raster, taller than wide, on an object of which every patch is inside."""
    rng = np.random.default_rng(1)
    y, x = np.meshgrid(np.arange(9.0, 36, step), np.arange(9.0, 28, step), indexing="ij")
    positions = np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-0.9, 0.9, (y.size, 2))
    probe = make_probe(n_modes, total)
    corners, rest = integer_corners(positions, N)
    counts = expected_counts(extract(make_object(texture=texture), corners, N), probe, rest).astype(np.float32)
    counts = sample_counts(counts, rng) if noise else counts
    mask = np.ones((N, N), dtype=bool)
    if bad:
        mask[3:5, 6] = mask[8, 8] = False
        counts[:, ~mask] = 7e4
    level = np.full((N, N), background) if background else None
    return RawData.from_arrays(
        counts,
        positions + rng.uniform(-positions_error, positions_error, positions.shape),
        probe,
        probe_calibrated=calibrated,
        mask=mask if bad else None,
        background=level,
    )


def config_of(algorithm: str = "lsqml", options: dict[str, Any] | None = None, **changes: Any) -> TrainingConfig:
    return replace(CONFIG, options=(PtychiOptions(algorithm=algorithm, **(options or {})),), **changes)


def container(raw: RawData, heldout: ArrayLike = (), **unused: ArrayLike) -> PtychoDataContainer:
    """Roles: some frames held out, some unused for a reason, all others to train on."""
    return PtychoDataContainer.of(raw, heldout=heldout, unused=unused)


def train(raw: RawData, config: TrainingConfig, heldout: ArrayLike = (), progress=no_progress, **runtime: Any):
    """Train on a scan with some frames held out; `runtime` is what a ``Runtime`` has."""
    return load_backend("ptychi").train([container(raw, heldout)], config, replace(CPU, **runtime), progress=progress)


def image(model, raw: RawData) -> Image:
    """The model's image of a scan with the model's probe."""
    scan = container(raw).with_probe(model.probe)
    return load_backend("ptychi").reconstruct(model, scan, model.config.inference)


def scored(found: Image, raw: RawData) -> Scored:
    """What core finds with an image through this engine's forward model, in all frames."""
    return score(found, container(raw), "ptychi", load_backend("ptychi"))


def cut_truth(done: Image) -> np.ndarray:
    y, x = np.round(done.origin_px).astype(int)
    height, width = done.object.shape
    return make_object()[y : y + height, x : x + width]


def likeness(found: np.ndarray, true: np.ndarray, margin: int = 8) -> float:
    """Magnitude of the mean-removed correlation away from the rim."""
    inside = np.s_[margin:-margin, margin:-margin]
    a, b = found[inside] - found[inside].mean(), true[inside] - true[inside].mean()
    return float(abs(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b)))
