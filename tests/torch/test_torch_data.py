"""The data side on its own: tensors, and processes that read ahead."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch_scans import make_scan, vary

from ptycho_backend_torch.data import BatchDataset, Loader
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.enginekit.training_groups import TrainingGroups
from ptycho_core.io import read_scan, write_scan

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def scans():
    raws = [make_scan(rows=3, columns=4, n_modes=2, bad=True), make_scan(rows=2, columns=4, n_modes=2, seed=5)]
    return [PtychoDataContainer.of(raws[0], heldout=[1, 5]), PtychoDataContainer.of(raws[1])]


@pytest.fixture(scope="module")
def groups(scans):
    return TrainingGroups(scans, vary(n_groups=7, batch_size=3).config)


def test_items_are_the_arrays_of_the_batch_and_can_be_changed_without_harm(groups):
    dataset = BatchDataset(groups)
    for batch in (*groups.batches(0), *groups.batches(3), *groups.heldout_batches()):
        item, wanted = dataset[batch], groups.read(batch)
        assert item.keys() == wanted.keys()
        for name, value in item.items():
            np.testing.assert_array_equal(value.numpy(), wanted[name])
            value.copy_(~value if value.dtype == torch.bool else value + 1)
        for name, array in groups.read(batch).items():
            np.testing.assert_array_equal(array, wanted[name])


def test_a_dataset_of_a_scan_on_disk_can_be_sent_to_another_process(scans, tmp_path):
    """It needs nothing of the process that it comes from, not even which epoch that has come to."""
    write_scan(tmp_path / "scan.npz", scans[0].raw)
    scan = PtychoDataContainer.of(read_scan(tmp_path / "scan.npz"))
    groups = TrainingGroups([scan], vary(batch_size=3).config)
    sent = pickle.dumps(BatchDataset(groups))
    assert len(sent) < (tmp_path / "scan.npz").stat().st_size
    again = pickle.loads(sent)
    for batch in (groups.batches(0)[0], groups.batches(2)[1]):
        for name, value in BatchDataset(groups)[batch].items():
            assert torch.equal(value, again[batch][name])


@pytest.mark.slow
def test_processes_that_read_ahead_give_the_same(groups):
    """They live on from epoch to epoch, and are asked for another each time."""
    loader = Loader(groups, num_workers=1)
    for order in (groups.batches(0), groups.heldout_batches(), groups.batches(1)):
        here, there = list(Loader(groups).read(order)), list(loader.read(order))
        assert len(here) == len(there) == len(order)
        for one, other in zip(here, there, strict=True):
            assert all(torch.equal(value, other[name]) for name, value in one.items())
