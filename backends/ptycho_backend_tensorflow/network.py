"""The trained parameters and their loss: variables and calls to ``physics``, and no formula of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.propagation import Propagation
from ptycho_core.enginekit.passes import learned_passes
from ptycho_core.enginekit.weights import initial_weights, network_of

from . import physics
from .generators import build
from .hardware import Hardware
from .optimizer import ParameterGroup
from .sweeps import group_agreed, group_estimate
from .tracing import traced

__all__ = ["Known", "PtychoNetwork", "complex_probe", "constant"]

_GENERATOR = "generator."


def constant(array: NDArray[np.generic] | None) -> tf.Tensor | None:
    """An optional array of a scan as a tensor."""
    return None if array is None else tf.constant(array)


def complex_probe(parts: tf.Tensor) -> tf.Tensor:
    """Real parts (..., 2), which every optimiser understands, as a complex array."""
    return tf.complex(parts[..., 0], parts[..., 1])


class Known(NamedTuple):
    """What a scan brings to the forward model and training leaves alone.

    Attributes:
        mask: (N, N) bool, True = good, or None.
        background: (N, N) float32 expected counts, or None.
        propagation: from the object to the detector; each has traces of its own.
    """

    mask: tf.Tensor | None
    background: tf.Tensor | None
    propagation: Propagation


class PtychoNetwork:
    """A generator, and the probe and intensity scale of each scan, trained through the forward model.

    Parameters go in and out of its functions as values, so that these run on any device. Probes and scales are
    parameters of their own, so that a step with one scan moves nothing of another: to an optimiser with momentum, a
    gradient of zero is not the same as none.

    Args:
        config: the training config.
        scans: those that are trained on, then those that only add to the held-out loss; these are of the experiment
            of the first and use its probe and scale.
        n_trained: how many are trained on.
        hardware: where to work.

    Attributes:
        parameters: name → variable; those of the generator are called ``generator.`` and their canonical name, those
            of scan 2 ``probes.2`` (P, N, N, 2) and ``log_scales.2`` ().
        mean_counts: the divisor of each scan's loss.
    """

    def __init__(
        self, config: TrainingConfig, scans: Sequence[PtychoDataContainer], n_trained: int, hardware: Hardware
    ) -> None:
        N = scans[0].raw.side
        self.config, self.low_precision = config, hardware.low_precision
        self.generator, network = build(config, N), network_of(config.network)
        self.sweeps, self.passes = network.sweeps, network.passes
        values: dict[str, NDArray[np.float32]] = {
            _GENERATOR + name: value for name, value in initial_weights(config, N).items()
        }
        for number, scan in enumerate(scans[:n_trained]):
            values[f"probes.{number}"] = np.stack([scan.probe.real, scan.probe.imag], axis=-1)
            values[f"log_scales.{number}"] = np.float32(math.log(scan.statistics.scale))
        self.parameters = {name: tf.Variable(value, dtype=tf.float32) for name, value in values.items()}
        self.n_trained = n_trained
        self.mean_counts = tuple(scan.statistics.mean_counts for scan in scans)
        raws = [scan.raw for scan in scans]
        self._known = [Known(constant(raw.mask), constant(raw.background), raw.propagation) for raw in raws]
        self._estimate = traced(self._group_estimate, compiled=hardware.compile_sweeps)
        self._plain = traced(self._gradients)
        self._compiled = traced(self._gradients, compiled=True)
        self._compile = hardware.compile_network
        self._whole_loss = traced(self._loss)

    def _of_scan(
        self, values: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> tuple[int, dict[str, tf.Tensor], Known, dict[str, tf.Tensor]]:
        """Whose probe and scale a batch uses, values by the names they have for any scan, constants, and its groups.

        With names and shapes that do not tell the scan, one trace serves all.
        """
        scan = int(batch["scan"])
        own = scan if scan < self.n_trained else 0
        named = {name: value for name, value in values.items() if name.startswith(_GENERATOR)}
        named |= {"probe": values[f"probes.{own}"], "log_scale": values[f"log_scales.{own}"]}
        return own, named, self._known[scan], {name: batch[name] for name in ("counts", "corners_px", "subpixel_px")}

    def gradients(
        self,
        values: Mapping[str, tf.Tensor],
        batch: Mapping[str, tf.Tensor],
        shape: tuple[int, int],
        divisor: tf.Tensor,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
        """Loss of a batch, its gradient for each parameter that it trains, and how much the object varies.

        Args:
            values: name → value of every parameter.
            batch: groups of one device and the number of their ``scan``; one that is shorter than others is not worth
                compiling for.
            shape: of all canvases.
            divisor: of the loss.
        """
        own, named, known, groups = self._of_scan(values, batch)
        whole = batch["counts"].shape[0] == self.config.batch_size
        answer = self._compiled if self._compile and whole else self._plain
        loss, gradients, variation = answer(named, known, groups, shape, divisor)
        scan_s = {"probe": f"probes.{own}", "log_scale": f"log_scales.{own}"}
        return loss, {scan_s.get(name, name): value for name, value in gradients.items()}, variation

    def loss(
        self,
        values: Mapping[str, tf.Tensor],
        batch: Mapping[str, tf.Tensor],
        shape: tuple[int, int],
        divisor: tf.Tensor,
    ) -> tf.Tensor:
        """Loss of the ``counted`` frames (b, C) of a batch; other arguments as in :meth:`gradients`."""
        _, named, known, groups = self._of_scan(values, batch)
        return self._whole_loss(named, known, groups, shape, divisor, batch["counted"])

    def groups(self) -> list[ParameterGroup]:
        """Network, each probe and each scale with a learning rate; only the network is decayed and clipped."""
        config = self.config
        network = tuple(name for name in self.parameters if name.startswith(_GENERATOR))
        groups = [ParameterGroup(network, config.learning_rate, config.weight_decay, config.gradient_clip_norm)]
        for number in range(self.n_trained):
            if config.probe_trainable:
                # the root mean square of the probe, |P|² being the sum of the squares of its two parts
                size = math.sqrt(2 * float(np.mean(np.square(self.parameters[f"probes.{number}"].numpy()))))
                groups.append(ParameterGroup((f"probes.{number}",), config.probe_learning_rate * size))
            if config.scale_trainable:
                groups.append(ParameterGroup((f"log_scales.{number}",), config.scale_learning_rate))
        return groups

    def generator_weights(self, values: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The generator's own among some values, by canonical name."""
        return {name.removeprefix(_GENERATOR): v for name, v in values.items() if name.startswith(_GENERATOR)}

    def _shifted(self, values: Mapping[str, tf.Tensor], subpixel_px: tf.Tensor) -> tf.Tensor:
        return physics.fourier_shift(complex_probe(values["probe"]), subpixel_px[..., None, :])

    def _group_estimate(
        self, values: Mapping[str, tf.Tensor], known: Known, batch: Mapping[str, tf.Tensor], shape: tuple[int, int]
    ) -> tf.Tensor:
        """What the solver makes of each group before the network sees it; no gradient flows here."""
        shifted = self._shifted(values, batch["subpixel_px"])
        scale, weights = tf.exp(values["log_scale"]), physics.mode_intensity(shifted)
        estimate = group_estimate(
            batch["counts"], shifted, weights, batch["corners_px"], shape, scale, *known, self.sweeps
        )
        return tf.stop_gradient(estimate)

    def _rate(
        self,
        values: Mapping[str, tf.Tensor],
        known: Known,
        batch: Mapping[str, tf.Tensor],
        shape: tuple[int, int],
        estimate: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """λ (B, C, N, N) through the merged object of each group, and the patches that the groups agree on."""
        shifted, scale = self._shifted(values, batch["subpixel_px"]), tf.exp(values["log_scale"])
        fixed = tf.stop_gradient(shifted)
        weights = physics.mode_intensity(fixed)
        network, fixed_scale = self.generator_weights(values), tf.stop_gradient(scale)

        def one(estimate: tf.Tensor) -> tf.Tensor:
            return self.generator(network, estimate, batch["counts"], fixed, fixed_scale, *known, self.low_precision)

        def agree(patches: tf.Tensor) -> tf.Tensor:
            return group_agreed(patches, weights, batch["corners_px"], shape)

        agreed = agree(learned_passes(one, agree, estimate, self.passes))
        waves = shifted * agreed[..., None, :, :]
        return physics.rate_of_waves(waves, scale, known.background, known.propagation), agreed

    def _loss(
        self,
        values: Mapping[str, tf.Tensor],
        known: Known,
        batch: Mapping[str, tf.Tensor],
        shape: tuple[int, int],
        divisor: tf.Tensor,
        counted: tf.Tensor,
    ) -> tf.Tensor:
        """Loss of the counted frames of a batch on canvases of a shape."""
        rate, _ = self._rate(values, known, batch, shape, self._estimate(values, known, batch, shape))
        mask = counted[..., None, None]
        mask = mask if known.mask is None else mask & known.mask
        return physics.LOSSES[self.config.loss](rate, batch["counts"], mask, divisor)

    def _gradients(
        self,
        values: Mapping[str, tf.Tensor],
        known: Known,
        batch: Mapping[str, tf.Tensor],
        shape: tuple[int, int],
        divisor: tf.Tensor,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
        estimate = self._estimate(values, known, batch, shape)
        wanted = {"probe": self.config.probe_trainable, "log_scale": self.config.scale_trainable}
        trained = {name: value for name, value in values.items() if wanted.get(name, True)}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            rate, patches = self._rate(values, known, batch, shape, estimate)
            loss = physics.LOSSES[self.config.loss](rate, batch["counts"], known.mask, divisor)
        gradients = tape.gradient(loss, trained, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, gradients, self._variation(values, patches)

    def _variation(self, values: Mapping[str, tf.Tensor], patches: tf.Tensor) -> tf.Tensor:
        """How much the object varies where the probe lights it, relative to its size."""
        return physics.relative_variation(patches, physics.mode_intensity(complex_probe(values["probe"])))
