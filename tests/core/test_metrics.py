"""Metrics in closed form: a known shift, ramp, phase and scale come back; noise gives the score of its variance."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ptycho_core.errors import EvaluationError
from ptycho_core.evaluation.metrics import (
    align,
    compare_objects,
    fourier_ring_correlation,
    half_data_frc,
    register,
    soft_window,
)
from ptycho_core.simulation.objects import draw_object, transmission

TRUTH_SHAPE = (150, 190)
TRUTH_ORIGIN = np.array([-4.0, 3.0])


def scene(shape: tuple[int, int], corner: tuple[float, float], contrast: float = 1.0) -> NDArray[np.complex128]:
    """A smooth asymmetric complex object that is defined everywhere, sampled from any point of it."""
    rng = np.random.default_rng(11)
    y, x = np.arange(shape[0])[:, None] + corner[0], np.arange(shape[1])[None, :] + corner[1]
    out = np.full(shape, 0.9 + 0.1j)
    for _ in range(140):
        cy, cx, width = rng.uniform(-25, 200), rng.uniform(-25, 240), rng.uniform(2.0, 6.0)
        strength = contrast * complex(rng.normal(0, 0.15), rng.normal(0, 0.3))
        out += strength * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))
    return out


def ramped(shape: tuple[int, int], ky: float, kx: float) -> NDArray[np.complex128]:
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    return np.exp(1j * (ky * y[:, None] + kx * x[None, :]))


TRUTH = scene(TRUTH_SHAPE, (-4.0, 3.0))


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.complex128]:
    """Complex white noise of unit variance in each part."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, -1.21), (-6.5, 4.25), (11.0, -9.0)])
@pytest.mark.parametrize("ramp", [(0.0, 0.0), (0.05, -0.11), (-0.6, 0.33)])
def test_shift_ramp_phase_and_scale_are_recovered_and_removed(
    shift: tuple[float, float], ramp: tuple[float, float]
) -> None:
    origin, shape = np.array([12.3, 20.6]), (101, 127)
    content = scene(shape, (origin[0] - shift[0], origin[1] - shift[1]))
    estimate = 1.7 * np.exp(2.5j) * ramped(shape, *ramp) * content
    result = compare_objects(estimate, origin, TRUTH, TRUTH_ORIGIN)
    np.testing.assert_allclose(result.shift_px, shift, atol=1e-4)
    np.testing.assert_allclose(result.ramp_rad_per_px, ramp, atol=1e-6)
    assert result.scale == pytest.approx(1.7, rel=1e-5)
    assert result.phase_rad == pytest.approx(2.5, abs=1e-4)
    assert result.amplitude_psnr_db > 80
    assert result.phase_psnr_db > 80
    assert result.amplitude_ssim > 0.99999
    assert result.phase_ssim > 0.99999
    assert result.correlation > 0.99999
    # above 0.45 cycles per pixel the object has nothing left but the interpolation's rounding
    assert result.frc_half_cutoff > 0.45
    assert result.n_pixels == np.prod(shape)


def test_an_object_against_itself_has_no_error() -> None:
    result = compare_objects(TRUTH, (5.5, -2.25), TRUTH, (5.5, -2.25))
    np.testing.assert_allclose(result.shift_px, 0, atol=1e-7)
    assert result.amplitude_psnr_db > 120
    assert result.phase_psnr_db > 120
    assert result.correlation == pytest.approx(1, abs=1e-9)
    assert result.n_pixels == TRUTH.size


def test_both_origins_are_honoured_before_any_search() -> None:
    """The shift is too large to be searched for: only the origins can bridge it."""
    crop = TRUTH[40:140, 60:181]
    result = compare_objects(crop, TRUTH_ORIGIN + np.array([40, 60]), TRUTH, TRUTH_ORIGIN, max_shift_px=2)
    np.testing.assert_allclose(result.shift_px, 0, atol=1e-6)
    assert result.correlation > 0.999999
    swapped = compare_objects(crop, TRUTH_ORIGIN + np.array([60, 40]), TRUTH, TRUTH_ORIGIN, max_shift_px=2)
    assert swapped.correlation < 0.6


