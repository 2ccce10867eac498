"""Training groups and the partition for reconstruction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core.data.grouping import group_frames, partition_frames
from ptycho_core.errors import ConfigError


def scattered(M: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, [90, 30], size=(M, 2))


def nearest(positions: np.ndarray, frame: int) -> np.ndarray:
    """Other frames by distance, brute force."""
    order = np.argsort(np.linalg.norm(positions - positions[frame], axis=1), kind="stable")
    return order[order != frame]


@pytest.mark.spec("DATA-8")
@given(
    M=st.integers(1, 40),
    data=st.data(),
    seed=st.integers(0, 9999),
    coarse=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_groups_hold_their_seed_first_and_no_frame_twice(M: int, data: st.DataObject, seed: int, coarse: bool) -> None:
    positions = scattered(M, seed)
    if coarse:
        positions = np.round(positions / 30) * 30  # many frames at the same place
    C = data.draw(st.integers(1, M))
    K = data.draw(st.none() | st.integers(max(C - 1, 1), 50))
    B = data.draw(st.none() | st.integers(1, 3 * M))
    groups = group_frames(positions, C, n_groups=B, neighbor_pool_size=K, seed=seed)
    assert groups.shape == (-(-2 * M // C) if B is None else B, C)
    assert groups.dtype == np.int64
    assert groups.min() >= 0
    assert groups.max() < M
    assert all(len(set(group)) == C for group in groups.tolist())
    for group in groups:
        # nobody outside the pool: every member is as near as the K-th nearest, or nearer
        pool = min(C - 1 if K is None else K, M - 1)
        distance = np.linalg.norm(positions - positions[group[0]], axis=1)
        limit = np.sort(np.delete(distance, group[0]))[pool - 1] if pool else 0.0
        assert (distance[group] <= limit + 1e-9).all()


@pytest.mark.spec("DATA-8")
def test_without_a_pool_the_nearest_frames_are_taken() -> None:
    positions = scattered(50)
    for group in group_frames(positions, 5, seed=1):
        assert set(group[1:]) == set(nearest(positions, group[0])[:4])


@pytest.mark.spec("DATA-8")
def test_a_pool_is_drawn_from_evenly() -> None:
    positions = scattered(30)
    groups = group_frames(positions, 4, n_groups=30 * 200, neighbor_pool_size=6, seed=2)
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
    seeds = group_frames(scattered(M), 3, n_groups=B, seed=4)[:, 0]
    for start in range(0, B, M):
        chunk = seeds[start : start + M]
        assert len(set(chunk.tolist())) == len(chunk)
    if B == 47:
        assert seeds[:M].tolist() != seeds[M : 2 * M].tolist()  # each round has an order of its own


@pytest.mark.spec("DATA-8", "CONV-7")
def test_groups_are_decided_by_the_seed_alone() -> None:
    positions = scattered(40)
    first = group_frames(positions, 6, neighbor_pool_size=10, seed=5)
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    np.testing.assert_array_equal(group_frames(positions, 6, neighbor_pool_size=10, seed=5), first)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index]  # noqa: NPY002
    assert (group_frames(positions, 6, neighbor_pool_size=10, seed=6) != first).any()
    assert (group_frames(positions, 6, seed=6)[:, 0] != group_frames(positions, 6, seed=5)[:, 0]).any()


@pytest.mark.spec("DATA-8")
def test_all_frames_at_a_handful_of_places() -> None:
    positions = np.repeat([[0.0, 0.0], [0.0, 9.0]], 100, axis=0)
    for C in (3, 100):  # with 3, most frames are not even among their own 3 nearest
        for group in group_frames(positions, C, seed=0):
            assert len(set(group.tolist())) == C
            assert (positions[group] == positions[group[0]]).all()


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
    for function in (group_frames, partition_frames):
        with pytest.raises(ConfigError, match="group_size = 10, but the scan has 9 frames; choose at most 9"):
            function(positions, 10)
        with pytest.raises(ConfigError, match="group_size = 0; it must be at least 1"):
            function(positions, 0)
    with pytest.raises(ConfigError, match="neighbor_pool_size = 3 is smaller than group_size − 1 = 4"):
        group_frames(positions, 5, neighbor_pool_size=3)
    with pytest.raises(ConfigError, match="n_groups = 0; it must be at least 1"):
        group_frames(positions, 5, n_groups=0)
