"""Groups as PyTorch data, useful on their own: Datasets over scans and a Lightning DataModule.

Shapes of one item, and of a batch of b items, which are all of one scan:

    counts         (C, N, N) float32     (b, C, N, N)
    corners_px     (C, 2) int64          (b, C, 2)        corner (y, x) of each patch on its group's canvas
    subpixel_px    (C, 2) float32        (b, C, 2)        rest (y, x) carried by the probe
    canvas_shape   (2,) int64            (2,)             for a batch, the largest of its items
    frame_indices  (C,) int64            (b, C)           frames of the scan
    counted        (C,) bool             (b, C)           False where a frame only fills its held-out group up
    scan           () int64              ()               number of the scan

An item is asked for by a key that says everything: epoch, scan and group. Groups are drawn anew each epoch, and the
processes that read for a training do not see which epoch it has come to. Counts are read from the scan when an item is
asked for, so a memory-mapped scan stays on disk.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.enginekit.groups import GroupDraw, Groups, heldout_groups
from ptycho_core.enginekit.network_training import run_facts, training_scans
from ptycho_core.runtime import Runtime

__all__ = ["EpochSampler", "GroupDataModule", "GroupDataset", "HeldoutDataset", "HeldoutSampler", "collate_groups"]

Sample = dict[str, Tensor]
Key = tuple[int, int, int]
"""Numbers of an epoch, a scan and a group."""


def _sample(groups: Groups, scan: int, group: int) -> Sample:
    return {
        "counts": torch.from_numpy(groups.read_counts(group)),
        "corners_px": torch.from_numpy(groups.corners_px[group].copy()),
        "subpixel_px": torch.from_numpy(groups.subpixel_px[group].copy()),
        "canvas_shape": torch.from_numpy(groups.canvas_shape[group].copy()),
        "frame_indices": torch.from_numpy(groups.frame_indices[group].copy()),
        "counted": torch.from_numpy(groups.counted[group].copy()),
        "scan": torch.tensor(scan),
    }


class GroupDataset(Dataset[Sample]):
    """Groups of training frames, each asked for by epoch, scan and group; see ``enginekit.groups.GroupDraw``.

    Args:
        scans: all with training frames.
        config: decides the groups.
    """

    def __init__(self, scans: Sequence[PtychoDataContainer], config: TrainingConfig) -> None:
        self.draw = GroupDraw(scans, config)

    def __len__(self) -> int:
        return sum(self.draw.n_groups)

    def __getitem__(self, key: Key) -> Sample:
        epoch, scan, group = key
        return _sample(self.draw.groups(epoch, scan), scan, group)


class HeldoutDataset(Dataset[Sample]):
    """Groups of held-out frames, the same in every epoch, whose number is 0.

    Args:
        scans: with held-out frames or without.
        config: decides the groups.

    Attributes:
        groups: of each scan, or None where it has no held-out frames.
    """

    def __init__(self, scans: Sequence[PtychoDataContainer], config: TrainingConfig) -> None:
        self.groups = [heldout_groups(scan, config) for scan in scans]

    def __len__(self) -> int:
        return sum(groups.n_groups for groups in self.groups if groups is not None)

    def __getitem__(self, key: Key) -> Sample:
        _, scan, group = key
        groups = self.groups[scan]
        if groups is None:
            raise IndexError(f"scan {scan} has no held-out frames")
        return _sample(groups, scan, group)


def collate_groups(items: list[Sample]) -> Sample:
    """Stack items of one scan; the canvas is the smallest that holds every item's."""
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
    batch["canvas_shape"] = batch["canvas_shape"].amax(dim=0)
    batch["scan"] = batch["scan"][0]
    return batch


class EpochSampler(Sampler[list[Key]]):
    """Batches of training groups; see ``GroupDraw.batches``.

    Args:
        draw: the groups.
        rank: number of this process.
        world_size: number of processes.
        first_step: steps that are done, for a training that goes on: the epoch and the batches to leave out.
    """

    def __init__(self, draw: GroupDraw, rank: int = 0, world_size: int = 1, first_step: int = 0) -> None:
        self.draw, self.rank, self.world_size = draw, rank, world_size
        self.epoch, self.first_batch = divmod(first_step, len(self))

    @property
    def sampler(self) -> EpochSampler:
        """Itself: Lightning tells the epoch to the ``sampler`` of a batch sampler, and not to the batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this at its start."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.draw.steps_an_epoch(self.world_size)

    def __iter__(self) -> Iterator[list[Key]]:
        # a generator: Lightning sets the epoch after it has asked for the iterator
        first, self.first_batch = self.first_batch, 0
        for batch in self.draw.batches(self.epoch, rank=self.rank, world_size=self.world_size, first_batch=first):
            yield [(batch.epoch, batch.scan, int(group)) for group in batch.groups]


class HeldoutSampler(Sampler[list[Key]]):
    """Batches of held-out groups in fixed order, each of one scan.

    With several processes each takes its share of a batch, and the last groups of a scan are repeated so that all have
    the same number of batches.

    Args:
        data: the groups.
        batch_size: groups in a batch of one process.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(self, data: HeldoutDataset, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.batches: list[list[Key]] = []
        stride = batch_size * world_size
        for scan, groups in enumerate(data.groups):
            n = 0 if groups is None else groups.n_groups
            whole = -(-n // stride) * stride if world_size > 1 else n
            order = [(0, scan, number % n) for number in range(whole)]
            self.batches += [order[start : start + stride][rank::world_size] for start in range(0, whole, stride)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)


class GroupDataModule(pl.LightningDataModule):
    """Training and held-out groups of some scans for a Lightning Trainer.

    Args:
        scans: at least one with training frames.
        config: groups, batch size, seed.
        runtime: workers, and what else does the work.

    Attributes:
        scans: those with training frames, then the others; items are numbered in this order.
        n_trained: how many scans have training frames.
        train_set: groups of training frames.
        test_set: groups of held-out frames, or None without any.
        first_step: steps that are done, for a training that goes on.
    """

    def __init__(self, scans: Sequence[PtychoDataContainer], config: TrainingConfig, runtime: Runtime) -> None:
        super().__init__()
        trained = training_scans(scans)
        self.scans = [*trained, *(scan for scan in scans if not len(scan.train_frames))]
        self.n_trained = len(trained)
        self.train_set = GroupDataset(trained, config)
        heldout = HeldoutDataset(self.scans, config)
        self.test_set = heldout if len(heldout) else None
        self.config, self.runtime = config, runtime
        self._given = tuple(scans)
        self.first_step = 0

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What decides this training, see ``run_facts``; to tell, all counts are read once."""
        return run_facts(self.config, self._given, self.runtime)

    def _loader(self, dataset: Dataset[Sample], sampler: Sampler[list[Key]]) -> DataLoader[Sample]:
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate_groups,
            generator=torch.Generator(),  # else the loader would draw from the global one
            num_workers=self.runtime.num_workers,
            persistent_workers=self.runtime.num_workers > 0,
            multiprocessing_context="spawn" if self.runtime.num_workers > 0 else None,
        )

    def _place(self) -> tuple[int, int]:
        """Number of this process and of all."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Batches of training groups, drawn and ordered by seed and epoch."""
        sampler = EpochSampler(self.train_set.draw, *self._place(), first_step=self.first_step)
        return self._loader(self.train_set, sampler)

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """Batches of held-out groups, in fixed order; none without held-out frames."""
        if self.test_set is None:
            return []
        return self._loader(self.test_set, HeldoutSampler(self.test_set, self.config.batch_size, *self._place()))
