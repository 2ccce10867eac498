"""The descent by itself: what is asked of an engine, how far a step goes, which state is kept; answers are scripted."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from refinement_scan import CONFIG, N, flat_image, make_scan, true_positions, with_roles

from ptycho_backend_numpy.backend import NumpyBackend
from ptycho_backend_numpy.gradient import NumpyGradient
from ptycho_core.api.score import heldout_loss, score
from ptycho_core.config import RefinementConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.data.roles import draw_heldout
from ptycho_core.enginekit.descent import BatchGradient, Descent, _Pace, batch_size_for, descend
from ptycho_core.enginekit.refining import refine_image
from ptycho_core.enginekit.state import ScanState
from ptycho_core.errors import BackendError, DataError
from ptycho_core.physics.steps import DARK_COUNTS, illumination, object_step
from ptycho_core.protocol import no_progress

PLAN = Descent(loss="poisson", epochs=4, batch_size=16, seed=3)


class Asked:
    """The NumPy engine's gradient that remembers what it was asked, and says scripted losses of frames looked at only.

    Attributes:
        learned: frames that a gradient of the object was asked of, one array a step.
        looked_at: frames that only the loss was asked of, with the modes of the probe.
    """

    def __init__(self, raw: RawData, script: Collection[float] = ()) -> None:
        self.inner, self.script = NumpyGradient(raw, "poisson"), list(script)
        self.learned: list[np.ndarray] = []
        self.moved: list[np.ndarray] = []
        self.looked_at: list[tuple[list[int], int]] = []

    def __call__(
        self, frames: Any, corners: Any, rest: Any, obj: Any, probe: Any, wanted: Any, dark_counts: float = 0.0
    ) -> BatchGradient:
        assert dark_counts == (DARK_COUNTS if wanted else 0.0)  # they bound steps, and judge nothing
        if "object" in wanted:
            self.learned.append(frames)
        elif wanted:
            self.moved.append(frames)
        else:
            self.looked_at.append((frames.tolist(), len(probe)))
            if self.script:
                return BatchGradient(loss=self.script.pop(0) * len(frames))
        return self.inner(frames, corners, rest, obj, probe, wanted, dark_counts)


@pytest.fixture(scope="module")
def scan() -> PtychoDataContainer:
    return with_roles(make_scan())


def run(scan: PtychoDataContainer, gradient: Any, plan: Descent = PLAN, **more: Any) -> tuple[ScanState, list[Any]]:
    """Descend from the flat object; the state returned, and the states after each epoch."""
    after: list[Any] = []
    found = descend(
        more.pop("state", None) or ScanState.flat(scan),
        gradient,
        plan,
        frames=scan.train_frames,
        heldout=more.pop("heldout", scan.heldout_frames),
        after_epoch=lambda epoch, state, loss, watched: after.append(state.copy()),
        **more,
    )
    return found, after


@pytest.mark.spec("BE-17")
def test_the_state_with_the_lowest_held_out_loss_is_returned_not_the_last(scan: PtychoDataContainer) -> None:
    found, after = run(scan, Asked(scan.raw, [5.0, 3.0, 4.0, 3.5]))
    np.testing.assert_array_equal(found.object, after[1].object)
    assert (found.object != after[3].object).any()
    last, after = run(scan, Asked(scan.raw, [5.0, 4.0, 3.0, 2.5]))
    np.testing.assert_array_equal(last.object, after[3].object)
    without, after = run(scan, Asked(scan.raw), heldout=np.zeros(0, np.int64))
    np.testing.assert_array_equal(without.object, after[3].object)


@pytest.mark.spec("BE-17")
def test_the_initial_state_is_a_candidate(scan: PtychoDataContainer) -> None:
    initial = ScanState.flat(scan)
    gradient = Asked(scan.raw, [2.9, 5.0, 3.0, 4.0, 3.5])
    assert run(scan, gradient, initial=initial)[0] is initial
    assert gradient.looked_at[0][0] == scan.heldout_frames.tolist()
    found, after = run(scan, Asked(scan.raw, [3.1, 5.0, 3.0, 4.0, 3.5]), initial=initial)
    np.testing.assert_array_equal(found.object, after[1].object)
    # an equal loss is no better: what was there is kept
    assert run(scan, Asked(scan.raw, [3.0, 5.0, 3.0, 4.0, 3.5]), initial=initial)[0] is initial


@pytest.mark.spec("BE-17")
def test_an_image_that_refining_does_not_better_comes_back_as_it_is(scan: PtychoDataContainer) -> None:
    image = flat_image(scan)
    config = replace(CONFIG, refinement=RefinementConfig(epochs=2, probe_modes=3))
    gradient = Asked(scan.raw, [3.0, 4.0, 3.5])
    found = refine_image(image, scan, config, lambda raw, loss: gradient, no_progress)
    assert found is image  # with its one mode: the modes that were added are no part of what it was
    assert [modes for _, modes in gradient.looked_at] == [1, 3, 3]
    found = refine_image(image, scan, config, lambda raw, loss: Asked(scan.raw, [3.0, 4.0, 2.5]), no_progress)
    assert len(found.probe) == 3


@pytest.mark.spec("BE-17")
def test_every_training_frame_is_learned_from_in_every_epoch_and_no_other(scan: PtychoDataContainer) -> None:
    some = PtychoDataContainer.of(scan.raw, heldout=[3, 11, 40], unused={"shaken": [0, 12]})
    for positions in (False, True):
        gradient = Asked(some.raw)
        plan = replace(PLAN, epochs=3, positions=positions, position_limit_px=1.0)
        state = ScanState.flat(some)
        if positions:
            state = ScanState.of_image(state.image(), some, margin_px=3)
        run(some, gradient, plan, state=state, initial=state.copy())
        steps = len(gradient.learned) // 3
        assert steps == round(len(some.train_frames) / 16)
        for epoch in range(3):
            frames = np.concatenate(gradient.learned[epoch * steps : (epoch + 1) * steps])
            np.testing.assert_array_equal(np.sort(frames), some.train_frames)
        assert (gradient.learned[0] != gradient.learned[steps]).any()  # another order in another epoch
        looked_at = {frame for frames, _ in gradient.looked_at for frame in frames}
        assert looked_at == {3, 11, 40}
        assert {int(f) for frames in gradient.moved for f in frames} == (looked_at if positions else set())


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

    plan = Descent(loss="amplitude", epochs=2, batch_size=2)
    _, after = run(scan, constant, plan)
    state = ScanState.flat(scan)
    light = illumination(state.probe, np.zeros((2, 2), np.int64), (N, N))
    step = object_step(slope, light, "amplitude")
    first = 1.5 + (0.75 + 1.0)
    np.testing.assert_allclose(after[0].object - 1, first * step, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after[1].object - 1, first * (1 + 1 / 30) * step, rtol=1e-4, atol=1e-6)


def test_it_goes_on_where_it_was_interrupted(scan: PtychoDataContainer) -> None:
    plan = replace(PLAN, probe=True)
    whole, after = run(scan, NumpyGradient(scan.raw, "poisson"), plan)
    half = after[1].copy()
    power = ScanState.flat(scan).power()
    again, rest = run(scan, NumpyGradient(scan.raw, "poisson"), plan, state=half, first_epoch=2, power=power)
    assert len(rest) == 2
    for name in ("object", "probe"):
        np.testing.assert_array_equal(getattr(rest[-1], name), getattr(after[-1], name))
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    # rounding lets the power of the probe wander: a run that goes on holds on to the one that it began with
    other, _ = run(
        scan, NumpyGradient(scan.raw, "poisson"), plan, state=after[1].copy(), first_epoch=2, power=4 * power
    )
    assert other.power() == pytest.approx(4 * power, rel=1e-5)


@pytest.mark.spec("BE-17")
def test_positions_of_held_out_frames_follow_the_object() -> None:
    scan = with_roles(make_scan(shake=1.2))
    truth, held = true_positions(np.random.default_rng(4)), scan.heldout_frames
    plan = RefinementConfig(probe=False, positions=True, epochs=60, patience=20, batch_size=16)
    image = NumpyBackend().refine(flat_image(scan), scan, replace(CONFIG, refinement=plan))
    offset = (image.positions_px - truth)[scan.train_frames].mean(axis=0)
    before = np.abs(scan.raw.positions_px - truth)[held]
    after = np.abs(image.positions_px - truth - offset)[held]
    assert np.median(after) < 0.4 * np.median(before)
    assert len(held) == 7


def test_frames_that_all_want_to_move_alike_stay_where_they_are(scan: PtychoDataContainer) -> None:
    """The object would move with them, and the data would be explained as well."""
    state = ScanState.of_image(flat_image(scan), scan, margin_px=3)
    inner = NumpyGradient(scan.raw, "poisson")

    def drifting(frames: Any, *rest: Any) -> BatchGradient:
        return replace(inner(frames, *rest), positions=np.full((len(frames), 2), 1e3) + rest[1])

    plan = replace(PLAN, epochs=1, positions=True, position_limit_px=2.0)
    none = np.zeros(0, np.int64)
    _, after = run(scan, drifting, plan, state=state, heldout=none)
    moved = (after[0].positions_px - scan.raw.positions_px)[scan.train_frames]
    assert np.abs(moved).max() > 0
    assert np.abs(moved.mean(axis=0)).max() < 1e-3 * np.abs(moved).max()


def test_unused_frames_stay_where_they_were() -> None:
    raw = make_scan(shake=0.6)
    scan = PtychoDataContainer.of(raw, heldout=[5], unused={"shaken": [0, 30]})
    plan = RefinementConfig(probe=False, positions=True, epochs=2)
    image = NumpyBackend().refine(flat_image(scan), scan, replace(CONFIG, refinement=plan))
    moved = (image.positions_px != raw.positions_px).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(~moved), [0, 30])


def test_steps_are_full_then_ever_shorter_and_then_over() -> None:
    plan = Descent(loss="poisson", epochs=10, batch_size=8, patience=2)
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


@pytest.mark.spec("BE-17")
def test_it_ends_when_held_out_frames_are_explained_no_better(scan: PtychoDataContainer) -> None:
    losses = [3.0, 2.0] + [2.5] * 200
    found, after = run(scan, Asked(scan.raw, losses), replace(PLAN, epochs=50, patience=2))
    assert 4 < len(after) < 30  # stalled after the fourth epoch, and then the twenty epochs of ever shorter steps
    np.testing.assert_array_equal(found.object, after[1].object)
    patient, after = run(scan, Asked(scan.raw, losses), replace(PLAN, epochs=6))
    assert len(after) == 6
    np.testing.assert_array_equal(patient.object, after[1].object)


def test_a_step_takes_about_a_twelfth_of_the_frames() -> None:
    assert [batch_size_for(n) for n in (40, 516, 1764, 100_000)] == [16, 43, 128, 128]


def test_what_cannot_be_descended_on_is_an_error(scan: PtychoDataContainer) -> None:
    judged = PtychoDataContainer.of(scan.raw, heldout=np.arange(scan.raw.n_frames))
    with pytest.raises(DataError, match="none of its frames is to be learned from"):
        run(judged, NumpyGradient(judged.raw, "poisson"))

    def broken(
        frames: Any, corners: Any, rest: Any, obj: Any, probe: Any, wanted: Any, dark_counts: float = 0.0
    ) -> BatchGradient:
        return BatchGradient(loss=1.0, object=np.full_like(obj, np.nan))

    with pytest.raises(BackendError, match="sweeps diverged in epoch 1: the object holds NaN"):
        run(scan, broken)


@pytest.mark.spec("BE-17")
@pytest.mark.parametrize("epochs", [2, 9])
def test_a_faint_image_has_the_level_of_its_counts(epochs: int) -> None:
    """What dark counts take from a faint image is given back before it is judged: core finds nothing to put right."""
    raw = make_scan(photons=100.0, calibrated=False)
    scan = PtychoDataContainer.of(raw, heldout=np.arange(0, 54, 4))
    plan = RefinementConfig(probe=False, epochs=epochs, patience=9, loss="poisson")
    told: list[float] = []
    image = NumpyBackend().refine(
        flat_image(scan), scan, replace(CONFIG, refinement=plan), progress=lambda e: told.append(e.metrics["test_loss"])
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
        state = ScanState.flat(scan)
        corners, _ = state.corners(scan.train_frames)
        total = float(raw.frame_totals[scan.train_frames].sum())
        light = float(illumination(state.probe, corners, state.object.shape).sum())
        state.object *= np.float32(np.sqrt(total / light / 4))
        leveled = state.leveled()
        if change is None:
            change = 4 * (1 - 20.0 * N**2 * len(scan.train_frames) / total)
            assert change < 3.5
        assert leveled.scale / state.scale == pytest.approx(change, rel=1e-4)
        assert leveled.power() / state.power() == pytest.approx(leveled.scale / state.scale, rel=1e-5)
        assert leveled.probe.dtype == state.probe.dtype


@pytest.mark.spec("BE-17", "BE-18", "BE-21")
@pytest.mark.parametrize("positions", [False, True])
def test_held_out_frames_that_reach_beyond_the_image_judge_what_is_returned(positions: bool) -> None:
    """A region is held out, so part of it is lit by no other frame: there the image is 0, and so it is judged."""
    raw = make_scan(shake=0.4 * positions)
    scan = PtychoDataContainer.of(raw, heldout=draw_heldout(raw.positions_px, 0.35, 4, "region"))
    plan = RefinementConfig(probe=False, positions=positions, epochs=7, patience=7, loss="poisson", batch_size=16)
    told: list[float] = []
    image = NumpyBackend().refine(
        flat_image(scan), scan, replace(CONFIG, refinement=plan), progress=lambda e: told.append(e.metrics["test_loss"])
    )
    assert np.mean(image.object == 0) > 0.02
    counts = raw.read_counts(scan.heldout_frames).astype(np.float64)
    least = min(told) * scan.statistics.mean_counts * len(counts)
    deviance = 2 * (least - np.sum(counts - counts * np.log(np.maximum(counts, 1))))
    assert heldout_loss(score(image, scan, "numpy"), "poisson") == pytest.approx(deviance, rel=1e-3)


@pytest.mark.spec("BE-17")
def test_an_image_handed_in_is_judged_as_it_is(scan: PtychoDataContainer) -> None:
    """Not with its holes filled, as it is refined from: one that is 0 in many places is no good candidate."""
    image = flat_image(scan)
    obj, coverage = image.object.copy(), image.coverage.copy()
    obj[20:40, 25:45] = coverage[20:40, 25:45] = 0
    holed, losses = replace(image, object=obj, coverage=coverage), []
    for given in (image, holed):
        seen: list[np.ndarray] = []

        def bind(raw: RawData, loss: str, seen: list[np.ndarray] = seen) -> Any:
            inner = NumpyGradient(raw, loss)

            def ask(*question: Any) -> BatchGradient:
                seen.append(question[3])
                return inner(*question)

            return ask

        refine_image(given, scan, replace(CONFIG, refinement=RefinementConfig(epochs=1)), bind, no_progress)
        losses.append(seen)
    assert (losses[1][0] == 0).sum() - (losses[0][0] == 0).sum() == 400  # the question about the candidate
    assert (losses[1][1] != 0).all()  # the first step, from the holes filled


def test_frames_that_are_only_watched_put_no_state_aside(scan: PtychoDataContainer, monkeypatch: Any) -> None:
    state, copies = ScanState.flat(scan), []
    monkeypatch.setattr(ScanState, "leveled", lambda self: copies.append(self) or self)
    losses = Asked(scan.raw, [5.0, 3.0, 4.0, 3.5])
    found, after = run(scan, losses, state=state, choose=False)
    assert found is state
    assert not copies
    assert not losses.script  # they were watched after each of the four epochs
    np.testing.assert_array_equal(found.object, after[3].object)
    run(scan, Asked(scan.raw, [5.0, 3.0, 4.0, 3.5]))
    assert len(copies) == 2
