"""Fixtures of the core tests."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest
import run_engine
from stub_engines import offer_only

from ptycho_core import legacy
from ptycho_core.plugins.discovery import ENGINES, installed


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of fixed seed, fresh for each test."""
    return np.random.default_rng(20240)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[run_engine.Engine]:
    """The engine of ``run_engine`` beside the installed ones; what a test sets on it is put back."""
    entry = importlib.metadata.EntryPoint("stub", "run_engine", "ptycho.backends")
    offer_only(monkeypatch, [*installed(ENGINES), entry])
    monkeypatch.setattr(legacy.params, "cfg", {})
    engine = run_engine.Engine
    for name in ("made", "disturbed", "refined", "capabilities"):
        monkeypatch.setattr(engine, name, engine.__dict__[name])
    monkeypatch.setattr(engine, "made", 0)
    monkeypatch.setattr(engine, "calls", [])
    return engine


@pytest.fixture
def other_physics(stub: type[run_engine.Engine], monkeypatch: pytest.MonkeyPatch) -> type[run_engine.Engine]:
    """The same engine with a forward model of its own."""
    monkeypatch.setattr(run_engine, "Engine", run_engine.OtherPhysics)
    return run_engine.OtherPhysics
