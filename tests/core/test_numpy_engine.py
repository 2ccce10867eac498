"""The NumPy engine: its physics against the oracle, its sweeps on a scan, its bundles, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from physics_problem import Problem, make_problem
from refinement_scan import likeness, make_scan, with_roles

from ptycho_backend_numpy import gradient, physics
from ptycho_backend_numpy.backend import NumpyBackend
from ptycho_backend_numpy.gradient import NumpyGradient
from ptycho_backend_numpy.stepper import NumpyStepper
from ptycho_core.api.run import run
from ptycho_core.api.score import oracle_counts, score
from ptycho_core.bundle import read_bundle, write_bundle
from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.enginekit.processors import available_cpus
from ptycho_core.enginekit.solver_model import SolverModel, load_solver, save_solver
from ptycho_core.errors import ArchiveError, ConfigError, DataError
from ptycho_core.physics import forward as oracle
from ptycho_core.physics import propagation
from ptycho_core.physics.likelihood import loss_and_gradient
from ptycho_core.physics.patches import extract
from ptycho_core.physics.steps import DARK_COUNTS, position_gradient
from ptycho_core.plugins.capabilities import check_capabilities
from ptycho_core.plugins.registry import load_backend
from ptycho_core.runtime import Runtime

CONFIG = TrainingConfig(backend="numpy", test_fraction=0.1, epochs=16, loss="poisson", seed=2)
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
def scan() -> PtychoDataContainer:
    return with_roles(make_scan(), CONFIG)


def train(scan: PtychoDataContainer, **changes: Any) -> SolverModel:
    runtime = {name: changes.pop(name) for name in ("precision", "threads", "output_dir") if name in changes}
    return NumpyBackend().train([scan], replace(CONFIG, **changes), Runtime(**runtime))


def image_of(model: SolverModel, scan: PtychoDataContainer) -> Image:
    return NumpyBackend().reconstruct(model, scan, CONFIG.inference)


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
        (physics.far_field(patches), propagation.far_field(patches)),
        (physics.far_field_adjoint(patches), propagation.far_field_adjoint(patches)),
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


@pytest.mark.spec("BE-37")
def test_how_many_threads_computed_stands_in_what_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    config = replace(CONFIG, epochs=1, refinement=replace(CONFIG.refinement, engine="none"))
    with caplog.at_level("INFO", "ptycho_core.threads"):
        told = [run(make_scan(), config, Runtime(threads=n)).provenance["runtime"] for n in (3, None)]
    assert (told[0]["threads"], told[0]["threads_chosen"]) == (3, "3, as given")
    assert told[1]["threads"] is None
    assert f" of {available_cpus()}, " in told[1]["threads_chosen"]
    assert "threads: 3, as given" in caplog.messages


@pytest.mark.spec("BE-38")
def test_the_number_of_threads_changes_no_bit(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient, "_CHUNK_BYTES", 1)  # a frame each, so that all have something to do
    frames, weights = np.array([4, 0, 2, 3, 1]), np.array([0.7, 1.2, 1.0, 0.9, 1.3])
    at = (problem.corners[frames], problem.rest[frames], problem.obj.astype(np.complex64))
    wanted = ("object", "probe", "positions", "frame_scale")

    def found(threads: int) -> list[Any]:
        ask = NumpyGradient(scan_of(problem), "poisson", threads)
        got = ask(frames, *at, problem.probe.astype(np.complex64), wanted, DARK_COUNTS, weights)
        return [value for value in vars(got).values() if value is not None]

    one = found(1)
    assert len(one) == 6
    for n_threads in (2, 3, 5):
        for mine, theirs in zip(one, found(n_threads), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.spec("BE-7")
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@pytest.mark.parametrize(("chunk", "threads"), [(1, 1), (2**22, 1), (1, 3)])
def test_its_gradients_are_the_oracles(
    problem: Problem, dtype: Any, loss: str, chunk: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient, "_CHUNK_BYTES", chunk)
    raw, frames = scan_of(problem), np.array([4, 0, 2, 3])
    background = raw.background.astype(np.float64) + DARK_COUNTS
    corners, rest = problem.corners[frames], problem.rest[frames]
    known = (problem.obj, problem.probe, corners, rest, raw.read_counts(frames), loss, problem.mask, background)
    _, d_obj, d_probe, _ = loss_and_gradient(*known)
    value = loss_and_gradient(*known[:-1], raw.background)[0]  # what is told knows of no dark counts
    engine = NumpyGradient(raw, loss, threads, dtype)
    state = (problem.obj.astype(dtype), problem.probe.astype(dtype))
    found = engine(frames, corners, rest, *state, ("object", "probe", "positions"), DARK_COUNTS)
    tolerance = 20 * EXACT[dtype]
    assert found.loss == pytest.approx(value, rel=1e-6)
    close(found.object, d_obj, tolerance)
    close(found.probe, d_probe, tolerance)
    close(found.positions, position_gradient(*known), tolerance)
    alone = engine(frames, corners, rest, *state, ())
    assert (alone.object, alone.probe, alone.positions) == (None, None, None)
    assert alone.loss == pytest.approx(value, rel=1e-6)
    only = engine(frames, corners, rest, *state, ("positions",), DARK_COUNTS)
    close(only.positions, found.positions, 1e-6)
    assert only.object is None


@pytest.mark.parametrize("algorithm", ["rpie", "lsq"])
def test_it_solves_a_scan(scan: PtychoDataContainer, algorithm: str) -> None:
    model = train(scan, algorithm=algorithm, batch_size=10)
    losses = model.history["train_loss"]
    assert len(losses) == len(model.history["test_loss"]) == 16
    assert losses[-1] < losses[0]
    scored = score(image_of(model, scan), scan, "numpy", NumpyBackend())
    assert scored.train.fourier_error < 0.006
    assert likeness(scored.image) > 0.98


class Recorded(NumpyStepper):
    """The engine's stepper, which writes down the frames that it is asked of."""

    asked: list[tuple[bool, list[int]]]

    def step(self, frames: Any, *rest: Any) -> float:
        self.asked.append((True, frames.tolist()))
        return super().step(frames, *rest)

    def loss(self, frames: Any) -> float:
        self.asked.append((False, frames.tolist()))
        return super().loss(frames)


