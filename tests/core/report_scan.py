"""A small scan with everything a report can stumble over, and the record of a run on it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import Geometry, RawData, Source
from ptycho_core.data.results import Reconstruction
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import add_modes, aperture_probe
from ptycho_core.report import RunRecord
from ptycho_core.stitching import Stitcher, finish_reconstruction, probe_weights

N = 32


def make_scan(*, pixel_size_m: float | None = None, noise: bool = True) -> tuple[RawData, Reconstruction]:
    """A two-mode scan of a non-square object with a mask, a background, an empty frame and sub-pixel positions."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:7, 0:11] * 5.0
    positions = np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-1.5, 1.5, (77, 2)) + (-40.0, 12.0)
    probe = add_modes(aperture_probe(N, 9.0, inner_radius_px=3.0, defocus_px2=60.0), 2, fraction=0.2)
    corners, rest = integer_corners(positions, N)
    origin = corners.min(axis=0)
    shape = tuple(corners.max(axis=0) - origin + N)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    truth = (0.8 + 0.2 * np.sin(rows / 5)) * np.exp(1j * (0.6 * np.sin(columns / 4 + rows / 9)))
    background = np.full((N, N), 0.2, dtype=np.float32)
    rate = expected_counts(extract(truth, corners - origin, N), probe, rest, 2e4, background)
    counts = rng.poisson(rate).astype(np.float32) if noise else rate.astype(np.float32)
    counts[5] = 0
    mask = np.ones((N, N), dtype=bool)
    mask[3:6, 20:22] = False
    raw = RawData.from_arrays(
        counts,
        positions,
        probe,
        mask=mask,
        background=background,
        geometry=Geometry(pixel_size_m=pixel_size_m),
        source=Source(path="scan <one>.npz", assumptions=("read as & counts",), warnings=("saturated pixels",)),
    )
    stitcher = Stitcher.for_scan(raw)
    stitcher.add(extract(truth.astype(np.complex64), corners - origin, N), probe_weights(probe, rest), corners)
    obj, coverage = stitcher.finish(float(np.sum(np.abs(probe) ** 2, axis=0).max()))
    container = PtychoDataContainer.for_reconstruction(raw, 8)
    return raw, finish_reconstruction(obj, coverage, stitcher.origin_px, probe, 2e4, container)


def make_record(raw: RawData, reconstruction: Reconstruction, **changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "title": "Scan <1> & more",
        "reconstruction": reconstruction,
        "raw": raw,
        "config": TrainingConfig(epochs=3, model=ModelConfig(width=7)),
        "history": {"train_loss": [0.5, 0.2, 0.1], "test_loss": [0.6, 0.3, 0.2]},
        "engine": "pytorch",
        "versions": {"numpy": "2.0"},
        "seconds": {"read": 0.25, "train": 3.5},
        "peak_memory_bytes": 123_000_000,
        "warnings": ("<script>alert(1)</script>",),
        "heldout": np.array([2, 5, 40]),
        "provenance": {"seed": np.int64(3)},
    }
    return RunRecord(**(values | changes))


def pixels(png: bytes) -> NDArray[np.float32]:
    """(h, w, 3) values 0..1 of a PNG."""
    from matplotlib.image import imread

    return np.asarray(imread(io.BytesIO(png)), dtype=np.float32)[..., :3]
