"""The data side on its own: shapes, laziness, and the order of batches."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch_scans import CONFIG, make_scan, vary

from ptycho_backend_torch.data import (
    EpochSampler,
    GroupDataModule,
    GroupDataset,
    HeldoutDataset,
    HeldoutSampler,
    collate_groups,
)
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.enginekit.groups import GroupDraw
from ptycho_core.io import read_scan, write_scan

pytestmark = pytest.mark.torch

SHAPES = {
    "counts": ((4, 16, 16), torch.float32),
    "corners_px": ((4, 2), torch.int64),
    "subpixel_px": ((4, 2), torch.float32),
    "canvas_shape": ((2,), torch.int64),
    "frame_indices": ((4,), torch.int64),
    "counted": ((4,), torch.bool),
    "scan": ((), torch.int64),
}


@pytest.fixture(scope="module")
def scans():
    raws = [make_scan(rows=3, columns=4, n_modes=2, bad=True), make_scan(rows=2, columns=4, n_modes=2, seed=5)]
    return [PtychoDataContainer.of(raws[0], heldout=[1, 5]), PtychoDataContainer.of(raws[1])]


def test_items_have_the_documented_shapes_and_are_those_of_the_key(scans):
    config = vary(n_groups=7)
    dataset, draw = GroupDataset(scans, config), GroupDraw(scans, config)
    assert len(dataset) == 14
    for epoch, scan, group in ((0, 0, 0), (3, 1, 6), (0, 1, 2)):
        item = dataset[epoch, scan, group]
        assert {name: (tuple(v.shape), v.dtype) for name, v in item.items()} == SHAPES
        wanted = draw.groups(epoch, scan)
        np.testing.assert_array_equal(item["frame_indices"].numpy(), wanted.frame_indices[group])
        np.testing.assert_array_equal(item["counts"].numpy(), wanted.read_counts(group))
        assert int(item["scan"]) == scan


def test_items_can_be_changed_without_harm(scans):
    dataset = GroupDataset(scans, CONFIG)
    before = {name: value.clone() for name, value in dataset[0, 0, 2].items()}
    for value in dataset[0, 0, 2].values():
        value.copy_(~value if value.dtype == torch.bool else value + 1)
    for name, value in dataset[0, 0, 2].items():
        assert torch.equal(value, before[name])


def test_a_dataset_of_a_scan_on_disk_can_be_sent_to_another_process(scans, tmp_path):
    """It needs nothing of the process that it comes from, not even which epoch that has come to."""
    write_scan(tmp_path / "scan.npz", scans[0].raw)
    scan = PtychoDataContainer.of(read_scan(tmp_path / "scan.npz"))
    dataset = GroupDataset([scan], CONFIG)
    sent = pickle.dumps(dataset)
    assert len(sent) < (tmp_path / "scan.npz").stat().st_size
    again = pickle.loads(sent)
    for epoch in (0, 2):
        for name, value in dataset[epoch, 0, 3].items():
            assert torch.equal(value, again[epoch, 0, 3][name])


def test_a_batch_has_the_canvas_that_holds_all(scans):
    dataset = GroupDataset(scans, CONFIG)
    items = [dataset[0, 1, n] for n in range(4)]
    batch = collate_groups(items)
    assert tuple(batch["counts"].shape) == (4, 4, 16, 16)
    assert tuple(batch["corners_px"].shape) == (4, 4, 2)
    assert int(batch["scan"]) == 1
    assert batch["canvas_shape"].tolist() == np.max([item["canvas_shape"].numpy() for item in items], axis=0).tolist()
    heights = {int(item["canvas_shape"][0]) for item in items}
    widths = {int(item["canvas_shape"][1]) for item in items}
    assert len(heights) > 1 or len(widths) > 1
    assert (batch["corners_px"] + 16 <= batch["canvas_shape"]).all()


def order(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 3)])
def test_the_sampler_has_the_batches_that_all_engines_share(scans, rank, world):
    draw = GroupDraw(scans, vary(n_groups=13, batch_size=2, seed=7))
    sampler = EpochSampler(draw, rank, world)
    for epoch in (0, 4):
        batches = draw.batches(epoch, rank=rank, world_size=world)
        wanted = [[(epoch, batch.scan, group) for group in batch.groups.tolist()] for batch in batches]
        assert order(sampler, epoch) == wanted
        assert len(sampler) == len(wanted)


def test_a_sampler_goes_on_where_a_training_was_stopped(scans):
    """From the right epoch on before it is told of it: processes that read ahead ask at once."""
    draw = GroupDraw(scans, vary(n_groups=10, batch_size=2))
    whole = order(EpochSampler(draw), 2)
    sampler = EpochSampler(draw, first_step=2 * 10 + 3)
    assert (sampler.epoch, len(sampler)) == (2, 10)
    assert list(sampler) == whole[3:]
    assert list(sampler) == whole


@pytest.mark.parametrize("world", [1, 2, 3])
def test_held_out_groups_are_shared_and_each_is_seen(scans, world):
    first = scans[0].raw
    held = [PtychoDataContainer.of(first, heldout=np.arange(n)) for n in (0, 9, 5)]
    data = HeldoutDataset(held, vary(group_size=2))
    assert len(data) == 5 + 3
    ranks = [list(HeldoutSampler(data, 2, rank, world)) for rank in range(world)]
    assert len({tuple(map(len, batches)) for batches in ranks}) == 1
    seen = [key for batches in ranks for batch in batches for key in batch]
    assert set(seen) == {(0, 1, n) for n in range(5)} | {(0, 2, n) for n in range(3)}
    assert all(len({scan for _, scan, _ in batch}) == 1 for batches in ranks for batch in batches)
    if world == 1:
        assert len(seen) == 8
        assert seen == sorted(seen)


def test_data_module(scans):
    third = PtychoDataContainer.of(scans[1].raw, heldout=np.arange(8))
    module = GroupDataModule([scans[0], third, scans[1]], vary(batch_size=3, n_groups=8))
    assert module.scans == [scans[0], scans[1], third]
    assert module.n_trained == 2
    batches = list(module.train_dataloader())
    assert sorted((int(batch["scan"]), len(batch["counts"])) for batch in batches) == [
        (0, 2), (0, 3), (0, 3), (1, 2), (1, 3), (1, 3),
    ]  # fmt: skip
    assert {name: v.dtype for name, v in batches[0].items()} == {name: dtype for name, (_, dtype) in SHAPES.items()}
    held_out = list(module.val_dataloader())
    assert [(int(batch["scan"]), batch["frame_indices"].shape) for batch in held_out] == [(0, (1, 2)), (2, (2, 4))]
    assert sorted(held_out[0]["frame_indices"].flatten().tolist()) == [1, 5]
    assert GroupDataModule(scans[1:], CONFIG).val_dataloader() == []


def test_num_workers(scans):
    loaders = [GroupDataModule(scans, vary(num_workers=n)).train_dataloader() for n in (0, 1)]
    assert [loader.num_workers for loader in loaders] == [0, 1]
