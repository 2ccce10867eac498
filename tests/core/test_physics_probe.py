"""Where probes come from, and what may be done to their modes without changing a pattern."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from physics_problem import complex_noise, make_problem, smooth_probe

from ptycho_core.errors import ConfigError
from ptycho_core.physics.aberrations import ABERRATIONS, aberrate, zernike
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import (
    add_modes,
    aperture_probe,
    mode_powers,
    orthogonalise,
    probe_from_mean_pattern,
)
from ptycho_core.physics.propagation import far_field


def power(probe: np.ndarray) -> float:
    return float(np.sum(np.abs(probe.astype(np.complex128)) ** 2))


def centre(probe: np.ndarray) -> np.ndarray:
    weight = np.sum(np.abs(probe) ** 2, axis=0)
    axis = np.arange(len(weight))
    return np.array([(weight.sum(1) * axis).sum(), (weight.sum(0) * axis).sum()]) / weight.sum()


def spread(probe: np.ndarray) -> float:
    weight = np.sum(np.abs(probe) ** 2, axis=0)
    y, x = np.mgrid[: len(weight), : len(weight)]
    cy, cx = centre(probe)
    return float(np.sqrt((weight * ((y - cy) ** 2 + (x - cx) ** 2)).sum() / weight.sum()))


@pytest.mark.spec("FM-13", "CONV-4")
@pytest.mark.parametrize(("inner", "defocus"), [(0.0, 0.0), (0.0, 300.0), (5.0, -250.0)])
def test_far_field_of_an_aperture_probe_is_the_aperture(inner: float, defocus: float) -> None:
    N, radius = 64, 14.0
    probe = aperture_probe(N, radius, inner_radius_px=inner, defocus_px2=defocus, total=7.0)
    assert probe.shape == (1, N, N)
    assert probe.dtype == np.complex64
    assert power(probe) == pytest.approx(7.0, rel=1e-5)
    pattern = np.abs(far_field(probe[0]))
    q = np.hypot(*(np.mgrid[:N, :N] - N // 2))
    bright = (q < radius - 1) & (q > inner + 1 if inner else True)
    dark = (q > radius + 1) | (q < inner - 1)
    level = pattern[bright].mean()
    np.testing.assert_allclose(pattern[bright], level, rtol=1e-4)
    assert pattern[dark].max() < 1e-4 * level


@pytest.mark.spec("FM-13")
def test_aperture_probe_is_centred_and_defocus_spreads_it() -> None:
    N = 64
    sharp = aperture_probe(N, 12.0)
    blurred = aperture_probe(N, 12.0, defocus_px2=400.0)
    for probe in (sharp, blurred):
        np.testing.assert_allclose(centre(probe), (N - 1) / 2, atol=0.51)
    # geometric optics: the half-angle 12/64 cycles a pixel reaches λz·f = 400·12/64 = 75 px; wide enough to see
    assert spread(aperture_probe(N, 12.0, defocus_px2=100.0)) > 1.5 * spread(sharp)
    assert power(blurred) == pytest.approx(power(sharp), rel=1e-5)
    # upstream and downstream of the focus are complex conjugates of each other
    back = aperture_probe(N, 12.0, defocus_px2=-400.0)
    np.testing.assert_allclose(np.abs(back), np.abs(blurred), atol=1e-6)
    assert np.abs(back - blurred).max() > 1e-3


@pytest.mark.spec("FM-13")
def test_defocus_has_the_sign_and_size_of_fresnel_propagation() -> None:
    N, lz = 64, 150.0
    f = np.fft.fftshift(np.fft.fftfreq(N))
    ratio = far_field(np.fft.ifftshift(aperture_probe(N, 10.0, defocus_px2=lz)[0])) / (
        far_field(np.fft.ifftshift(aperture_probe(N, 10.0)[0])) + 1e-30
    )
    row, column = N // 2 + 6, N // 2 - 3
    expected = np.exp(-1j * np.pi * lz * (f[row] ** 2 + f[column] ** 2))
    assert ratio[row, column] == pytest.approx(expected, abs=1e-4)


@pytest.mark.spec("FM-13", "CONV-9")
@pytest.mark.parametrize(("radius", "inner"), [(40.0, 0.0), (10.0, 10.0), (10.0, -1.0), (0.0, 0.0)])
def test_an_impossible_aperture_is_refused(radius: float, inner: float) -> None:
    with pytest.raises(ConfigError, match="0 ≤ inner < outer ≤ N/2 = 32"):
        aperture_probe(64, radius, inner_radius_px=inner)


@pytest.mark.spec("FM-12")
def test_probe_from_mean_pattern_has_that_amplitude() -> None:
    N = 32
    truth = smooth_probe(N, 1)
    pattern = np.abs(far_field(truth[0])) ** 2
    for defocus in (0.0, 120.0):
        probe = probe_from_mean_pattern(pattern, defocus_px2=defocus)
        assert probe.shape == (1, N, N)
        np.testing.assert_allclose(np.abs(far_field(probe[0])) ** 2, pattern, atol=1e-4 * pattern.max())
        assert power(probe) == pytest.approx(pattern.sum(), rel=1e-5)
    np.testing.assert_allclose(centre(probe_from_mean_pattern(pattern)), N / 2, atol=0.1)
    assert np.isfinite(probe_from_mean_pattern(np.where(pattern > 1, pattern, -1.0))).all()


@pytest.mark.spec("FM-14")
@given(P=st.integers(1, 4), seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_orthogonalise_makes_modes_orthogonal_and_strongest_first(P: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probe = complex_noise(rng, P, 16, 16)
    out = orthogonalise(probe).astype(np.complex128).reshape(P, -1)
    gram = out.conj() @ out.T
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-4 * np.abs(gram).max())
    strengths = np.diag(gram).real
    assert (np.diff(strengths) <= 1e-3).all()
    assert strengths.sum() == pytest.approx(power(probe), rel=1e-5)


@pytest.mark.spec("FM-14")
def test_orthogonalise_leaves_every_pattern_unchanged() -> None:
    problem = make_problem()
    probe = problem.probe + 0.4 * problem.probe[::-1]  # far from orthogonal
    patches = extract(problem.obj, problem.corners, 16)
    before = expected_counts(patches, probe, problem.rest)
    np.testing.assert_allclose(
        expected_counts(patches, orthogonalise(probe), problem.rest), before, atol=1e-5 * before.max()
    )


@pytest.mark.spec("FM-14")
def test_orthogonalise_keeps_an_orthogonal_probe(rng: np.random.Generator) -> None:
    rows = np.linalg.qr(complex_noise(rng, 256, 3))[0].T * np.array([[3.0], [2.0], [1.0]]) * np.exp(0.7j)
    probe = rows.reshape(3, 16, 16)
    np.testing.assert_allclose(orthogonalise(probe), probe, atol=1e-5)
    single = smooth_probe(16, 1)
    np.testing.assert_allclose(orthogonalise(single), single, atol=1e-5)
    doubled = np.concatenate([single, single])  # one direction only: the second mode must become zero, not NaN
    out = orthogonalise(doubled)
    assert np.isfinite(out).all()
    np.testing.assert_allclose(mode_powers(out), [1, 0], atol=1e-9)


@pytest.mark.spec("FM-15")
@pytest.mark.parametrize("start", [1, 2])
def test_added_modes_are_weak_orthogonal_and_keep_the_power(start: int) -> None:
    probe = smooth_probe(32, start)
    out = add_modes(probe, start + 3, fraction=0.04)
    assert out.shape == (start + 3, 32, 32)
    assert out.dtype == np.complex64
    assert power(out) == pytest.approx(power(probe), rel=1e-5)
    np.testing.assert_allclose(mode_powers(out)[start:], 0.04, rtol=1e-4)
    flat = out.reshape(len(out), -1).astype(np.complex128)
    gram = np.abs(flat.conj() @ flat.T)
    norms = np.sqrt(np.diag(gram))
    overlap = gram / np.outer(norms, norms) - np.eye(len(out))
    assert overlap[start:].max() < 1e-4
    # the given modes are scaled, nothing else
    np.testing.assert_allclose(out[:start] / np.sqrt(1 - 0.12), probe, atol=1e-5)


@pytest.mark.spec("FM-15")
def test_fewer_modes_keep_the_strongest_in_their_order() -> None:
    probe = smooth_probe(16, 3) * np.array([1.0, 0.1, 2.0])[:, None, None]
    np.testing.assert_allclose(add_modes(probe, 2), probe[[0, 2]], rtol=1e-6)
    np.testing.assert_allclose(add_modes(probe, 3), probe, rtol=1e-6)


@pytest.mark.spec("FM-15", "CONV-9")
def test_impossible_numbers_of_modes_are_refused() -> None:
    probe = smooth_probe(16, 1)
    with pytest.raises(ConfigError, match="probe_modes = 13: at most 11 modes can be added to 1"):
        add_modes(probe, 13)
    with pytest.raises(ConfigError, match="probe_modes = 0"):
        add_modes(probe, 0)
    with pytest.raises(ConfigError, match=r"leave -0\.2 of it"):
        add_modes(probe, 7, fraction=0.2)


@pytest.mark.spec("FM-17")
def test_zernike_polynomials_are_orthonormal_on_the_disk() -> None:
    N, radius = 512, 250.0
    inside = np.hypot(*(np.mgrid[:N, :N] - N // 2)) < radius
    values = np.array([zernike(name, N, radius)[inside] for name in ABERRATIONS])
    np.testing.assert_allclose(values @ values.T / inside.sum(), np.eye(len(ABERRATIONS)), atol=0.02)


@pytest.mark.spec("FM-17")
def test_aberrations_keep_power_and_far_field_intensity() -> None:
    probe = aperture_probe(64, 15.0, defocus_px2=100.0)
    out = aberrate(probe, 15.0, {"coma_y": 0.6, "astigmatism_45": -0.4})
    assert power(out) == pytest.approx(power(probe), rel=1e-5)
    np.testing.assert_allclose(np.abs(far_field(out)), np.abs(far_field(probe)), atol=1e-5)
    assert np.abs(out - probe).max() > 0.1 * np.abs(probe).max()
    twice = aberrate(out, 15.0, {"coma_y": -0.6, "astigmatism_45": 0.4})
    np.testing.assert_allclose(twice, probe, atol=1e-6)
    with pytest.raises(ConfigError, match=r"aberration 'coma'; allowed: .*Did you mean 'coma_"):
        aberrate(probe, 15.0, {"coma": 1.0})
