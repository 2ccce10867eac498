"""A small engine for tests of the command: no framework, quick, and it keeps the whole protocol."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ptycho_core.bundle import Bundle, read_bundle, write_bundle
from ptycho_core.config import TrainingConfig
from ptycho_core.config_mapping import config_to_mapping
from ptycho_core.data.container import Statistics, integer_corners
from ptycho_core.enginekit.stitching import make_image
from ptycho_core.errors import Cancelled
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec, Capabilities, ProgressEvent, no_progress
from ptycho_core.runtime import DEFAULT_RUNTIME


@hookimpl
def ptycho_backend() -> BackendSpec:
    return BackendSpec(name="pytorch", factory="cli_stub_engine:StubEngine", title="Stub", protocol_version=2)


@dataclass(frozen=True)
class StubModel:
    backend: str
    config: TrainingConfig
    history: dict
    probe: np.ndarray
    statistics: Statistics
    checkpoint_path: Path | None = None
    side: int = field(default=32)


class StubEngine:
    """Trains nothing; its image is the scan's object guess, or a fixed texture, a little disturbed."""

    name = "pytorch"
    interrupt_at: int | None = None
    disturbance = 0.02
    interrupt_with = signal.SIGINT
    fail_with: BaseException | None = None
    seen: list = []  # noqa: RUF012
    runtimes: list = []  # noqa: RUF012
    capabilities = Capabilities(
        methods=("network", "solver"),
        generators=("probe_unet",),
        losses=("amplitude", "poisson"),
        mask=True,
        background=True,
        probe_trainable=True,
        scale_trainable=True,
        resume=True,
        precisions=("auto", "32"),
        accelerators=("auto", "cpu"),
        schedules=("one_cycle", "constant"),
        max_scans=None,
    )

    def train(self, scans, config, runtime=DEFAULT_RUNTIME, *, progress=no_progress):
        StubEngine.seen.append((scans, config))
        StubEngine.runtimes.append(runtime)
        if StubEngine.fail_with is not None:
            raise StubEngine.fail_with
        checkpoint = None if runtime.output_dir is None else Path(runtime.output_dir) / "last.json"
        for epoch in range(config.epochs):
            if StubEngine.interrupt_at == epoch:
                os.kill(os.getpid(), StubEngine.interrupt_with)
            try:
                metrics = {"train_loss": 1 / (epoch + 1)}
                progress(ProgressEvent(stage="train", done=epoch + 1, total=config.epochs, metrics=metrics))
            except Cancelled as error:
                if checkpoint is None:
                    raise
                checkpoint.write_text(json.dumps(config_to_mapping(config)))
                raise Cancelled(str(error), str(checkpoint)) from error
        if checkpoint is not None:
            checkpoint.write_text("{}")
        history = {"train_loss": [1 / (e + 1) for e in range(config.epochs)]}
        first = scans[0]
        if any(len(scan.heldout_frames) for scan in scans):
            history["test_loss"] = [1.5 / (e + 1) for e in range(config.epochs)]
        return StubModel("pytorch", config, history, first.probe, first.statistics, checkpoint, first.raw.side)

    def reconstruct(self, model, scan, config, runtime=DEFAULT_RUNTIME, *, progress=no_progress):
        StubEngine.seen.append((model, scan, config))
        StubEngine.runtimes.append(runtime)
        raw, N = scan.raw, scan.raw.side
        whole, _ = integer_corners(raw.positions_px, N)
        origin, shape = scan.canvas()
        y, x = np.mgrid[: shape[0], : shape[1]]
        obj = (0.8 + 0.1 * np.sin(y / 3) + 0.05 * np.cos(x / 2)) * np.exp(0.4j * np.sin((x + 2 * y) / 5))
        guess = raw.object_guess
        if guess is not None:
            at = np.round(origin - guess.origin_px).astype(int)
            there = guess.object[at[0] : at[0] + shape[0], at[1] : at[1] + shape[1]]
            inside = (slice(there.shape[0]), slice(there.shape[1]))
            obj[inside] = there * (1 + StubEngine.disturbance * np.sin(y + 3 * x))[inside]
        coverage = np.zeros(shape, np.float32)
        lit = np.sum(np.abs(scan.probe) ** 2, axis=0)
        for top, left in whole[scan.train_frames] - origin:
            coverage[top : top + N, left : left + N] += lit / lit.max()
        done = len(scan.train_frames)
        progress(ProgressEvent(stage="reconstruct", done=done, total=done))
        scale = scan.statistics.scale
        return make_image(obj.astype(np.complex64), coverage, origin, scan.probe, scale, raw.positions_px)

    def save(self, model, path):
        write_bundle(
            path,
            Bundle(
                backend="pytorch",
                generator=None,
                side=model.side,
                config=model.config,
                statistics=model.statistics,
                scale=model.statistics.scale,
                weights={"w": np.ones(3, np.float32)},
                probe=model.probe,
                history=model.history,
                provenance={},
            ),
        )

    def load(self, path):
        b = read_bundle(path)
        return StubModel("pytorch", b.config, b.history, b.probe, b.statistics, None, b.side)
