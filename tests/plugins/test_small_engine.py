"""The engine that the guide opens with: one file, found by its entry point, and it keeps the whole protocol."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from stub_engines import install

import ptycho_core
from ptycho_core.cli.main import main
from ptycho_core.config import TrainingConfig
from ptycho_core.testing import run_conformance

SOURCE = Path(__file__).parent / "small_engine" / "small_engine.py"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lay the engine out as pip does, in this process and in those that it starts."""
    site = tmp_path / "site"
    site.mkdir()
    install(site, "small-engine", {"small": "small_engine"}, {"small_engine": SOURCE.read_text(encoding="utf-8")})
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("small_engine", None)


def test_it_keeps_the_protocol(installed, capsys):
    sheet = run_conformance("small")
    assert {outcome.test: outcome.reason for outcome in sheet.of("failed")} == {}
    assert sheet.conforms
    offered_nothing = {outcome.reason for outcome in sheet.of("not offered")}
    assert offered_nothing == {
        "expected_counts", "loss_and_gradient", "predict_patches", "several scans", "resume", "refine", "stepper",
        "the near field",
    }  # fmt: skip
    assert main(["conform", "small", "--only", "plain"]) == 0
    assert "engine small keeps the protocol" in capsys.readouterr().out


def test_it_solves_a_scan_with_every_frame(installed):
    made = ptycho_core.simulate(
        ptycho_core.SimulationConfig(object="dead_leaves", N=32, grid_shape=(8, 7), step_px=4.3, seed=5)
    )
    config = TrainingConfig(backend="small", epochs=25, seed=2, test_fraction=0.1)
    scan = ptycho_core.ensure_container(made.raw, config)
    engine = ptycho_core.load_backend("small")
    model = engine.train([scan], config)
    scored = ptycho_core.score(engine.reconstruct(model, scan, config.inference), scan, "small")
    assert scored.train.fourier_error < 0.02
    assert scored.train.n_frames == len(scan.train_frames) == made.raw.n_frames - len(scan.heldout_frames)
    assert model.history["test_loss"][-1] < 0.5 * model.history["test_loss"][0]
    assert np.isfinite(scored.image.object).all()


def test_it_is_about_as_short_as_the_guide_says():
    code = [line for line in SOURCE.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 66
