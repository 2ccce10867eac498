"""Fake installed distributions for tests: real entry points, found by the real discovery, no framework."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import pytest

PLUGIN = """
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec

@hookimpl
def ptycho_backend() -> BackendSpec:
    return BackendSpec({arguments})
"""

ENGINE = '''
"""A stub engine that records how it is called; what it saw when it was imported is in AT_IMPORT."""
import dataclasses
from pathlib import Path

import numpy as np

from ptycho_core import legacy
from ptycho_core.bundle import Bundle, read_bundle, write_bundle
from ptycho_core.data.container import integer_corners
from ptycho_core.protocol import Capabilities
from ptycho_core.enginekit.stitching import Stitcher, make_image, probe_weights

AT_IMPORT = dict(legacy.params.cfg)
CALLS = []


@dataclasses.dataclass
class Model:
    config: object
    probe: object
    statistics: object
    history: dict
    backend: str = "{name}"
    checkpoint_path: object = None


class Engine:
    name = "{name}"
    capabilities = Capabilities(
        methods=("network",), generators=("probe_unet",), losses=("amplitude",), schedules=("one_cycle",),
        mask=True, background=True
    )

    def train(self, scans, config, runtime=None, *, progress=None):
        CALLS.append(("train", scans, config, progress))
        scan = scans[0]
        history = {{"train_loss": [0.5, 0.25]}}
        if len(scan.heldout_frames):
            history["test_loss"] = [0.6, 0.35]
        return Model(config, (scan.probe * np.exp(0.5j)).astype(np.complex64), scan.statistics, history)

    def reconstruct(self, model, scan, config, runtime=None, *, progress=None):
        CALLS.append(("reconstruct", model, scan, config, progress))
        raw, frames = scan.raw, scan.train_frames
        stitcher = Stitcher.for_scan(scan, config.central_crop_px)
        corners, rest = integer_corners(raw.positions_px[frames], raw.side)
        ramp = np.arange(raw.side) / raw.side
        patch = (1 + 0.5 * ramp[:, None] + 0.25j * ramp).astype(np.complex64)
        weights = probe_weights(scan.probe, rest)
        stitcher.add(np.broadcast_to(patch, weights.shape), weights, corners)
        obj, coverage = stitcher.finish(float(weights.max()))
        return make_image(obj, coverage, stitcher.origin_px, scan.probe, scan.statistics.scale, raw.positions_px)

    def save(self, model, path):
        write_bundle(path, Bundle(
            backend=self.name, generator="probe_unet", side=model.probe.shape[-1], config=model.config,
            statistics=model.statistics, scale=2.0, weights={{"w": np.ones((2, 3), np.float32)}}, probe=model.probe,
            history=model.history))

    def load(self, path):
        bundle = read_bundle(path)
        return Model(bundle.config, bundle.probe, bundle.statistics, dict(bundle.history))
'''


def install(
    site: Path,
    distribution: str,
    entry_points: dict[str, str],
    modules: dict[str, str],
    *,
    version: str = "1.0",
    group: str = "ptycho.backends",
) -> None:
    """Lay a distribution with entry points in a group and some modules into a folder on ``sys.path``."""
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "\n".join(lines) + "\n")
    for module, text in modules.items():
        (site / f"{module}.py").write_text(dedent(text))


def plugin_module(**arguments: object) -> str:
    """Text of a plugin module whose hook returns a BackendSpec with these arguments, of protocol 2 unless they say."""
    given = {"protocol_version": 2} | arguments
    return PLUGIN.format(arguments=", ".join(f"{key}={value!r}" for key, value in given.items() if value is not None))


def engine_module(name: str) -> str:
    """Text of the stub engine."""
    return ENGINE.format(name=name)


def install_stub(site: Path, name: str = "stub", **spec: object) -> str:
    """Install the stub engine; return the name of its engine module."""
    module = f"{name}_engine_module"
    arguments: dict[str, object] = {"name": name, "factory": f"{module}:Engine", "title": "Stub"} | spec
    install(
        site,
        f"ptycho-{name}",
        {name: f"{name}_plugin_module"},
        {f"{name}_plugin_module": plugin_module(**arguments), module: engine_module(name)},
    )
    return module


def offer_only(monkeypatch: pytest.MonkeyPatch, entries: Sequence[importlib.metadata.EntryPoint]) -> None:
    """Let these be the only engines that are installed; readers are what they are."""
    real = importlib.metadata.entry_points

    def entry_points(**how: str) -> object:
        return tuple(entries) if how.get("group") == "ptycho.backends" else real(**how)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
