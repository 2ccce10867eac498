"""The data side on its own: shapes, laziness, and the order of batches."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch_scans import CONFIG, make_scan, vary

from ptycho_backend_torch.data import EpochSampler, GroupDataModule, GroupDataset, collate_groups
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.io import write_scan
from ptycho_core.networks.training import epoch_batches

pytestmark = pytest.mark.torch

SHAPES = {
    "counts": ((4, 16, 16), torch.float32),
    "corners_px": ((4, 2), torch.int64),
    "subpixel_px": ((4, 2), torch.float32),
    "canvas_shape": ((2,), torch.int64),
    "frame_indices": ((4,), torch.int64),
}


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4, n_modes=2, bad=True)


@pytest.fixture(scope="module")
def path(scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "scan.npz"
    write_scan(path, scan)
    return path


def test_items_have_the_documented_shapes(scan):
    dataset = GroupDataset(scan, vary(n_groups=7))
    assert len(dataset) == 7
    for number in (0, 6):
        item = dataset[number]
        assert {name: (tuple(v.shape), v.dtype) for name, v in item.items()} == SHAPES
        np.testing.assert_array_equal(item["frame_indices"].numpy(), dataset.container.frame_indices[number])


def test_items_can_be_changed_without_harm(scan):
    dataset = GroupDataset(scan, CONFIG)
    for value in dataset[2].values():
        value += 1
    np.testing.assert_array_equal(dataset[2]["frame_indices"].numpy(), dataset.container.frame_indices[2])
    np.testing.assert_array_equal(dataset[2]["counts"].numpy(), dataset.container.read_group_counts(2))


def test_a_dataset_of_a_scan_on_disk_can_be_sent_to_another_process(path):
    dataset = GroupDataset(path, CONFIG)
    assert len(pickle.dumps(dataset)) < path.stat().st_size
    again = pickle.loads(pickle.dumps(dataset))[3]
    for name, value in dataset[3].items():
        assert torch.equal(value, again[name])


def test_a_batch_has_the_canvas_that_holds_all(scan):
    dataset = GroupDataset(scan, CONFIG)
    items = [dataset[n] for n in range(5)]
    batch = collate_groups(items)
    assert tuple(batch["counts"].shape) == (5, 4, 16, 16)
    assert tuple(batch["corners_px"].shape) == (5, 4, 2)
    assert batch["canvas_shape"].tolist() == np.max([item["canvas_shape"].numpy() for item in items], axis=0).tolist()
    heights = {int(item["canvas_shape"][0]) for item in items}
    widths = {int(item["canvas_shape"][1]) for item in items}
    assert len(heights) > 1 or len(widths) > 1
    assert (batch["corners_px"] + 16 <= batch["canvas_shape"]).all()


def test_works_with_a_plain_loader(scan):
    loader = DataLoader(GroupDataset(scan, CONFIG), batch_size=3, collate_fn=collate_groups)
    assert sum(len(batch["counts"]) for batch in loader) == len(loader.dataset)


def order(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize(("rank", "world", "shuffle"), [(0, 1, True), (0, 1, False), (1, 3, True)])
def test_the_sampler_has_the_batches_that_all_engines_share(rank, world, shuffle):
    sampler = EpochSampler(13, 2, 7, rank, world, shuffle)
    for epoch in (0, 4):
        wanted = list(epoch_batches(13, 2, 7, epoch, shuffle=shuffle, rank=rank, world_size=world))
        assert order(sampler, epoch) == wanted
        assert len(sampler) == len(wanted)


def test_first_batches_are_skipped_once():
    sampler = EpochSampler(10, 2, seed=1)
    whole = order(sampler, 5)
    sampler.first_batch = 3
    assert order(sampler, 5) == whole[3:]
    assert order(sampler, 5) == whole


def test_data_module(scan):
    test = make_scan(rows=2, columns=2, seed=5)
    groups = PtychoDataContainer.for_reconstruction(test, 4)
    module = GroupDataModule(scan, groups, vary(batch_size=3, n_groups=8))
    batches = list(module.train_dataloader())
    assert [len(batch["counts"]) for batch in batches] == [3, 3, 2]
    assert {name: v.dtype for name, v in batches[0].items()} == {name: dtype for name, (_, dtype) in SHAPES.items()}
    held_out = list(module.val_dataloader())
    assert [batch["frame_indices"].tolist() for batch in held_out] == [groups.frame_indices.tolist()]
    assert GroupDataModule(scan, None, CONFIG).val_dataloader() == []
    assert module.train_set.container.n_groups == 8


def test_num_workers(scan):
    assert [GroupDataModule(scan, None, vary(num_workers=n)).train_dataloader().num_workers for n in (0, 1)] == [0, 1]
