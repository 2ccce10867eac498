"""The trained parameters and their loss: variables and calls to ``physics``, and no formula of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import Statistics
from ptycho_core.networks.architectures import initial_weights

from . import physics
from .generators import GENERATORS
from .hardware import Hardware
from .optimizer import ParameterGroup
from .sweeps import group_estimate, group_passes
from .tracing import traced

__all__ = ["PtychoNetwork", "complex_probe", "constant"]

_GENERATOR = "generator."


def constant(array: NDArray[np.generic] | None) -> tf.Tensor | None:
    """An optional array of a scan as a tensor."""
    return None if array is None else tf.constant(array)


def complex_probe(parts: tf.Tensor) -> tf.Tensor:
    """Real parts (..., 2), which every optimiser understands, as a complex array."""
    return tf.complex(parts[..., 0], parts[..., 1])


class PtychoNetwork:
    """Generator, probe and intensity scale, trained through the forward model.

    Parameters go in and out of its functions as values, so that these run on any device.

    Args:
        config: the training config.
        probe: (P, N, N) complex64 to start from.
        statistics: of the training split.
        mask: (N, N) bool, True = good, or None.
        background: (N, N) float32 expected counts, or None.
        hardware: where to work.

    Attributes:
        parameters: name → variable; those of the generator are called ``generator.`` and their canonical name.
    """

    def __init__(
        self,
        config: TrainingConfig,
        probe: NDArray[np.complex64],
        statistics: Statistics,
        mask: NDArray[np.bool_] | None,
        background: NDArray[np.float32] | None,
        hardware: Hardware,
    ) -> None:
        N = probe.shape[-1]
        self.config, self.statistics, self.low_precision = config, statistics, hardware.low_precision
        self.generator = GENERATORS[config.model.generator](config, N)
        values: dict[str, NDArray[np.float32]] = {
            _GENERATOR + name: value for name, value in initial_weights(config, N).items()
        }
        values["probe"] = np.stack([probe.real, probe.imag], axis=-1)
        values["log_scale"] = np.float32(math.log(statistics.scale))
        self.parameters = {name: tf.Variable(value, dtype=tf.float32) for name, value in values.items()}
        self.mask, self.background = constant(mask), constant(background)
        self.trained = tuple(name for group in self.groups() for name in group.names)
        self._estimate = traced(self._group_estimate, compiled=hardware.compile_sweeps)
        self._plain = traced(self._gradients)
        self._compiled = traced(self._gradients, compiled=True)
        self._compile = hardware.compile_network
        self.loss = traced(self._loss)

    def gradients(
        self,
        values: Mapping[str, tf.Tensor],
        batch: Mapping[str, tf.Tensor],
        shape: tuple[int, int],
        divisor: tf.Tensor,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
        """Loss of a batch, its gradient for every trained parameter, and how much the object varies.

        Args:
            values: name → value of every parameter.
            batch: groups of one device; one that is shorter than others is not worth compiling for.
            shape: of all canvases.
            divisor: of the loss.
        """
        whole = batch["counts"].shape[0] == self.config.batch_size
        return (self._compiled if self._compile and whole else self._plain)(values, batch, shape, divisor)

    def groups(self) -> list[ParameterGroup]:
        """Network, probe and scale with a learning rate each; only the network is decayed and clipped."""
        config = self.config
        network = tuple(name for name in self.parameters if name.startswith(_GENERATOR))
        groups = [ParameterGroup(network, config.learning_rate, config.weight_decay, config.gradient_clip_norm)]
        if config.probe_trainable:
            # the root mean square of the probe, |P|² being the sum of the squares of its two parts
            size = math.sqrt(2 * float(np.mean(np.square(self.parameters["probe"].numpy()))))
            groups.append(ParameterGroup(("probe",), config.probe_learning_rate * size))
        if config.scale_trainable:
            groups.append(ParameterGroup(("log_scale",), config.scale_learning_rate))
        return groups

    def generator_weights(self, values: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The generator's own among some values, by canonical name."""
        return {name.removeprefix(_GENERATOR): v for name, v in values.items() if name.startswith(_GENERATOR)}

    def _shifted(self, values: Mapping[str, tf.Tensor], subpixel_px: tf.Tensor) -> tf.Tensor:
        return physics.fourier_shift(complex_probe(values["probe"]), subpixel_px[..., None, :])

    def _group_estimate(
        self, values: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor], shape: tuple[int, int]
    ) -> tf.Tensor:
        """What the solver makes of each group before the network sees it; no gradient flows here."""
        shifted = self._shifted(values, batch["subpixel_px"])
        scale, weights = tf.exp(values["log_scale"]), physics.mode_intensity(shifted)
        estimate = group_estimate(
            batch["counts"], shifted, weights, batch["corners_px"], shape, scale, self.mask, self.background,
            self.generator.sweeps,
        )  # fmt: skip
        return tf.stop_gradient(estimate)

    def _rate(
        self,
        values: Mapping[str, tf.Tensor],
        batch: Mapping[str, tf.Tensor],
        shape: tuple[int, int],
        estimate: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """λ (B, C, N, N) through the merged object of each group, and the patches that the groups agree on."""
        shifted, scale = self._shifted(values, batch["subpixel_px"]), tf.exp(values["log_scale"])
        fixed = tf.stop_gradient(shifted)
        weights = physics.mode_intensity(fixed)
        network, known = self.generator_weights(values), (tf.stop_gradient(scale), self.mask, self.background)

        def one(estimate: tf.Tensor) -> tf.Tensor:
            return self.generator(network, estimate, batch["counts"], fixed, *known, self.low_precision)

        patches = group_passes(one, estimate, weights, batch["corners_px"], shape, self.generator.passes)
        canvas = physics.merge(patches, weights, batch["corners_px"], shape)
        agreed = physics.extract(canvas, batch["corners_px"], batch["counts"].shape[-1])
        return physics.rate_of_waves(shifted * agreed[..., None, :, :], scale, self.background), agreed

    def _loss(
        self,
        values: Mapping[str, tf.Tensor],
        batch: Mapping[str, tf.Tensor],
        shape: tuple[int, int],
        divisor: tf.Tensor,
    ) -> tf.Tensor:
        """Loss of a batch on canvases of a shape."""
        rate, _ = self._rate(values, batch, shape, self._estimate(values, batch, shape))
        return physics.LOSSES[self.config.loss](rate, batch["counts"], self.mask, divisor)

    def _gradients(
        self,
        values: Mapping[str, tf.Tensor],
        batch: Mapping[str, tf.Tensor],
        shape: tuple[int, int],
        divisor: tf.Tensor,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
        estimate = self._estimate(values, batch, shape)
        trained = {name: values[name] for name in self.trained}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            rate, patches = self._rate(values, batch, shape, estimate)
            loss = physics.LOSSES[self.config.loss](rate, batch["counts"], self.mask, divisor)
        gradients = tape.gradient(loss, trained, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, gradients, self._variation(values, patches)

    def _variation(self, values: Mapping[str, tf.Tensor], patches: tf.Tensor) -> tf.Tensor:
        """How much the object varies where the probe lights it, relative to its size."""
        weight = physics.mode_intensity(complex_probe(values["probe"]))
        weight = weight / tf.reduce_sum(weight)
        mean = tf.reduce_mean(tf.reduce_sum(physics.times(patches, weight), axis=(-2, -1)))
        spread = tf.reduce_mean(tf.reduce_sum(weight * tf.square(tf.abs(patches - mean)), axis=(-2, -1)))
        return tf.sqrt(spread / tf.maximum(tf.square(tf.abs(mean)), 1e-12))
