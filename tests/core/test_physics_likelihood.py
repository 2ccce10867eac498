"""Losses, hand-written gradients and the sampling of counts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from physics_problem import Problem, complex_noise, make_problem
from scipy.stats import poisson

from ptycho_core.errors import ConfigError
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.likelihood import (
    RATE_FLOOR,
    amplitude_loss,
    loss_and_gradient,
    poisson_loss,
    sample_counts,
)
from ptycho_core.physics.patches import extract

DIVISOR = 37.0


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem()


def evaluate(p: Problem, loss: str) -> tuple[float, Any, Any, float]:
    return loss_and_gradient(p.obj, p.probe, p.corners, p.rest, p.counts, loss, p.mask, p.background, p.scale, DIVISOR)


def moved(p: Problem, field: str, direction: Any, step: float) -> Problem:
    return replace(p, **{field: getattr(p, field) + step * direction})


@pytest.mark.spec("FM-10", "CONV-5")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@pytest.mark.parametrize("field", ["obj", "probe", "scale"])
def test_gradients_agree_with_finite_differences(problem: Problem, loss: str, field: str) -> None:
    rng = np.random.default_rng(5)
    gradient = dict(zip(("obj", "probe", "scale"), evaluate(problem, loss)[1:], strict=True))[field]
    for _ in range(3):
        direction: Any = 1.0 if field == "scale" else complex_noise(rng, *getattr(problem, field).shape)
        step = 1e-5
        up, down = (evaluate(moved(problem, field, direction, s), loss)[0] for s in (step, -step))
        # dL = Re⟨∂L/∂Re + i ∂L/∂Im, direction⟩
        predicted = np.vdot(gradient, direction).real
        assert (up - down) / (2 * step) == pytest.approx(predicted, rel=1e-6)


@pytest.mark.spec("FM-10", "CONV-5")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_a_small_step_along_minus_gradient_lowers_the_loss_as_predicted(problem: Problem, loss: str) -> None:
    value, d_obj, d_probe, _ = evaluate(problem, loss)
    step = 1e-7
    lower = evaluate(replace(problem, obj=problem.obj - step * d_obj, probe=problem.probe - step * d_probe), loss)[0]
    decrease = step * (np.sum(np.abs(d_obj) ** 2) + np.sum(np.abs(d_probe) ** 2))
    assert value - lower == pytest.approx(decrease, rel=1e-2)


@pytest.mark.spec("FM-10")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_bad_pixels_have_no_say(problem: Problem, loss: str) -> None:
    counts = problem.counts.copy()
    counts[:, ~problem.mask] = 1e5
    for given, wanted in zip(evaluate(replace(problem, counts=counts), loss), evaluate(problem, loss), strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-12)
    everywhere = evaluate(replace(problem, counts=counts, mask=np.ones_like(problem.mask)), loss)
    assert abs(everywhere[0] - evaluate(problem, loss)[0]) > 1


@pytest.mark.spec("FM-10")
def test_pixels_that_nobody_lights_get_no_gradient(problem: Problem) -> None:
    obj = np.pad(problem.obj, ((2, 0), (0, 3)), constant_values=1)
    wide = replace(problem, obj=obj, corners=problem.corners + np.array([2, 0]))
    d_obj = evaluate(wide, "poisson")[1]
    np.testing.assert_allclose(d_obj[2:, :-3], evaluate(problem, "poisson")[1], rtol=1e-12)
    np.testing.assert_array_equal(d_obj[:2], 0)
    np.testing.assert_array_equal(d_obj[:, -3:], 0)


@pytest.mark.spec("FM-8", "FM-9", "FM-10")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_the_value_is_the_loss_of_the_expected_counts(problem: Problem, loss: str) -> None:
    rate = expected_counts(
        extract(problem.obj, problem.corners, 16), problem.probe, problem.rest, problem.scale, problem.background
    )
    function = {"poisson": poisson_loss, "amplitude": amplitude_loss}[loss]
    assert evaluate(problem, loss)[0] == pytest.approx(function(rate, problem.counts, problem.mask, DIVISOR), rel=1e-12)


@pytest.mark.spec("FM-8")
def test_poisson_loss_is_the_log_likelihood_up_to_a_constant_of_the_data(rng: np.random.Generator) -> None:
    counts = rng.poisson(3.0, size=(2, 4, 4)).astype(float)
    counts[0, 0, 0] = 0
    rates = [rng.uniform(0.5, 6, size=counts.shape) for _ in range(2)]
    values = [poisson_loss(rate, counts, None, 2.0) for rate in rates]
    logs = [-poisson.logpmf(counts, rate).sum() / 2.0 for rate in rates]
    assert values[0] - values[1] == pytest.approx(logs[0] - logs[1], rel=1e-10)


@pytest.mark.spec("FM-9")
def test_amplitude_loss_by_hand() -> None:
    rate, counts = np.array([[[4.0, 9.0]]]), np.array([[[9.0, 1.0]]])
    assert amplitude_loss(rate, counts, None, 2.0) == pytest.approx((1 + 4) / 2)
    assert amplitude_loss(rate, counts, np.array([[True, False]]), 2.0) == pytest.approx(1 / 2)


@pytest.mark.spec("FM-8", "FM-9")
def test_rates_are_clamped_so_that_losses_stay_finite() -> None:
    rate, counts = np.zeros((1, 2, 2)), np.full((1, 2, 2), 3.0)
    assert poisson_loss(rate, counts, None, 1.0) == pytest.approx(4 * (RATE_FLOOR - 3 * math.log(1e-8)))
    assert amplitude_loss(rate, counts, None, 1.0) == pytest.approx(4 * (math.sqrt(3) - 1e-4) ** 2)


@pytest.mark.spec("FM-10")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@pytest.mark.parametrize("factor", [0.0, 1e-7])
def test_clamped_pixels_have_a_zero_gradient(problem: Problem, loss: str, factor: float) -> None:
    _, d_obj, d_probe, d_scale = loss_and_gradient(
        factor * problem.obj, problem.probe, problem.corners, problem.rest, problem.counts, loss
    )
    assert np.isfinite(d_obj).all()
    np.testing.assert_array_equal(d_obj, 0)
    np.testing.assert_array_equal(d_probe, 0)
    assert d_scale == 0


@pytest.mark.spec("CONV-9")
def test_an_unknown_loss_is_refused(problem: Problem) -> None:
    with pytest.raises(ConfigError, match="loss = 'mae'; allowed: poisson, amplitude"):
        evaluate(problem, "mae")


@pytest.mark.spec("FM-18", "CONV-7")
def test_counts_follow_poissons_law_and_the_generator() -> None:
    rate = np.array([0.2, 3.0, 50.0, 4000.0])
    draws = sample_counts(np.broadcast_to(rate, (40_000, 4)), np.random.default_rng(1))
    assert draws.dtype == np.float32
    np.testing.assert_array_equal(draws, np.round(draws))
    assert (draws >= 0).all()
    mean, variance = draws.mean(axis=0, dtype=float), draws.var(axis=0, dtype=float)
    np.testing.assert_allclose(mean, rate, atol=5 * np.sqrt(rate / 40_000).max(), rtol=0.03)
    np.testing.assert_allclose(variance / rate, 1.0, atol=0.05)
    again = sample_counts(np.broadcast_to(rate, (40_000, 4)), np.random.default_rng(1))
    np.testing.assert_array_equal(draws, again)
    other = sample_counts(np.broadcast_to(rate, (40_000, 4)), np.random.default_rng(2))
    assert (draws != other).any()
