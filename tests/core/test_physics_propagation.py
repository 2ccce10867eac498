"""The near field against closed forms, and everything that stands on it: rates, gradients, sweeps, probes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from physics_problem import Problem, complex_noise, make_problem

from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.physics.forward import expected_counts, fourier_shift, rate_of_waves
from ptycho_core.physics.likelihood import amplitude_loss, loss_and_gradient, poisson_loss
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import initial_scale, probe_from_mean_pattern
from ptycho_core.physics.propagation import (
    far_field,
    far_field_adjoint,
    fresnel_number_of,
    is_sampled,
    propagate,
    propagate_adjoint,
    transfer_function,
)
from ptycho_core.physics.steps import position_gradient
from ptycho_core.physics.sweep import solver_update

LOSSES = {"poisson": poisson_loss, "amplitude": amplitude_loss}
NEAR = Propagation("near_field", 0.21)
EXACT = Propagation("near_field", 0.21, 0.9)
WAYS = pytest.mark.parametrize("propagation", [NEAR, EXACT], ids=["paraxial", "exact"])


@pytest.fixture
def problem() -> Problem:
    return make_problem()


@pytest.mark.spec("FM-4")
def test_the_default_is_the_far_field(rng: np.random.Generator) -> None:
    wave = complex_noise(rng, 2, 12, 12)
    for given in ((), (FAR_FIELD,)):
        np.testing.assert_array_equal(propagate(wave, *given), far_field(wave))
        np.testing.assert_array_equal(propagate_adjoint(wave, *given), far_field_adjoint(wave))


@pytest.mark.spec("FM-23")
@WAYS
def test_near_field_is_unitary_and_its_adjoint_inverts_it(rng: np.random.Generator, propagation: Propagation) -> None:
    wave, other = complex_noise(rng, 2, 18, 18)
    far = propagate(wave, propagation)
    assert np.sum(np.abs(far) ** 2) == pytest.approx(np.sum(np.abs(wave) ** 2), rel=1e-12)
    np.testing.assert_allclose(propagate_adjoint(far, propagation), wave, atol=1e-12)
    assert np.vdot(other, far) == pytest.approx(np.vdot(propagate_adjoint(other, propagation), wave), rel=1e-12)
    assert np.abs(far - wave).max() > 0.5


@pytest.mark.spec("FM-23")
def test_at_a_large_fresnel_number_the_frame_is_the_window_itself(rng: np.random.Generator) -> None:
    wave = complex_noise(rng, 14, 14)
    np.testing.assert_allclose(propagate(wave, Propagation("near_field", 1e7)), wave, atol=1e-5)
    np.testing.assert_allclose(propagate(wave, Propagation("near_field", 1e7, 0.5)), wave, atol=1e-5)


@pytest.mark.spec("FM-23")
@pytest.mark.parametrize("w", [None, 0.9])
def test_two_distances_one_after_the_other_are_their_sum(rng: np.random.Generator, w: float | None) -> None:
    wave = complex_noise(rng, 20, 20)
    twice = propagate(propagate(wave, Propagation("near_field", 0.5, w)), Propagation("near_field", 0.3, w))
    # distances add, so do the inverse Fresnel numbers
    np.testing.assert_allclose(
        twice, propagate(wave, Propagation("near_field", 1 / (1 / 0.5 + 1 / 0.3), w)), atol=1e-12
    )


@pytest.mark.spec("FM-23")
def test_a_gaussian_beam_spreads_as_it_should() -> None:
    """Along each axis e^{−πr²/a²} becomes a/q · e^{−πr²/q²}, q² = a² + i/F."""
    N, F = 64, 0.08
    y, x = np.mgrid[:N, :N] - 30.0
    wave = np.ones((N, N), complex)
    wanted = np.ones((N, N), complex)
    for r, a in ((y, 7.0), (x, 4.5)):
        wave *= np.exp(-np.pi * r**2 / a**2)
        q2 = a**2 + 1j / F
        wanted *= a / np.sqrt(q2) * np.exp(-np.pi * r**2 / q2)
    np.testing.assert_allclose(propagate(wave, Propagation("near_field", F)), wanted, atol=1e-6)


@pytest.mark.spec("FM-23")
def test_a_grating_is_its_own_image_at_the_talbot_distance() -> None:
    """Period d repeats at z = 2d²/λ, 1/F = 2d²; at half of it it is moved by half a period."""
    N, d = 32, 4
    y, x = np.mgrid[:N, :N]
    grating = (1.0 + 0.4 * np.cos(2 * np.pi * x / d)) * np.exp(0.7j * np.sin(2 * np.pi * x / d)) * np.ones_like(y)
    # 1/F = 32 ≤ N does not alias
    np.testing.assert_allclose(propagate(grating, Propagation("near_field", 1 / (2 * d**2))), grating, atol=1e-12)
    half = propagate(grating, Propagation("near_field", 1 / d**2))
    np.testing.assert_allclose(half, np.roll(grating, d // 2, axis=1), atol=1e-12)
    assert np.abs(half - grating).max() > 0.5


@pytest.mark.spec("FM-23")
@WAYS
def test_a_plane_wave_gets_the_phase_of_its_direction(propagation: Propagation) -> None:
    N, ky, kx = 16, 5, -7
    y, x = np.mgrid[:N, :N]
    wave = np.exp(2j * np.pi * (ky * y + kx * x) / N)
    squared, w = (ky**2 + kx**2) / N**2, propagation.wavelength_px
    F = 0.21
    turn = -np.pi * squared / F if w is None else 2 * np.pi * (math.sqrt(1 - w**2 * squared) - 1) / (w**2 * F)
    np.testing.assert_allclose(propagate(wave, propagation), wave * np.exp(1j * turn), atol=1e-12)


@pytest.mark.spec("FM-23")
def test_the_exact_spectrum_tends_to_the_paraxial_one() -> None:
    paraxial = transfer_function(Propagation("near_field", 0.2), 16)
    np.testing.assert_allclose(transfer_function(Propagation("near_field", 0.2, 1e-5), 16), paraxial, atol=1e-8)
    assert np.abs(transfer_function(Propagation("near_field", 0.2, 0.9), 16) - paraxial).max() > 0.1


@pytest.mark.spec("FM-24")
@pytest.mark.parametrize("w", [None, 1.1])
def test_the_propagator_aliases_from_where_it_is_said_to(w: float | None) -> None:
    """The phase of H turns by half a turn a sample where F·N, with w F·N·√(1 − w²/2), is 1 (asymptotically)."""
    N = 4096
    least = 1.0 if w is None else 1 / math.sqrt(1 - w**2 / 2)
    for product, sampled in ((1.002 * least, True), (0.998 * least, False)):
        propagation = Propagation("near_field", product / N, w)
        assert is_sampled(propagation, N) is sampled
        f = np.array([0.5 - 1 / N, 0.5])
        squared = f**2 + 0.25
        w2 = 1e-12 if w is None else w**2
        phase = 2 * np.pi / propagation.fresnel_number * -squared / (1 + np.sqrt(1 - w2 * squared))
        assert bool(abs(phase[1] - phase[0]) < np.pi) is sampled
    assert is_sampled(FAR_FIELD, 8)


@pytest.mark.spec("FM-24")
def test_a_near_field_that_aliases_is_refused_with_what_is_allowed() -> None:
    wave = np.ones((16, 16))
    with pytest.raises(DataError, match=r"F = 0.05 of a pixel, N = 16.*least F is 0.0625.*least N is 20"):
        propagate(wave, Propagation("near_field", 0.05))
    with pytest.raises(DataError, match=r"F·N = 1.04 must be at least 1.59"):
        propagate_adjoint(wave, Propagation("near_field", 0.065, 1.1))
    with pytest.raises(DataError, match=r"wavelength_px = 1.5 has evanescent waves; it must be below √2"):
        propagate(wave, Propagation("near_field", 5.0, 1.5))
    with pytest.raises(DataError, match="far field has no transfer function"):
        transfer_function(FAR_FIELD, 16)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (("middle_field",), "propagation = 'middle_field'; allowed: far_field, near_field"),
        (("near_field",), "needs its fresnel_number"),
        (("near_field", -1.0), "fresnel_number = -1.0; it must be a finite number > 0"),
        (("near_field", math.nan), "finite number > 0"),
        (("near_field", True), "finite number > 0"),
        (("near_field", 0.1, 0.0), "wavelength_px = 0.0; it must be"),
        (("far_field", 0.1), "fresnel_number = 0.1 for a far field"),
        (("far_field", None, 0.1), "wavelength_px = 0.1 for a far field"),
    ],
)
def test_propagations_that_are_none(given: tuple[object, ...], match: str) -> None:
    with pytest.raises(DataError, match=match):
        Propagation(*given)  # type: ignore[arg-type]


@pytest.mark.spec("FM-25")
def test_the_fresnel_number_of_a_cone_beam() -> None:
    """PETRA III P25: 55 µm at 1.12 m behind a sample 3.65 mm behind the focus of 0.0979 nm."""
    m = (1.12 + 3.65e-3) / 3.65e-3
    effective = 3.65e-3 * 1.12 / (1.12 + 3.65e-3)
    wanted = (55e-6 / m) ** 2 / (0.0979e-9 * effective)
    assert fresnel_number_of(1.239841984e-6 / 0.0979e-9, 1.12, 55e-6, m) == pytest.approx(wanted, rel=1e-12)
    assert str(Propagation("near_field", wanted)) == "near field, Fresnel number 0.08962"


@pytest.mark.spec("FM-5", "FM-23")
@WAYS
def test_rates_in_the_near_field(problem: Problem, propagation: Propagation) -> None:
    patches = extract(problem.obj, problem.corners, 16)
    shifted = fourier_shift(problem.probe[None], problem.rest.astype(float)[:, None])
    H = transfer_function(propagation, 16)
    waves = np.fft.ifft2(np.fft.fft2(shifted * patches[:, None]) * H)
    wanted = problem.background + 1.7 * (np.abs(waves) ** 2).sum(axis=1)
    found = expected_counts(patches, problem.probe, problem.rest, 1.7, problem.background, propagation)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    np.testing.assert_allclose(
        rate_of_waves(shifted * patches[:, None], 1.7, problem.background, propagation), wanted, rtol=1e-10
    )


@pytest.mark.spec("FM-10", "FM-19", "FM-23")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@WAYS
def test_gradients_through_the_near_field_are_finite_differences(
    problem: Problem, propagation: Propagation, loss: str
) -> None:
    known = (problem.counts, loss, problem.mask, problem.background, problem.scale, 7.0, propagation)
    rest = problem.rest.astype(np.float64)
    value, d_obj, d_probe, d_scale = loss_and_gradient(problem.obj, problem.probe, problem.corners, rest, *known)
    d_rest = position_gradient(problem.obj, problem.probe, problem.corners, rest, *known)

    def loss_of(obj=problem.obj, probe=problem.probe, rest=rest, scale=problem.scale) -> float:
        patches = extract(obj, problem.corners, 16)
        rate = expected_counts(patches, probe, rest, scale, problem.background, propagation)
        return LOSSES[loss](rate, problem.counts, problem.mask, 7.0)

    assert value == pytest.approx(loss_of(), rel=1e-12)
    h = 1e-5
    rng = np.random.default_rng(0)
    for name, start, gradient in (("obj", problem.obj, d_obj), ("probe", problem.probe, d_probe)):
        step = complex_noise(rng, *start.shape)
        slope = (loss_of(**{name: start + h * step}) - loss_of(**{name: start - h * step})) / (2 * h)
        assert np.vdot(gradient, step).real == pytest.approx(slope, rel=1e-6)
    step = rng.normal(size=rest.shape)
    slope = (loss_of(rest=rest + h * step) - loss_of(rest=rest - h * step)) / (2 * h)
    assert np.sum(d_rest * step) == pytest.approx(slope, rel=1e-5)
    slope = (loss_of(scale=problem.scale + h) - loss_of(scale=problem.scale - h)) / (2 * h)
    assert d_scale == pytest.approx(slope, rel=1e-6)


@pytest.mark.spec("FM-16", "FM-23")
def test_a_sweep_in_the_near_field(problem: Problem) -> None:
    """What explains its frame stays; a phase object alone on flat light steps to what the amplitude asks for."""
    patches = extract(problem.obj, problem.corners, 16)
    shifted = fourier_shift(problem.probe[None], problem.rest.astype(float)[:, None])
    counts = expected_counts(patches, problem.probe, problem.rest, propagation=NEAR)
    assert np.abs(solver_update(patches, shifted, counts, propagation=NEAR)).max() < 1e-10
    far = expected_counts(patches, problem.probe, problem.rest)
    assert np.abs(solver_update(patches, shifted, far, propagation=NEAR)).max() > 0.1
    light = np.ones((1, 1, 16, 16), complex)
    root = np.sqrt(problem.counts[:1] + 1)
    waves = propagate(patches[:1], NEAR)
    gain = np.minimum(root / np.abs(waves), 10.0)
    wanted = propagate_adjoint(gain * waves, NEAR) - patches[:1]
    np.testing.assert_allclose(solver_update(patches[:1], light, root**2, propagation=NEAR), wanted, atol=1e-10)


@pytest.mark.spec("FM-12", "FM-23")
def test_the_probe_of_a_near_field_arrives_as_the_mean_pattern(problem: Problem) -> None:
    pattern = problem.counts.mean(axis=0)
    probe = probe_from_mean_pattern(pattern, propagation=EXACT)
    assert probe.shape == (1, 16, 16)
    assert probe.dtype == np.complex64
    np.testing.assert_allclose(propagate(probe[0], EXACT), np.sqrt(pattern), atol=1e-4 * np.sqrt(pattern.max()))
    with pytest.raises(ConfigError, match=r"defocus_px2 = 3 for a near field, Fresnel number 0.21, .*Leave it out"):
        probe_from_mean_pattern(pattern, defocus_px2=3.0, propagation=EXACT)


@pytest.mark.spec("FM-6", "FM-23")
def test_the_scale_is_that_of_the_light_on_good_pixels_of_the_near_field(problem: Problem) -> None:
    lit = (np.abs(propagate(problem.probe, NEAR)) ** 2).sum(axis=0)[problem.mask].sum()
    assert initial_scale(500.0, problem.probe, problem.mask, None, NEAR) == pytest.approx(500.0 / lit, rel=1e-12)
