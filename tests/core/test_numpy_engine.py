"""The NumPy engine: its physics against the oracle, its sweeps on a scan, its bundles, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from physics_problem import Problem, make_problem
from refinement_scan import likeness, make_scan

from ptycho_backend_numpy import gradient, physics
from ptycho_backend_numpy.backend import NumpyBackend
from ptycho_backend_numpy.gradient import NumpyGradient
from ptycho_backend_numpy.options import NumpyOptions
from ptycho_core import api
from ptycho_core.bundle import read_bundle, write_bundle
from ptycho_core.config import TrainingConfig
from ptycho_core.data.raw import RawData
from ptycho_core.errors import ArchiveError, Cancelled, ConfigError, DataError
from ptycho_core.physics import forward as oracle
from ptycho_core.physics.likelihood import loss_and_gradient
from ptycho_core.physics.patches import extract
from ptycho_core.physics.steps import DARK_COUNTS, position_gradient
from ptycho_core.plugins.registry import load_backend
from ptycho_core.solvers import load_solver, save_solver

CONFIG = TrainingConfig(backend="numpy", group_size=4, epochs=16, loss="poisson", seed=2)
EXACT = {np.complex64: 2e-6, np.complex128: 1e-12}


def close(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


def scan_of(problem: Problem) -> RawData:
    return RawData.from_arrays(
        problem.counts.astype(np.float32),
        problem.positions_px,
        problem.probe.astype(np.complex64),
        mask=problem.mask,
        background=problem.background,
    )


@pytest.fixture
def problem() -> Problem:
    return make_problem()


@pytest.fixture(scope="module")
def scan() -> RawData:
    return make_scan()


@pytest.mark.spec("BE-7")
@pytest.mark.parametrize("dtype", EXACT)
def test_its_physics_is_the_oracles_in_its_own_precision(problem: Problem, dtype: Any) -> None:
    probe, patches = problem.probe.astype(dtype), extract(problem.obj, problem.corners, 16).astype(dtype)
    pairs = [
        (physics.shift_ramp(problem.rest, 16, dtype), oracle.shift_ramp(problem.rest, 16)),
        (
            physics.fourier_shift(probe[None], problem.rest[:, None]),
            oracle.fourier_shift(problem.probe[None], problem.rest[:, None]),
        ),
        (physics.far_field(patches), oracle.far_field(patches)),
        (physics.far_field_adjoint(patches), oracle.far_field_adjoint(patches)),
        (
            physics.exit_waves(patches, probe, problem.rest),
            oracle.exit_waves(patches, problem.probe, problem.rest),
        ),
        (
            physics.expected_counts(patches, probe, problem.rest, 1.7, problem.background),
            oracle.expected_counts(patches, problem.probe, problem.rest, 1.7, problem.background),
        ),
        (physics.mode_intensity(patches[None]), oracle.mode_intensity(patches[None])),
    ]
    for found, wanted in pairs:
        close(found, wanted, EXACT[dtype])
        assert found.real.dtype == np.zeros(1, dtype).real.dtype


@pytest.mark.spec("BE-7")
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@pytest.mark.parametrize("chunk", [1, 2**22])
def test_its_gradients_are_the_oracles(
    problem: Problem, dtype: Any, loss: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient, "_CHUNK_BYTES", chunk)
    raw, frames = scan_of(problem), np.array([4, 0, 2, 3])
    background = raw.background + np.float32(DARK_COUNTS)
    corners, rest = problem.corners[frames], problem.rest[frames]
    known = (problem.obj, problem.probe, corners, rest, raw.read_counts(frames), loss, problem.mask, background)
    value, d_obj, d_probe, _ = loss_and_gradient(*known)
    engine = NumpyGradient(raw, loss, threads=1)
    state = (problem.obj.astype(dtype), problem.probe.astype(dtype))
    found = engine(frames, corners, rest, *state, ("object", "probe", "positions"))
    tolerance = 20 * EXACT[dtype]
    assert found.loss == pytest.approx(value, rel=1e-6)
    close(found.object, d_obj, tolerance)
    close(found.probe, d_probe, tolerance)
    close(found.positions, position_gradient(*known), tolerance)
    alone = engine(frames, corners, rest, *state, ())
    assert (alone.object, alone.probe, alone.positions) == (None, None, None)
    assert alone.loss == pytest.approx(value, rel=1e-6)
    only = engine(frames, corners, rest, *state, ("positions",))
    close(only.positions, found.positions, 1e-6)
    assert only.object is None


@pytest.mark.parametrize("algorithm", ["rpie", "lsq"])
def test_it_solves_a_scan(scan: RawData, algorithm: str) -> None:
    config = replace(CONFIG, options=NumpyOptions(algorithm=algorithm, batch_frames=10))
    train, test = scan.split(0.1, seed=1)
    _, _, results = api.run_cdi_example(train, test, config, do_stitching=True)
    losses = results["history"]["train_loss"]
    assert len(losses) == len(results["history"]["test_loss"]) == 16
    assert losses[-1] < losses[0]
    image = api.reconstruct(results["model"], scan, config.inference, same_scan=True)
    assert image.r_factor < 0.006
    assert likeness(image) > 0.98


def test_its_options_change_what_it_does(scan: RawData) -> None:
    objects = []
    for options in (None, NumpyOptions(algorithm="lsq"), NumpyOptions(batch_frames=7), NumpyOptions(threads=1)):
        model = api.train_cdi_model(scan, scan, replace(CONFIG, epochs=2, options=options))["model"]
        objects.append(model.object)
    assert (objects[0] != objects[1]).any()
    assert (objects[0] != objects[2]).any()
    np.testing.assert_allclose(objects[0], objects[3], atol=1e-5)


def test_double_precision_has_an_effect(scan: RawData) -> None:
    single, double = (
        api.train_cdi_model(scan, scan, replace(CONFIG, epochs=2, precision=precision))["model"]
        for precision in ("32", "64")
    )
    assert (single.object != double.object).any()
    np.testing.assert_allclose(single.object, double.object, atol=1e-3)
    assert double.object.dtype == np.complex64


@pytest.mark.spec("BE-8")
def test_a_cancelled_run_resumes_to_the_same_result(scan: RawData, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=5, probe_trainable=True)
    whole = api.train_cdi_model(scan, scan, config)["model"]

    def stop(event: Any) -> None:
        if event.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled) as caught:
        api.train_cdi_model(scan, scan, replace(config, output_dir=tmp_path), progress=stop)
    path = Path(str(caught.value.checkpoint_path))
    assert path.parent == tmp_path
    assert (tmp_path / "history.csv").read_text().count("\n") == 3
    again = api.train_cdi_model(scan, scan, replace(config, resume_from=path))["model"]
    assert len(again.history["train_loss"]) == 5
    np.testing.assert_allclose(again.object, whole.object, atol=1e-3)
    np.testing.assert_allclose(again.probe, whole.probe, atol=1e-3 * np.abs(whole.probe).max())
    with pytest.raises(ArchiveError, match="Resume with the scan"):
        api.train_cdi_model(scan.subset(range(30)), scan.subset(range(5)), replace(config, resume_from=path))


@pytest.mark.spec("BE-10")
def test_its_bundle_comes_back_to_the_same_image_and_says_whose_it_is(scan: RawData, tmp_path: Path) -> None:
    model = api.train_cdi_model(scan, scan, replace(CONFIG, epochs=3, options=NumpyOptions(algorithm="lsq")))["model"]
    path = tmp_path / "model.ptycho"
    load_backend("numpy").save(model, path)
    assert (read_bundle(path).backend, read_bundle(path).generator) == ("numpy", None)
    loaded = api.load_model(path)
    assert loaded.config.options == NumpyOptions(algorithm="lsq")
    before, after = (api.reconstruct(m, scan, CONFIG.inference, same_scan=True) for m in (model, loaded))
    np.testing.assert_array_equal(before.object, after.object)
    assert before.r_factor == after.r_factor
    with pytest.raises(ArchiveError, match="it was made by engine 'numpy', a solver"):
        api.load_model(path, backend="pytorch")


def test_a_solvers_state_is_kept_and_what_no_solver_writes_is_refused(scan: RawData, tmp_path: Path) -> None:
    model = api.train_cdi_model(scan, scan, replace(CONFIG, epochs=1))["model"]
    assert model.state == {}
    path = tmp_path / "model.ptycho"
    state = {"object.step": np.float32([3.0]), "count": np.arange(4)}
    save_solver(replace(model, state=state), path, ())
    loaded = load_solver(path, "numpy")
    assert loaded.state.keys() == state.keys()
    for name, values in state.items():
        np.testing.assert_array_equal(loaded.state[name], values)
        assert loaded.state[name].dtype == values.dtype
    good = read_bundle(path)
    for weights, words in [
        ({"object": good.weights["object"].astype(np.int64)}, "'object' .* int64.*writes 'object' .* float32"),
        ({"origin_px": good.weights["origin_px"].astype(np.float32)}, "'origin_px' .* float32.*'origin_px' .* int64"),
        ({"object": good.weights["object"][..., 0]}, r"'object' \(H, W, 2\)"),
        ({"speed": np.float32([1.0])}, "it holds 'speed', which no solver writes"),
    ]:
        write_bundle(path, replace(good, weights={**good.weights, **weights}))
        with pytest.raises(ArchiveError, match=words):
            load_solver(path, "numpy")


@pytest.mark.spec("BE-17")
def test_an_image_made_without_frames_has_no_light_of_theirs(scan: RawData) -> None:
    model = api.train_cdi_model(scan, scan, replace(CONFIG, epochs=1))["model"]
    corner = np.array([0, 1, 7])
    whole = api.reconstruct(model, scan, CONFIG.inference, same_scan=True)
    part = api.reconstruct(model, scan, CONFIG.inference, same_scan=True, without=corner)
    assert part.coverage.shape == whole.coverage.shape
    assert part.coverage[:8, :8].max() < 0.2 * whole.coverage[:8, :8].max()
    np.testing.assert_allclose(part.coverage[-20:, -20:], whole.coverage[-20:, -20:], rtol=1e-4)


def test_a_scan_beyond_its_object_is_refused(scan: RawData) -> None:
    model = api.train_cdi_model(scan, scan, replace(CONFIG, epochs=1))["model"]
    moved = replace(scan, positions_px=scan.positions_px + 3)
    with pytest.raises(DataError, match="beyond the object that engine 'numpy' solved"):
        api.reconstruct(model, moved, CONFIG.inference)


def test_what_it_cannot_do_is_refused(scan: RawData) -> None:
    for changes, words in [
        ({"scale_trainable": True}, "scale_trainable = True"),
        ({"learning_rate": 0.5}, "learning_rate = 0.5 has no effect"),
        ({"precision": "bf16"}, "precision = 'bf16'"),
        ({"accelerator": "cuda"}, "accelerator = 'cuda'"),
    ]:
        with pytest.raises(ConfigError, match=f"engine 'numpy': {words}"):
            api.train_cdi_model(scan, None, replace(CONFIG, **changes))  # type: ignore[arg-type]
    for changes, words in [
        ({"algorithm": "dm"}, "NumpyOptions.algorithm = 'dm'; allowed: rpie, lsq"),
        ({"batch_frames": 0}, "NumpyOptions.batch_frames = 0; it must be at least 1"),
        ({"threads": 1.5}, "NumpyOptions.threads = 1.5 is a float"),
    ]:
        with pytest.raises(ConfigError, match=words):
            NumpyOptions(**changes)
    with pytest.raises(ConfigError, match="options are settings of engine 'numpy', which has no part here"):
        TrainingConfig(backend="pytorch", options=NumpyOptions())


@pytest.mark.spec("BE-6")
def test_it_answers_questions_about_its_physics(problem: Problem) -> None:
    raw, engine = scan_of(problem), NumpyBackend()
    obj, probe = problem.obj.astype(np.complex64), problem.probe.astype(np.complex64)
    rate = oracle.expected_counts(extract(problem.obj, problem.corners, 16), problem.probe, problem.rest)
    close(engine.simulate(obj, probe, problem.positions_px), rate, 1e-5)
    divisor = float(raw.frame_totals.sum())
    for loss in ("poisson", "amplitude"):
        value, d_obj, d_probe = engine.loss_and_gradient(obj, probe, raw, loss)
        known = (problem.corners, problem.rest, raw.read_counts(np.arange(6)), loss, problem.mask, raw.background)
        wanted = loss_and_gradient(obj, probe, *known, 1.0, divisor)
        assert value == pytest.approx(wanted[0], rel=1e-6)
        close(d_obj, wanted[1], 1e-5)
        close(d_probe, wanted[2], 1e-5)
    with pytest.raises(ConfigError, match="loss = 'mae'"):
        engine.loss_and_gradient(obj, probe, raw, "mae")
    with pytest.raises(DataError, match="do not fit the object"):
        engine.simulate(obj, probe, problem.positions_px + 20)
