"""Fixtures of the command's tests: a stub engine in place of the installed ones, and a tiny scan."""

from __future__ import annotations

import importlib.metadata

import cli_stub_engine
import pytest

from ptycho_core.plugins import registry
from ptycho_core.simulate import SimulationConfig, simulate_scan


@pytest.fixture(autouse=True)
def _work_in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stub(monkeypatch):
    """The stub engine as the only installed one, under the default engine's name."""
    entry = importlib.metadata.EntryPoint("pytorch", "cli_stub_engine", "ptycho.backends")
    monkeypatch.setattr(registry, "_installed", lambda: [entry])
    engine = cli_stub_engine.StubEngine
    monkeypatch.setattr(engine, "seen", [])
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
