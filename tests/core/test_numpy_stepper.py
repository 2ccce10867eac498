"""The reference stepper: what crosses the border, where frames come from, and what one batch touches."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from refinement_scan import make_scan, with_roles

from ptycho_backend_numpy.physics import Propagator
from ptycho_backend_numpy.stepper import NumpyStepper
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.enginekit import frame_store, state
from ptycho_core.enginekit.descent import Descent, descend
from ptycho_core.enginekit.frame_store import FrameStore
from ptycho_core.enginekit.functional import Batch, PureStepper
from ptycho_core.protocol import Constraints, StepLengths, Stepper
from ptycho_core.runtime import Runtime

ONE = Runtime(threads=1)
EVERYTHING = ("object", "probe", "positions", "frame_scale")


@pytest.fixture(scope="module")
def scan() -> PtychoDataContainer:
    return with_roles(make_scan(calibrated=False))


def arrays_in(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            yield from arrays_in(getattr(value, f.name))
    elif isinstance(value, (tuple, list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from arrays_in(item)


class Border:
    """A stepper behind which the bytes of every array that is passed in or handed out are counted, by call."""

    def __init__(self, inner: Stepper) -> None:
        self.inner, self.bytes = inner, {}

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.inner, name)

        def counted(*arguments: Any) -> Any:
            answer = call(*arguments)
            # what is put aside stays on the device: only who restores it looks into it
            seen = arguments if name == "snapshot" else (arguments, answer)
            seen = () if name == "restore" else seen
            total = sum(array.nbytes for array in arrays_in(seen if name != "snapshot" else ()))
            self.bytes[name] = self.bytes.get(name, 0) + total
            return answer

        return counted


@pytest.mark.spec("BE-26")
def test_nothing_as_large_as_the_object_crosses_the_border_in_an_epoch(scan: PtychoDataContainer) -> None:
    stepper = NumpyStepper(state.with_room(state.flat_image(scan), 4), scan, "poisson", ONE)
    border = Border(stepper)
    plan = Descent(
        epochs=1, batch_size=16, wanted=EVERYTHING, position_limit_px=1.0, constraints=Constraints(power=1e5)
    )
    frames, held = scan.train_frames, scan.heldout_frames
    told: list[float] = []
    descend(
        border,  # type: ignore[arg-type]
        plan,
        frames=frames,
        heldout=held,
        after_epoch=lambda epoch, loss, watched: told.append(loss),
    )
    assert told
    assert set(border.bytes) >= {"begin", "prepare", "step", "settle", "loss", "snapshot"}
    # numbers of frames: each is announced and stepped with once, and held-out ones are stepped with twice and looked at
    assert sum(border.bytes.values()) == 8 * (2 * len(frames) + 3 * len(held))
    assert sum(border.bytes.values()) < stepper.object.nbytes / 20
    assert border.image().object.nbytes > stepper.object.nbytes / 2  # the spy sees large arrays where there are any
    assert border.bytes["image"] > stepper.object.nbytes / 2


@pytest.mark.spec("BE-24")
def test_a_step_touches_the_rectangle_of_its_frames(scan: PtychoDataContainer) -> None:
    stepper = NumpyStepper(state.flat_image(scan), scan, "poisson", ONE)
    frames = scan.train_frames[:2]
    stepper.begin()
    stepper.velocity[...] = 1.0
    stepper.step(frames, StepLengths(momentum=0.5), ("object",))
    corners, _ = stepper.positions.corners(frames)
    inside = np.zeros(stepper.object.shape, bool)
    low, high = corners.min(axis=0), corners.max(axis=0) + scan.raw.side
    inside[low[0] : high[0], low[1] : high[1]] = True
    assert (stepper.object[~inside] == 1).all()
    assert (stepper.velocity[~inside] == 1).all()
    assert (stepper.velocity[inside] != 1).all()


@pytest.mark.spec("BE-24")
@pytest.mark.parametrize("wanted", [("positions",), ("frame_scale",), ("positions", "frame_scale"), ("probe",)])
def test_a_step_changes_what_is_wanted_and_nothing_else(scan: PtychoDataContainer, wanted: Any) -> None:
    stepper = NumpyStepper(state.with_room(state.flat_image(scan), 4), scan, "poisson", ONE)
    stepper.object *= 0.9 * np.exp(0.3j * np.random.default_rng(0).normal(size=stepper.object.shape)).astype("c8")
    before, frames = stepper.arrays(), scan.train_frames[4:14]
    stepper.step(frames, StepLengths(position_limit_px=1.0), wanted)
    changed = {name for name, array in stepper.arrays().items() if (array != before[name]).any()}
    names = {"positions": "positions_px", "frame_scale": "intensities", "probe": "probe"}
    assert changed == {names[name] for name in wanted}
    for name in changed - {"probe"}:
        moved = stepper.arrays()[name] != before[name]
        assert set(np.flatnonzero(moved.reshape(len(moved), -1).any(axis=1))) == set(frames)


@pytest.mark.spec("BE-26")
@pytest.mark.parametrize("precision", ["32", "64"])
def test_a_state_comes_back_to_the_last_bit(scan: PtychoDataContainer, precision: str) -> None:
    image, runtime = state.with_room(state.flat_image(scan), 4), Runtime(threads=1, precision=precision)
    stepper, other = (NumpyStepper(image, scan, "poisson", runtime) for _ in range(2))
    frames, lengths = scan.train_frames[::3], StepLengths(momentum=0.5, position_limit_px=1.0, position_affine=True)
    stepper.step(frames, lengths, EVERYTHING)
    kept, arrays = stepper.snapshot(), stepper.arrays()
    assert not any(np.iscomplexobj(array) for array in arrays.values())
    assert arrays["object"].dtype == np.dtype(f"f{int(precision) // 8}")
    after = {}
    for name in ("first", "restored", "taken"):
        one = other if name == "taken" else stepper
        if name == "restored":
            stepper.restore(kept)
        if name == "taken":
            other.take(arrays)
        one.begin()
        loss = one.step(frames, lengths, EVERYTHING)
        after[name] = (loss, one.loss(scan.heldout_frames), one.arrays())
    for name in ("restored", "taken"):
        assert after[name][:2] == after["first"][:2]
        for which, array in after["first"][2].items():
            np.testing.assert_array_equal(after[name][2][which], array, err_msg=f"{name} {which}")
    np.testing.assert_array_equal(stepper.object.shape, other.object.shape)
    assert (kept.object != stepper.object).any()  # later steps leave what was put aside as it is


@pytest.mark.spec("FM-11")
@pytest.mark.parametrize("kind", [NumpyStepper, "pure"])
def test_the_level_of_the_training_frames_is_reckoned_once_a_state(
    scan: PtychoDataContainer, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss after each kind of change is that of another stepper that is given the state."""
    image, held, told = state.with_room(state.flat_image(scan), 4), scan.heldout_frames, set()
    pure = kind == "pure"

    def made() -> Any:
        if pure:
            return PureStepper(image, scan, "poisson", rate=pure_rate, step=pure_step)
        return NumpyStepper(image, scan, "poisson", Runtime(threads=1, precision="64"))

    one, frames = made(), scan.train_frames[4:34]
    lengths = StepLengths(position_limit_px=3.0)
    one.step(frames, lengths, ("object", "probe"))
    kept, arrays, notes, reckon = one.snapshot(), one.arrays(), list[int](), one._expected
    arrays["object"] = np.flip(arrays["object"], axis=0) * arrays["object"].dtype.type(1.1)
    if not pure:
        arrays["positions_px"][scan.train_frames] += [2, -2]
    monkeypatch.setattr(one, "_expected", lambda *given: notes.append(1) or reckon(*given))
    changes = [
        lambda: None,
        lambda: one.step(frames, lengths, ("object",)),
        lambda: one.settle(Constraints(power=5e4, support=9.0)),
        lambda: one.take(arrays),
        lambda: one.restore(kept),
    ]
    if not pure:
        changes[2:2] = [
            lambda: one.step(frames, lengths, ("frame_scale",)),
            lambda: one.step(held, lengths, ("positions", "frame_scale")),
        ]
    for change in changes:
        change()
        notes.clear()
        found = sum(one.loss(held[part : part + 2]) for part in range(0, len(held), 2))
        one.image()
        assert len(notes) == 1
        other = made()
        other.take(one.arrays())
        assert found == pytest.approx(other.loss(held), rel=1e-6)
        told.add(round(found, 2))
    assert len(told) == len(changes) - 1  # every change but the last, which goes back, is seen in the loss


