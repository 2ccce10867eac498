"""PtychoDataContainer: one role for each frame, reasons for the unused ones, statistics of the training frames."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from physics_problem import complex_noise, smooth_probe
from run_engine import make_scan

from ptycho_core.data.container import (
    NO_COUNTS,
    OUTLYING,
    PtychoDataContainer,
    Role,
    Statistics,
    canvas_of,
    integer_corners,
)
from ptycho_core.data.raw import RawData, Source
from ptycho_core.data.roles import outlying_frames
from ptycho_core.errors import DataError
from ptycho_core.physics.patches import extract
from ptycho_core.physics.propagation import far_field

M, N = 23, 16


@pytest.fixture
def raw(rng: np.random.Generator) -> RawData:
    positions = rng.uniform([-20.3, 5], [40, 30], size=(M, 2))
    counts = rng.poisson(4.0, size=(M, N, N)).astype(np.float32)
    return RawData.from_arrays(counts, positions, smooth_probe(N), source=Source(path="s17.npz"))


@pytest.mark.spec("DATA-17")
def test_every_frame_has_the_role_that_was_asked_for(raw: RawData) -> None:
    scan = PtychoDataContainer.of(raw, heldout=[9, 2], unused={"saturated": [4], "blank": np.array([20, 11])})
    wanted = np.full(M, Role.TRAIN)
    wanted[[2, 9]], wanted[[4, 11, 20]] = Role.HELDOUT, Role.UNUSED
    np.testing.assert_array_equal(scan.role, wanted)
    np.testing.assert_array_equal(scan.heldout_frames, [2, 9])
    np.testing.assert_array_equal(scan.train_frames, np.flatnonzero(wanted == Role.TRAIN))
    np.testing.assert_array_equal(scan.used_frames, np.flatnonzero(wanted != Role.UNUSED))
    np.testing.assert_array_equal(scan.frames(Role.UNUSED), [4, 11, 20])
    assert {reason: frames.tolist() for reason, frames in scan.unused.items()} == {
        "saturated": [4],
        "blank": [11, 20],
    }
    assert scan.dropped() == {"frames: saturated": 1, "frames: blank": 2}
    assert scan.checked() is scan
    # a reason may be called as a role is, and means what it says
    odd = PtychoDataContainer.of(raw, heldout=[2], unused={"held out": [4], "trained on": [5]})
    assert (odd.heldout_frames.tolist(), odd.frames(Role.UNUSED).tolist()) == ([2], [4, 5])


@pytest.mark.spec("DATA-18")
def test_frames_without_counts_are_unused_whatever_is_asked_of_them() -> None:
    raw = make_scan(dark=(3, 7, 8), mask=True)
    scan = PtychoDataContainer.of(raw, heldout=[3, 10], unused={"blank": [8], NO_COUNTS: [12]})
    assert {reason: frames.tolist() for reason, frames in scan.unused.items()} == {"blank": [8], NO_COUNTS: [3, 7, 12]}
    assert scan.heldout_frames.tolist() == [10]
    assert scan.dropped() == {"frames: blank": 1, f"frames: {NO_COUNTS}": 3, "masked pixels": 6}
    everything = [i for i in range(raw.n_frames) if i not in (8, 12, 10)]
    asked = PtychoDataContainer.of(raw, heldout=[10], unused={"blank": [8, 12]}, train=everything)
    assert asked.frames(Role.UNUSED).tolist() == [3, 7, 8, 12]
    assert asked.checked() is asked


@pytest.mark.spec("DATA-17", "CONV-9")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"heldout": [3, 5], "train": np.setdiff1d(np.arange(M), [3])}, r"frame 5 is held out and trained on \(1 "),
        ({"heldout": [3], "unused": {"blank": [3]}}, r"frame 3 is held out and unused \(blank\)"),
        ({"unused": {"blank": [3, 4], "late": [4, 3]}}, r"frame 3 is unused \(blank\) and unused \(late\) \(2 "),
        ({"train": [0, 1, 2]}, r"20 of 23 frames have no role \(first: frame 3\)"),
        ({"heldout": [23]}, "frames 23 to 23 are named; the scan has 0 to 22"),
        ({"heldout": [-1]}, "frames -1 to -1 are named"),
        ({"heldout": [0.5]}, r"named by float64 \(1,\); they must be whole numbers"),
        ({"heldout": [[1, 2]]}, r"named by int64 \(1, 2\)"),
        ({"heldout": np.ones(M, bool)}, r"named by bool \(23,\)"),
        ({"unused": {" ": [4]}}, "1 frame is unused for the reason ' '; it must be a text that says why"),
        ({"unused": {"blank": np.arange(M)}}, "none of its 23 frames can be used: 23 blank"),
    ],
)
def test_impossible_roles_are_refused(raw: RawData, given: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=rf"^s17\.npz: .*{words}") as caught:
        PtychoDataContainer.of(raw, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.spec("DATA-17", "CDI-5", "CONV-9")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"role": np.zeros(M - 1, np.int8)}, r"container\.role is int8 \(22,\); it must be int8 \(23,\)"),
        ({"role": np.zeros(M, np.int64)}, r"container\.role is int64 \(23,\); it must be int8"),
        ({"role": [0] * M}, r"container\.role is list"),
        ({"role": np.full(M, 3, np.int8)}, r"container\.role holds 3; allowed: 0 \(train\), 1 \(heldout\), 2 \(unu"),
        ({"role": np.full(M, -1, np.int8)}, r"container\.role holds -1"),
        ({"unused": {}}, r"role calls 2 frames unused, and container\.unused gives reasons for 0"),
        ({"unused": {"blank": np.array([4, 5])}}, "each unused frame needs one reason"),
        ({"unused": {"blank": np.array([4, 11]), "late": np.array([11])}}, r"frame 11 is unused \(blank\) and"),
        ({"unused": {"": np.array([4, 11])}}, "unused for the reason ''"),
        ({"unused": {"blank": np.array([4, 99])}}, "frames 4 to 99 are named"),
        ({"role": np.full(M, 2, np.int8), "unused": {"blank": np.arange(M)}}, "none of its 23 frames can be used"),
        ({"probe": np.ones((1, 8, 8), np.complex64)}, r"probe is complex64 \(1, 8, 8\).*\(1, 16, 16\)"),
        ({"probe": np.ones((1, N, N), complex)}, r"probe is complex128"),
        ({"statistics": None}, r"statistics is a NoneType, not a Statistics"),
    ],
)
def test_each_fault_of_a_container_is_one_typed_line(raw: RawData, changes: dict[str, Any], words: str) -> None:
    good = PtychoDataContainer.of(raw, heldout=[2], unused={"blank": [4, 11]})
    with pytest.raises(DataError, match=rf"^s17\.npz: .*{words}") as caught:
        replace(good, **changes).checked()
    assert "\n" not in str(caught.value)


@pytest.mark.spec("DATA-12")
def test_statistics_are_those_of_the_training_frames_alone() -> None:
    raw = make_scan(probe_calibrated=False)
    heldout, blank = [3, 9, 30], [1, 40]
    scan = PtychoDataContainer.of(raw, heldout=heldout, unused={"blank": blank})
    train = np.setdiff1d(np.arange(raw.n_frames), heldout + blank)
    assert scan.statistics == Statistics.of(raw, train)
    assert scan.statistics.mean_counts == pytest.approx(raw.read_counts(train).sum(axis=(1, 2)).mean(), rel=1e-6)
    assert scan.statistics.n_frames == len(train) == 49
    assert scan.statistics != Statistics.of(raw)
    given = Statistics(mean_counts=7.0, n_frames=2, scale=0.5)
    assert PtychoDataContainer.of(raw, statistics=given).statistics is given
    judged = PtychoDataContainer.of(raw, heldout=np.arange(raw.n_frames))
    assert judged.statistics == Statistics.of(raw)


@pytest.mark.spec("DATA-12", "FM-6")
def test_a_calibrated_probe_has_scale_one(raw: RawData) -> None:
    assert raw.probe is not None
    calibrated = raw.with_probe(raw.probe, calibrated=True)
    assert Statistics.of(calibrated).scale == 1.0
    assert Statistics.of(calibrated).mean_counts == Statistics.of(raw).mean_counts
    assert Statistics.of(raw).scale != 1.0
    # the scale undoes any factor of the probe
    assert Statistics.of(raw.with_probe(3 * raw.probe)).scale == pytest.approx(Statistics.of(raw).scale / 9, rel=1e-6)


@pytest.mark.spec("CONV-9")
def test_a_scan_without_a_probe_or_without_counts_is_refused(raw: RawData, rng: np.random.Generator) -> None:
    bare = RawData.from_arrays(abs(complex_noise(rng, 4, N, N)), rng.uniform(0, 9, (4, 2)))
    with pytest.raises(DataError, match="no probe; initialise one before giving frames their roles"):
        PtychoDataContainer.of(bare)
    with pytest.raises(DataError, match="no probe"):
        Statistics.of(bare)
    counts = raw.read_counts(np.arange(M)).copy()
    counts[2] = 0
    dark = RawData.from_arrays(counts, raw.positions_px, raw.probe)
    with pytest.raises(DataError, match="no frame has counts"):
        Statistics.of(dark.subset([2]))


@pytest.mark.spec("FM-6")
def test_the_scale_starts_from_the_counts_above_the_background() -> None:
    rng = np.random.default_rng(8)
    counts = rng.poisson(9.0, (6, 16, 16)).astype(np.float32)
    probe = rng.standard_normal((2, 16, 16)) + 1j * rng.standard_normal((2, 16, 16))
    mask = rng.random((16, 16)) > 0.2
    level = rng.random((16, 16))
    raw = RawData.from_arrays(counts, rng.random((6, 2)) * 30, probe, mask=mask, background=level)
    lit = np.sum(np.abs(far_field(raw.probe)) ** 2, axis=0)
    power = lit.sum()
    expected = (counts[:, mask].sum() / 6 - level[mask].sum()) / lit[mask].sum()
    assert Statistics.of(raw).scale == pytest.approx(expected, rel=1e-6)
    drowned = RawData.from_arrays(counts, rng.random((6, 2)) * 30, probe, background=level + 100)
    assert Statistics.of(drowned).scale == pytest.approx(0.01 * counts.sum() / 6 / power, rel=1e-6)


@pytest.mark.spec("DATA-2")
def test_containers_are_frozen_and_their_arrays_read_only(raw: RawData) -> None:
    scan = pickle.loads(pickle.dumps(PtychoDataContainer.of(raw, heldout=[1], unused={"blank": [2]})))
    assert (scan.role.dtype, scan.role.shape, scan.probe.dtype) == (np.int8, (M,), np.complex64)
    scan = PtychoDataContainer.of(raw, heldout=[1], unused={"blank": [2]})
    for array in (scan.role, scan.probe, scan.unused["blank"], scan.with_probe(2 * scan.probe).probe):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(FrozenInstanceError):
        scan.role = scan.role  # type: ignore[misc]


def test_another_probe_leaves_roles_and_statistics(raw: RawData) -> None:
    scan = PtychoDataContainer.of(raw.with_probe(raw.probe, calibrated=True), heldout=[1, 7], unused={"blank": [2]})
    probe = (1j * scan.probe).astype(np.complex64)
    other = scan.with_probe(probe)
    np.testing.assert_array_equal(other.probe, probe)
    np.testing.assert_array_equal(other.raw.probe, probe)
    assert other.raw.probe_calibrated
    assert other.statistics is scan.statistics
    np.testing.assert_array_equal(other.role, scan.role)


@pytest.mark.spec("CONV-2")
def test_the_canvas_is_the_smallest_that_holds_every_used_frame(raw: RawData) -> None:
    corners, rest = integer_corners(raw.positions_px, N)
    np.testing.assert_allclose(corners + rest + (N - 1) / 2, raw.positions_px, atol=1e-6)
    assert -0.5 <= rest.min() < rest.max() < 0.5
    top, bottom = int(corners[:, 0].argmin()), int(corners[:, 0].argmax())
    scan = PtychoDataContainer.of(raw, heldout=[bottom], unused={"blank": [top]})
    origin, shape = scan.canvas()
    used = np.delete(corners, top, axis=0)
    np.testing.assert_array_equal(origin, used.min(axis=0))
    np.testing.assert_array_equal(origin + shape, used.max(axis=0) + N)
    assert shape[0] != shape[1]
    extract(np.zeros(shape), used - origin, N)  # refuses a patch that leaves it
    whole = canvas_of(raw.positions_px, N)
    assert whole[0][0] < origin[0]
    assert whole[1][0] > shape[0]


@pytest.mark.spec("DATA-18")
def test_a_frame_with_ten_times_the_counts_of_any_other_is_unused_and_few_can_be() -> None:
    totals = np.full(120, 100.0)
    totals[::3] = 3.0  # a sample absorbs
    assert outlying_frames(totals).tolist() == []
    totals[[7, 60]] = (1000.0, 5e8)
    assert outlying_frames(totals).tolist() == [7, 60]
    totals[7] = 999.0
    assert outlying_frames(totals).tolist() == [60]
    totals[:5] = 5e8  # an exposure of its own
    assert outlying_frames(totals).tolist() == []
    totals[:5] = np.nan
    totals[5:10] = 0
    assert outlying_frames(totals).tolist() == [60]
    assert outlying_frames(np.array([1.0, 1, 1, 1, 1, 1, 500])).tolist() == []


@pytest.mark.spec("DATA-18")
def test_an_outlying_frame_is_unused_whatever_is_asked_of_it(raw: RawData) -> None:
    counts = raw.read_counts(np.arange(raw.n_frames)).copy()
    counts[4] *= 1e4
    loud = RawData.from_arrays(counts, raw.positions_px, raw.probe)
    held = PtychoDataContainer.of(loud, heldout=[4, 5])
    assert held.unused[OUTLYING].tolist() == [4]
    assert held.heldout_frames.tolist() == [5]
    assert held.statistics.mean_counts == pytest.approx(np.delete(loud.frame_totals, [4, 5]).mean())
