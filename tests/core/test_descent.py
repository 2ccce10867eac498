"""The descent by itself: what is asked of a stepper, how far a step goes, which state is kept; answers are scripted."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from refinement_scan import CONFIG, N, flat_image, make_scan, true_positions, with_roles

from ptycho_backend_numpy.backend import NumpyBackend
from ptycho_backend_numpy.gradient import BatchGradient
from ptycho_backend_numpy.stepper import NumpyStepper
from ptycho_core.api.score import heldout_loss, score
from ptycho_core.config import RefinementConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.data.roles import draw_heldout
from ptycho_core.enginekit import state
from ptycho_core.enginekit.descent import Descended, Descent, _Pace, batch_size_for, descend
from ptycho_core.enginekit.refining import refine_by_steps
from ptycho_core.errors import BackendError, Cancelled, DataError
from ptycho_core.physics.steps import illumination, object_step
from ptycho_core.protocol import Constraints, StepLengths, no_progress
from ptycho_core.runtime import DEFAULT_RUNTIME

PLAN = Descent(epochs=4, batch_size=16, seed=3)


def with_modes(image: Image, n_modes: int) -> Image:
    return state.with_modes(image, n_modes)


class Asked(NumpyStepper):
    """The NumPy stepper that remembers what it was asked, and says scripted losses of frames looked at only.

    Attributes:
        learned: frames that the object was moved by, one array a step.
        moved: frames that anything else alone was moved by.
        looked_at: frames that only the loss was asked of, with the modes of the probe.
        objects: the object after each epoch, and when the loss was asked for.
    """

    def __init__(
        self, image: Image, scan: PtychoDataContainer, script: Collection[float] = (), loss: str = "poisson"
    ) -> None:
        super().__init__(image, scan, loss, DEFAULT_RUNTIME)
        self.script = list(script)
        self.learned: list[np.ndarray] = []
        self.moved: list[np.ndarray] = []
        self.looked_at: list[tuple[list[int], int]] = []
        self.kept = 0

    def step(self, frames: Any, lengths: StepLengths, wanted: Any) -> float:
        (self.learned if "object" in wanted else self.moved).append(frames)
        return super().step(frames, lengths, wanted)

    def loss(self, frames: Any) -> float:
        self.looked_at.append((frames.tolist(), len(self.probe)))
        return self.script.pop(0) * len(frames) if self.script else super().loss(frames)

    def snapshot(self) -> Any:
        self.kept += 1
        return super().snapshot()


class Engine(NumpyBackend):
    """The NumPy engine, whose steppers say scripted losses one after another."""

    def __init__(self, script: Collection[float]) -> None:
        self.script, self.made = list(script), []

    def stepper(self, image: Image, scan: PtychoDataContainer, loss: str, runtime: Any) -> NumpyStepper:
        made = Asked(image, scan, (), loss)
        made.script = self.script  # shared: they answer in the order in which they are asked
        self.made.append(made)
        return made


@pytest.fixture(scope="module")
def scan() -> PtychoDataContainer:
    return with_roles(make_scan())


def asked(scan: PtychoDataContainer, script: Collection[float] = (), **image: Any) -> Asked:
    return Asked(replace(state.flat_image(scan), **image), scan, script)


def run(
    scan: PtychoDataContainer, stepper: NumpyStepper, plan: Descent = PLAN, **more: Any
) -> tuple[Descended, list[np.ndarray]]:
    """Descend; what was found, and the object after each epoch."""
    after: list[np.ndarray] = []
    found = descend(
        stepper,
        plan,
        frames=scan.train_frames,
        heldout=more.pop("heldout", scan.heldout_frames),
        after_epoch=lambda epoch, loss, watched: after.append(stepper.object.copy()),
        **more,
    )
    return found, after


def refined(scan: PtychoDataContainer, image: Image | None = None, progress: Any = no_progress, **plan: Any) -> Image:
    config = replace(CONFIG, refinement=RefinementConfig(**{"positions": False, **plan}))
    return refine_by_steps(NumpyBackend(), image or flat_image(scan), scan, config, DEFAULT_RUNTIME, progress)


@pytest.mark.spec("BE-17")
def test_the_state_with_the_lowest_held_out_loss_is_returned_not_the_last(scan: PtychoDataContainer) -> None:
    stepper = asked(scan, [5.0, 3.0, 4.0, 3.5])
    found, after = run(scan, stepper)
    np.testing.assert_array_equal(stepper.object, after[1])
    assert (after[1] != after[3]).any()
    assert found == Descended(least=3.0, better=True, epochs=4)
    stepper = asked(scan, [5.0, 4.0, 3.0, 2.5])
    _, after = run(scan, stepper)
    np.testing.assert_array_equal(stepper.object, after[3])
    stepper = asked(scan)
    found, after = run(scan, stepper, heldout=np.zeros(0, np.int64))
    np.testing.assert_array_equal(stepper.object, after[3])
    assert found == Descended(least=None, better=True, epochs=4)


def test_one_that_is_stopped_is_in_its_best_state_too(scan: PtychoDataContainer) -> None:
    after: list[np.ndarray] = []

    def stopped(**more: Any) -> Asked:
        stepper = asked(scan, [5.0, 3.0, 4.0, 3.5])
        after.clear()

        def stop(epoch: int, loss: float, watched: float | None) -> None:
            after.append(stepper.object.copy())
            if epoch == 2:
                raise Cancelled

        with pytest.raises(Cancelled):
            descend(stepper, PLAN, frames=scan.train_frames, heldout=scan.heldout_frames, after_epoch=stop, **more)
        return stepper

    np.testing.assert_array_equal(stopped().object, after[1])
    assert (after[1] != after[2]).any()
    # where nothing is chosen it goes on from where it is
    np.testing.assert_array_equal(stopped(choose=False).object, after[2])


@pytest.mark.spec("BE-17")
def test_a_state_must_be_better_than_what_is_there(scan: PtychoDataContainer) -> None:
    script = [5.0, 3.0, 4.0, 3.5]
    for least, better in ((2.9, False), (3.0, False), (3.1, True)):  # an equal loss is no better
        stepper = asked(scan, script)
        found, after = run(scan, stepper, least=least)
        assert found == Descended(least=min(least, 3.0), better=better, epochs=4)
        np.testing.assert_array_equal(stepper.object, after[1 if better else 3])


@pytest.mark.spec("BE-17")
def test_an_image_that_refining_does_not_better_comes_back_as_it_is(scan: PtychoDataContainer) -> None:
    image, config = flat_image(scan), replace(CONFIG, refinement=RefinementConfig(epochs=2, probe_modes=3))
    engine = Engine([3.0, 4.0, 3.5])
    found = refine_by_steps(engine, image, scan, config, DEFAULT_RUNTIME, no_progress)
    assert found is image  # with its one mode: the modes that were added are no part of what it was
    looked_at = [question for stepper in engine.made for question in stepper.looked_at]
    assert [modes for _, modes in looked_at] == [1, 3, 3]
    assert looked_at[0][0] == scan.heldout_frames.tolist()
    found = refine_by_steps(Engine([3.0, 4.0, 2.5]), image, scan, config, DEFAULT_RUNTIME, no_progress)
    assert len(found.probe) == 3


@pytest.mark.spec("BE-17")
def test_every_training_frame_is_learned_from_in_every_epoch_and_no_other(scan: PtychoDataContainer) -> None:
    some = PtychoDataContainer.of(scan.raw, heldout=[3, 11, 40], unused={"shaken": [0, 12]})
    for wanted in (("object",), ("object", "positions"), ("object", "frame_scale")):
        stepper = Asked(state.with_room(state.flat_image(some), 3), some)
        plan = replace(PLAN, epochs=3, wanted=wanted, position_limit_px=1.0)
        run(some, stepper, plan)
        steps = len(stepper.learned) // 3
        assert steps == round(len(some.train_frames) / 16)
        for epoch in range(3):
            frames = np.concatenate(stepper.learned[epoch * steps : (epoch + 1) * steps])
            np.testing.assert_array_equal(np.sort(frames), some.train_frames)
        assert (stepper.learned[0] != stepper.learned[steps]).any()  # another order in another epoch
        looked_at = {frame for frames, _ in stepper.looked_at for frame in frames}
        assert looked_at == {3, 11, 40}
        own = len(wanted) > 1  # what is a frame's own follows
        assert {int(f) for frames in stepper.moved for f in frames} == (looked_at if own else set())


def test_a_step_is_the_steps_formula_with_momentum_and_ever_shorter() -> None:
    """Four frames in one place, a gradient that never changes: v ← v/2 + ℓΔ, O ← O + v/2 + ℓΔ, v = 0 in each epoch."""
    raw = RawData.from_arrays(
        np.ones((4, N, N), np.float32), np.full((4, 2), 40.3) + 0.02 * np.eye(4, 2), make_scan().probe
    )
    scan = PtychoDataContainer.of(raw)
    rng = np.random.default_rng(0)
    slope = (rng.normal(size=(N, N)) + 1j * rng.normal(size=(N, N))).astype(np.complex64) * 1e3

    def constant(frames: Any, *_: Any) -> BatchGradient:
        return BatchGradient(loss=float(len(frames)), object=slope)

    stepper = Asked(state.flat_image(scan), scan, (), "amplitude")
    stepper.gradient = constant  # type: ignore[assignment]
    light = illumination(stepper.probe, np.zeros((2, 2), np.int64), (N, N))
    _, after = run(scan, stepper, Descent(epochs=2, batch_size=2))
    step = object_step(slope, light, "amplitude")
    first = 1.5 + (0.75 + 1.0)
    np.testing.assert_allclose(after[0] - 1, first * step, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after[1] - 1, first * (1 + 1 / 30) * step, rtol=1e-4, atol=1e-6)


def test_it_goes_on_where_it_was_interrupted(scan: PtychoDataContainer) -> None:
    plan = replace(PLAN, wanted=("object", "probe"), constraints=Constraints(power=1e5))
    whole = asked(scan)
    run(scan, whole, plan, choose=False)
    stepper, at = asked(scan), []
    descend(
        stepper,
        plan,
        frames=scan.train_frames,
        heldout=scan.heldout_frames,
        after_epoch=lambda epoch, *_: at.append(stepper.arrays()),
        choose=False,
    )
    again = asked(scan)
    again.take(at[1])
    found, rest = run(scan, again, plan, first_epoch=2, choose=False)
    assert found.epochs == len(rest) == 2
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array, err_msg=name)


def test_what_goes_on_takes_other_orders(scan: PtychoDataContainer) -> None:
    learned = []
    for first in (0, 2):
        stepper = asked(scan)
        run(scan, stepper, replace(PLAN, epochs=3, first_order=first))
        learned.append(stepper.learned)
    steps = len(learned[0]) // 3
    np.testing.assert_array_equal(learned[0][2 * steps], learned[1][0])
    assert (learned[0][0] != learned[1][0]).any()


@pytest.mark.spec("BE-24")
@pytest.mark.parametrize("power", [None, 4e5])
def test_a_probe_is_settled_by_its_constraints(scan: PtychoDataContainer, power: float | None) -> None:
    stepper = Asked(with_modes(state.flat_image(scan), 2), scan)
    stepper.probe[1] += 0.3 * stepper.probe[0]
    before, seen = stepper.loss(scan.train_frames), []
    stepper.settle(Constraints(power=power))
    total = float(np.sum(np.abs(stepper.probe) ** 2))
    if power is not None:
        assert total == pytest.approx(power, rel=1e-5)
    assert abs(np.vdot(stepper.probe[0], stepper.probe[1])) < 1e-4 * total
    assert stepper.loss(scan.train_frames) == pytest.approx(before, rel=1e-5)  # what it gave up, the object took
    stepper.settle(Constraints(support=9.0))
    r = np.hypot(*np.mgrid[-15.5:16, -15.5:16])
    assert np.abs(stepper.probe[:, r > 9]).max() < 1e-12 * np.abs(stepper.probe).max()
    assert np.abs(stepper.probe[0][r < 9]).min() > 0
    run(scan, stepper, replace(PLAN, epochs=1))
    stepper.settle = lambda constraints: seen.append(constraints)  # type: ignore[method-assign]
    run(scan, stepper, replace(PLAN, epochs=1))
    assert not seen  # a probe that is not refined is left as it is
    run(scan, stepper, replace(PLAN, epochs=2, wanted=("object", "probe"), constraints=Constraints(support=3.0)))
    assert seen == [Constraints(support=3.0)] * 2


@pytest.mark.spec("BE-17")
def test_positions_of_held_out_frames_follow_the_object() -> None:
    scan = with_roles(make_scan(shake=1.2))
    truth, held = true_positions(np.random.default_rng(4)), scan.heldout_frames
    image = refined(scan, probe=False, positions=True, epochs=60, patience=20, batch_size=16)
    offset = (image.positions_px - truth)[scan.train_frames].mean(axis=0)
    before = np.abs(scan.raw.positions_px - truth)[held]
    after = np.abs(image.positions_px - truth - offset)[held]
    assert np.median(after) < 0.4 * np.median(before)
    assert len(held) == 7


def test_frames_that_all_want_to_move_alike_stay_where_they_are(scan: PtychoDataContainer) -> None:
    """The object would move with them, and the data would be explained as well."""
    stepper = Asked(state.with_room(flat_image(scan), 3), scan)
    inner = stepper.gradient

    def drifting(frames: Any, corners: Any, rest: Any, *others: Any) -> BatchGradient:
        got = inner(frames, corners, rest, *others)
        got.positions = np.full((len(frames), 2), 1e3) + rest
        return got

    stepper.gradient = drifting  # type: ignore[assignment]
    plan = replace(PLAN, epochs=1, wanted=("object", "positions"), position_limit_px=2.0)
    run(scan, stepper, plan, heldout=np.zeros(0, np.int64))
    moved = (stepper.positions.positions_px - scan.raw.positions_px)[scan.train_frames]
    assert np.abs(moved).max() > 0
    assert np.abs(moved.mean(axis=0)).max() < 1e-3 * np.abs(moved).max()


def test_unused_frames_stay_where_they_were() -> None:
    raw = make_scan(shake=0.6)
    scan = PtychoDataContainer.of(raw, heldout=[5], unused={"shaken": [0, 30]})
    for affine in (False, True):
        image = refined(scan, probe=False, positions=True, position_affine=affine, epochs=2)
        moved = (image.positions_px != raw.positions_px).any(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(~moved), [0, 30])


def test_steps_are_full_then_ever_shorter_and_then_over() -> None:
    plan = Descent(epochs=10, batch_size=8, patience=2)
    pace = _Pace(plan)
    lengths = [pace.length(epoch) for epoch in range(10)]
    assert lengths[:6] == [1.0] * 6
    assert all(b < a for a, b in itertools.pairwise(lengths[5:]))
    assert lengths[-1] == pytest.approx(1 / 30)
    early = _Pace(plan)
    assert early.note(0, 5.0)
    assert not early.note(1, 6.0)
    assert not early.spent(1)
    assert not early.note(2, 6.0)  # stalled twice: from here on steps shrink
    assert early.length(3) < 1
    assert early.note(3, 4.0)
    assert not early.spent(5)
    assert early.length(6) == pytest.approx(1 / 30)  # four epochs of shrinking, as in a run that never stalled
    assert early.spent(6)
    assert early.best == 4.0
    whole = _Pace(replace(plan, full_steps=1.0))
    assert [whole.length(epoch) for epoch in range(10)] == [1.0] * 10


@pytest.mark.spec("BE-17")
def test_it_ends_when_held_out_frames_are_explained_no_better(scan: PtychoDataContainer) -> None:
    losses = [3.0, 2.0] + [2.5] * 200
    stepper = asked(scan, losses)
    _, after = run(scan, stepper, replace(PLAN, epochs=50, patience=2))
    assert 4 < len(after) < 30  # stalled after the fourth epoch, and then the twenty epochs of ever shorter steps
    np.testing.assert_array_equal(stepper.object, after[1])
    patient = asked(scan, losses)
    _, after = run(scan, patient, replace(PLAN, epochs=6))
    assert len(after) == 6
    np.testing.assert_array_equal(patient.object, after[1])


def test_a_step_takes_about_a_twelfth_of_the_frames() -> None:
    assert [batch_size_for(n) for n in (40, 516, 1764, 100_000)] == [16, 43, 128, 128]


def test_what_cannot_be_descended_on_is_an_error(scan: PtychoDataContainer) -> None:
    judged = PtychoDataContainer.of(scan.raw, heldout=np.arange(scan.raw.n_frames))
    with pytest.raises(DataError, match="it has no training frames"):
        run(judged, Asked(flat_image(scan), scan))
    broken = asked(scan, [float("nan")])
    with pytest.raises(BackendError, match="the solver diverged in epoch 1: the loss of the validation frames is nan"):
        run(scan, broken)
    inner = asked(scan)
    inner.step = lambda *_: float("inf")  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="the loss of the training frames is inf"):
        run(scan, inner, heldout=np.zeros(0, np.int64))


@pytest.mark.spec("BE-17")
@pytest.mark.parametrize("epochs", [2, 9])
def test_a_faint_image_has_the_level_of_its_counts(epochs: int) -> None:
    """What dark counts take from a faint image is given back before it is judged: core finds nothing to put right."""
    raw = make_scan(photons=100.0, calibrated=False)
    scan = PtychoDataContainer.of(raw, heldout=np.arange(0, 54, 4))
    told: list[float] = []
    image = refined(
        scan,
        progress=lambda e: told.append(e.metrics["test_loss"]),
        probe=False,
        epochs=epochs,
        patience=9,
        loss="poisson",
    )
    found = score(image, scan, "numpy")
    assert found.image.scale == pytest.approx(image.scale, rel=5e-3)
    np.testing.assert_allclose(image.probe, scan.probe, rtol=1e-5)
    # core finds with the image the least loss that was told: they judge by the same
    counts = raw.read_counts(scan.heldout_frames).astype(np.float64)
    least = min(told) * scan.statistics.mean_counts * len(counts)
    deviance = 2 * (least - np.sum(counts - counts * np.log(np.maximum(counts, 1))))
    assert heldout_loss(found, "poisson") == pytest.approx(deviance, rel=3e-3)


def test_what_is_calibrated_or_has_bad_pixels_keeps_its_level() -> None:
    for raw, change in (
        (make_scan(), 1.0),
        (make_scan(calibrated=False), 4.0),
        (replace(make_scan(calibrated=False), mask=np.arange(N * N).reshape(N, N) > 3), 1.0),
        (replace(make_scan(calibrated=False), background=np.full((N, N), 20.0, np.float32)), None),
    ):
        scan = PtychoDataContainer.of(raw, heldout=[3])
        stepper = asked(scan)
        corners, _ = stepper.positions.corners(scan.train_frames)
        total = float(raw.frame_totals[scan.train_frames].sum())
        light = float(illumination(stepper.probe, corners, stepper.object.shape).sum())
        stepper.object *= np.float32(np.sqrt(total / light / 4))
        if change is None:
            change = 4 * (1 - 20.0 * N**2 * len(scan.train_frames) / total)
            assert change < 3.5
        image = stepper.image()
        assert image.scale / scan.statistics.scale == pytest.approx(change, rel=1e-4)
        np.testing.assert_allclose(image.probe, scan.probe, rtol=1e-4)


@pytest.mark.spec("BE-17", "BE-18", "BE-21")
@pytest.mark.parametrize("positions", [False, True])
def test_held_out_frames_that_reach_beyond_the_image_judge_what_is_returned(positions: bool) -> None:
    """A region is held out, so part of it is lit by no other frame: there the image is 0, and so it is judged."""
    raw = make_scan(shake=0.4 * positions)
    scan = PtychoDataContainer.of(raw, heldout=draw_heldout(raw.positions_px, 0.35, 4, "region"))
    told: list[float] = []
    image = refined(
        scan,
        progress=lambda e: told.append(e.metrics["test_loss"]),
        **{"probe": False, "positions": positions, "epochs": 7, "patience": 7, "loss": "poisson", "batch_size": 16},
    )
    assert np.mean(image.object == 0) > 0.02
    counts = raw.read_counts(scan.heldout_frames).astype(np.float64)
    least = min(told) * scan.statistics.mean_counts * len(counts)
    deviance = 2 * (least - np.sum(counts - counts * np.log(np.maximum(counts, 1))))
    assert heldout_loss(score(image, scan, "numpy"), "poisson") == pytest.approx(deviance, rel=1e-3)


@pytest.mark.spec("BE-17")
def test_an_image_is_refined_from_with_its_holes_filled(scan: PtychoDataContainer) -> None:
    """What nothing has lit is taken for what was lit on the average: a hole is no good start."""
    image = flat_image(scan)
    obj, coverage = 0.7j * image.object, image.coverage.copy()
    obj[20:40, 25:45] = coverage[20:40, 25:45] = 0
    stepper = Asked(state.with_room(replace(image, object=obj, coverage=coverage), 2), scan)
    np.testing.assert_allclose(stepper.object[22:42, 27:47], 0.7j, atol=0.01)
    np.testing.assert_allclose(stepper.object[:2], 0.7j, atol=0.01)


def test_frames_that_are_only_watched_put_no_state_aside(scan: PtychoDataContainer) -> None:
    stepper = asked(scan, [5.0, 3.0, 4.0, 3.5])
    _, after = run(scan, stepper, choose=False)
    assert not stepper.kept
    assert not stepper.script  # they were watched after each of the four epochs
    np.testing.assert_array_equal(stepper.object, after[3])
    chosen = asked(scan, [5.0, 3.0, 4.0, 3.5])
    run(scan, chosen)
    assert chosen.kept == 2


class TestTakingUp:
    """What a config leaves open is tried, and taken up where the held-out frames support it."""

    PLAN = RefinementConfig(epochs=40, batch_size=16)

    def trials(self, script: list[float], **plan: Any) -> tuple[Image, list[Asked], list[int]]:
        """The image, the steppers that were made, and the epochs that were told of."""
        scan, engine, told = with_roles(make_scan()), Engine(script), []
        config = TrainingConfig(backend="numpy", test_fraction=0.1, refinement=replace(self.PLAN, **plan), seed=3)
        image = flat_image(scan)
        found = refine_by_steps(
            engine, image, scan, config, DEFAULT_RUNTIME, lambda event: told.append((event.done, event.total))
        )
        assert [done for done, _ in told] == list(range(1, len(told) + 1))
        assert {total for _, total in told} == {40}
        return found, engine.made, [len(stepper.learned) // 4 for stepper in engine.made]

    def perfect(self) -> float:
        """The least loss a frame that the held-out frames can have."""
        scan = with_roles(make_scan())
        counts = scan.raw.read_counts(scan.heldout_frames).astype(np.float64)
        return float(np.sum(counts - counts * np.log(np.maximum(counts, 1)))) / len(counts)

    def test_a_mode_that_gains_is_taken_up_and_positions_that_do_not_are_not(self) -> None:
        least = self.perfect()
        script = [least + 1e4, *[least + 9e3] * 5]  # as it came, and after five epochs that settle it
        script += [*[least + 8e3] * 3, *[least + 5e3] * 3, *[least + 7.95e3] * 3]  # as it was, one mode more, positions
        script += [*[least + 5e3] * 3, *[least + 4.99e3] * 3, *[least + 5e3] * 3]  # and a round in which nothing gains
        found, made, epochs = self.trials(script + [least + 4e3] * 60)
        assert [len(stepper.probe) for stepper in made] == [1, 1, 2, 1, 2, 3, 2, 2]
        assert epochs[:7] == [5, 3, 3, 3, 3, 1, 1]  # what gains next to nothing in its first epoch is given up
        assert len(found.probe) == 2
        np.testing.assert_array_equal(found.positions_px, with_roles(make_scan()).raw.positions_px)
        assert found.stats["took_up_modes"] == 1
        assert "took_up_positions" not in found.stats
        assert found.stats["tried_mode_2_gain"] == pytest.approx(3 / 8, rel=1e-3)
        assert found.stats["tried_mode_3_gain"] == pytest.approx(1e1 / 5e3, rel=2e-2)

    def test_what_trials_reached_is_kept_where_the_descent_after_them_is_worse(self) -> None:
        least = self.perfect()
        script = [least + 1e4, *[least + 9e3] * 5]
        script += [*[least + 8e3] * 3, *[least + 5e3] * 3, *[least + 7.95e3] * 3]
        script += [*[least + 5e3] * 3, least + 4.99e3, least + 5e3]
        found, made, epochs = self.trials(script + [least + 6e3] * 60)
        assert epochs[7] > 1
        np.testing.assert_array_equal(found.object, made[4].image().object)  # beside the trials that gained nothing

    def test_positions_are_taken_up_where_they_gain_most(self) -> None:
        least = self.perfect()
        script = [least + 1e4, *[least + 9e3] * 5]
        script += [*[least + 8e3] * 3, *[least + 6e3] * 3, *[least + 2e3] * 3]
        found, made, _ = self.trials(script + [least + 2e3] * 6 + [least + 1e3] * 60)
        assert found.stats["took_up_positions"] == 1
        assert len(found.probe) == 1
        assert any(stepper.moved for stepper in made[-1:])

    def test_what_noise_can_gain_is_not_taken_up(self) -> None:
        """On a perfect fit a twentieth of the misfit is nothing: three standard deviations of the noise decide."""
        least, scan = self.perfect(), with_roles(make_scan())
        held = scan.raw.read_counts(scan.heldout_frames)
        noise = float(np.sqrt(np.count_nonzero(held >= 1) / 2)) / len(held)
        for gain, modes in ((2.9 * noise, 1), (3.1 * noise, 2)):
            base = least + 20 * noise
            script = [base + 10, *[base] * 5, *[base] * 3, *[base - gain] * 3]
            found, _, _ = self.trials(script + [base - 2 * gain] * 60, positions=False)
            assert len(found.probe) == modes

    def test_what_the_config_says_is_not_tried(self) -> None:
        least = self.perfect()
        _, made, epochs = self.trials([least + 1e4] + [least + 1e3] * 60, positions=False, probe_modes=1)
        assert len(made) == 1
        assert epochs[0] > 15
        _, made, epochs = self.trials([least + 1e4] + [least + 1e3] * 60, positions=False, probe_modes=3)
        assert [len(stepper.probe) for stepper in made] == [1, 3]
        assert epochs[0] == 5  # modes are added when the first has settled

    def test_nothing_is_taken_up_without_held_out_frames_or_in_a_few_epochs(self) -> None:
        whole = PtychoDataContainer.of(make_scan())
        engine = Engine([])
        config = replace(CONFIG, refinement=replace(self.PLAN, epochs=24))
        refine_by_steps(engine, flat_image(whole), whole, config, DEFAULT_RUNTIME, no_progress)
        assert [len(stepper.probe) for stepper in engine.made] == [1]
        _, told = with_roles(make_scan()), Engine([])
        config = replace(CONFIG, refinement=replace(self.PLAN, epochs=12))
        scan = with_roles(make_scan())
        refine_by_steps(told, flat_image(scan), scan, config, DEFAULT_RUNTIME, no_progress)
        assert len(told.made) == 1
