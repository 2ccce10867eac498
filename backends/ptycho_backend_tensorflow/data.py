"""Groups as TensorFlow data, useful on their own: ``tf.data`` pipelines over a container.

Each element of a pipeline is a batch of b groups:

    counts         (b, C, N, N) float32
    corners_px     (b, C, 2) int64          corner (y, x) of each patch on its group's canvas
    subpixel_px    (b, C, 2) float32        rest (y, x) carried by the probe
    canvas_shape   (2,) int64               the smallest canvas that holds every group of the batch
    frame_indices  (b, C) int64             frames of the scan

Counts are read from the scan when a batch is asked for, so a memory-mapped scan stays on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.networks.training import epoch_batches
from ptycho_core.prepare import container_of_groups

__all__ = ["GroupData"]


class GroupData:
    """The groups of a container, as pipelines of batches.

    Args:
        data: a container; or a scan, or the path of one, which is then grouped by `config`.
        config: needed for a scan or a path: group size, number of groups, seed.

    Attributes:
        container: the groups.
        error: what reading a batch raised last, which TensorFlow passes on as text only.
    """

    def __init__(self, data: PtychoDataContainer | RawData | Path | str, config: TrainingConfig | None = None) -> None:
        self.container = container_of_groups(data, config)
        self.error: BaseException | None = None

    def __len__(self) -> int:
        return self.container.n_groups

    def _read(self, groups: NDArray[np.int64]) -> tuple[NDArray[np.generic], ...]:
        container = self.container
        try:
            counts = container.read_group_counts(groups)
        except BaseException as error:
            self.error = error
            raise
        return (
            counts,
            container.corners_px[groups],
            container.subpixel_px[groups],
            container.canvas_shape[groups].max(axis=0),
            container.frame_indices[groups],
        )

    def batches(self, groups: Iterable[list[int]], num_workers: int = 0) -> tf.data.Dataset:
        """Batches of the groups given.

        Args:
            groups: group numbers of each batch.
            num_workers: threads that read ahead; 0 reads when a batch is asked for.
        """
        C, N = self.container.group_size, self.container.raw.side
        order = [np.array(batch, np.int64) for batch in groups]
        shapes = {
            "counts": ((None, C, N, N), tf.float32), "corners_px": ((None, C, 2), tf.int64),
            "subpixel_px": ((None, C, 2), tf.float32), "canvas_shape": ((2,), tf.int64),
            "frame_indices": ((None, C), tf.int64),
        }  # fmt: skip

        def load(batch: tf.Tensor) -> dict[str, tf.Tensor]:
            arrays = tf.numpy_function(self._read, [batch], [dtype for _, dtype in shapes.values()])
            return {
                name: tf.ensure_shape(array, shape)
                for (name, (shape, _)), array in zip(shapes.items(), arrays, strict=True)
            }

        numbers = tf.data.Dataset.from_generator(lambda: iter(order), output_signature=tf.TensorSpec((None,), tf.int64))
        if num_workers == 0:
            return numbers.map(load)
        return numbers.map(load, num_parallel_calls=num_workers, deterministic=True).prefetch(num_workers)

    def epoch(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        *,
        shuffle: bool = True,
        n_devices: int = 1,
        first_batch: int = 0,
        num_workers: int = 0,
    ) -> tf.data.Dataset:
        """Batches of an epoch, in the order of every engine (``networks.training.epoch_batches``).

        With several devices a batch has the groups of the first device, then those of the second, and so on.
        """
        shares = [
            epoch_batches(
                len(self), batch_size, seed, epoch, shuffle=shuffle, rank=rank, world_size=n_devices,
                first_batch=first_batch,
            )
            for rank in range(n_devices)
        ]  # fmt: skip
        return self.batches((list(chain(*parts)) for parts in zip(*shares, strict=True)), num_workers)