def test_every_training_frame_is_swept_in_every_epoch_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = PtychoDataContainer.of(make_scan(), heldout=[3, 11, 40], unused={"shaken": [0, 12]})
    Recorded.asked = []
    monkeypatch.setattr("ptycho_backend_numpy.backend.NumpyStepper", Recorded)
    train(scan, epochs=3, batch_size=13)
    swept = [frames for learned, frames in Recorded.asked if learned]
    assert len(swept) == 15
    for epoch in range(3):
        frames = sorted(frame for batch in swept[5 * epoch : 5 * epoch + 5] for frame in batch)
        assert frames == scan.train_frames.tolist()
    assert [frames for learned, frames in Recorded.asked if not learned] == [[3, 11, 40]] * 3


def test_held_out_frames_give_a_loss_and_decide_nothing(scan: PtychoDataContainer) -> None:
    model, held = train(scan, epochs=4, probe_trainable=True), scan.heldout_frames
    corners, rest = integer_corners(scan.raw.positions_px[held], scan.raw.side)
    state = (model.object, model.probe, corners - model.origin_px, rest)
    loss, *_ = loss_and_gradient(*state, scan.raw.read_counts(held), "poisson", None, None, model.scale)
    assert model.history["test_loss"][-1] == pytest.approx(loss / len(held) / scan.statistics.mean_counts, rel=1e-5)
    # nonsense in them raises their loss from epoch to epoch, and the last sweep is returned all the same
    counts = scan.raw.read_counts(np.arange(scan.raw.n_frames)).copy()
    counts[held] = counts[held][:, ::-1]
    raw = RawData.from_arrays(counts, scan.raw.positions_px, scan.probe, probe_calibrated=True)
    other = train(PtychoDataContainer.of(raw, heldout=held), epochs=4, probe_trainable=True)
    np.testing.assert_array_equal(other.object, model.object)
    assert other.history["train_loss"] == model.history["train_loss"]
    assert np.argmin(other.history["test_loss"]) < 3
    assert "test_loss" not in train(PtychoDataContainer.of(scan.raw), epochs=1).history


def test_settings_change_what_it_does_and_threads_do_not(scan: PtychoDataContainer) -> None:
    settings: tuple[dict[str, Any], ...] = ({"threads": 2}, {"algorithm": "lsq"}, {"batch_size": 7}, {"threads": 1})
    objects = [train(scan, epochs=2, **own).object for own in settings]
    assert (objects[0] != objects[1]).any()
    assert (objects[0] != objects[2]).any()
    np.testing.assert_allclose(objects[0], objects[3], atol=1e-5)


def test_double_precision_has_an_effect(scan: PtychoDataContainer) -> None:
    single, double = (train(scan, epochs=2, precision=precision) for precision in ("32", "64"))
    assert (single.object != double.object).any()
    np.testing.assert_allclose(single.object, double.object, atol=1e-3)
    assert double.object.dtype == double.probe.dtype == np.complex64


@pytest.mark.spec("BE-6")
@pytest.mark.spec("BE-7")
def test_its_expected_counts_are_the_oracles_of_the_image(problem: Problem) -> None:
    raw = scan_of(problem)
    moved = raw.positions_px + np.array([[0.31, -0.42]])
    scan, engine = PtychoDataContainer.of(raw), NumpyBackend()
    rng = np.random.default_rng(1)
    image = Image(
        object=np.pad(problem.obj, ((3, 2), (1, 4)), constant_values=0.7 + 0.2j).astype(np.complex64),
        coverage=np.ones((problem.obj.shape[0] + 5, problem.obj.shape[1] + 5), np.float32),
        origin_px=np.array([-3.0, -1.0]),
        probe=(problem.probe * np.exp(1j * rng.uniform(0, 1, problem.probe.shape))).astype(np.complex64),
        scale=1.7,
        positions_px=moved,
    )
    assert len(image.probe) == 2
    assert raw.background is not None
    frames = np.array([4, 0, 3])
    found = engine.expected_counts(image, scan, frames)
    assert found.dtype == np.float32
    close(found, oracle_counts(image, scan, frames), 1e-5)
    assert engine.expected_counts(image, scan, frames[:0]).shape == (0, 16, 16)
    with pytest.raises(DataError, match="do not fit the object"):
        engine.expected_counts(replace(image, positions_px=moved + 20), scan, frames)


