"""A small engine for the tests of core: it trains nothing, says how it was called, and does as a test tells it.

Its image is the object of :func:`make_object`, disturbed by ``Engine.disturbed``; its forward model is the
oracle's, that of ``OtherPhysics`` is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_core.bundle import Bundle, read_bundle, write_bundle
from ptycho_core.config import RefinementConfig, TrainingConfig
from ptycho_core.data.container import Statistics, integer_corners
from ptycho_core.data.raw import ObjectGuess, RawData, Source
from ptycho_core.data.results import Image
from ptycho_core.enginekit.stitching import Stitcher, make_image, probe_weights
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec, Capabilities, ProgressEvent, no_progress
from ptycho_core.testing.problems import smooth_probe

N = 32
CONFIG = TrainingConfig(
    backend="stub",
    method="network",
    test_fraction=0.2,
    seed=3,
    epochs=2,
    group_size=4,
    refinement=RefinementConfig(epochs=3),
)


@hookimpl
def ptycho_backend() -> BackendSpec:
    return BackendSpec(name="stub", factory="run_engine:Engine", title="Stub", protocol_version=2)


@dataclass(frozen=True)
class Model:
    config: TrainingConfig
    history: dict
    probe: np.ndarray
    statistics: Statistics
    backend: str = "stub"
    checkpoint_path: Path | None = None
    told: list = field(default_factory=list)


class Engine:
    """See the module. Tests set the class attributes; the fixture ``stub`` puts them back."""

    name = "stub"
    capabilities = Capabilities(
        methods=("network",),
        generators=("probe_unet",),
        losses=("amplitude", "poisson"),
        schedules=("one_cycle",),
        max_scans=None,
        mask=True,
        background=True,
        probe_trainable=True,
        refine=True,
    )
    made = 0
    calls: list[tuple[str, Any, Any]] = []  # noqa: RUF012
    disturbed: Callable[[np.ndarray], np.ndarray] = staticmethod(lambda obj: obj * (1 + 0.5j))
    refined: Any = staticmethod(lambda image: better(image))

    def __init__(self) -> None:
        Engine.made += 1

    def _told(self, what: str, scan: Any, config: Any) -> None:
        Engine.calls.append((what, scan, config))

    def train(self, scans, config, runtime=None, *, progress=no_progress):
        self._told("train", list(scans), config)
        history = {"train_loss": [0.5, 0.25]}
        if any(len(scan.heldout_frames) for scan in scans):
            history["test_loss"] = [0.6, 0.35]
        progress(ProgressEvent(stage="train", done=1, total=1))
        first = scans[0]
        return Model(config, history, (first.probe * np.exp(0.5j)).astype(np.complex64), first.statistics)

    def reconstruct(self, model, scan, config, runtime=None, *, progress=no_progress):
        self._told("reconstruct", scan, config)
        progress(ProgressEvent(stage="reconstruct", done=1, total=1))
        raw = scan.raw
        stitcher = Stitcher.for_scan(scan, config.central_crop_px)
        corners, rest = integer_corners(raw.positions_px[scan.train_frames], raw.side)
        weights = probe_weights(scan.probe, rest)
        patches = extract(Engine.disturbed(make_object()), corners - ORIGIN, raw.side).astype(np.complex64)
        stitcher.add(patches, weights, corners)
        obj, coverage = stitcher.finish(float(weights.max()))
        return make_image(obj, coverage, stitcher.origin_px, scan.probe, scan.statistics.scale, raw.positions_px)

    def refine(self, image, scan, config, runtime=None, *, progress=no_progress):
        self._told("refine", scan, config)
        for epoch in range(config.refinement.epochs):
            metrics = {"train_loss": 1.0 - 0.1 * epoch, "test_loss": 2.0 - 0.1 * epoch}
            progress(ProgressEvent(stage="refine", done=epoch + 1, total=config.refinement.epochs, metrics=metrics))
        if isinstance(Engine.refined, Exception):
            raise Engine.refined
        return Engine.refined(image)

    def save(self, model, path):
        write_bundle(
            path,
            Bundle(
                backend="stub",
                generator="probe_unet",
                side=model.probe.shape[-1],
                config=model.config,
                statistics=model.statistics,
                scale=model.statistics.scale,
                weights={"w": np.ones((2, 3), np.float32)},
                probe=model.probe,
                history=model.history,
            ),
        )

    def load(self, path):
        bundle = read_bundle(path)
        return Model(bundle.config, dict(bundle.history), bundle.probe, bundle.statistics)

    @classmethod
    def seen(cls, what: str) -> list[Any]:
        """The scans that a method was called with."""
        return [scan for name, scan, _ in cls.calls if name == what]


def better(image: Image) -> Image:
    """What refining makes by default: the disturbance undone."""
    return replace(image, object=(image.object / (1 + 0.5j)).astype(np.complex64))


class OtherPhysics(Engine):
    """The same, with a forward model of its own: every wave loses a tenth of its intensity on the way."""

    def expected_counts(self, image, scan, frames):
        self._told("expected_counts", scan, frames)
        return 0.9 * rate_of(image, scan, frames)


def rate_of(image, scan, frames) -> np.ndarray:
    """λ (n, N, N) straight from the oracle's parts."""
    corners, rest = integer_corners(image.positions_px[frames], scan.raw.side)
    patches = extract(image.object, corners - np.round(image.origin_px).astype(np.int64), scan.raw.side)
    return expected_counts(patches, image.probe, rest, image.scale, scan.raw.background)


ORIGIN = np.array([-13, 21])
"""Scan coordinates of the first pixel of the object."""


def make_object() -> np.ndarray:
    """(77, 61) complex: strong, without symmetry, and taller than wide."""
    y, x = np.mgrid[:77, :61]
    amplitude = 0.75 + 0.2 * np.sin(x / 4 + y / 9)
    return amplitude * np.exp(0.8j * np.cos(y / 5 - x / 7) + 0.4j * (x > 28) * (y > 40))


def truth() -> ObjectGuess:
    """The object as a truth to compare with."""
    return ObjectGuess(object=make_object().astype(np.complex64), origin_px=ORIGIN.astype(np.float64))


def make_scan(*, photons: float = 8000.0, dark: tuple[int, ...] = (), mask: bool = False, **more: Any) -> RawData:
    """54 frames of two modes at sub-pixel places, a corner of the object touched, whose probe is in photons already."""
    rng = np.random.default_rng(6)
    y, x = np.mgrid[0:9, 0:6] * np.array([5.0, 5.4])[:, None, None]
    corners = np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(0, 1.5, (54, 2))
    corners[0] = 0
    probe = smooth_probe(N)
    probe = probe * np.sqrt(photons / np.sum(np.abs(probe) ** 2))
    whole, rest = integer_corners(corners + (N - 1) / 2, N)
    counts = rng.poisson(expected_counts(extract(make_object(), whole, N), probe, rest, 1.0, more.get("background")))
    counts = counts.astype(np.float32)
    counts[list(dark)] = 0
    good = np.ones((N, N), bool)
    good[4:6, 9:12] = False
    given: dict[str, Any] = {
        "probe_calibrated": True,
        "mask": good if mask else None,
        "source": Source(path="made/scan.npz", warnings=("something odd",)),
    }
    return RawData.from_arrays(counts, corners + ORIGIN + (N - 1) / 2, probe, **(given | more))
