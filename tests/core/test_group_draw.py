"""Groups of scans of several fields, and the batches that they are trained in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from grouping_scan import N, make_scan
from hypothesis import given, settings
from hypothesis import strategies as st
from physics_problem import smooth_probe

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.grouping import fields_of
from ptycho_core.enginekit.groups import GroupDraw, groups_an_epoch, heldout_groups, partition_of

# ---- scans of several fields


def two_fields(apart: float, heldout: tuple[int, ...] = (), sizes: tuple[int, int] = (100, 90)) -> PtychoDataContainer:
    """Two compact fields, the second `apart` px to the lower right of the first; frames in random order."""
    rng = np.random.default_rng(4)
    positions = rng.uniform(0, [60, 45], size=(sum(sizes), 2))
    positions[sizes[0] :] += np.array([0.6, 0.8]) * (apart + 75)
    counts = rng.poisson(4.0, size=(sum(sizes), N, N)) + 1
    raw = RawData.from_arrays(counts, rng.permutation(positions), smooth_probe(N))
    return PtychoDataContainer.of(raw, heldout=heldout)


@pytest.mark.spec("DATA-8", "DATA-10", "DATA-11")
def test_no_group_spans_the_ground_between_two_fields() -> None:
    """Neither in an epoch nor in an image, and each frame is still in one; the fields are 100 and 90 frames."""
    scan = two_fields(2000, heldout=tuple(range(0, 190, 5)))
    draw = GroupDraw([scan], TrainingConfig(method="network", group_size=16))
    far = partition_of(scan, scan.used_frames, 16)
    assert far.n_groups == 7 + 6
    assert sorted(far.frame_indices[far.counted].tolist()) == list(range(190))
    held = heldout_groups(scan, TrainingConfig(method="network", group_size=16))
    assert held is not None
    for groups in (far, held, *(draw.groups(epoch) for epoch in range(8))):
        assert groups.canvas_shape.max() < 75 + N
    for epoch in range(8):
        assert draw.groups(epoch).n_groups == 19
        assert set(draw.groups(epoch).frame_indices.flat) == set(scan.train_frames.tolist())


def test_fields_are_cut_at_the_widest_gap_that_leaves_enough_on_both_sides() -> None:
    y = np.array([0, 1, 2, 50, 51, 52, 53, 90, 91, 130.0])
    positions = np.stack([y, np.zeros(10)], axis=1)
    for turned in (positions, positions[:, ::-1]):
        assert [field.tolist() for field in fields_of(turned, 16, 3)] == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9]]
        assert [field.tolist() for field in fields_of(turned, 16, 4)] == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]
        assert [len(field) for field in fields_of(turned, 38, 1)] == [3, 6, 1]
        assert [len(field) for field in fields_of(turned, 39, 1)] == [3, 7]  # a gap as wide as that does not divide
        assert [len(field) for field in fields_of(turned, 36, 2)] == [3, 4, 3]
        assert [len(field) for field in fields_of(turned, 100, 1)] == [10]
    # frames of one scan are one field, however they are drawn from it
    scan = make_scan(40)
    assert len(fields_of(scan.raw.positions_px, N, 4)) == 1


@pytest.mark.spec("DATA-8")
@given(M=st.integers(1, 60), C=st.integers(1, 9), seed=st.integers(0, 999), gap=st.floats(0, 30))
@settings(max_examples=60, deadline=None)
def test_fields_hold_every_frame_once_and_fit_in_the_groups_of_an_epoch(M: int, C: int, seed: int, gap: float) -> None:
    C = min(C, M)
    fields = fields_of(np.random.default_rng(seed).uniform(0, [90, 30], size=(M, 2)), gap, C)
    assert sorted(np.concatenate(fields).tolist()) == list(range(M))
    assert min(map(len, fields)) >= C
    sizes = [len(field) for field in fields]
    assert sum(-(-n // C) for n in sizes) <= groups_an_epoch(sizes, TrainingConfig(method="network", group_size=C))


# ---- batches


def keys(batches) -> list[tuple[int, int]]:
    return [(batch.scan, int(group)) for batch in batches for group in batch.groups]


def draw_of(*sizes: int, batch_size: int = 2, seed: int = 3, n_groups: int | None = None) -> GroupDraw:
    scans = [make_scan(M, number) for number, M in enumerate(sizes)]
    return GroupDraw(
        scans, TrainingConfig(method="network", group_size=2, batch_size=batch_size, seed=seed, n_groups=n_groups)
    )


@pytest.mark.spec("CONV-7")
@pytest.mark.parametrize(("sizes", "batch_size"), [((12,), 1), ((12,), 5), ((3,), 7), ((12, 5), 2), ((4, 9, 6), 3)])
def test_every_group_of_every_scan_once_an_epoch(sizes: tuple[int, ...], batch_size: int) -> None:
    draw = draw_of(*sizes, batch_size=batch_size)
    assert draw.n_groups == sizes
    for epoch in (0, 4):
        batches = list(draw.batches(epoch))
        assert len(batches) == draw.steps_an_epoch() == sum(-(-M // batch_size) for M in sizes)
        assert sorted(keys(batches)) == [(scan, group) for scan, M in enumerate(sizes) for group in range(M)]
        assert all(batch.epoch == epoch and batch.groups.dtype == np.int64 for batch in batches)
        for scan, M in enumerate(sizes):
            lengths = [len(batch.groups) for batch in batches if batch.scan == scan]
            assert sorted(lengths)[::-1] == [min(batch_size, M - start) for start in range(0, M, batch_size)]


@pytest.mark.spec("CONV-7")
@pytest.mark.parametrize("sizes", [(20,), (12, 9)])
def test_seed_and_epoch_decide_the_order(sizes: tuple[int, ...]) -> None:
    one = keys(draw_of(*sizes).batches(2))
    assert keys(draw_of(*sizes).batches(2)) == one
    assert keys(draw_of(*sizes).batches(1)) != one
    assert keys(draw_of(*sizes, seed=4).batches(2)) != one


def test_steps_with_several_scans_are_mixed() -> None:
    order = [batch.scan for batch in draw_of(30, 30).batches(0)]
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes > 8  # 1 where one scan came after the other


@pytest.mark.parametrize("sizes", [(10,), (10, 7)])
def test_first_batches_are_left_out(sizes: tuple[int, ...]) -> None:
    draw = draw_of(*sizes)
    for rank, world in ((0, 1), (0, 2), (1, 2)):
        whole = list(draw.batches(5, rank=rank, world_size=world))
        rest = list(draw.batches(5, rank=rank, world_size=world, first_batch=3))
        assert keys(rest) == keys(whole[3:])
        assert len(rest) == len(whole) - 3


@pytest.mark.parametrize(
    ("sizes", "batch_size", "world"), [((12,), 2, 3), ((13,), 2, 2), ((5,), 2, 4), ((2,), 3, 2), ((9, 5), 2, 2)]
)
def test_devices_share_what_one_of_their_sum_would_do(sizes: tuple[int, ...], batch_size: int, world: int) -> None:
    draw = draw_of(*sizes, batch_size=batch_size)
    ranks = [list(draw.batches(3, rank=rank, world_size=world)) for rank in range(world)]
    assert {len(batches) for batches in ranks} == {draw.steps_an_epoch(world)}
    assert len({tuple(len(batch.groups) for batch in batches) for batches in ranks}) == 1
    alone = list(draw_of(*sizes, batch_size=batch_size * world).batches(3))
    surplus = 0
    for step, whole in enumerate(alone):
        shares = [batches[step] for batches in ranks]
        assert {share.scan for share in shares} == {whole.scan}  # a step is of one scan on every device
        mine = np.concatenate([share.groups for share in shares])
        assert set(mine) >= set(whole.groups)
        if len(whole.groups) == batch_size * world:
            assert sorted(mine) == sorted(whole.groups)  # disjoint
        surplus += len(mine) - len(whole.groups)
    assert 0 <= surplus < batch_size * world * len(sizes)
