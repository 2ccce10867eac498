"""Fixtures of the command's tests: a stub engine in place of the installed ones, and a tiny scan."""

from __future__ import annotations

import base64
import importlib.metadata

import cli_stub_engine
import numpy as np
import pytest
from stub_engines import offer_only

from ptycho_core.report import write as report
from ptycho_core.simulation import SimulationConfig, simulate_scan

_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def _work_in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def real_pictures():
    """Ask for the report's real pictures, which take most of a run's second here."""


@pytest.fixture(autouse=True)
def _blank_pictures(request, monkeypatch):
    """Put one-pixel pictures in place of the report's, but for the tests that look at them."""
    if "real_pictures" in request.fixturenames:
        return
    names = ("object_amplitude", "object_phase", "probe", "coverage", "losses", "r_map", "patterns")
    draw = {f"{name}.png": _PIXEL for name in names}
    monkeypatch.setattr(report, "_draw", lambda run, view: draw)


@pytest.fixture
def stub(monkeypatch):
    """The stub engine as the only installed one, under the default engine's name."""
    entry = importlib.metadata.EntryPoint("pytorch", "cli_stub_engine", "ptycho.backends")
    offer_only(monkeypatch, [entry])
    engine = cli_stub_engine.StubEngine
    monkeypatch.setattr(engine, "seen", [])
    monkeypatch.setattr(engine, "runtimes", [])
    return engine


@pytest.fixture(scope="session")
def tiny_simulation():
    """24 frames of 32×32 on a raster that is not square, sub-pixel steps."""
    return SimulationConfig(object="dead_leaves", N=32, grid_shape=(6, 4), step_px=4.3, photons=1e5, seed=5)


@pytest.fixture
def scan(tmp_path, tiny_simulation):
    """A simulated scan file."""
    from ptycho_core.io import write_scan

    path = tmp_path / "scan.npz"
    write_scan(path, simulate_scan(tiny_simulation).raw)
    return path


@pytest.fixture
def unsaid(scan):
    """A scan that does not say what its frames are, and has a pixel that is bad."""
    with np.load(scan) as file:
        arrays = {name: file[name] for name in file.files if name not in ("measurement", "mask")}
    np.savez("unsaid.npz", **arrays)
    mask = np.ones((32, 32), bool)
    mask[3, 5:7] = False
    np.save("mask.npy", mask)
    return "unsaid.npz"
