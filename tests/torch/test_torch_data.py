"""The data side on its own: shapes, laziness, and the order of batches."""

from __future__ import annotations

import pickle
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch_scans import CONFIG, make_scan, vary

from ptycho_backend_torch.data import EpochSampler, GroupDataModule, GroupDataset, collate_groups
from ptycho_core.data import frames
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.io import write_scan

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


@pytest.mark.parametrize("kind", ["container", "scan", "path", "text"])
def test_items_have_the_documented_shapes(scan, path, kind):
    config = vary(n_groups=7)
    groups = PtychoDataContainer.for_training(scan, 4, n_groups=7, seed=1)
    data = {"container": groups, "scan": scan, "path": path, "text": str(path)}[kind]
    dataset = GroupDataset(data, config)
    assert len(dataset) == 7
    for number in (0, 6):
        item = dataset[number]
        assert {name: (tuple(v.shape), v.dtype) for name, v in item.items()} == SHAPES
        np.testing.assert_array_equal(item["counts"].numpy(), groups.read_group_counts(number))
        np.testing.assert_array_equal(item["frame_indices"].numpy(), groups.frame_indices[number])
        np.testing.assert_array_equal(item["corners_px"].numpy(), groups.corners_px[number])
        np.testing.assert_array_equal(item["subpixel_px"].numpy(), groups.subpixel_px[number])
        np.testing.assert_array_equal(item["canvas_shape"].numpy(), groups.canvas_shape[number])
    assert (item["counts"][:, ~scan.mask] == 0).all()


def test_items_can_be_changed_without_harm(scan):
    dataset = GroupDataset(scan, CONFIG)
    for value in dataset[2].values():
        value += 1
    np.testing.assert_array_equal(dataset[2]["frame_indices"].numpy(), dataset.container.frame_indices[2])
    np.testing.assert_array_equal(dataset[2]["counts"].numpy(), dataset.container.read_group_counts(2))


def test_a_scan_on_disk_stays_there(path, monkeypatch):
    dataset = GroupDataset(path, CONFIG)
    assert isinstance(dataset.container.raw.frames, frames.NpzFrames)
    assert len(pickle.dumps(dataset)) < path.stat().st_size
    asked = []
    real = frames.NpzFrames.read
    monkeypatch.setattr(frames.NpzFrames, "read", lambda self, n: (asked.append(n.tolist()), real(self, n))[1])
    item = dataset[3]
    assert asked == [dataset.container.frame_indices[3].tolist()]
    again = pickle.loads(pickle.dumps(dataset))[3]
    for name, value in item.items():
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


def flat(lists):
    return list(chain.from_iterable(lists))


def order(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize(("n_groups", "batch_size"), [(12, 1), (12, 5), (3, 7)])
def test_every_group_once_an_epoch(n_groups, batch_size):
    sampler = EpochSampler(n_groups, batch_size, seed=3)
    for epoch in (0, 4):
        batches = order(sampler, epoch)
        assert len(batches) == len(sampler) == -(-n_groups // batch_size)
        assert sorted(flat(batches)) == list(range(n_groups))
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert all(type(group) is int for batch in batches for group in batch)


def test_seed_and_epoch_decide_the_order():
    one = order(EpochSampler(20, 3, seed=3), 2)
    assert order(EpochSampler(20, 3, seed=3), 2) == one
    assert order(EpochSampler(20, 3, seed=3), 1) != one
    assert order(EpochSampler(20, 3, seed=4), 2) != one
    assert flat(order(EpochSampler(20, 3, seed=3, shuffle=False), 2)) == list(range(20))


def test_first_batches_are_skipped_once():
    sampler = EpochSampler(10, 2, seed=1)
    whole = order(sampler, 5)
    sampler.first_batch = 3
    assert order(sampler, 5) == whole[3:]
    assert order(sampler, 5) == whole


@pytest.mark.parametrize(("n_groups", "batch_size", "world"), [(12, 2, 3), (13, 2, 2), (5, 2, 4), (2, 3, 2)])
def test_ranks_share_what_one_process_of_their_sum_would_do(n_groups, batch_size, world):
    ranks = [order(EpochSampler(n_groups, batch_size, 7, rank, world), 3) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    assert len({tuple(map(len, batches)) for batches in ranks}) == 1
    steps = [flat(list(batches[step]) for batches in ranks) for step in range(len(ranks[0]))]
    alone = order(EpochSampler(n_groups, batch_size * world, 7), 3)
    for mine, whole in zip(steps[:-1], alone[:-1], strict=True):
        assert sorted(mine) == sorted(whole)
        assert len(set(mine)) == len(mine)  # disjoint
    assert set(flat(steps)) == set(range(n_groups))
    surplus = len(flat(steps)) - n_groups
    assert 0 <= surplus < batch_size * world


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


def test_loaders_leave_the_global_random_state_alone(scan):
    before = torch.get_rng_state()
    for _ in GroupDataModule(scan, scan, vary(n_groups=4)).train_dataloader():
        pass
    assert torch.equal(torch.get_rng_state(), before)
