"""Learning-rate schedules at the points that define them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ptycho_core.config import SCHEDULES
from ptycho_core.enginekit.schedules import learning_rate_factor
from ptycho_core.errors import ConfigError


def trace(schedule: str, total: int) -> list[float]:
    return [learning_rate_factor(schedule, step, total) for step in range(total)]


def test_one_cycle_rises_for_a_quarter_and_falls():
    factors = trace("one_cycle", 101)
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[25] == pytest.approx(1.0)
    assert factors[100] == pytest.approx(1e-4)
    assert all(b > a for a, b in pairwise(factors[:26]))
    assert all(b < a for a, b in pairwise(factors[25:]))
    # half cosines: the middle of a rise or a fall is half way
    assert learning_rate_factor("one_cycle", 25, 201) == pytest.approx((1 / 25 + 1) / 2)
    assert learning_rate_factor("one_cycle", 125, 201) == pytest.approx((1 + 1e-4) / 2)


def test_cosine():
    factors = trace("cosine", 41)
    assert factors[0] == 1.0
    assert factors[20] == pytest.approx((1 + 1e-4) / 2)
    assert factors[10] == pytest.approx(1e-4 + (1 - 1e-4) * (1 + np.sqrt(0.5)) / 2)
    assert factors[40] == pytest.approx(1e-4)


def test_exponential():
    factors = np.array(trace("exponential", 11))
    assert factors[0] == 1.0
    assert factors[-1] == pytest.approx(0.01)
    np.testing.assert_allclose(factors[1:] / factors[:-1], 0.01**0.1, rtol=1e-12)


def test_constant():
    assert set(trace("constant", 7)) == {1.0}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_accepted_schedule_is_known_and_never_zero(schedule):
    for total in (1, 2, 3, 17):
        factors = trace(schedule, total)
        assert all(0 < factor <= 1 for factor in factors)
        # a step past the end, as a resumed training may ask for, keeps the last value
        assert learning_rate_factor(schedule, total + 5, total) == pytest.approx(factors[-1], abs=1e-12) or total == 1
        assert learning_rate_factor(schedule, -1, total) == factors[0]


def test_unknown_schedule():
    with pytest.raises(ConfigError, match="schedule = 'step'; allowed: one_cycle, cosine, exponential, constant"):
        learning_rate_factor("step", 0, 10)
