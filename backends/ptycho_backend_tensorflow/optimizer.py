"""AdamW, stepping exactly as PyTorch's does, with TensorFlow's own fused kernel.

Keras has an AdamW too, but adds ε before its bias correction instead of after, which makes small steps differ; and what
Keras computes with is chosen by an environment variable (docs/decisions/0015).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from .tracing import traced

__all__ = ["AdamW", "ParameterGroup"]

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate.

    Attributes:
        names: of the parameters.
        learning_rate: peak.
        weight_decay: decoupled.
        clip_norm: largest norm of the gradient of all of them, or None.
    """

    names: tuple[str, ...]
    learning_rate: float
    weight_decay: float = 0.0
    clip_norm: float | None = None


class AdamW:
    """Adam with decoupled weight decay.

    Args:
        parameters: name → variable; those in no group stay as they are.
        groups: which ones are trained, and how fast.
    """

    def __init__(self, parameters: Mapping[str, tf.Variable], groups: Sequence[ParameterGroup]) -> None:
        self.parameters, self.groups = parameters, tuple(groups)
        self.names = tuple(name for group in groups for name in group.names)
        self.steps = 0
        zeros = {name: tf.zeros_like(parameters[name]) for name in self.names}
        self.first = {name: tf.Variable(value) for name, value in zeros.items()}
        self.second = {name: tf.Variable(value) for name, value in zeros.items()}
        self._step = traced(self._apply)

    def step(self, gradients: Mapping[str, tf.Tensor], factor: float) -> None:
        """Take a step.

        Args:
            gradients: name → gradient of every trained parameter.
            factor: of the learning rates, from the schedule.
        """
        self.steps += 1
        powers = [tf.constant(beta**self.steps, tf.float32) for beta in (_BETA1, _BETA2)]
        # the kernel adds ε to √v before its bias correction: this puts it after
        epsilon = tf.constant(_EPSILON * math.sqrt(1 - _BETA2**self.steps), tf.float32)
        rates = [tf.constant(group.learning_rate * factor, tf.float32) for group in self.groups]
        self._step([gradients[name] for name in self.names], rates, *powers, epsilon)

    def _apply(
        self,
        gradients: list[tf.Tensor],
        rates: list[tf.Tensor],
        beta1_power: tf.Tensor,
        beta2_power: tf.Tensor,
        epsilon: tf.Tensor,
    ) -> None:
        by_name = dict(zip(self.names, gradients, strict=True))
        for group, rate in zip(self.groups, rates, strict=True):
            own = [by_name[name] for name in group.names]
            if group.clip_norm is not None:
                own, _ = tf.clip_by_global_norm(own, group.clip_norm)
            for name, gradient in zip(group.names, own, strict=True):
                variable = self.parameters[name]
                if group.weight_decay:
                    variable.assign_sub(variable * (rate * group.weight_decay))
                tf.raw_ops.ResourceApplyAdam(
                    var=variable.handle, m=self.first[name].handle, v=self.second[name].handle,
                    beta1_power=beta1_power, beta2_power=beta2_power, lr=rate, beta1=_BETA1, beta2=_BETA2,
                    epsilon=epsilon, grad=gradient,
                )  # fmt: skip

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Moments of every trained parameter, by name."""
        moments = {"first": self.first, "second": self.second}
        return {f"{kind}.{name}": v.numpy() for kind, values in moments.items() for name, v in values.items()}

    def restore(self, state: Mapping[str, NDArray[np.float32]], steps: int) -> None:
        """Take up the moments and the number of steps."""
        for kind, values in (("first", self.first), ("second", self.second)):
            for name, variable in values.items():
                variable.assign(state[f"{kind}.{name}"])
        self.steps = steps