def test_an_estimate_larger_than_the_truth_is_cropped_to_it() -> None:
    wide = scene((180, 230), (-20.0, -9.0))
    result = compare_objects(wide, (-20, -9), TRUTH, TRUTH_ORIGIN)
    assert result.n_pixels == TRUTH.size
    assert result.correlation > 0.999999


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_noise_gives_the_psnr_of_its_variance(sigma: float) -> None:
    result = compare_objects(TRUTH + sigma * noise(TRUTH_SHAPE), TRUTH_ORIGIN, TRUTH, TRUTH_ORIGIN)
    amplitude_peak = np.ptp(np.abs(TRUTH))
    assert result.amplitude_peak == pytest.approx(amplitude_peak, rel=1e-2)
    assert result.amplitude_psnr_db == pytest.approx(20 * math.log10(amplitude_peak / sigma), abs=0.25)
    phase_variance = np.mean((sigma / np.abs(TRUTH)) ** 2)
    expected = 10 * math.log10(result.phase_peak_rad**2 / phase_variance)
    assert result.phase_psnr_db == pytest.approx(expected, abs=0.4)
    np.testing.assert_allclose(result.shift_px, 0, atol=20 * sigma * 0.05)


def test_the_correlation_is_that_of_signal_and_noise_after_the_mean_is_gone() -> None:
    sigma = 0.15
    result = compare_objects(TRUTH + sigma * noise(TRUTH_SHAPE), TRUTH_ORIGIN, TRUTH, TRUTH_ORIGIN)
    signal = np.var(TRUTH)
    assert result.correlation == pytest.approx(math.sqrt(signal / (signal + 2 * sigma**2)), abs=0.01)


def test_phases_that_wrap_are_compared_by_the_angle_of_the_ratio() -> None:
    y, x = np.mgrid[0:110, 0:90]
    phase = 5.0 * np.sin(y / 9.0 + 0.3) * np.cos(x / 7.0)
    truth = np.exp(1j * phase) * (1 + 0.1 * np.sin(x / 5.0))
    error = 0.03 * np.random.default_rng(1).normal(size=truth.shape)
    result = compare_objects(truth * np.exp(1j * error), (0, 0), truth, (0, 0))
    assert result.phase_peak_rad == pytest.approx(2 * math.pi, rel=1e-2)
    assert result.phase_psnr_db == pytest.approx(20 * math.log10(result.phase_peak_rad / 0.03), abs=0.1)
    assert result.phase_ssim > 0.97


def test_errors_of_phase_do_not_change_the_scale_of_the_amplitude() -> None:
    error = 0.6 * np.random.default_rng(2).normal(size=TRUTH_SHAPE)
    result = compare_objects(3.0 * TRUTH * np.exp(1j * error), TRUTH_ORIGIN, TRUTH, TRUTH_ORIGIN)
    assert result.scale == pytest.approx(3.0, rel=1e-3)
    assert result.amplitude_psnr_db > 45


def test_only_covered_pixels_inside_the_scan_are_compared() -> None:
    coverage = np.full(TRUTH_SHAPE, 0.01)
    coverage[30:120, 25:160] = 4.0
    spoilt = np.where(coverage > 1, TRUTH, 7.0 * noise(TRUTH_SHAPE))
    result = compare_objects(spoilt, TRUTH_ORIGIN, TRUTH, TRUTH_ORIGIN, coverage=coverage)
    assert result.n_pixels == 90 * 135
    assert result.correlation > 0.99999
    box = np.array([[40.0, 30.0], [99.5, 141.0]]) + TRUTH_ORIGIN
    inside = compare_objects(spoilt, TRUTH_ORIGIN, TRUTH, TRUTH_ORIGIN, coverage=coverage, positions_px=box)
    assert inside.n_pixels == 60 * 112
    assert compare_objects(spoilt, TRUTH_ORIGIN, TRUTH, TRUTH_ORIGIN).correlation < 0.5


