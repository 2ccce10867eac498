"""What is fitted besides object and probe, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_core.physics.corrections import affine_step, frame_gains, loss_noise, saturated_loss, support_mask
from ptycho_core.physics.likelihood import amplitude_loss, poisson_loss

RNG = np.random.default_rng(5)
PLACES = np.array([40.0, 300.0]) + RNG.uniform(-30, 30, (23, 2)) * [1.0, 2.5]


@pytest.mark.spec("FM-26")
def test_a_linear_map_is_found_whatever_the_steps_have_besides() -> None:
    D = np.array([[0.013, -0.004], [0.02, -0.007]])
    step = np.array([0.4, -1.1]) + PLACES @ D.T
    np.testing.assert_allclose(affine_step(step, PLACES), D, atol=1e-12)
    offsets = PLACES - PLACES.mean(axis=0)
    other = RNG.normal(size=step.shape)
    found = affine_step(step + other, PLACES)
    # normal equations: what is left has nothing in common with the places
    left = step + other - (step + other).mean(axis=0) - offsets @ found.T
    np.testing.assert_allclose(left.T @ offsets, 0, atol=1e-9)


@pytest.mark.spec("FM-26")
def test_places_on_a_line_say_nothing_of_what_is_across() -> None:
    line = np.arange(9.0)[:, None] * [0.0, 2.0]
    found = affine_step(np.stack([line[:, 1] * 0.01, line[:, 1] * -0.03], axis=1), line)
    np.testing.assert_allclose(found, [[0, 0.01], [0, -0.03]], atol=1e-12)
    np.testing.assert_array_equal(affine_step(np.ones((4, 2)), np.ones((4, 2))), 0)


@pytest.mark.spec("FM-27")
def test_gains_are_ratios_of_what_lies_above_the_background_in_good_pixels() -> None:
    rate = RNG.uniform(1, 9, (5, 6, 6))
    background, mask = RNG.uniform(0, 2, (6, 6)), RNG.uniform(size=(6, 6)) > 0.2
    gains = np.array([0.5, 1.0, 1.7, 3.0, 0.01])
    counts = (gains[:, None, None] * rate + background) * mask
    np.testing.assert_allclose(frame_gains(rate + background, counts, mask, background), gains, rtol=1e-12)
    np.testing.assert_allclose(frame_gains(rate, gains[:, None, None] * rate, None, None), gains, rtol=1e-12)
    dark = np.zeros_like(counts)
    np.testing.assert_array_equal(frame_gains(rate + background, dark, mask, background), 1.0)
    np.testing.assert_array_equal(frame_gains(dark, counts, mask, None), 1.0)


@pytest.mark.spec("FM-28")
def test_the_support_is_a_circle_about_the_middle() -> None:
    for N, radius in ((12, 4.0), (9, 3.2)):
        inside = support_mask(N, radius)
        np.testing.assert_array_equal(inside, inside[::-1, ::-1])
        y, x = np.nonzero(inside)
        assert np.hypot(y - (N - 1) / 2, x - (N - 1) / 2).max() <= radius
        assert abs(inside.sum() - np.pi * radius**2) < 8
    assert support_mask(8, 8).all()


@pytest.mark.spec("FM-32")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_the_noise_of_a_loss_is_that_of_drawn_frames(loss: str) -> None:
    rate = RNG.uniform(4, 200, (1, 40, 40))
    mask = RNG.uniform(size=(40, 40)) > 0.1
    told = {"poisson": poisson_loss, "amplitude": amplitude_loss}[loss]
    drawn = [RNG.poisson(rate) * mask for _ in range(400)]
    above = [told(rate, k, mask, 1.0) - saturated_loss(k, loss, mask) for k in drawn]
    assert min(above) > 0
    assert loss_noise(drawn[0], loss, mask) == pytest.approx(np.std(above), rel=0.15)
    assert saturated_loss(drawn[0], loss, mask) <= told(drawn[0] * 1.01 + 1e-3, drawn[0], mask, 1.0)
    assert loss_noise(np.zeros((2, 40, 40)), loss, mask) == 0
