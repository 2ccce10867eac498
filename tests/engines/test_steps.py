"""Each engine's steps against the oracle in both precisions: gradients over curvature, gains, and mixed modes."""

from __future__ import annotations

import numpy as np
import pytest
from core.physics_problem import complex_noise

from ptycho_core.physics import corrections, forward, likelihood, patches, probe, steps
from ptycho_core.testing.tolerances import relative_error

LOSSES = pytest.mark.parametrize("loss", ["poisson", "amplitude"])
SHAPE = (29, 22)
INTENSITIES = np.array([1.0, 0.7, 1.4, 0.9, 1.1, 0.5])


def close(side, found, wanted, quantity="gradient"):
    """Like ``side.agrees``, of sums that an engine may keep in double precision."""
    assert relative_error(side.get(found), wanted) <= side.limits[quantity]


def gradients(problem, loss):
    """∂L/∂O and ∂L/∂P of the oracle."""
    rest = problem.rest.astype(np.float64)
    known = (problem.counts, loss, problem.mask, problem.background, problem.scale, 7.0)
    return likelihood.loss_and_gradient(problem.obj, problem.probe, problem.corners, rest, *known)[1:3]


@pytest.mark.spec("BE-7", "FM-10")
@LOSSES
def test_slope_of_a_loss(problem, side, loss):
    rest = problem.rest.astype(np.float64)
    cut = patches.extract(problem.obj, problem.corners, 16)
    rate = forward.expected_counts(cut, problem.probe, rest, problem.scale, problem.background)
    rate[1, :3] = [[0.0], [5e-9], [2e-8]]  # clamped, clamped, just not
    counts = np.where(rate < 1e-7, 0.0, problem.counts)
    for mask in (None, problem.mask):
        wanted = likelihood.loss_slope(loss, rate, counts, mask)
        found = side.twin.loss_slope(loss, side.put(rate), side.put(counts), side.put(mask))
        side.agrees(found, wanted, "gradient")
        assert (side.get(found)[1, :2] == 0).all()


@pytest.mark.spec("BE-7", "FM-19")
def test_slope_of_a_shift(problem, side):
    rest = problem.rest.astype(np.float64)
    wanted = steps.shift_slope(problem.probe, rest)
    side.agrees(side.twin.shift_slope(side.put(problem.probe), side.put(rest)), wanted, "wave")


@pytest.mark.spec("BE-7", "FM-19")
@LOSSES
def test_slope_of_the_loss_in_a_position(problem, side, loss):
    rest = problem.rest.astype(np.float64)
    given = (problem.obj, problem.probe, problem.corners, rest, problem.counts)
    for mask, background, scale in ((None, None, 1.0), (problem.mask, problem.background, problem.scale)):
        wanted = steps.position_gradient(*given, loss, mask, background, scale, 7.0)
        found = side.twin.position_gradient(*map(side.put, given), loss, *map(side.put, (mask, background)), scale, 7.0)
        side.agrees(found, wanted, "gradient")


@pytest.mark.spec("BE-7", "FM-21", "FM-27")
def test_light_on_object_and_probe(problem, side):
    put, twin, cut = side.put, side.twin, patches.extract(problem.obj, problem.corners, 16)
    for intensities in (None, INTENSITIES):
        light = steps.illumination(problem.probe, problem.corners, SHAPE, intensities)
        found = twin.illumination(put(problem.probe), put(problem.corners), SHAPE, put(intensities))
        side.agrees(found, light, "rate")
        side.agrees(twin.patch_light(put(cut), put(intensities)), steps.patch_light(cut, intensities), "rate")
        close(side, twin.expected_total(put(problem.obj), put(light)), steps.expected_total(problem.obj, light), "rate")
        close(side, twin.lit_level(put(problem.obj), put(light)), steps.lit_level(problem.obj, light), "rate")


@pytest.mark.spec("BE-7", "FM-21")
@LOSSES
def test_steps_of_object_and_probe(problem, side, loss):
    put, twin, cut = side.put, side.twin, patches.extract(problem.obj, problem.corners, 16)
    d_obj, d_probe = gradients(problem, loss)
    light = steps.illumination(problem.probe, problem.corners, SHAPE)
    step = steps.object_step(d_obj, light, loss)
    side.agrees(twin.object_step(put(d_obj), put(light), loss), step, "gradient")
    side.agrees(
        twin.probe_step(put(d_probe), put(steps.patch_light(cut)), loss),
        steps.probe_step(d_probe, steps.patch_light(cut), loss),
        "gradient",
    )
    dark = side.twin.object_step(put(0 * d_obj), put(0 * light), loss)
    assert (side.get(dark) == 0).all()  # not 0/0
    length = steps.least_squares_length(step, d_obj, light, loss)
    close(side, twin.least_squares_length(*map(put, (step, d_obj, light)), loss), length)
    nothing = np.zeros_like(step)
    assert side.get(twin.least_squares_length(*map(put, (nothing, d_obj, light)), loss)) == 1.0


@pytest.mark.spec("BE-7", "FM-21")
@LOSSES
def test_step_of_positions(problem, side, loss):
    slope, level = np.random.default_rng(1).normal(size=(6, 2)), 0.83
    wanted = steps.position_step(slope, problem.probe, level, loss)
    side.agrees(side.twin.position_step(side.put(slope), side.put(problem.probe), level, loss), wanted, "gradient")
    measured = side.put(np.float64(level))  # as it is on a device, where nothing waits for it
    side.agrees(side.twin.position_step(side.put(slope), side.put(problem.probe), measured, loss), wanted, "gradient")


@pytest.mark.spec("BE-7", "FM-27")
def test_gains_of_frames(problem, side):
    cut = patches.extract(problem.obj, problem.corners, 16)
    rate = forward.expected_counts(cut, problem.probe, problem.rest, problem.scale, problem.background)
    for mask, background in ((None, None), (problem.mask, problem.background)):
        counts = problem.counts if mask is None else problem.counts * mask
        wanted = corrections.frame_gains(rate, counts, mask, background)
        assert wanted[2] == (0 if mask is None else 1) or mask is None  # the frame without counts
        found = side.twin.frame_gains(*map(side.put, (rate, counts, mask, background)))
        close(side, found, wanted, "rate")


@pytest.mark.spec("BE-7", "FM-14")
@pytest.mark.parametrize("n_modes", [1, 2, 3])
def test_modes_are_mixed_as_the_oracle_mixes_them(side, n_modes):
    modes = complex_noise(np.random.default_rng(n_modes), n_modes, 16, 16) / np.arange(1, n_modes + 1)[:, None, None]
    modes[-1] += (0.4 + 0.3j) * modes[0]
    wanted = probe.orthogonalise(modes)
    found = side.twin.orthogonalise(side.put(modes))
    side.agrees(found, wanted, "wave")
    again = side.get(side.twin.orthogonalise(found))
    assert relative_error(again, side.get(found)) <= side.limits["wave"]
