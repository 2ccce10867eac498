"""Canvases of groups for TensorFlow, whose traces are of one shape, and batches as its tensors."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import tensorflow as tf

from ptycho_core.enginekit.groups import Batch, Groups
from ptycho_core.enginekit.training_groups import TrainingGroups, read_ahead

__all__ = ["Canvases", "tensors"]

_CANVAS_STEP_PX = 8
"""Canvases grow by so much beyond a frame, so that most epochs have the same and one trace serves them."""

_GROUPS_LOOKED_AT = 50_000
"""Groups that are drawn before a training to find a canvas for all; a second at most."""


def tensors(groups: TrainingGroups, batches: Sequence[Batch], num_workers: int = 0) -> Iterator[dict[str, tf.Tensor]]:
    """Batches as tensors, with the arrays of ``enginekit.training_groups``, read ahead by some threads."""
    for arrays in read_ahead(groups, batches, num_workers):
        yield {name: tf.constant(array) for name, array in arrays.items()}


class Canvases:
    """Canvases that hold the groups of a training."""

    def __init__(self, groups: TrainingGroups) -> None:
        self.groups = groups

    @functools.cached_property
    def _usual_canvas(self) -> tuple[int, int]:
        """Canvas for the groups of as many epochs as are quickly drawn, most often all."""
        epochs = max(1, min(self.groups.config.epochs, _GROUPS_LOOKED_AT // sum(self.groups.draw.n_groups)))
        return self.of(chain.from_iterable(map(self._of_epoch, range(epochs))))

    def _of_epoch(self, epoch: int) -> list[Groups]:
        return [self.groups.draw.groups(epoch, scan) for scan in range(self.groups.n_trained)]

    def of(self, parts: Iterator[Groups] | Sequence[Groups]) -> tuple[int, int]:
        """Height and width that hold every group of some, in steps."""
        N = self.groups.scans[0].raw.side
        needed = np.max([groups.canvas_shape.max(axis=0) for groups in parts], axis=0) - N
        height, width = N + -(-needed // _CANVAS_STEP_PX) * _CANVAS_STEP_PX
        return int(height), int(width)

    def of_epoch(self, epoch: int) -> tuple[int, int]:
        """Height and width that hold every group of an epoch: the same in most, so that one compiled step serves all.

        Seed, epoch and how many ``epochs`` there are decide it: a training that is resumed works on the same canvases,
        or on larger ones where it was given more epochs and one of these needs them.
        """
        usual, own = self._usual_canvas, self.of(self._of_epoch(epoch))
        return max(usual[0], own[0]), max(usual[1], own[1])
