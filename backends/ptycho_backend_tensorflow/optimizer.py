"""AdamW, stepping exactly as PyTorch's does, with TensorFlow's own fused kernel.

Keras has an AdamW too, but adds ε before its bias correction instead of after, which makes small steps differ; and what
Keras computes with is chosen by an environment variable (docs/decisions/0015).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

    Attributes:
        steps: steps taken, those of a group alone included.
    """

    def __init__(self, parameters: Mapping[str, tf.Variable], groups: Sequence[ParameterGroup]) -> None:
        self.parameters, self.groups, self.steps = parameters, tuple(groups), 0
        zeros = {name: tf.zeros_like(parameters[name]) for group in groups for name in group.names}
        self.first = {name: tf.Variable(value) for name, value in zeros.items()}
        self.second = {name: tf.Variable(value) for name, value in zeros.items()}
        self._steps = [0] * len(self.groups)
        self._apply = [traced(functools.partial(self._applied, group)) for group in self.groups]

    def step(self, gradients: Mapping[str, tf.Tensor], factor: float) -> None:
        """Take a step with the groups that there are gradients for; the others stay as if nothing had been.

        Args:
            gradients: name → gradient of every parameter of the groups that take part.
            factor: of the learning rates, from the schedule.
        """
        self.steps += 1
        for number, group in enumerate(self.groups):
            if group.names[0] not in gradients:
                continue
            self._steps[number] += 1
            steps = self._steps[number]
            powers = [tf.constant(beta**steps, tf.float32) for beta in (_BETA1, _BETA2)]
            # the kernel adds ε to √v before its bias correction: this puts it after
            epsilon = tf.constant(_EPSILON * math.sqrt(1 - _BETA2**steps), tf.float32)
            rate = tf.constant(group.learning_rate * factor, tf.float32)
            self._apply[number]([gradients[name] for name in group.names], rate, *powers, epsilon)

    def _applied(
        self,
        group: ParameterGroup,
        gradients: list[tf.Tensor],
        rate: tf.Tensor,
        beta1_power: tf.Tensor,
        beta2_power: tf.Tensor,
        epsilon: tf.Tensor,
    ) -> None:
        if group.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, group.clip_norm)
        for name, gradient in zip(group.names, gradients, strict=True):
            variable = self.parameters[name]
            if group.weight_decay:
                variable.assign_sub(variable * (rate * group.weight_decay))
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=self.first[name].handle, v=self.second[name].handle,
                beta1_power=beta1_power, beta2_power=beta2_power, lr=rate, beta1=_BETA1, beta2=_BETA2,
                epsilon=epsilon, grad=gradient,
            )  # fmt: skip

    def state(self) -> dict[str, NDArray[Any]]:
        """Moments of every trained parameter, by name, and the steps (n_groups,) int64 of each group."""
        moments = {"first": self.first, "second": self.second}
        state = {f"{kind}.{name}": v.numpy() for kind, values in moments.items() for name, v in values.items()}
        return {**state, "steps": np.array(self._steps, np.int64)}

    def restore(self, state: Mapping[str, NDArray[Any]], steps: int) -> None:
        """Take up the moments and the number of steps, of each group and in all."""
        for kind, values in (("first", self.first), ("second", self.second)):
            for name, variable in values.items():
                variable.assign(state[f"{kind}.{name}"])
        self._steps = [int(n) for _, n in zip(self.groups, state["steps"], strict=True)]
        self.steps = steps
