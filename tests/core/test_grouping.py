"""Groups: how they grow, the partition in which each frame counts once, and what is drawn for an epoch."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from grouping_scan import N, make_scan
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.enginekit.grouping import grow_groups, partition_frames
from ptycho_core.enginekit.groups import GroupDraw, Groups, groups_an_epoch, heldout_groups, partition_of
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.physics.patches import extract


def scattered(M: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, [90, 30], size=(M, 2))


def nearest(positions: np.ndarray, frame: int) -> np.ndarray:
    """Other frames by distance, brute force."""
    order = np.argsort(np.linalg.norm(positions - positions[frame], axis=1), kind="stable")
    return order[order != frame]


def grown(positions: np.ndarray, C: int, B: int | None = None, K: int | None = None, seed: int = 0) -> np.ndarray:
    return grow_groups(positions, C, len(positions) if B is None else B, K, np.random.default_rng(seed))


# ---- groups that grow


@pytest.mark.spec("DATA-8")
@given(M=st.integers(1, 40), data=st.data(), seed=st.integers(0, 9999), coarse=st.booleans())
@settings(max_examples=60, deadline=None)
def test_groups_hold_their_seed_first_and_no_frame_twice(M: int, data: st.DataObject, seed: int, coarse: bool) -> None:
    positions = scattered(M, seed)
    if coarse:
        positions = np.round(positions / 30) * 30  # many frames at the same place
    C = data.draw(st.integers(1, M))
    K = data.draw(st.none() | st.integers(max(C - 1, 1), 50))
    B = data.draw(st.integers(0, 3 * M))
    groups = grown(positions, C, B, K, seed)
    assert groups.shape == (B, C)
    assert groups.dtype == np.int64
    assert all(len(set(group)) == C for group in groups.tolist())
    for group in groups:
        assert 0 <= group.min() <= group.max() < M
        # nobody outside the pool: every member is as near as the K-th nearest, or nearer
        pool = min(C - 1 if K is None else K, M - 1)
        distance = np.linalg.norm(positions - positions[group[0]], axis=1)
        limit = np.sort(np.delete(distance, group[0]))[pool - 1] if pool else 0.0
        assert (distance[group] <= limit + 1e-9).all()


@pytest.mark.spec("DATA-8")
def test_without_a_pool_the_nearest_frames_are_taken() -> None:
    positions = scattered(50)
    for group in grown(positions, 5, seed=1):
        assert set(group[1:]) == set(nearest(positions, group[0])[:4])


@pytest.mark.spec("DATA-8")
def test_a_pool_is_drawn_from_evenly() -> None:
    positions = scattered(30)
    groups = grown(positions, 4, 30 * 200, 6, seed=2)
    mine = groups[groups[:, 0] == 7][:, 1:]
    counts = np.bincount(mine.ravel(), minlength=30)
    pool = nearest(positions, 7)[:6]
    assert counts[pool].sum() == mine.size
    # each of the 6 is drawn with probability 3/6 in 200 groups: 100 ± 7
    assert (np.abs(counts[pool] - 100) < 36).all()


@pytest.mark.spec("DATA-9")
@pytest.mark.parametrize("B", [1, 11, 23, 24, 47])
def test_frames_are_seeds_again_only_after_all_have_been(B: int) -> None:
    M = 23
    seeds = grown(scattered(M), 3, B, seed=4)[:, 0]
    for start in range(0, B, M):
        chunk = seeds[start : start + M]
        assert len(set(chunk.tolist())) == len(chunk)
    if B == 47:
        assert seeds[:M].tolist() != seeds[M : 2 * M].tolist()  # each round has an order of its own


@pytest.mark.spec("DATA-8")
def test_all_frames_at_a_handful_of_places() -> None:
    positions = np.repeat([[0.0, 0.0], [0.0, 9.0]], 100, axis=0)
    for C in (3, 100):  # with 3, most frames are not even among their own 3 nearest
        for group in grown(positions, C):
            assert len(set(group.tolist())) == C
            assert (positions[group] == positions[group[0]]).all()


# ---- the partition


@pytest.mark.spec("DATA-10")
@given(M=st.integers(1, 120), data=st.data(), seed=st.integers(0, 999), coarse=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_partition_counts_every_frame_once(M: int, data: st.DataObject, seed: int, coarse: bool) -> None:
    positions = scattered(M, seed)
    if coarse:
        positions = np.round(positions / 20) * 20
    C = data.draw(st.integers(1, M))
    indices, counted = partition_frames(positions, C)
    assert indices.shape == counted.shape == (-(-M // C), C)
    assert sorted(indices[counted].tolist()) == list(range(M))
    assert all(len(set(group)) == C for group in indices.tolist())
    assert counted.any(axis=1).all()


@pytest.mark.spec("DATA-10")
def test_a_group_is_filled_up_with_the_nearest_frames_from_outside() -> None:
    positions = scattered(41, 8)
    indices, counted = partition_frames(positions, 6)
    rows = np.flatnonzero(~counted.all(axis=1))
    assert len(rows) == 1
    own, fill = indices[rows[0]][counted[rows[0]]], indices[rows[0]][~counted[rows[0]]]
    assert len(own) == 5
    distance = np.linalg.norm(positions - positions[own].mean(axis=0), axis=1)
    distance[own] = np.inf
    assert fill.tolist() == np.argsort(distance)[: len(fill)].tolist()
    # several slots to fill, on a scan whose frame numbers say nothing about place
    shuffled = np.random.default_rng(0).permutation(37)
    line = np.column_stack([shuffled * 1.0, np.zeros(37)])
    indices, counted = partition_frames(line, 12)
    row = int(np.flatnonzero(~counted.all(axis=1))[0])
    places = np.sort(line[indices[row], 0])
    assert (np.diff(places) == 1).all()


@pytest.mark.spec("DATA-10")
def test_groups_of_a_partition_are_compact() -> None:
    y, x = np.mgrid[:32, :16]
    positions = np.column_stack([y.ravel(), x.ravel()]).astype(float)[np.random.default_rng(0).permutation(512)]
    indices, counted = partition_frames(positions, 16)
    assert counted.all()
    extent = np.ptp(positions[indices], axis=1) + 1
    np.testing.assert_array_equal(extent.prod(axis=1), 16)
    assert extent.max() <= 8


@pytest.mark.spec("CONV-9")
def test_impossible_groups_are_refused() -> None:
    positions = scattered(9)
    for function in (grown, partition_frames):
        with pytest.raises(ConfigError, match="group_size = 10, but the scan has 9 frames; choose at most 9"):
            function(positions, 10)
        with pytest.raises(ConfigError, match="group_size = 0; it must be at least 1"):
            function(positions, 0)
    with pytest.raises(ConfigError, match="neighbor_pool_size = 3 is smaller than group_size − 1 = 4"):
        grown(positions, 5, K=3)


# ---- groups on canvases of their own


def drawn(scan: PtychoDataContainer, group_size: int = 5, **changes) -> Groups:
    return GroupDraw([scan], TrainingConfig(method="network", group_size=group_size, **changes)).groups(0)


@pytest.mark.spec("DATA-11", "CONV-2")
@pytest.mark.parametrize("kind", ["drawn", "partition"])
def test_origin_corner_and_rest_give_back_every_position(kind: str) -> None:
    scan = make_scan()
    groups = drawn(scan, n_groups=31) if kind == "drawn" else partition_of(scan, np.arange(23), 5)
    place = groups.canvas_origin_px[:, None] + groups.corners_px + groups.subpixel_px + (N - 1) / 2
    np.testing.assert_allclose(place, scan.raw.positions_px[groups.frame_indices], atol=1e-6)
    assert groups.subpixel_px.min() >= -0.5
    assert groups.subpixel_px.max() < 0.5


@pytest.mark.spec("DATA-11")
def test_a_canvas_is_the_smallest_that_holds_its_group() -> None:
    groups = drawn(make_scan(), 4)
    np.testing.assert_array_equal(groups.corners_px.min(axis=1), 0)
    np.testing.assert_array_equal(groups.corners_px.max(axis=1) + N, groups.canvas_shape)
    assert (groups.canvas_shape[:, 0] != groups.canvas_shape[:, 1]).any()
    for b in range(groups.n_groups):
        height, width = groups.canvas_shape[b]
        extract(np.zeros((height, width)), groups.corners_px[b], N)  # refuses a patch that leaves it


@pytest.mark.spec("DATA-11", "DATA-3")
def test_counts_are_read_when_asked_for() -> None:
    scan = make_scan()
    groups, everything = drawn(scan, 4, n_groups=23), scan.raw.read_counts(np.arange(23))
    np.testing.assert_array_equal(groups.read_counts(3), everything[groups.frame_indices[3]])
    several = groups.read_counts(np.array([5, 0, 5]))
    assert (several.shape, several.dtype) == ((3, 4, N, N), np.float32)
    np.testing.assert_array_equal(several, everything[groups.frame_indices[[5, 0, 5]]])
    assert (groups.n_groups, groups.group_size) == (23, 4)


@pytest.mark.spec("DATA-2", "DATA-11")
def test_types_are_those_of_the_contract_and_arrays_are_read_only() -> None:
    groups = partition_of(make_scan(), np.arange(23), 6)
    wanted = {
        "frame_indices": (np.int64, (4, 6)),
        "counted": (np.bool_, (4, 6)),
        "corners_px": (np.int64, (4, 6, 2)),
        "subpixel_px": (np.float32, (4, 6, 2)),
        "canvas_origin_px": (np.int64, (4, 2)),
        "canvas_shape": (np.int64, (4, 2)),
    }
    for name, (dtype, shape) in wanted.items():
        for value in (getattr(groups, name), getattr(pickle.loads(pickle.dumps(groups)), name)):
            assert (value.dtype, value.shape) == (dtype, shape), name
        with pytest.raises(ValueError, match="read-only"):
            getattr(groups, name)[...] = 0


@pytest.mark.spec("CONV-9")
def test_groups_of_what_is_no_frame_are_refused() -> None:
    scan = make_scan()
    for indices in (np.array([[0, 23]]), np.array([[-1, 0]]), np.array([1, 2]), np.zeros((0, 3), np.int64)):
        with pytest.raises(DataError, match=r"must be \(B, C\) numbers of the scan's 23 frames"):
            Groups.of(scan, indices)
    with pytest.raises(DataError, match=r"counted has shape \(1, 3\)"):
        Groups.of(scan, np.array([[0, 1]]), np.ones((1, 3), bool))


@pytest.mark.spec("DATA-10")
def test_some_frames_of_a_scan_are_partitioned() -> None:
    scan, frames = make_scan(heldout=[2, 3, 11, 17]), np.array([1, 4, 5, 8, 9, 20, 22])
    groups = partition_of(scan, frames, 3)
    assert sorted(groups.frame_indices[groups.counted].tolist()) == frames.tolist()
    assert set(groups.frame_indices.flat) == set(frames)
    few = partition_of(scan, frames[:2], 3)
    assert few.frame_indices.shape == (1, 2)
    held = heldout_groups(scan, TrainingConfig(method="network", group_size=3))
    assert held is not None
    assert sorted(held.frame_indices[held.counted].tolist()) == [2, 3, 11, 17]
    assert set(held.frame_indices.flat) == {2, 3, 11, 17}
    assert heldout_groups(make_scan(), TrainingConfig(method="network")) is None


# ---- what is drawn for an epoch


@pytest.mark.spec("DATA-8")
@given(
    M=st.integers(4, 40),
    data=st.data(),
    seed=st.integers(0, 999),
    pool=st.none() | st.integers(6, 12),
)
@settings(max_examples=40, deadline=None)
def test_every_training_frame_is_in_some_group_of_every_epoch(
    M: int, data: st.DataObject, seed: int, pool: int | None
) -> None:
    """And no held-out or unused frame in any."""
    heldout = data.draw(st.sets(st.integers(0, M - 1), max_size=M // 4))
    unused = data.draw(st.sets(st.integers(0, M - 1), max_size=M // 4)) - heldout
    scan = make_scan(M, seed, heldout=sorted(heldout), unused={"tired": sorted(unused)})
    C = data.draw(st.integers(1, min(6, len(scan.train_frames))))
    config = TrainingConfig(method="network", group_size=C, neighbor_pool_size=pool, seed=seed)
    draw = GroupDraw([scan], config)
    for epoch in (0, 1, 7):
        groups = draw.groups(epoch)
        assert groups.frame_indices.shape == (-(-2 * len(scan.train_frames) // C), C)
        assert set(groups.frame_indices.flat) == set(scan.train_frames.tolist())
        assert groups.counted.all()
        assert all(len(set(group)) == C for group in groups.frame_indices.tolist())


@pytest.mark.spec("DATA-8", "CONV-7")
def test_groups_are_decided_by_seed_epoch_and_number_of_the_scan_alone() -> None:
    scan = make_scan(40)
    config = TrainingConfig(method="network", group_size=6, neighbor_pool_size=10, seed=5)
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    draw, again = GroupDraw([scan, scan], config), GroupDraw([scan, scan], config)
    assert draw.groups(0) is draw.groups(0)  # an epoch is drawn once
    epochs = [draw.groups(epoch).frame_indices for epoch in (0, 1, 2)]
    for epoch in (2, 0, 1):  # whatever was asked for before
        np.testing.assert_array_equal(again.groups(epoch).frame_indices, epochs[epoch])
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index]  # noqa: NPY002
    other_seed = GroupDraw(
        [scan], TrainingConfig(method="network", group_size=6, neighbor_pool_size=10, seed=6)
    ).groups(0)
    others = [epochs[1], epochs[2], draw.groups(0, 1).frame_indices, other_seed.frame_indices]
    for other in others:
        assert (other != epochs[0]).any()
    # not only in another order: the cells are cut along other directions
    cells = [{frozenset(group) for group in epoch[:7].tolist()} for epoch in epochs]
    assert len(cells[0] & cells[1]) < 4


@pytest.mark.spec("DATA-8")
def test_groups_are_compact_in_place_and_not_in_number() -> None:
    """Cells and grown groups hold neighbours: far smaller than frames drawn from anywhere."""
    scan = make_scan(60, unused={"tired": [0, 7, 8]})
    groups = drawn(scan, 4, n_groups=60)
    size = np.ptp(scan.raw.positions_px[groups.frame_indices], axis=1).max(axis=1)
    anywhere = np.random.default_rng(0).permuted(np.tile(scan.train_frames, (60, 1)), axis=1)[:, :4]
    assert size.mean() < 0.5 * np.ptp(scan.raw.positions_px[anywhere], axis=1).max(axis=1).mean()


@pytest.mark.spec("DATA-8")
def test_a_pool_bounds_what_is_drawn_beside_the_cells() -> None:
    scan = make_scan(30)
    groups = drawn(scan, 4, n_groups=8 + 300, neighbor_pool_size=6).frame_indices
    for group in groups[8:]:
        assert set(group[1:]) <= set(nearest(scan.raw.positions_px, group[0])[:6])
    assert len({frozenset(group) for group in groups[8:].tolist()}) > 60  # C − 1 nearest would give 30 at most


@pytest.mark.spec("DATA-8", "DATA-9")
def test_as_many_groups_as_cells_hold_each_frame_and_fewer_are_refused() -> None:
    scan = make_scan(42, heldout=[5])
    for n_groups, size in ((11, 4), (41, 1), (1, 41)):
        config = TrainingConfig(method="network", group_size=size, n_groups=n_groups)
        for epoch in (0, 3):
            groups = GroupDraw([scan], config).groups(epoch).frame_indices
            assert groups.shape == (n_groups, size)
            assert set(groups.flat) == set(scan.train_frames.tolist())
    words = r"n_groups = 10, but the 41 training frames of the scan need at least 11 groups of 4.*out \(21 groups"
    with pytest.raises(ConfigError, match=words):
        GroupDraw([scan], TrainingConfig(method="network", group_size=4, n_groups=10))


def test_the_scan_that_does_not_go_with_the_groups_is_named() -> None:
    """By its file where it has one; n_groups is what an epoch draws from each scan."""
    small, large = make_scan(12), make_scan(40)
    named = replace(large, raw=replace(large.raw, source=replace(large.raw.source, path="night/b.npz")))
    config = TrainingConfig(method="network", group_size=4, n_groups=9)
    for scans, name in (([small, large], "scan 1"), ([named, small], "night/b.npz"), ([large], "the scan")):
        with pytest.raises(ConfigError, match=rf"the 40 training frames of {name} need at least 10 groups"):
            GroupDraw(scans, config)
    with pytest.raises(ConfigError, match=r"group_size = 13, but scan 1 has 12 training frames; choose at most 12"):
        GroupDraw([large, small], TrainingConfig(method="network", group_size=13))


def test_how_many_groups_there_are() -> None:
    assert groups_an_epoch([23], TrainingConfig(method="network", group_size=4)) == 12
    assert groups_an_epoch([23], TrainingConfig(method="network", group_size=4, n_groups=6)) == 6
    assert groups_an_epoch([9, 14], TrainingConfig(method="network", group_size=4, n_groups=7)) == 7
    with pytest.raises(ConfigError, match="need at least 7 groups of 4"):
        groups_an_epoch([9, 14], TrainingConfig(method="network", group_size=4, n_groups=6))
    with pytest.raises(ConfigError, match="group_size = 4, but scan 1 has 3 training frames; choose at most 3"):
        GroupDraw([make_scan(), make_scan(9, heldout=range(6))], TrainingConfig(method="network", group_size=4))
