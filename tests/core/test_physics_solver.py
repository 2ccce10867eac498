"""The solver's update against its definition, and as a step that brings an object to its data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from physics_problem import complex_noise, make_problem

from ptycho_core.physics.forward import expected_counts, fourier_shift
from ptycho_core.physics.patches import accumulate, extract
from ptycho_core.physics.propagation import far_field, far_field_adjoint
from ptycho_core.physics.sweep import RELAXATION, SIZE_FLOOR, relative_weight, solver_update, weighted_size


@pytest.mark.spec("FM-16")
def test_update_of_the_true_object_is_nothing(rng: np.random.Generator) -> None:
    p = make_problem()
    truth = extract(p.obj, p.corners, 16)
    shifted = fourier_shift(p.probe[None], p.rest[:, None].astype(np.float64))
    counts = expected_counts(truth, p.probe, p.rest.astype(np.float64), p.scale, p.background)
    counts[:, ~p.mask] = 1e4  # bad pixels may hold anything
    update = solver_update(truth, shifted, counts, p.mask, p.background, p.scale)
    assert update.shape == (6, 16, 16)
    np.testing.assert_allclose(update, 0, atol=1e-10)
    for other in (
        solver_update(truth, shifted, counts, None, p.background, p.scale),
        solver_update(truth, shifted, counts, p.mask, None, p.scale),
        solver_update(truth, shifted, counts, p.mask, p.background, 1.1 * p.scale),
        solver_update(truth + 0.1 * complex_noise(rng, 6, 16, 16), shifted, counts, p.mask, p.background, p.scale),
    ):
        assert np.abs(other).max() > 0.01


@pytest.mark.spec("FM-16")
def test_update_follows_its_definition() -> None:
    p = make_problem()
    patches = extract(p.obj, p.corners, 16)
    shifted = fourier_shift(p.probe[None], p.rest[:, None].astype(np.float64))
    found = solver_update(patches, shifted, p.counts, p.mask, p.background, p.scale)
    for j in range(len(patches)):
        rate = p.background + p.scale * sum(np.abs(far_field(mode * patches[j])) ** 2 for mode in shifted[j])
        factor = np.where(p.mask, np.sqrt(p.counts[j] / rate), 1)
        power = sum(np.abs(mode) ** 2 for mode in shifted[j])
        step = np.zeros((16, 16), complex)
        for mode in shifted[j]:
            step += mode.conj() * (far_field_adjoint(factor * far_field(mode * patches[j])) - mode * patches[j])
        np.testing.assert_allclose(found[j], step / (0.9 * power + 0.1 * power.max()), rtol=1e-9, atol=1e-12)


@pytest.mark.spec("FM-16")
def test_sweeps_bring_the_flat_object_to_the_data() -> None:
    p = make_problem()
    rest = p.rest.astype(np.float64)
    shifted = fourier_shift(p.probe[None], rest[:, None])
    weights = np.sum(np.abs(shifted) ** 2, axis=1)
    truth = np.exp(0.3j * np.sin(np.add.outer(np.arange(29) / 4, np.arange(22) / 6)))
    counts = expected_counts(extract(truth, p.corners, 16), p.probe, rest, p.scale, p.background)
    patches = np.ones_like(shifted[:, 0])
    misfit = []
    for _ in range(12):
        rate = expected_counts(patches, p.probe, rest, p.scale, p.background)
        misfit.append(np.sum((np.sqrt(rate) - np.sqrt(counts)) ** 2))
        patches = patches + RELAXATION * solver_update(patches, shifted, counts, None, p.background, p.scale)
        norm = accumulate(weights, p.corners, truth.shape).real
        canvas = accumulate(weights * patches, p.corners, truth.shape) / np.where(norm > 0, norm, 1)
        patches = extract(canvas, p.corners, 16)
    assert all(after < before for before, after in pairwise(misfit))
    assert misfit[-1] < 0.05 * misfit[0]


@pytest.mark.spec("FM-16")
def test_a_dark_pixel_is_not_blown_up() -> None:
    """Where next to nothing is expected, a wave grows by ten in a sweep at most, however many counts there are."""
    N = 16
    probe = np.ones((1, 1, N, N), complex)  # a plane wave lights the centre alone
    counts = np.full((1, N, N), 7.0)
    counts[0, N // 2, N // 2] = N * N
    tilt = np.exp(2j * np.pi * 3 * np.arange(N) / N)
    patch = (1 + 1e-3 * tilt)[None, None, :] * np.ones((1, N, N))
    update = solver_update(patch, probe, counts)
    # of the pixel three to the right of the centre: amplitude 1e-3 N, limited to 1e-2 N, so nine times itself is added
    added = np.vdot(tilt * np.ones((N, N)), update[0]) / N**2
    assert added == pytest.approx(9e-3, rel=1e-6)


@pytest.mark.spec("FM-20")
def test_relative_weight_is_that_of_the_best_lit_pixel_of_each_frame(rng: np.random.Generator) -> None:
    shifted = complex_noise(rng, 3, 2, 5, 7)
    found = relative_weight(shifted)
    for j in range(3):
        power = abs(shifted[j, 0]) ** 2 + abs(shifted[j, 1]) ** 2
        np.testing.assert_allclose(found[j], power / power.max(), rtol=1e-12)
    np.testing.assert_allclose(relative_weight(3j * shifted), found, rtol=1e-12)


@pytest.mark.spec("FM-20")
def test_size_is_the_root_mean_square_where_it_is_lit(rng: np.random.Generator) -> None:
    values, weights = complex_noise(rng, 2, 5, 7), rng.random((2, 5, 7))
    found = weighted_size(values, weights)
    assert found.shape == (2, 1, 1)
    for j in range(2):
        wanted = np.average(np.abs(values[j]) ** 2, weights=weights[j])
        assert found[j, 0, 0] ** 2 == pytest.approx(wanted, rel=1e-12)
    np.testing.assert_allclose(weighted_size(np.full((2, 3), 0.6 + 0.8j), np.ones((2, 3))), [[1.0]])
    assert weighted_size(np.zeros((2, 3), complex), np.ones((2, 3))) == SIZE_FLOOR
