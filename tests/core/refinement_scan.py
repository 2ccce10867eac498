"""A scan to refine on: strong, complex, asymmetric, taller than wide, with positions that may be off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptycho_core.api.prepare import ensure_container
from ptycho_core.config import RefinementConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.enginekit import state
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import aperture_probe

N = 32
CONFIG = TrainingConfig(
    backend="numpy", test_fraction=0.1, group_size=4, refinement=RefinementConfig(epochs=12, batch_size=16), seed=3
)


def make_object() -> np.ndarray:
    """Strong, complex, asymmetric, and taller than wide."""
    y, x = np.mgrid[:92, :78]
    amplitude = 0.8 + 0.2 * np.sin(x / 4 + y / 13)
    texture = np.random.default_rng(9).normal(size=(92, 78))
    return amplitude * np.exp(0.9j * np.cos(y / 5 - x / 9) + 0.5j * (x > 40) * (y > 30) + 0.25j * texture)


def true_positions(rng: np.random.Generator) -> np.ndarray:
    y, x = np.meshgrid(np.arange(22.0, 68, 5), np.arange(21.0, 56, 5), indexing="ij")
    return np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-1, 1, (y.size, 2))


def make_scan(*, shake: float = 0.0, calibrated: bool = True, photons: float = 1e5) -> RawData:
    """A scan of the object; with `shake` the positions written beside the frames are off by so many pixels."""
    rng = np.random.default_rng(4)
    positions = true_positions(rng)
    probe = aperture_probe(N, 9, defocus_px2=60.0, total=photons)
    corner = positions - (N - 1) / 2
    whole = np.floor(corner + 0.5).astype(np.int64)
    counts = rng.poisson(expected_counts(extract(make_object(), whole, N), probe, corner - whole)).astype(np.float32)
    noise = rng.normal(size=positions.shape)
    noise *= shake / max(np.abs(noise).max(), 1e-9)
    return RawData.from_arrays(counts, positions + noise - noise.mean(axis=0), probe, probe_calibrated=calibrated)


def with_roles(raw: RawData, config: TrainingConfig = CONFIG) -> PtychoDataContainer:
    """The scan with a tenth of its frames held out, as `config` says."""
    return ensure_container(raw, config)


def flat_image(scan: PtychoDataContainer) -> Image:
    """The image of an engine that saw nothing: O = 1, with a little structure, so that it has not collapsed."""
    image = state.flat_image(scan)
    grain = 1 + 0.01 * np.random.default_rng(0).normal(size=image.object.shape).astype(np.float32)
    return replace(image, object=image.object * grain)


def likeness(image: Image, margin: int = 22) -> float:
    """Magnitude of the mean-removed correlation with the truth away from the rim."""
    y, x = np.round(image.origin_px).astype(int)
    height, width = image.object.shape
    inside = np.s_[margin : height - margin, margin : width - margin]
    found, true = image.object[inside], make_object()[y : y + height, x : x + width][inside]
    found, true = found - found.mean(), true - true.mean()
    return float(abs(np.vdot(found, true)) / (np.linalg.norm(found) * np.linalg.norm(true)))
