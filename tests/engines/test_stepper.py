"""The steppers of the engines with a network beside the reference: the same steps, what crosses, and going on."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from core.stepper_scan import EVERYTHING, LENGTHS, PLAN, hard_scan, start_of

from ptycho_backend_numpy.stepper import NumpyStepper
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.propagation import Propagation
from ptycho_core.enginekit.descent import descend
from ptycho_core.enginekit.state import flat_image
from ptycho_core.protocol import Constraints
from ptycho_core.runtime import Runtime


@pytest.fixture(scope="module")
def scan() -> PtychoDataContainer:
    return hard_scan()


def made(engine, scan, loss="poisson"):
    """A stepper of an engine, or the reference in double precision where there is no engine."""
    if engine is None:
        return NumpyStepper(start_of(scan), scan, loss, Runtime(threads=1, precision="64"))
    return engine.stepper(start_of(scan), scan, loss, Runtime(accelerator="cpu"))


def descended(engine, scan, loss="poisson", plan=PLAN):
    """A stepper after a descent, and the losses of its epochs."""
    one, losses = made(engine, scan, loss), []
    descend(
        one,
        plan,
        frames=scan.train_frames,
        heldout=scan.heldout_frames,
        after_epoch=lambda _, *found: losses.append(found),
    )
    return one, np.array(losses)


def differ(one, two) -> dict[str, float]:
    """Largest differences of the arrays of two steppers relative to their largest magnitudes; positions in pixels."""
    found = {}
    for name, array in one.items():
        assert array.shape == two[name].shape
        size = 1.0 if name.startswith("position") else np.abs(two[name]).max()
        found[name] = np.abs(array - two[name]).max() / size
    return found


@pytest.mark.spec("BE-7", "FM-10", "FM-19", "FM-21", "FM-27")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@pytest.mark.parametrize("wanted", [("object",), ("object", "probe"), ("object", "positions"), EVERYTHING])
def test_two_steps_are_those_of_the_reference(engine, scan, loss, wanted):
    """The second with momentum, intensities that are no longer 1, other frames and no stretched step."""
    one, two = made(engine, scan, loss), made(None, scan, loss)
    for frames, lengths in [
        (scan.train_frames[:9], LENGTHS),
        (scan.train_frames[4:], replace(LENGTHS, least_squares=False)),
    ]:
        told = [float(each.step(frames, lengths, wanted)) for each in (one, two)]
        assert told[0] == pytest.approx(told[1], rel=2e-6)
    found = differ(one.arrays(), two.arrays())
    assert max(found.values()) < 5e-5, found
    before = differ(made(None, scan, loss).arrays(), two.arrays())
    for name, quantity in (("object", "object"), ("probe", "probe"), ("positions_px", "positions")):
        assert (before[name] > 1e-3) == (quantity in wanted)


@pytest.mark.spec("BE-7", "FM-14", "FM-28")
def test_settling_is_that_of_the_reference(engine, scan):
    one, two = made(engine, scan), made(None, scan)
    for each in (one, two):
        each.step(scan.train_frames, LENGTHS, EVERYTHING)
        each.settle(Constraints(power=7e4, support=11.0))
    assert max(differ(one.arrays(), two.arrays()).values()) < 5e-5
    probe = one.arrays()["probe"]
    assert np.sum(probe.astype(np.float64) ** 2) == pytest.approx(7e4, rel=1e-5)
    assert (probe[:, 0, 0] == 0).all()


@pytest.mark.spec("BE-7")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_the_descent_is_that_of_the_reference(engine, scan, loss):
    (one, losses), (two, wanted) = (descended(each, scan, loss) for each in (engine, None))
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)
    found = differ(one.arrays(), two.arrays())
    assert found.pop("object") < 2e-2
    assert max(found.values()) < 5e-3
    assert np.abs(two.positions.linear).max() > 1e-4  # all that is asked for has happened
    assert np.ptp(two.intensities[scan.train_frames]) > 1e-3
    image, wanted = one.image(), two.image()
    assert np.abs(image.object - wanted.object).max() < 2e-2 * np.abs(wanted.object).max()
    assert np.abs(image.mode_weights - wanted.mode_weights).max() < 5e-3
    assert image.object.dtype == image.probe.dtype == np.complex64


@pytest.mark.spec("FM-23")
@pytest.mark.parametrize("wavelength_px", [None, 0.4])
def test_near_field(engine, wavelength_px):
    scan = hard_scan(propagation=Propagation("near_field", 0.11, wavelength_px))
    one, two = made(engine, scan), made(None, scan)
    for each in (one, two):
        each.step(scan.train_frames, LENGTHS, EVERYTHING)
    assert max(differ(one.arrays(), two.arrays()).values()) < 5e-5
    held = scan.heldout_frames
    assert one.loss(held) == pytest.approx(two.loss(held), rel=1e-6)


@pytest.mark.spec("FM-11")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_the_level_of_an_uncalibrated_probe_is_that_of_the_counts(engine, loss):
    """Without bad pixels: with some, the sum of what is expected says nothing of the good ones."""
    scan = hard_scan(mask=None)
    one, two = made(engine, scan, loss), made(None, scan, loss)
    for each in (one, two):
        each.step(scan.train_frames[:5], LENGTHS, EVERYTHING)
    held = scan.heldout_frames
    assert one.loss(held) == pytest.approx(two.loss(held), rel=2e-6)
    assert float(np.float32(one.loss(held))) != one.loss(held)  # summed in double precision
    assert one.image().scale == pytest.approx(two.image().scale, rel=1e-5)
    assert abs(two.image().scale / flat_image(scan).scale - 1) > 1e-3


@pytest.mark.spec("BE-21")
def test_what_is_shown_follows_the_positions(engine, scan):
    """Training frames that move away leave parts of the held-out ones dark, after a loss was asked for before."""
    one, two = made(engine, scan), made(None, scan)
    held, changes = scan.heldout_frames, []
    for each in (one, two):
        before, arrays = each.loss(held), each.arrays()
        arrays["positions_px"][scan.train_frames] += [2, -2]
        each.take(arrays)
        changes.append(each.loss(held) - before)
    assert changes[0] == pytest.approx(changes[1], rel=1e-2)
    assert abs(changes[1]) > 1


@pytest.mark.spec("BE-24")
@pytest.mark.parametrize("wanted", [("positions",), ("frame_scale",), ("positions", "frame_scale")])
def test_what_is_not_wanted_stays(engine, scan, wanted):
    one, two = made(engine, scan), made(None, scan)
    before, held = one.arrays(), scan.heldout_frames
    told = [float(each.step(held, LENGTHS, wanted)) for each in (one, two)]
    assert told[0] == pytest.approx(told[1], rel=2e-6)
    after, expected = one.arrays(), two.arrays()
    for name in ("object", "probe"):
        np.testing.assert_array_equal(after[name], before[name])
    for name, quantity in (("positions_px", "positions"), ("intensities", "frame_scale")):
        np.testing.assert_allclose(after[name], expected[name], atol=1e-5)
        assert (after[name] != before[name]).any() == (quantity in wanted)


@pytest.mark.spec("BE-25")
def test_a_batch_touches_what_its_frames_reach(engine, scan):
    """All beyond their rectangle is made useless, and spoils nothing within."""
    one = made(engine, scan)
    frames = scan.train_frames[:3]
    corners, _ = one.positions.corners(frames)
    arrays = one.arrays()
    outside = np.ones(arrays["object"].shape[:2], bool)
    low, high = corners.min(axis=0), corners.max(axis=0) + 32
    outside[low[0] : high[0], low[1] : high[1]] = False
    assert outside.any()
    arrays["object"][outside] = np.nan
    one.take(arrays)
    assert np.isfinite(float(one.step(frames, LENGTHS, EVERYTHING)))
    after = one.arrays()
    np.testing.assert_array_equal(np.isnan(after["object"]).any(axis=-1), outside)
    for name in ("probe", "positions_px", "intensities"):
        assert np.isfinite(after[name]).all()


@pytest.mark.spec("BE-26")
def test_nothing_the_size_of_the_object_crosses_in_an_epoch(engine, framework, scan, monkeypatch):
    one = made(engine, scan)
    size = one.arrays()["object"].nbytes

    def epoch():
        one.begin()
        for frames in np.array_split(scan.train_frames, 3):
            one.prepare(frames)
            float(one.step(frames, LENGTHS, EVERYTHING))
        one.settle(Constraints(power=9e4, support=14.0))
        one.loss(scan.heldout_frames)
        one.restore(one.snapshot())

    epoch()  # the frames are brought in
    crossed = framework.border(monkeypatch)
    epoch()
    assert 0 < sum(crossed) < size / 4
    crossed.clear()
    one.take(one.arrays())
    assert sorted(crossed)[-2] >= size  # an object that is asked for and given does cross, and is seen


@pytest.mark.spec("BE-27")
def test_frames_that_do_not_fit_are_read_ahead_and_change_nothing(engine, framework, scan, monkeypatch):
    wanted = descended(engine, scan)
    assert wanted[0].store.keeps
    monkeypatch.setattr(import_module(f"{framework.package}.stepper"), "_kept_bytes", lambda *_: 0)
    one, losses = descended(engine, scan)
    assert not one.store.keeps
    np.testing.assert_array_equal(losses, wanted[1])
    for name, array in wanted[0].arrays().items():
        np.testing.assert_array_equal(one.arrays()[name], array)


def test_chunks_of_any_size_add_up(engine, framework, scan, monkeypatch):
    wanted = made(engine, scan)
    told = float(wanted.step(scan.train_frames, LENGTHS, EVERYTHING)), wanted.loss(scan.heldout_frames)
    monkeypatch.setattr(import_module(f"{framework.package}.gradient"), "_CHUNK_BYTES", 1)
    one = made(engine, scan)
    found = float(one.step(scan.train_frames, LENGTHS, EVERYTHING)), one.loss(scan.heldout_frames)
    assert found == pytest.approx(told, rel=1e-6)
    assert max(differ(one.arrays(), wanted.arrays()).values()) < 5e-5


@pytest.mark.spec("BE-26")
def test_a_run_goes_on_to_the_last_bit(engine, scan):
    full, half, again = (made(engine, scan) for _ in range(3))
    plan = replace(PLAN, full_steps=1.0)
    told = {"frames": scan.train_frames, "heldout": scan.heldout_frames, "choose": False, "after_epoch": print}
    descend(full, plan, **told)
    descend(half, replace(plan, epochs=2), **told)
    again.take(half.arrays())
    descend(again, plan, first_epoch=2, **told)
    for name, array in full.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)
        assert not np.iscomplexobj(array)
    assert (full.arrays()["object"] != half.arrays()["object"]).any()


@pytest.mark.spec("BE-26")
def test_a_snapshot_is_put_aside_and_gone_back_to_again(engine, scan):
    one = made(engine, scan)
    one.step(scan.train_frames[:6], LENGTHS, EVERYTHING)
    kept, wanted = one.snapshot(), one.arrays()
    for _ in range(2):
        one.step(scan.train_frames, LENGTHS, EVERYTHING)
        one.settle(Constraints(power=1e4))
        assert (one.arrays()["object"] != wanted["object"]).any()
        one.restore(kept)
        for name, array in wanted.items():
            np.testing.assert_array_equal(one.arrays()[name], array)


def test_an_empty_set_of_frames_loses_nothing(engine, scan):
    assert made(engine, scan).loss(np.zeros(0, np.int64)) == 0.0


def counted(stepper, monkeypatch):
    """Notes of how often a stepper reckons the level of all training frames."""
    notes, reckon = [], stepper._expected
    monkeypatch.setattr(stepper, "_expected", lambda: notes.append(1) or reckon())
    return notes


@pytest.mark.spec("FM-11")
def test_the_level_of_the_training_frames_is_reckoned_once_a_state(engine, monkeypatch):
    """Without bad pixels, where there is a level; and the loss is that of another stepper that is given the state."""
    scan = hard_scan(mask=None)
    one, held = made(engine, scan), scan.heldout_frames
    one.step(scan.train_frames, LENGTHS, EVERYTHING)
    kept, arrays, told = one.snapshot(), one.arrays(), set()
    arrays["object"] = np.float32(1.1) * np.flip(arrays["object"], axis=0)
    arrays["positions_px"][scan.train_frames] += [2, -2]
    notes = counted(one, monkeypatch)
    for change in (
        lambda: None,
        lambda: one.step(scan.train_frames, LENGTHS, ("object",)),
        lambda: one.step(scan.train_frames, LENGTHS, ("frame_scale",)),
        lambda: one.step(held, replace(LENGTHS, object=0.5), ("positions", "frame_scale")),
        lambda: one.settle(Constraints(power=5e4, support=9.0)),
        lambda: one.take(arrays),
        lambda: one.restore(kept),
    ):
        change()
        notes.clear()
        found = sum(one.loss(held[part : part + 1]) for part in range(len(held)))
        one.image()
        assert len(notes) == 1
        other = made(engine, scan)
        other.take(one.arrays())
        assert found == pytest.approx(other.loss(held), rel=1e-6)
        told.add(found)
    assert len(told) == 6  # every change but the last, which goes back, is seen in the loss


@pytest.mark.parametrize("budget", [2**30, 0])
def test_a_stepper_that_is_dropped_is_gone_at_once(engine, framework, scan, monkeypatch, budget):
    """With its counts and its threads, whether or not anything collects cycles."""
    monkeypatch.setattr(import_module(f"{framework.package}.stepper"), "_kept_bytes", lambda *_: budget)
    before = set(threading.enumerate())
    one = engine.stepper(start_of(scan), scan, "poisson", Runtime(accelerator="cpu", threads=2))
    gc.collect()
    gc.disable()
    try:
        descend(one, PLAN, frames=scan.train_frames, heldout=scan.heldout_frames, after_epoch=lambda *_: None)
        one.take(one.arrays())
        one.image()
        assert one.store.keeps == (budget > 0)
        living = [weakref.ref(part) for part in (one, one.store, one.object, one.physics)]
        mine = [thread for thread in threading.enumerate() if thread not in before]
        assert any(thread.name.startswith("frames") for thread in mine) == (budget == 0)
        del one
        assert [part() for part in living] == [None] * 4
    finally:
        gc.enable()
    for thread in mine:
        thread.join(5)
        assert not thread.is_alive()