def test_min_coverage_is_in_units_of_typical_coverage() -> None:
    coverage = np.full(TRUTH_SHAPE, 5.0)
    coverage[:, :60] = 2.0
    coverage[3:6, 100:103] = 80.0  # a bright spot does not set the standard
    few, many = (
        compare_objects(TRUTH, (0, 0), TRUTH, (0, 0), coverage=coverage, min_coverage=m).n_pixels for m in (0.5, 0.3)
    )
    assert few == 150 * 130
    assert many == 150 * 190


def test_values_outside_the_region_may_be_anything() -> None:
    coverage = np.ones(TRUTH_SHAPE)
    coverage[:, 150:] = 0
    estimate = TRUTH.copy()
    estimate[:, 150:] = np.nan
    assert compare_objects(estimate, (0, 0), TRUTH, (0, 0), coverage=coverage).correlation > 0.999999


def test_a_sharp_object_is_registered_to_a_hundredth_of_a_pixel() -> None:
    absorption, phase, _ = draw_object("lines", (140, 170), np.random.default_rng(4))
    truth = transmission(absorption, phase, (0.6, 1.0), (-0.8, 0.8)).astype(complex)
    ky, kx = np.fft.fftfreq(140)[:, None], np.fft.fftfreq(170)
    moved = np.fft.ifft2(np.fft.fft2(truth) * np.exp(-2j * np.pi * (0.4 * ky - 2.3 * kx)))
    moved = (moved * ramped(truth.shape, 0.02, 0.03) + 0.03 * noise(truth.shape))[8:-8, 8:-8]
    result = compare_objects(moved, (8, 8), truth, (0, 0))
    np.testing.assert_allclose(result.shift_px, (0.4, -2.3), atol=0.01)
    np.testing.assert_allclose(result.ramp_rad_per_px, (0.02, 0.03), atol=1e-4)


def test_register_takes_its_weights_seriously() -> None:
    weight = np.zeros(TRUTH_SHAPE)
    weight[:, :100] = 1.0
    other = scene(TRUTH_SHAPE, (-1.0, 3.0))
    halves = np.where(weight > 0, scene(TRUTH_SHAPE, (-4.3, 3.7)), other)
    factor, ramp, shift = register(halves * 2j, TRUTH, weight)
    np.testing.assert_allclose(shift, (0.3, -0.7), atol=5e-4)
    np.testing.assert_allclose(ramp, 0, atol=1e-5)
    assert factor == pytest.approx(2j, abs=1e-3)


def test_a_faint_weight_counts_faintly() -> None:
    weight = np.full(TRUTH_SHAPE, 1e-3)
    weight[:75] = 1.0
    halves = np.where(weight == 1, scene(TRUTH_SHAPE, (-4.3, 3.0)), scene(TRUTH_SHAPE, (-3.7, 3.0)))
    (shift, _), even = register(halves, TRUTH, weight)[2], register(halves, TRUTH)[2]
    assert shift == pytest.approx(0.3, abs=5e-3)
    assert abs(even[0]) < 0.15


def test_a_large_image_is_fitted_on_a_part_of_it_and_corrected_as_a_whole() -> None:
    absorption, phase, _ = draw_object("lines", (760, 150), np.random.default_rng(4))
    truth = transmission(absorption, phase, (0.6, 1.0), (-0.8, 0.8)).astype(complex)
    weight = np.zeros(truth.shape)
    weight[100:, :] = 1.0
    factor, ramp, shift = register(1.5j * truth * ramped(truth.shape, 0.03, -0.05), truth, weight)
    np.testing.assert_allclose(shift, 0, atol=1e-6)
    np.testing.assert_allclose(ramp, (0.03, -0.05), atol=1e-8)
    assert factor == pytest.approx(1.5j, abs=1e-5)


