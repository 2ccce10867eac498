"""Two engines outside the tree, with no change in core: pure functions that only step, and a thick object.

Without installation they are laid out as pip does. Installed (``pip install tests/plugins/functional_engine
tests/plugins/multislice_engine``), they are what ``ptycho conform`` finds.
"""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stub_engines import install

import ptycho_core
from ptycho_core.api.score import score
from ptycho_core.cli.main import main
from ptycho_core.config import RefinementConfig, TrainingConfig
from ptycho_core.data.results import Image
from ptycho_core.errors import BackendError, ConfigError
from ptycho_core.io.reconstruction_file import read_reconstruction
from ptycho_core.testing import run_conformance

HERE = Path(__file__).parent
ENGINES = ("functional", "multislice")
INSTALLED = set(ENGINES) <= set(importlib.metadata.entry_points(group="ptycho.backends").names)


def source_of(name: str) -> Path:
    return HERE / f"{name}_engine" / f"{name}_engine.py"


@pytest.fixture
def laid_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lay both out as pip does, in this process and in those that it starts."""
    site = tmp_path / "site"
    site.mkdir()
    for name in ENGINES:
        module = f"{name}_engine"
        install(site, f"{name}-engine", {name: module}, {module: source_of(name).read_text(encoding="utf-8")})
    monkeypatch.syspath_prepend(site)
    yield site
    for name in ENGINES:
        sys.modules.pop(f"{name}_engine", None)


def simulated(**changes: object):
    wanted = {"object": "dead_leaves", "N": 32, "grid_shape": (8, 7), "step_px": 4.3, "seed": 5}
    return ptycho_core.simulate(ptycho_core.SimulationConfig(**(wanted | changes)))


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("functional", {"expected_counts", "loss_and_gradient", "predict_patches", "several scans"}
         | {"refinement of positions", "the near field", "frame_scale", "position_affine"}),
        ("multislice", {"stepper", "loss_and_gradient", "predict_patches", "several scans", "resume", "refine"}
         | {"an image that the oracle explains", "the near field"}),
    ],
)  # fmt: skip
def test_they_keep_the_protocol(laid_out, name, missing):
    sheet = run_conformance(name)
    assert {outcome.test: outcome.reason for outcome in sheet.of("failed")} == {}
    assert {outcome.reason for outcome in sheet.of("not offered")} == missing


@pytest.mark.plugin
@pytest.mark.skipif(not INSTALLED, reason="not installed: pip install tests/plugins/{functional,multislice}_engine")
@pytest.mark.parametrize("name", ENGINES)
def test_the_command_finds_them_installed_and_they_conform(name, capsys):
    assert main(["conform", name]) == 0
    assert f"engine {name} keeps the protocol" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "most"), [("functional", 66), ("multislice", 90)])
def test_they_are_as_short_as_the_guide_says(name, most):
    """Lines of code, without docstrings and empty lines."""
    text = source_of(name).read_text(encoding="utf-8")
    told = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }
    code = [line for number, line in enumerate(text.splitlines(), 1) if line.strip() and number not in told]
    assert len(code) <= most


def test_steps_of_pure_functions_solve_as_numpy_does(laid_out):
    """One descent and one set of formulas: with two modes and the probe refined the images are the same."""
    made = simulated(n_modes=2)
    images = {}
    for name in ("functional", "numpy"):
        config = TrainingConfig(backend=name, epochs=6, seed=2, test_fraction=0.1, probe_trainable=True)
        images[name] = ptycho_core.run(
            made.raw, replace(config, refinement=RefinementConfig(epochs=6, positions=False, probe_modes=2))
        ).scored
    ours, numpys = images["functional"], images["numpy"]
    assert ours.heldout.deviance == pytest.approx(numpys.heldout.deviance, rel=1e-3)
    lit = numpys.image.coverage > 0.3
    difference = np.abs(ours.image.object - numpys.image.object)[lit]
    assert np.sqrt(np.mean(difference**2)) < 5e-3


def test_a_state_that_was_put_aside_costs_nothing_and_stays(laid_out):
    engine = ptycho_core.load_backend("functional")
    scan = ptycho_core.ensure_container(simulated().raw, TrainingConfig(backend="functional"))
    from ptycho_core.enginekit.state import flat_image
    from ptycho_core.protocol import StepLengths
    from ptycho_core.runtime import Runtime

    stepper = engine.stepper(flat_image(scan), scan, "poisson", Runtime())
    kept = stepper.snapshot()
    before = {name: value.copy() for name, value in kept.items()}
    assert kept is stepper.state
    stepper.step(scan.train_frames[:5], StepLengths(), ("object", "probe"))
    for name in ("object", "probe", "velocity"):
        np.testing.assert_array_equal(kept[name], before[name])
        assert np.abs(stepper.state[name] - before[name]).max() > 0


def test_frames_that_differ_in_intensity_are_gone_on_from(laid_out):
    """An image with weights of its frames, from an engine that fits them, is explained by the pure functions too."""
    engine = ptycho_core.load_backend("functional")
    config = TrainingConfig(backend="functional", test_fraction=0.1)
    raw = simulated().raw
    # counts above a background, which has no part in the level of an image
    scan = ptycho_core.ensure_container(
        replace(raw, background=np.full((32, 32), 0.4, np.float32), probe_calibrated=False), config
    )
    from ptycho_core.api.score import oracle_counts
    from ptycho_core.enginekit.state import flat_image
    from ptycho_core.physics.likelihood import poisson_loss
    from ptycho_core.runtime import Runtime

    weights = np.random.default_rng(1).uniform(0.5, 1.5, (scan.raw.n_frames, 1)).astype(np.float32)
    image: Image = replace(flat_image(scan), mode_weights=weights)
    stepper = engine.stepper(image, scan, "poisson", Runtime())
    shown, frames = stepper.image(), scan.heldout_frames
    wanted = poisson_loss(oracle_counts(shown, scan, frames), scan.raw.read_counts(frames).astype(float), None, 1.0)
    assert stepper.loss(frames) == pytest.approx(wanted, rel=1e-6)
    expected = oracle_counts(shown, scan, scan.train_frames).sum()
    assert expected == pytest.approx(scan.raw.frame_totals[scan.train_frames].sum(), rel=1e-5)
    np.testing.assert_allclose(shown.mode_weights / shown.mode_weights[0], weights / weights[0], rtol=1e-5)


def test_a_thick_object_from_outside_is_solved_scored_and_told_of(laid_out, tmp_path):
    """Core scores it by the engine's physics; nobody else can go on from it, and the result says so."""
    raw = simulated(photons=1e6).raw
    config = TrainingConfig(backend="multislice", epochs=12, test_fraction=0.1, loss="amplitude")
    done = ptycho_core.run(raw, config, out=tmp_path / "out")
    assert done.scored.train.fourier_error < 0.05
    assert done.image.forward_model == "multislice"
    assert done.image.slices.shape == (2, *done.image.object.shape)
    stored = read_reconstruction(tmp_path / "out" / "reconstruction.h5")
    assert (stored.forward_model, len(stored.slices), stored.slice_spacing_m) == ("multislice", 2, 2e-6)
    with pytest.raises(BackendError, match="forward model of engine 'multislice' alone, and engine 'numpy' is given"):
        score(done.image, done.scan, "multislice", ptycho_core.load_backend("numpy"))
    numpy = replace(config, backend="numpy", loss=None)
    with pytest.raises(ConfigError, match="engine 'multislice' only, so engine 'numpy' cannot go on from it"):
        ptycho_core.refine(done.scored, numpy)
    model = ptycho_core.load_model(tmp_path / "out" / "model.ptycho")
    again = ptycho_core.reconstruct(model, raw, same_scan=True)
    np.testing.assert_array_equal(again.image.slices, done.image.slices)