@pytest.mark.spec("BE-10")
def test_its_bundle_comes_back_to_the_same_image_and_says_whose_it_is(
    scan: PtychoDataContainer, tmp_path: Path
) -> None:
    model = train(scan, epochs=3, algorithm="lsq", output_dir=tmp_path)
    path, engine = tmp_path / "model.ptycho", load_backend("numpy")
    engine.save(model, path)
    assert (read_bundle(path).backend, read_bundle(path).generator) == ("numpy", None)
    loaded = engine.load(path)
    assert loaded.config.algorithm == "lsq"
    assert model.checkpoint_path == tmp_path / "solver_checkpoint.safetensors"
    assert model.checkpoint_path.exists()
    assert loaded.checkpoint_path is None  # it belongs to the machine that trained
    before, after = (score(image_of(m, scan), scan, "numpy") for m in (model, loaded))  # type: ignore[arg-type]
    np.testing.assert_array_equal(before.image.object, after.image.object)
    assert before.train == after.train
    with pytest.raises(ArchiveError, match="it was made by engine 'numpy'; engine 'ptychi', a solver"):
        load_solver(path, "ptychi")


def test_what_no_solver_writes_is_refused(scan: PtychoDataContainer, tmp_path: Path) -> None:
    path = tmp_path / "model.ptycho"
    save_solver(train(scan, epochs=1), path, ())
    good = read_bundle(path)
    assert good.weights.keys() == {"object", "origin_px"}
    for weights, words in [
        ({"object": good.weights["object"].astype(np.int64)}, "'object' .* int64.*writes 'object' .* float32"),
        ({"origin_px": good.weights["origin_px"].astype(np.float32)}, "'origin_px' .* float32.*'origin_px' .* int64"),
        ({"object": good.weights["object"][..., 0]}, r"'object' \(H, W, 2\)"),
        ({"speed": np.float32([1.0])}, "it holds 'speed', which no solver writes"),
    ]:
        write_bundle(path, replace(good, weights={**good.weights, **weights}))
        with pytest.raises(ArchiveError, match=words):
            load_solver(path, "numpy")
    # earlier versions kept what they resumed from in the bundle; such a model is still one
    write_bundle(path, replace(good, weights={**good.weights, "state.object.step": np.float32([3.0])}))
    np.testing.assert_array_equal(load_solver(path, "numpy").origin_px, good.weights["origin_px"])


@pytest.mark.spec("BE-17")
def test_an_image_is_made_of_the_training_frames_of_the_scan_it_is_of(scan: PtychoDataContainer) -> None:
    model, raw = train(scan, epochs=1), scan.raw
    whole = image_of(model, PtychoDataContainer.of(raw))
    part = image_of(model, PtychoDataContainer.of(raw, heldout=[0, 1, 7]))
    assert part.coverage.shape == whole.coverage.shape
    assert part.coverage[:8, :8].max() < 0.2 * whole.coverage[:8, :8].max()
    np.testing.assert_allclose(part.coverage[-20:, -20:], whole.coverage[-20:, -20:], rtol=1e-4)


def test_a_scan_beyond_its_object_is_refused(scan: PtychoDataContainer) -> None:
    moved = PtychoDataContainer.of(replace(scan.raw, positions_px=scan.raw.positions_px + 3))
    with pytest.raises(DataError, match="beyond the object that engine 'numpy' solved"):
        image_of(train(scan, epochs=1), moved)


def test_what_it_cannot_do_is_refused() -> None:
    for changes, words in [
        ({"scale_trainable": True}, "scale_trainable = True"),
        ({"learning_rate": 0.5}, "learning_rate = 0.5 has no effect"),
        ({"group_size": 4}, "group_size = 4 has no effect"),
    ]:
        with pytest.raises(ConfigError, match=f"engine 'numpy': {words}"):
            check_capabilities(replace(CONFIG, **changes), NumpyBackend.capabilities, "numpy")  # type: ignore[arg-type]
    for runtime, words in [
        (Runtime(precision="bf16"), "precision = 'bf16'"),
        (Runtime(accelerator="cuda"), "accelerator = 'cuda'"),
        (Runtime(devices=2), "devices = 2"),
    ]:
        with pytest.raises(ConfigError, match=f"engine 'numpy': {words}"):
            check_capabilities(CONFIG, NumpyBackend.capabilities, "numpy", runtime)


@pytest.mark.spec("BE-6")
def test_it_answers_questions_about_its_physics(problem: Problem) -> None:
    raw, engine = scan_of(problem), NumpyBackend()
    obj, probe = problem.obj.astype(np.complex64), problem.probe.astype(np.complex64)
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
