"""Steps over curvature, pinned by closed forms and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from physics_problem import Problem, make_problem

from ptycho_core.physics.forward import expected_counts, fourier_shift
from ptycho_core.physics.likelihood import amplitude_loss, loss_and_gradient, poisson_loss
from ptycho_core.physics.patches import accumulate, extract
from ptycho_core.physics.propagation import far_field, far_field_adjoint
from ptycho_core.physics.steps import (
    CURVATURE,
    STEP_DAMPING,
    expected_total,
    illumination,
    least_squares_length,
    object_step,
    position_gradient,
    position_step,
    probe_step,
    shift_slope,
)

LOSSES = {"poisson": poisson_loss, "amplitude": amplitude_loss}


@pytest.fixture
def problem() -> Problem:
    return make_problem()


def known(problem: Problem, loss: str) -> tuple[Any, ...]:
    return (problem.counts, loss, problem.mask, problem.background, problem.scale, 7.0)


@pytest.mark.spec("FM-19")
def test_the_slope_of_a_shift_is_that_of_finite_differences(problem: Problem) -> None:
    found = shift_slope(problem.probe, problem.rest)
    assert found.shape == (6, 2, 2, 16, 16)
    h = 1e-5
    for axis in (0, 1):
        step = np.zeros(2)
        step[axis] = h
        ahead = fourier_shift(problem.probe[None], (problem.rest + step)[:, None])
        behind = fourier_shift(problem.probe[None], (problem.rest - step)[:, None])
        np.testing.assert_allclose(found[:, axis], (ahead - behind) / (2 * h), atol=1e-7)


@pytest.mark.spec("FM-19")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_the_slope_in_a_position_is_that_of_finite_differences(problem: Problem, loss: str) -> None:
    found = position_gradient(problem.obj, problem.probe, problem.corners, problem.rest, *known(problem, loss))
    patches, h = extract(problem.obj, problem.corners, 16), 1e-5
    for frame, axis in [(0, 0), (1, 1), (2, 0), (5, 1)]:
        values = []
        for sign in (1, -1):
            rest = problem.rest.astype(np.float64)
            rest[frame, axis] += sign * h
            rate = expected_counts(patches, problem.probe, rest, problem.scale, problem.background)
            values.append(LOSSES[loss](rate, problem.counts, problem.mask, 7.0))
        assert found[frame, axis] == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5, abs=1e-6)


@pytest.mark.spec("FM-21")
def test_light_is_the_probe_at_every_corner(problem: Problem) -> None:
    intensity = np.abs(problem.probe[0]) ** 2 + np.abs(problem.probe[1]) ** 2
    shape = problem.obj.shape
    expected = accumulate(np.repeat(intensity[None], 6, axis=0), problem.corners, shape)
    np.testing.assert_allclose(illumination(problem.probe, problem.corners, shape), expected, rtol=1e-12)
    assert illumination(problem.probe.astype(np.complex64), problem.corners, shape).dtype == np.float32


@pytest.mark.spec("FM-21")
def test_what_is_expected_together_is_the_light_on_the_object(problem: Problem) -> None:
    """By Parseval, exactly on whole pixels."""
    patches = extract(problem.obj, problem.corners, problem.probe.shape[-1])
    rate = expected_counts(patches, problem.probe, np.zeros_like(problem.rest))
    light = illumination(problem.probe, problem.corners, problem.obj.shape)
    assert expected_total(problem.obj, light) == pytest.approx(float(rate.sum()), rel=1e-10)


@pytest.mark.spec("FM-21")
def test_with_even_light_a_step_imposes_the_measured_modulus(problem: Problem) -> None:
    """One frame under a probe of modulus 1: light is the same everywhere, and curvature is all there is."""
    obj, probe = problem.obj[:16, :16], np.exp(1j * np.angle(problem.probe[:1]))
    counts = np.abs(far_field(np.exp(1j * np.angle(problem.obj[3:19, 2:18])))) ** 2
    corners, rest = np.zeros((1, 2), np.int64), np.zeros((1, 2))
    _, gradient, _, _ = loss_and_gradient(obj, probe, corners, rest, counts[None], "amplitude")
    light = illumination(probe, corners, obj.shape)
    step = object_step(gradient, light, "amplitude")
    waves = far_field(probe[0] * obj)
    imposed = far_field_adjoint(np.sqrt(counts) * np.exp(1j * np.angle(waves)))
    np.testing.assert_allclose(probe[0] * (obj + step), imposed, atol=1e-9)
    assert least_squares_length(step, gradient, light, "amplitude") == pytest.approx(1.0)


@pytest.mark.spec("FM-21")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_near_the_truth_both_losses_ask_for_the_same_step(problem: Problem, loss: str) -> None:
    """Their curvatures differ by the factor in CURVATURE: gradients divided by it agree to first order."""
    counts = expected_counts(extract(problem.obj, problem.corners, 16), problem.probe, problem.rest)
    off = problem.obj * (1 + 1e-5)
    _, gradient, d_probe, _ = loss_and_gradient(off, problem.probe, problem.corners, problem.rest, counts, loss)
    light = illumination(problem.probe, problem.corners, off.shape)
    step = object_step(gradient, light, loss)
    lit = light > 0.2 * light.max()
    damped = (1 - STEP_DAMPING) * light + STEP_DAMPING * light.max()
    np.testing.assert_allclose((step * damped)[lit], (-gradient / CURVATURE[loss])[lit], rtol=1e-12)
    # all frames are too bright by the same factor: object and probe are both asked to be weaker
    assert np.real(np.vdot(step, off)) < 0
    patches = extract(off, problem.corners, 16)
    back = probe_step(d_probe, np.sum(np.abs(patches) ** 2, axis=0), loss)
    assert np.real(np.vdot(back, problem.probe)) == pytest.approx(-1e-5 * np.sum(np.abs(problem.probe) ** 2), rel=0.2)


@pytest.mark.spec("FM-21")
def test_a_damped_step_is_stretched_and_a_step_of_nothing_is_not(problem: Problem) -> None:
    _, gradient, _, _ = loss_and_gradient(problem.obj, problem.probe, problem.corners, problem.rest, problem.counts)
    light = illumination(problem.probe, problem.corners, problem.obj.shape)
    step = object_step(gradient, light, "poisson")
    length = least_squares_length(step, gradient, light, "poisson")
    assert length > 1
    curvature = CURVATURE["poisson"] * np.sum(light * np.abs(step) ** 2)
    # the parabola −slope·γ + ½ · curvature · γ², with slope = Re⟨ΔO, −∂L/∂O⟩, has its minimum there
    slope = -np.real(np.vdot(step, gradient))
    values = [-slope * g + 0.5 * curvature * g**2 for g in (0.9 * length, length, 1.1 * length)]
    assert values[1] < min(values[0], values[2])
    assert least_squares_length(np.zeros_like(step), gradient, light, "poisson") == 1.0


@pytest.mark.spec("FM-21")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_position_steps_find_frames_that_were_moved(problem: Problem, loss: str) -> None:
    truth = problem.rest.astype(np.float64)
    counts = expected_counts(extract(problem.obj, problem.corners, 16), problem.probe, truth)
    moved = truth + np.array([[0.05, -0.1], [-0.08, 0.03], [0.1, 0.1], [-0.02, -0.06], [0.07, 0.0], [0.0, 0.09]])
    start, level = np.abs(moved - truth).max(), float(np.mean(np.abs(problem.obj) ** 2))
    for _ in range(80):
        slope = position_gradient(problem.obj, problem.probe, problem.corners, moved, counts, loss)
        moved = moved + 0.5 * position_step(slope, problem.probe, level, loss)
    assert np.abs(moved - truth).max() < 0.05 * start
