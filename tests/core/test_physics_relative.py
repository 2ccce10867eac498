"""What is lit, how much an image varies, and a frame as a network is shown it."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_core.physics.forward import expected_counts, fourier_shift
from ptycho_core.physics.relative import lit, peak_intensity, relative_amplitude, relative_variation


@pytest.mark.spec("FM-29")
def test_lit_is_a_tenth_of_the_most_light_and_nothing_where_none_fell():
    light = np.array([[0.0, 0.9, 1.0], [1.1, 10.0, 0.999]])
    np.testing.assert_array_equal(lit(light), [[False, False, True], [True, True, False]])
    assert not lit(np.zeros((2, 3))).any()


@pytest.mark.spec("FM-29")
def test_the_unit_of_coverage_is_the_peak_of_all_modes_together():
    probe = np.zeros((2, 4, 4), complex)
    probe[0, 1, 2], probe[1, 1, 2], probe[0, 3, 3] = 2j, 1 + 1j, 2.2
    assert peak_intensity(probe) == pytest.approx(6.0)


@pytest.mark.spec("FM-30")
def test_variation_is_the_weighted_spread_over_the_weighted_size(rng):
    patches = rng.normal(size=(3, 5, 7)) + 1j * rng.normal(size=(3, 5, 7)) + (2 - 1j)
    weight = rng.uniform(0, 1, (5, 7))
    spread = power = total = mean = 0.0
    for p, w in zip(patches, [weight] * 3, strict=True):
        total, mean, power = total + w.sum(), mean + (w * p).sum(), power + (w * abs(p) ** 2).sum()
    for p in patches:
        spread += (weight * abs(p - mean / total) ** 2).sum()
    assert relative_variation(patches, weight) == pytest.approx(np.sqrt(spread / power), rel=1e-12)


@pytest.mark.spec("FM-30")
@pytest.mark.parametrize(
    ("image", "wanted"), [(np.full((4, 5), 3 - 2j), 0.0), (np.zeros((4, 5)), 0.0), (np.array([[1.0, -1.0]]), 1.0)]
)
def test_variation_lies_between_none_and_one(image, wanted):
    assert relative_variation(image, np.ones(image.shape)) == pytest.approx(wanted, abs=1e-12)
    assert relative_variation(image, np.zeros(image.shape)) == 0.0


@pytest.mark.spec("FM-31")
def test_a_frame_of_an_object_of_modulus_one_has_the_mean_power_of_a_quarter_of_its_pixels(rng):
    N = 16
    probe = rng.normal(size=(2, N, N)) + 1j * rng.normal(size=(2, N, N))
    rest = np.array([[0.3, -0.4], [0.1, 0.45]])
    shifted = fourier_shift(probe, rest[:, None])
    level = rng.uniform(0, 2, (N, N))
    flat = np.exp(1j * rng.uniform(-3, 3, (2, 1, 1))) * np.ones((2, N, N))
    counts = expected_counts(flat, probe, rest, 37.0, level)
    shown = relative_amplitude(counts, shifted, 37.0, None, level)
    np.testing.assert_allclose((shown**2).sum(axis=(-2, -1)), [N**2 / 4] * 2, rtol=1e-9)
    mask = rng.uniform(size=(N, N)) > 0.2
    assert not relative_amplitude(counts, shifted, 37.0, mask, level)[:, ~mask].any()
    assert not relative_amplitude(np.zeros((2, N, N)), shifted, 37.0, mask, level).any()