def test_alignment_returns_images_on_the_pixels_of_the_estimate() -> None:
    estimate = scene((80, 95), (29.6, 40.2)) * (0.5 * np.exp(-1j))
    aligned = align(estimate, (30.0, 40.0), TRUTH, TRUTH_ORIGIN)
    assert aligned.estimate.shape == aligned.truth.shape == (80, 95)
    np.testing.assert_array_equal(aligned.origin_px, (30.0, 40.0))
    np.testing.assert_allclose(aligned.shift_px, (0.4, -0.2), atol=1e-4)
    np.testing.assert_allclose(aligned.estimate, aligned.truth, atol=1e-3)
    np.testing.assert_allclose(aligned.estimate, scene((80, 95), (29.6, 40.2)), atol=1e-3)


@pytest.mark.parametrize("level", [0.0, 0.7 - 0.2j])
def test_constant_images_are_refused(level: complex) -> None:
    flat = np.full(TRUTH_SHAPE, level, dtype=np.complex64)
    with pytest.raises(EvaluationError, match="estimate is constant"):
        compare_objects(flat, (0, 0), TRUTH, (0, 0))
    with pytest.raises(EvaluationError, match="truth is constant"):
        compare_objects(TRUTH, (0, 0), flat, (0, 0))


def test_a_constant_under_a_phase_ramp_is_refused_too() -> None:
    with pytest.raises(EvaluationError, match="phase ramp"):
        compare_objects(0.8 * ramped(TRUTH_SHAPE, 0.04, -0.1), (0, 0), TRUTH, (0, 0))


def test_an_image_that_is_constant_only_where_it_is_compared_is_refused() -> None:
    coverage = np.zeros(TRUTH_SHAPE)
    coverage[20:80, 30:90] = 1
    collapsed = np.where(coverage > 0, 0.9, TRUTH)
    with pytest.raises(EvaluationError, match="constant"):
        compare_objects(collapsed, (0, 0), TRUTH, (0, 0), coverage=coverage)


def test_a_pure_phase_truth_has_no_amplitude_score_and_says_so_in_json() -> None:
    truth = np.exp(1j * np.angle(TRUTH))
    result = compare_objects(truth + 0.01 * noise(TRUTH_SHAPE), (0, 0), truth, (0, 0))
    # interpolation by the last thousandth of a pixel leaves a trace, so the range is tiny, not zero
    exact = compare_objects(truth, (0, 0), truth, (0, 0))
    assert math.isnan(exact.amplitude_psnr_db)
    assert math.isnan(exact.amplitude_ssim)
    assert math.isfinite(result.phase_psnr_db)
    assert math.isnan(result.amplitude_psnr_db), "what interpolation leaves is no peak"
    plain = json.loads(json.dumps(exact.to_mapping(), allow_nan=False))
    assert plain["amplitude_psnr_db"] is None
    assert plain["n_pixels"] == truth.size
    assert len(plain["frc"]["correlation"]) == 75


