"""Groups as PyTorch data, useful on their own: a Dataset over a container and a Lightning DataModule.

Shapes of one item, and of a batch of b items:

    counts         (C, N, N) float32     (b, C, N, N)
    corners_px     (C, 2) int64          (b, C, 2)        corner (y, x) of each patch on its group's canvas
    subpixel_px    (C, 2) float32        (b, C, 2)        rest (y, x) carried by the probe
    canvas_shape   (2,) int64            (2,)             for a batch, the largest of its items
    frame_indices  (C,) int64            (b, C)           frames of the scan

Counts are read from the scan when an item is asked for, so a memory-mapped scan stays on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.networks.training import epoch_batches
from ptycho_core.prepare import container_of_groups

__all__ = ["EpochSampler", "GroupDataModule", "GroupDataset", "collate_groups"]

Sample = dict[str, Tensor]


class GroupDataset(Dataset[Sample]):
    """The groups of a container, one item each.

    Args:
        data: a container; or a scan, or the path of one, which is then grouped by `config`.
        config: needed for a scan or a path: group size, number of groups, seed.
    """

    def __init__(self, data: PtychoDataContainer | RawData | Path | str, config: TrainingConfig | None = None) -> None:
        self.container = container_of_groups(data, config)

    def __len__(self) -> int:
        return self.container.n_groups

    def __getitem__(self, group: int) -> Sample:
        container = self.container
        return {
            "counts": torch.from_numpy(container.read_group_counts(group)),
            "corners_px": torch.from_numpy(container.corners_px[group].copy()),
            "subpixel_px": torch.from_numpy(container.subpixel_px[group].copy()),
            "canvas_shape": torch.from_numpy(container.canvas_shape[group].copy()),
            "frame_indices": torch.from_numpy(container.frame_indices[group].copy()),
        }


def collate_groups(items: list[Sample]) -> Sample:
    """Stack items; the canvas is the smallest that holds every item's."""
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
    batch["canvas_shape"] = batch["canvas_shape"].amax(dim=0)
    return batch


class EpochSampler(Sampler[list[int]]):
    """Batches of group numbers; see ``networks.training.epoch_batches``.

    Args:
        n_groups: groups in an epoch.
        batch_size: groups in a batch of one process.
        seed: decides the order, together with the epoch.
        rank: number of this process.
        world_size: number of processes.
        shuffle: whether to shuffle at all.
    """

    def __init__(
        self, n_groups: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, shuffle: bool = True
    ) -> None:
        self.n_groups, self.batch_size, self.seed, self.shuffle = n_groups, batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.first_batch = 0

    @property
    def sampler(self) -> EpochSampler:
        """Itself: Lightning tells the epoch to the ``sampler`` of a batch sampler, and not to the batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls this at its start."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n_groups // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        # a generator: Lightning sets the epoch after it has asked for the iterator
        first, self.first_batch = self.first_batch, 0
        yield from epoch_batches(
            self.n_groups, self.batch_size, self.seed, self.epoch, shuffle=self.shuffle, rank=self.rank,
            world_size=self.world_size, first_batch=first,
        )  # fmt: skip


class GroupDataModule(pl.LightningDataModule):
    """Training and held-out groups for a Lightning Trainer.

    Args:
        train: groups to learn from; a container, a scan or a path.
        test: held-out groups, or None.
        config: batch size, seed, workers, and grouping for a scan or a path.
    """

    def __init__(
        self,
        train: PtychoDataContainer | RawData | Path | str,
        test: PtychoDataContainer | RawData | Path | str | None,
        config: TrainingConfig,
    ) -> None:
        super().__init__()
        self.train_set = GroupDataset(train, config)
        self.test_set = None if test is None else GroupDataset(test, config)
        self.config = config
        self.skip_batches = 0

    def _loader(self, dataset: GroupDataset, shuffle: bool) -> DataLoader[Sample]:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochSampler(len(dataset), self.config.batch_size, self.config.seed, rank, world, shuffle)
        if shuffle:
            sampler.first_batch = self.skip_batches
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate_groups,
            generator=torch.Generator(),  # else the loader would draw from the global one
            num_workers=self.config.num_workers,
            persistent_workers=self.config.num_workers > 0,
            multiprocessing_context="spawn" if self.config.num_workers > 0 else None,
        )

    def train_dataloader(self) -> DataLoader[Sample]:
        """Batches of training groups, in an order decided by seed and epoch."""
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """Batches of held-out groups, in fixed order; none without a test set."""
        return [] if self.test_set is None else self._loader(self.test_set, shuffle=False)
