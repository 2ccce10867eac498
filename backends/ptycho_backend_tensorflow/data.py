"""Groups as TensorFlow data, useful on their own: ``tf.data`` pipelines over some scans.

Each element of a pipeline is a batch of b groups, all of one scan:

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

import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.enginekit.groups import GroupDraw, Groups, heldout_groups
from ptycho_core.enginekit.network_training import training_scans
from ptycho_core.runtime import Runtime

__all__ = ["GroupData"]

_CANVAS_STEP_PX = 8
"""Canvases grow by so much beyond a frame, so that most epochs have the same and one trace serves them."""

_GROUPS_LOOKED_AT = 50_000
"""Groups that are drawn before a training to find a canvas for all; a second at most."""

Order = Sequence[tuple[int, NDArray[np.int64]]]
"""For each batch the number of its scan and those of its groups (b,)."""


class GroupData:
    """Training and held-out groups of some scans, as pipelines of batches.

    Args:
        scans: at least one with training frames.
        config: groups, batch size, seed, epochs, workers.

    Attributes:
        scans: those with training frames, then the others; batches name them in this order.
        n_trained: how many scans have training frames.
        draw: the training groups.
        heldout: held-out groups of each scan, the same in every epoch, or None where it has none.
        error: what reading a batch raised last, which TensorFlow passes on as text only.
    """

    def __init__(self, scans: Sequence[PtychoDataContainer], config: TrainingConfig, runtime: Runtime) -> None:
        trained = training_scans(scans)
        self.scans = (*trained, *(scan for scan in scans if not len(scan.train_frames)))
        self.n_trained, self.config, self.runtime = len(trained), config, runtime
        self.draw = GroupDraw(trained, config)
        self.heldout = tuple(heldout_groups(scan, config) for scan in self.scans)
        self.error: BaseException | None = None

    @property
    def n_heldout(self) -> int:
        """Held-out frames of all scans."""
        return sum(len(scan.heldout_frames) for scan in self.scans)

    @functools.cached_property
    def _usual_canvas(self) -> tuple[int, int]:
        """Canvas for the groups of as many epochs as are quickly drawn, most often all."""
        epochs = max(1, min(self.config.epochs, _GROUPS_LOOKED_AT // sum(self.draw.n_groups)))
        return self.canvas_of(chain.from_iterable(map(self._of_epoch, range(epochs))))

    def _of_epoch(self, epoch: int) -> list[Groups]:
        return [self.draw.groups(epoch, scan) for scan in range(self.n_trained)]

    def canvas_of(self, parts: Iterator[Groups] | Sequence[Groups]) -> tuple[int, int]:
        """Height and width that hold every group of some, in steps."""
        N = self.scans[0].raw.side
        needed = np.max([groups.canvas_shape.max(axis=0) for groups in parts], axis=0) - N
        height, width = N + -(-needed // _CANVAS_STEP_PX) * _CANVAS_STEP_PX
        return int(height), int(width)

    def canvas_shape(self, epoch: int) -> tuple[int, int]:
        """Height and width that hold every group of an epoch: the same in most, so that one compiled step serves all.

        Seed, epoch and how many ``epochs`` there are decide it: a training that is resumed works on the same canvases,
        or on larger ones where it was given more epochs and one of these needs them.
        """
        usual, own = self._usual_canvas, self.canvas_of(self._of_epoch(epoch))
        return max(usual[0], own[0]), max(usual[1], own[1])

    def _read(self, groups_of: Callable[[int], Groups], scan: int, numbers: NDArray[np.int64]) -> tuple[object, ...]:
        try:
            groups = groups_of(int(scan))
            counts = groups.read_counts(numbers)
        except BaseException as error:
            self.error = error
            raise
        return (
            counts,
            groups.corners_px[numbers],
            groups.subpixel_px[numbers],
            groups.canvas_shape[numbers].max(axis=0),
            groups.frame_indices[numbers],
            groups.counted[numbers],
            np.int64(scan),
        )

    def _pipeline(self, groups_of: Callable[[int], Groups], C: int, order: Order) -> tf.data.Dataset:
        """Batches in an order, of groups (B, C) of a scan that `groups_of` gives by its number."""
        N, num_workers = self.scans[0].raw.side, self.runtime.num_workers
        shapes = {
            "counts": ((None, C, N, N), tf.float32), "corners_px": ((None, C, 2), tf.int64),
            "subpixel_px": ((None, C, 2), tf.float32), "canvas_shape": ((2,), tf.int64),
            "frame_indices": ((None, C), tf.int64), "counted": ((None, C), tf.bool), "scan": ((), tf.int64),
        }  # fmt: skip
        read = functools.partial(self._read, groups_of)

        def load(scan: tf.Tensor, numbers: tf.Tensor) -> dict[str, tf.Tensor]:
            arrays = tf.numpy_function(read, [scan, numbers], [dtype for _, dtype in shapes.values()])
            return {
                name: tf.ensure_shape(array, shape)
                for (name, (shape, _)), array in zip(shapes.items(), arrays, strict=True)
            }

        signature = (tf.TensorSpec((), tf.int64), tf.TensorSpec((None,), tf.int64))
        batches = tf.data.Dataset.from_generator(lambda: iter(order), output_signature=signature)
        if num_workers == 0:
            return batches.map(load)
        return batches.map(load, num_parallel_calls=num_workers, deterministic=True).prefetch(num_workers)

    def epoch(self, epoch: int, *, n_devices: int = 1, first_batch: int = 0) -> tf.data.Dataset:
        """Batches of training groups, in the order of every engine (``GroupDraw.batches``).

        With several devices a batch has the groups of the first device, then those of the second, and so on.

        Args:
            epoch: number of the epoch.
            n_devices: devices that share a batch.
            first_batch: batches to leave out at the start.
        """
        shares = [
            self.draw.batches(epoch, rank=rank, world_size=n_devices, first_batch=first_batch)
            for rank in range(n_devices)
        ]
        order = [
            (parts[0].scan, np.concatenate([part.groups for part in parts])) for parts in zip(*shares, strict=True)
        ]
        return self._pipeline(functools.partial(self.draw.groups, epoch), self.config.group_size, order)

    def heldout_batches(self, scan: int) -> tf.data.Dataset:
        """Batches of the held-out groups of a scan that has some, in fixed order."""
        groups = self.heldout[scan]
        assert groups is not None
        size, numbers = self.config.batch_size, np.arange(groups.n_groups)
        order = [(scan, numbers[start : start + size]) for start in range(0, len(numbers), size)]
        return self._pipeline(lambda _: groups, groups.group_size, order)
