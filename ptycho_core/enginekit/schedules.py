"""Learning-rate schedules: one formula for all engines, so that the same config gives the same steps."""

from __future__ import annotations

import math

from ..errors import ConfigError

__all__ = ["learning_rate_factor"]

_WARM_UP = 0.25
_START = 1 / 25
_END = 1e-4
_EXPONENTIAL_END = 1e-2


def learning_rate_factor(schedule: str, step: int, total: int) -> float:
    """Learning rate of a step as a fraction of its peak.

    ``one_cycle`` rises from 1/25 along a half cosine over the first quarter and falls to 1e-4 along another;
    ``cosine`` falls from 1 to 1e-4; ``exponential`` falls from 1 to 1/100; ``constant`` is 1.

    Args:
        schedule: name.
        step: number of the optimiser step, 0 … total − 1; later ones get the last value.
        total: optimiser steps in all.

    Raises:
        ConfigError: unknown schedule.
    """
    done = min(max(step, 0) / max(total - 1, 1), 1.0)
    if schedule == "constant":
        return 1.0
    if schedule == "exponential":
        return math.pow(_EXPONENTIAL_END, done)
    if schedule == "cosine":
        return _END + (1 - _END) * (1 + math.cos(math.pi * done)) / 2
    if schedule == "one_cycle":
        if done < _WARM_UP:
            return _START + (1 - _START) * (1 - math.cos(math.pi * done / _WARM_UP)) / 2
        fall = (done - _WARM_UP) / (1 - _WARM_UP)
        return _END + (1 - _END) * (1 + math.cos(math.pi * fall)) / 2
    raise ConfigError(f"schedule = {schedule!r}; allowed: one_cycle, cosine, exponential, constant.")
