"""Parameters, optimiser and batches of a training on TensorFlow's devices; the loop is ``enginekit.network_loop``'s."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.enginekit.network_loop import Step
from ptycho_core.enginekit.training_groups import TrainingGroups

from .data import Canvases, tensors
from .network import PtychoNetwork
from .optimizer import AdamW

__all__ = ["TensorflowLearner"]


class TensorflowLearner:
    """See ``enginekit.network_loop.Learner``.

    Args:
        network: its parameters are trained in place.
        data: groups to learn from, and those that are held out.
        devices: names of the devices to work on.
        num_workers: threads that read ahead.
    """

    leads = True

    def __init__(
        self, network: PtychoNetwork, data: TrainingGroups, devices: tuple[str, ...], num_workers: int = 0
    ) -> None:
        self.network, self.data, self.config, self.devices = network, data, data.config, devices
        self.canvases, self.num_workers = Canvases(data), num_workers
        self.optimizer = AdamW(network.parameters, network.groups())
        self.steps_an_epoch, self.n_heldout = data.draw.steps_an_epoch(len(devices)), data.n_heldout
        self.average: dict[str, NDArray[np.float32]] | None = None

    def agree(self, wish: bool) -> bool:
        """The wish itself: all devices are of one process."""
        return wish

    def values(self) -> dict[str, NDArray[np.float32]]:
        """Name → parameter: the moving average where there is one, else as it is."""
        return self._current() if self.average is None else dict(self.average)

    def _current(self) -> dict[str, NDArray[np.float32]]:
        return {name: variable.numpy() for name, variable in self.network.parameters.items()}

    def batches(self, epoch: int, first_batch: int) -> Iterator[tuple[dict[str, tf.Tensor], tuple[int, int]]]:
        """Batches of an epoch, and the shape of its canvases."""
        shape = self.canvases.of_epoch(epoch)
        order = self.data.batches(epoch, n_devices=len(self.devices), first_batch=first_batch)
        for batch in tensors(self.data, order, self.num_workers):
            yield batch, shape

    def step(self, batch: tuple[dict[str, tf.Tensor], tuple[int, int]], factor: float, look: bool) -> Step:
        """One step of the optimiser, on all devices."""
        groups, shape = batch
        n_groups, C = (int(n) for n in groups["counts"].shape[:2])
        # frames of the batch times the mean counts of its scan (FM-8)
        divisor = tf.constant(n_groups * C * self.network.mean_counts[int(groups["scan"])], tf.float32)
        values = {name: variable.value() for name, variable in self.network.parameters.items()}
        share, answers = n_groups // len(self.devices), []
        for number, device in enumerate(self.devices):
            with tf.device(device):
                part = _part(groups, number * share, (number + 1) * share)
                answers.append(self.network.gradients(values, part, shape, divisor))
        with tf.device(self.devices[0]):
            loss = tf.add_n([answer[0] for answer in answers])
            gradients = {name: tf.add_n([answer[1][name] for answer in answers]) for name in answers[0][1]}
            self.optimizer.step(gradients, factor)
        if self.config.weight_average > 0:
            d, before = np.float32(self.config.weight_average), self.average
            self.average = {
                name: value if before is None else d * before[name] + (1 - d) * value
                for name, value in self._current().items()
            }
        return Step(float(loss), n_groups, float(answers[0][2]) if look else None)

    def heldout_loss(self) -> float:
        """Mean loss of the held-out frames of all scans, by the weights that count in the end."""
        total, shapes = 0.0, [groups and self.canvases.of([groups]) for groups in self.data.heldout]
        values = {name: tf.constant(value) for name, value in self.values().items()}
        for batch in tensors(self.data, self.data.heldout_batches(), self.num_workers):
            scan = int(batch["scan"])
            divisor = tf.constant(self.network.mean_counts[scan], tf.float32)
            with tf.device(self.devices[0]):
                total += float(self.network.loss(values, batch, shapes[scan], divisor))
        return total / self.n_heldout

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Parameters, average and moments."""
        kinds = {"parameter": self._current(), "average": self.average or {}, "optimizer": self.optimizer.state()}
        return {f"{kind}.{name}": value for kind, values in kinds.items() for name, value in values.items()}

    def take(self, arrays: Mapping[str, NDArray[Any]], steps: int) -> None:
        """Go on from them."""
        kinds: dict[str, dict[str, NDArray[Any]]] = {"parameter": {}, "average": {}, "optimizer": {}, "best": {}}
        for name, value in arrays.items():
            kind, _, rest = name.partition(".")
            kinds[kind][rest] = value
        self.optimizer.restore(kinds["optimizer"], steps)
        for name, variable in self.network.parameters.items():
            variable.assign(kinds["parameter"][name])
        self.average = kinds["average"] or None


def _part(batch: Mapping[str, tf.Tensor], start: int, stop: int) -> dict[str, tf.Tensor]:
    """Some groups of a batch, without what only the reader needs."""
    return {name: batch[name][start:stop] for name in ("counts", "corners_px", "subpixel_px")} | {"scan": batch["scan"]}
