"""The groups that a training goes over and those that it is watched by, as batches of NumPy arrays.

A batch of b groups, all of one scan:

    counts         (b, C, N, N) float32
    corners_px     (b, C, 2) int64          corner (y, x) of each patch on its group's canvas
    subpixel_px    (b, C, 2) float32        rest (y, x) carried by the probe
    canvas_shape   (2,) int64               the smallest canvas that holds every group of the batch
    frame_indices  (b, C) int64             frames of the scan
    counted        (b, C) bool              False where a frame only fills its held-out group up
    scan           () int64                 number of the scan

Counts are read from the scan when a batch is asked for, so a memory-mapped scan stays on disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from .groups import Batch, GroupDraw, Groups, heldout_groups
from .network_training import training_scans

__all__ = ["HELDOUT", "TrainingGroups", "read_ahead"]

HELDOUT = -1
"""What stands for the epoch in a batch of held-out groups, which are the same in all."""


class TrainingGroups:
    """Training and held-out groups of some scans.

    Args:
        scans: at least one with training frames.
        config: groups, batch size, seed, epochs.

    Attributes:
        scans: those with training frames, then the others; batches name them in this order.
        n_trained: how many scans have training frames.
        draw: the training groups.
        heldout: held-out groups of each scan, or None where it has none.
        n_heldout: held-out frames of all scans.
    """

    def __init__(self, scans: Sequence[PtychoDataContainer], config: TrainingConfig) -> None:
        trained = training_scans(scans)
        self.scans = (*trained, *(scan for scan in scans if not len(scan.train_frames)))
        self.n_trained, self.config, self.draw = len(trained), config, GroupDraw(trained, config)
        self.heldout = tuple(heldout_groups(scan, config) for scan in self.scans)
        self.n_heldout = sum(len(scan.heldout_frames) for scan in self.scans)

    def batches(self, epoch: int, *, n_devices: int = 1, first_batch: int = 0) -> list[Batch]:
        """Batches of an epoch, in the order of every engine (``GroupDraw.batches``).

        With several devices a batch has the groups of the first device, then those of the second, and so on.
        """
        shares = [
            self.draw.batches(epoch, rank=rank, world_size=n_devices, first_batch=first_batch)
            for rank in range(n_devices)
        ]
        return [
            replace(parts[0], groups=np.concatenate([part.groups for part in parts]))
            for parts in zip(*shares, strict=True)
        ]

    def heldout_batches(self) -> list[Batch]:
        """Batches of the held-out groups of all scans, in fixed order."""
        size = self.draw.batch_size
        numbers = [np.arange(0 if groups is None else groups.n_groups, dtype=np.int64) for groups in self.heldout]
        return [
            Batch(HELDOUT, scan, own[start : start + size])
            for scan, own in enumerate(numbers)
            for start in range(0, len(own), size)
        ]

    def groups_of(self, batch: Batch) -> Groups:
        """The groups that a batch is some of."""
        if batch.epoch != HELDOUT:
            return self.draw.groups(batch.epoch, batch.scan)
        groups = self.heldout[batch.scan]
        assert groups is not None
        return groups

    def read(self, batch: Batch) -> dict[str, NDArray[np.generic]]:
        """The arrays of a batch."""
        groups, numbers = self.groups_of(batch), batch.groups
        return {
            "counts": groups.read_counts(numbers),
            "corners_px": groups.corners_px[numbers],
            "subpixel_px": groups.subpixel_px[numbers],
            "canvas_shape": groups.canvas_shape[numbers].max(axis=0),
            "frame_indices": groups.frame_indices[numbers],
            "counted": groups.counted[numbers],
            "scan": np.array(batch.scan, np.int64),
        }


def read_ahead(
    groups: TrainingGroups, batches: Iterable[Batch], num_threads: int
) -> Iterator[dict[str, NDArray[np.generic]]]:
    """The arrays of batches in their order, read by threads that are so many ahead; 0 reads each when it is asked for.

    For engines that read in threads; PyTorch has processes for it.
    """
    if num_threads == 0:
        yield from map(groups.read, batches)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        pending: deque[Future[dict[str, NDArray[np.generic]]]] = deque()
        for batch in batches:
            pending.append(pool.submit(groups.read, batch))
            if len(pending) > num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