@pytest.mark.parametrize(
    ("estimate", "origin", "options", "words"),
    [
        (np.abs(TRUTH), (0, 0), {}, "complex"),
        (TRUTH[0], (0, 0), {}, r"complex image \(H, W\)"),
        (TRUTH, (500, 0), {}, "do not overlap"),
        (TRUTH, (140, 180), {}, "only 100 pixels"),
        (TRUTH, (0, 0), {"coverage": np.ones((3, 3))}, "coverage"),
        (TRUTH, (0, 0), {"coverage": np.zeros(TRUTH_SHAPE)}, "coverage"),
        (TRUTH, (0, 0), {"coverage": -np.ones(TRUTH_SHAPE)}, "coverage"),
        (TRUTH * np.nan, (0, 0), {}, "NaN"),
        (TRUTH, (0, 0), {"positions_px": np.array([[5.0, 5.0], [9.0, 9.0]])}, "only 25 pixels"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(
    estimate: NDArray[np.complex128], origin: tuple[int, int], options: dict[str, NDArray[np.float64]], words: str
) -> None:
    with pytest.raises(EvaluationError, match=words):
        compare_objects(estimate, origin, TRUTH, (0, 0), **options)


def test_a_truth_with_nan_is_refused() -> None:
    broken = TRUTH.copy()
    broken[3, 4] = np.nan
    with pytest.raises(EvaluationError, match="truth holds NaN"):
        compare_objects(TRUTH, (0, 0), broken, (0, 0))


def test_frc_of_identical_images_is_one_and_of_independent_noise_is_nothing() -> None:
    a, b = noise((90, 120), 1), noise((90, 120), 2)
    same = fourier_ring_correlation(a, a * (2 - 3j) / abs(2 - 3j))
    assert same.correlation == pytest.approx(2 / math.sqrt(13), abs=1e-12)
    exact = fourier_ring_correlation(a, 5 * a + 3)
    np.testing.assert_allclose(exact.correlation, 1, atol=1e-12)
    assert exact.cutoff_half == exact.cutoff_one_seventh == exact.cutoff_half_bit == 0.5
    assert exact.half_period_px(exact.cutoff_half) == 1.0
    apart = fourier_ring_correlation(a, b)
    # a ring of n pixels of which a window leaves about half independent has a spread of about √(2/n)
    assert (np.abs(apart.correlation) < 6 / np.sqrt(apart.n_pixels)).all()
    assert abs(apart.correlation[10:].mean()) < 0.03
    assert apart.cutoff_half < 0.06


def test_frc_rings_are_in_cycles_per_pixel_on_both_axes_of_an_oblong_image() -> None:
    """A pass band that both images share along each axis, and independent noise beyond it."""
    shape = (80, 140)
    f = np.hypot(np.fft.fftfreq(80)[:, None], np.fft.fftfreq(140))
    shared = np.where(f < 0.25, np.fft.fft2(noise(shape, 1)), 0)
    a, b = (np.fft.ifft2(shared + np.where(f < 0.25, 0, np.fft.fft2(noise(shape, s)))) for s in (2, 3))
    frc = fourier_ring_correlation(a, b)
    assert len(frc.frequency) == 40
    np.testing.assert_allclose(frc.frequency[[0, -1]], [1 / 80, 0.5])
    assert (frc.correlation[frc.frequency < 0.22] > 0.9).all()
    assert (np.abs(frc.correlation[frc.frequency > 0.28]) < 0.3).all()
    for cutoff in (frc.cutoff_half, frc.cutoff_one_seventh, frc.cutoff_half_bit):
        assert cutoff == pytest.approx(0.25, abs=0.015)
    assert frc.half_period_px(frc.cutoff_half) == pytest.approx(2.0, abs=0.12)
    # about π/4 of all Fourier pixels lie within Nyquist, in rings that grow linearly
    np.testing.assert_allclose(frc.n_pixels, 2 * np.pi * np.arange(1, 41) / 80 * (1 / 80) * 80 * 140, rtol=0.3)


def test_cutoffs_are_interpolated_between_rings() -> None:
    shape = (100, 100)
    ring = np.floor(np.hypot(np.fft.fftfreq(100)[:, None], np.fft.fftfreq(100)) * 100 + 0.5)
    wave = np.exp(2j * np.pi * np.random.default_rng(0).random(shape))
    # ring n correlates as 1 − n/50 exactly when the second spectrum is turned by that angle
    turned = wave * np.exp(1j * np.arccos(np.clip(1 - ring / 50, -1, 1)))
    a, b = np.fft.ifft2(wave), np.fft.ifft2(turned)
    frc = fourier_ring_correlation(a, b, window=np.ones(shape))
    np.testing.assert_allclose(frc.correlation, 1 - np.arange(1, 51) / 50, atol=1e-9)
    assert frc.cutoff_half == pytest.approx(0.25)
    assert frc.cutoff_one_seventh == pytest.approx(0.5 * 6 / 7)
    difference = frc.correlation - frc.half_bit
    after = int(np.argmax(difference < 0))
    assert frc.frequency[after - 1] < frc.cutoff_half_bit < frc.frequency[after]


def test_half_bit_threshold_follows_its_formula_and_counts_real_images_half() -> None:
    a, b = noise((64, 64), 1), noise((64, 64), 2)
    full = fourier_ring_correlation(a, b, window=np.ones((64, 64)))
    root = np.sqrt(full.n_pixels)
    np.testing.assert_allclose(full.half_bit, (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root))
    real = fourier_ring_correlation(a.real, b.real, window=np.ones((64, 64)))
    root = np.sqrt(full.n_pixels / 2)
    np.testing.assert_allclose(real.half_bit, (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root))
    assert fourier_ring_correlation(a, b).half_bit[20] > full.half_bit[20]


def test_apodisation_keeps_borders_from_correlating() -> None:
    """Two noise images on slopes share their wrap-around edge, and nothing else."""
    slope = np.linspace(0, 60, 96)[:, None] * np.ones((1, 80))
    a, b = slope + noise((96, 80), 1).real, slope + noise((96, 80), 2).real
    bare = fourier_ring_correlation(a, b, window=np.ones((96, 80)))
    soft = fourier_ring_correlation(a, b)
    assert bare.correlation[25:].mean() > 0.5
    assert abs(soft.correlation[25:].mean()) < 0.1


def test_frc_refuses_what_it_cannot_compare() -> None:
    a = noise((40, 50))
    with pytest.raises(EvaluationError, match="one shape"):
        fourier_ring_correlation(a, a[:, :-1])
    with pytest.raises(EvaluationError, match="8 pixels"):
        fourier_ring_correlation(a[:5], a[:5])
    with pytest.raises(EvaluationError, match="second image is constant"):
        fourier_ring_correlation(a, np.ones_like(a))
    with pytest.raises(EvaluationError, match="first image holds NaN"):
        fourier_ring_correlation(a * np.nan, a)


def test_soft_window_is_zero_outside_one_inside_and_monotonic_between() -> None:
    region = np.zeros((60, 90), dtype=bool)
    region[6:54, 10:82] = True
    region[25:35, 40:50] = False
    window = soft_window(region)
    assert (window[~region] == 0).all()
    assert window[15, 25] == 1
    assert (np.diff(window[15, 10:25]) >= 0).all()
    assert 0 < window[15, 10] < 0.1
    assert window[30, 39] < 0.1


def test_half_data_frc_registers_two_reconstructions_and_finds_their_noise() -> None:
    first = (TRUTH + 0.1 * noise(TRUTH_SHAPE, 1)) * ramped(TRUTH_SHAPE, 0.2, -0.07)
    # the second lies on another grid, has other borders, and its own phase and scale
    second = scene((140, 170), (0.5, 8.2)) * np.exp(1j) * 0.4
    second += 0.04 * noise((140, 170), 2)
    coverage = np.ones((140, 170))
    coverage[:, 155:] = 0
    second[:, 155:] = 30
    frc = half_data_frc(first, TRUTH_ORIGIN, second, (0.0, 8.0), second_coverage=coverage)
    # what two equally noisy images give that need no registration
    common = scene((139, 155), (0.5, 8.2))
    ideal = fourier_ring_correlation(*(common + 0.1 * noise(common.shape, seed) for seed in (3, 4)))
    np.testing.assert_array_equal(frc.frequency, ideal.frequency)
    smooth = [np.convolve(curve.correlation, np.ones(5) / 5, "valid")[:50] for curve in (frc, ideal)]
    np.testing.assert_allclose(smooth[0], smooth[1], atol=0.12)
    assert frc.cutoff_half == pytest.approx(ideal.cutoff_half, abs=0.03)
    assert (np.abs(frc.correlation[frc.frequency > 0.3]) < 0.25).all()
    assert 0.1 < frc.cutoff_one_seventh < 0.25
    assert frc.cutoff_half < frc.cutoff_one_seventh
    unregistered = fourier_ring_correlation(first[4:140, 5:159], second[:136, :154])
    assert unregistered.cutoff_half < 0.5 * frc.cutoff_half