def pure_rate(obj: Any, probe: Any, batch: Batch) -> Any:
    """λ (J, N, N) of frames whose counts lie as they do on the detector."""
    exits = np.fft.ifft2(np.fft.fft2(probe) * batch.ramp) * obj[batch.rows, batch.columns][:, None]
    waves = np.fft.fftshift(np.fft.fft2(exits, norm="ortho"), axes=(-2, -1))
    return batch.intensities * (np.abs(waves) ** 2).sum(axis=1) + batch.background


def pure_step(before: Any, batch: Batch, loss: str, lengths: StepLengths, wanted: Any) -> Any:
    """A step that need not be a good one."""
    texture = np.random.default_rng(3).normal(size=before["object"].shape)
    return {**before, "object": (before["object"] * np.exp(0.2j * texture)).astype(np.complex64)}, 0.0


def test_intensities_are_a_probe_of_other_strength(scan: PtychoDataContainer) -> None:
    """With w for all frames, gradients and losses are those of the probe times √w."""
    image, frames = state.with_room(state.flat_image(scan), 4), scan.train_frames[::4]
    weighted, strong = (NumpyStepper(image, scan, "poisson", Runtime(threads=1, precision="64")) for _ in range(2))
    weighted.intensities[:] = 1.7
    strong.probe *= np.sqrt(1.7)
    texture = np.exp(0.5j * np.random.default_rng(1).normal(size=strong.object.shape))  # a flat object has no position
    weighted.object, strong.object = texture.copy(), texture.copy()
    lengths = StepLengths(probe=1.0, positions=0.01, position_step_px=9.0, position_limit_px=9.0)
    losses = [stepper.step(frames, lengths, ("object", "probe", "positions")) for stepper in (weighted, strong)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    np.testing.assert_allclose(weighted.object, strong.object, atol=1e-10)
    np.testing.assert_allclose(weighted.probe * np.sqrt(1.7), strong.probe, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(weighted.positions.positions_px, strong.positions.positions_px, atol=1e-10)
    assert np.abs(strong.positions.positions_px - scan.raw.positions_px).max() > 1e-4
    assert weighted.loss(frames) == pytest.approx(strong.loss(frames), rel=1e-10)


@pytest.mark.parametrize("budget", [2**30, 0])
def test_a_stepper_that_is_dropped_is_gone_at_once(
    scan: PtychoDataContainer, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    """With its counts and its threads, whether or not anything collects cycles."""
    monkeypatch.setattr("ptycho_backend_numpy.stepper.KEPT_BYTES", budget)
    before = set(threading.enumerate())
    stepper = NumpyStepper(state.with_room(state.flat_image(scan), 4), scan, "poisson", Runtime(threads=2))
    monkeypatch.setattr("ptycho_backend_numpy.gradient._CHUNK_BYTES", 1)  # work for both threads
    plan = Descent(epochs=2, batch_size=16, wanted=EVERYTHING, position_limit_px=1.0)
    gc.collect()
    gc.disable()
    try:
        descend(stepper, plan, frames=scan.train_frames, heldout=scan.heldout_frames, after_epoch=lambda *_: None)
        stepper.image()
        living = [weakref.ref(part) for part in (stepper, stepper.store, stepper.gradient)]
        mine = [thread for thread in threading.enumerate() if thread not in before]
        assert len(mine) == 2 + (budget == 0)
        del stepper
        assert [part() for part in living] == [None] * 3
    finally:
        gc.enable()
    for thread in mine:
        thread.join(5)
        assert not thread.is_alive()


class TestFrameStore:
    """Counts are brought in once where they fit, else read when they are asked for, or before."""

    def test_frames_that_fit_are_read_once(self, scan: PtychoDataContainer, monkeypatch: pytest.MonkeyPatch) -> None:
        reads = self.spy(monkeypatch)
        monkeypatch.setattr(frame_store, "_BLOCK_BYTES", 7 * 4 * 32**2)
        store = FrameStore(scan, lambda counts: counts + 1)
        assert store.keeps
        for frames in ([5, 2], [60], [5, 2]):
            np.testing.assert_array_equal(store.get(np.array(frames)), scan.raw.frames.read(np.array(frames)) + 1)
        assert len(reads) == 10  # all 70, seven at a time
        store.prepare(np.array([3]))
        assert len(reads) == 10

    def test_frames_that_do_not_fit_are_read_ahead(
        self, scan: PtychoDataContainer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reads = self.spy(monkeypatch)
        store = FrameStore(scan, lambda counts: counts * 2, budget_bytes=1000)
        assert not store.keeps
        batches = [np.array([4, 1]), np.array([9, 30, 8]), np.array([50])]
        store.prepare(batches[0])
        for number, batch in enumerate(batches):
            if number < 2:
                store.prepare(batches[number + 1])
            np.testing.assert_array_equal(store.get(batch), 2 * scan.raw.frames.read(batch))
        assert sorted(reads) == sorted(batch.tolist() for batch in batches)  # each once
        np.testing.assert_array_equal(store.get(batches[0]), 2 * scan.raw.frames.read(batches[0]))
        for batch in [*batches, np.array([7])]:  # announced and never asked for: only two are kept
            store.prepare(batch)
        assert len(store._ahead) == 2

    def test_a_stepper_does_the_same_with_either(
        self, scan: PtychoDataContainer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        objects = []
        for budget in (2**30, 0):
            monkeypatch.setattr("ptycho_backend_numpy.stepper.KEPT_BYTES", budget)
            stepper = NumpyStepper(state.flat_image(scan), scan, "poisson", ONE)
            assert stepper.store.keeps == (budget > 0)
            plan = Descent(epochs=2, batch_size=16)
            descend(stepper, plan, frames=scan.train_frames, heldout=scan.heldout_frames, after_epoch=lambda *_: None)
            objects.append(stepper.object)
        np.testing.assert_array_equal(*objects)

    def test_filling_takes_little_more_than_what_is_kept(
        self, scan: PtychoDataContainer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(frame_store, "_BLOCK_BYTES", 2 * 4 * 32**2)
        store = FrameStore(scan, Propagator(scan.raw.propagation, 32).detector_layout)
        tracemalloc.start()
        try:
            store.get(scan.used_frames[:1])
            kept, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        counts = 4 * 32**2 * len(scan.used_frames)
        assert counts < kept < 1.1 * counts
        assert most < 1.4 * counts

    @staticmethod
    def spy(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
        from ptycho_core.data.raw import RawData

        reads: list[list[int]] = []
        read = RawData.read_counts

        def noted(self: RawData, frames: Any) -> Any:
            reads.append(np.asarray(frames).tolist())
            return read(self, frames)

        monkeypatch.setattr(RawData, "read_counts", noted)
        return reads


def test_what_no_training_frame_reaches_is_told_by_a_difference_array() -> None:
    rng = np.random.default_rng(0)
    corners = np.concatenate([rng.integers(0, [30, 41], (9, 2)), [[0, 0], [30, 41]]])
    wanted = np.zeros((42, 53), bool)
    for y, x in corners:
        wanted[y : y + 12, x : x + 12] = True
    np.testing.assert_array_equal(state.reached(corners, 12, (42, 53)), wanted)
    assert wanted.any()
    assert not wanted.all()


def test_a_flat_image_is_one_where_training_frames_reach() -> None:
    raw = make_scan(calibrated=False)
    scan = PtychoDataContainer.of(raw, heldout=np.flatnonzero(raw.positions_px[:, 0] > 60))
    image = state.flat_image(scan)
    assert set(np.unique(image.object)) == {0, 1}
    assert image.object.shape == scan.canvas()[1]
    np.testing.assert_allclose(image.probe, scan.probe, rtol=1e-5)
    wide = state.with_room(image, 5)
    np.testing.assert_array_equal(wide.origin_px, image.origin_px - 5)
    start = state.Start.of(replace(wide, object=wide.object * 0.5j), scan)
    np.testing.assert_allclose(start.object, 0.5j)
