"""A small scan with everything a report can stumble over, and a run on it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.api.score import score
from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import Geometry, RawData, Source
from ptycho_core.data.results import Image, Refined, Scored
from ptycho_core.data.run import Run, Stage
from ptycho_core.enginekit.stitching import Stitcher, make_image, probe_weights
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import add_modes, aperture_probe
from ptycho_core.runtime import Runtime

N = 32
HELDOUT = np.array([2, 6, 40])
SHAKEN = np.array([70, 71])


def make_object(shape: tuple[int, int]) -> NDArray[np.complex128]:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (0.8 + 0.2 * np.sin(rows / 5)) * np.exp(1j * (0.6 * np.sin(columns / 4 + rows / 9)))


def make_raw(*, pixel_size_m: float | None = None, noise: bool = True) -> RawData:
    """A two-mode scan of a non-square object with a mask, a background, an empty frame and sub-pixel positions."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:7, 0:11] * 5.0
    positions = np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-1.5, 1.5, (77, 2)) + (-40.0, 12.0)
    probe = add_modes(aperture_probe(N, 9.0, inner_radius_px=3.0, defocus_px2=60.0), 2, fraction=0.2)
    corners, rest = integer_corners(positions, N)
    shape = tuple(corners.max(axis=0) - corners.min(axis=0) + N)
    background = np.full((N, N), 0.2, dtype=np.float32)
    patches = extract(make_object(shape), corners - corners.min(axis=0), N)
    rate = expected_counts(patches, probe, rest, 2e4, background)
    counts = rng.poisson(rate).astype(np.float32) if noise else rate.astype(np.float32)
    counts[5] = 0
    mask = np.ones((N, N), dtype=bool)
    mask[3:6, 20:22] = False
    return RawData.from_arrays(
        counts,
        positions,
        probe,
        mask=mask,
        background=background,
        geometry=Geometry(pixel_size_m=pixel_size_m),
        source=Source(path="scan <one>.npz", assumptions=("read as & counts",), warnings=("saturated pixels",)),
    )


def make_image_of(scan: PtychoDataContainer) -> Image:
    """The true object, stitched from the training frames."""
    raw = scan.raw
    corners, rest = integer_corners(raw.positions_px, N)
    origin = corners.min(axis=0)
    obj = make_object(tuple(corners.max(axis=0) - origin + N)).astype(np.complex64)
    frames = scan.train_frames
    stitcher = Stitcher.for_scan(scan)
    weights = probe_weights(scan.probe, rest[frames])
    stitcher.add(extract(obj, corners[frames] - origin, N), weights, corners[frames])
    stitched, coverage = stitcher.finish(float(np.sum(np.abs(scan.probe) ** 2, axis=0).max()))
    return make_image(
        stitched, coverage, stitcher.origin_px, scan.probe, 2e4, raw.positions_px, stats={"dropped_patches": 1}
    )


def make_scored(*, pixel_size_m: float | None = None, noise: bool = True, bare: bool = False) -> Scored:
    """The image of the scan, scored; with frames of every role, or with the empty one unused only."""
    raw = make_raw(pixel_size_m=pixel_size_m, noise=noise)
    roles: dict[str, Any] = {} if bare else {"heldout": HELDOUT, "unused": {"shaken <stage>": SHAKEN}}
    scan = PtychoDataContainer.of(raw, **roles)
    return score(make_image_of(scan), scan, "pytorch")


def make_run(scored: Scored, **changes: Any) -> Run:
    """A run whose only stage is an image; ``comparison`` and ``half_data_frc`` are of that stage."""
    stage = {name: changes.pop(name) for name in ("comparison", "half_data_frc") if name in changes}
    values: dict[str, Any] = {
        "title": "Scan <1> & more",
        "scan": scored.scan,
        "stages": (Stage(name="network", scored=scored, seconds=3.5, **stage),),
        "refined": None,
        "model": None,
        "history": {"train_loss": [0.5, 0.2, 0.1], "test_loss": [0.6, 0.3, 0.2]},
        "config": TrainingConfig(epochs=3, model=ModelConfig(width=7)),
        "runtime": Runtime(threads=3),
        "engine": "pytorch",
        "warnings": ("<script>alert(1)</script>", "saturated pixels"),
        "provenance": {"seed": np.int64(3), "versions": {"numpy": "2.0"}},
        "seconds": {"read": 0.25, "train": 3.5, "total": 4.0},
        "peak_memory_bytes": 123_000_000,
    }
    return Run(**(values | changes))


def refined_run(scored: Scored, *, kept: bool = True) -> Run:
    """A run with a worse image before the image of :func:`make_scored`, or one whose refinement was discarded."""
    image = scored.image
    worse = replace(image, object=(image.object * np.exp(0.3j * np.abs(image.object))).astype(np.complex64))
    first = score(worse, scored.scan, "pytorch")
    history = {"train_loss": [-1.0, -1.5], "test_loss": [-0.9, -1.2]}
    note = "" if kept else "it was <no> better"
    refined = Refined(
        best=scored if kept else first, initial=first, engine="numpy", kept=kept, note=note, history=history
    )
    stages = [Stage(name="network", scored=first, seconds=3.0)]
    stages += [Stage(name="refined", scored=replace(scored, engine="numpy"), seconds=1.0)] if kept else []
    return make_run(scored, stages=tuple(stages), refined=refined)


def pixels(png: bytes) -> NDArray[np.float32]:
    """(h, w, 3) values 0..1 of a PNG."""
    from matplotlib.image import imread

    return np.asarray(imread(io.BytesIO(png)), dtype=np.float32)[..., :3]
