"""The oracle's waves against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from physics_problem import complex_noise, make_problem, smooth_probe

from ptycho_core.data.container import PtychoDataContainer, Statistics, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.physics.forward import (
    exit_waves,
    expected_counts,
    fourier_shift,
    shift_ramp,
)
from ptycho_core.physics.likelihood import sample_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.propagation import far_field, far_field_adjoint

shifts = st.floats(-3, 3, allow_nan=False)


@pytest.mark.spec("FM-4")
def test_far_field_conserves_power_and_its_adjoint_inverts_it(rng: np.random.Generator) -> None:
    wave = complex_noise(rng, 3, 16, 16)
    assert np.sum(np.abs(far_field(wave)) ** 2) == pytest.approx(np.sum(np.abs(wave) ** 2), rel=1e-12)
    np.testing.assert_allclose(far_field_adjoint(far_field(wave)), wave, atol=1e-12)
    other = complex_noise(rng, 3, 16, 16)
    assert np.vdot(other, far_field(wave)) == pytest.approx(np.vdot(far_field_adjoint(other), wave), rel=1e-12)


@pytest.mark.spec("FM-4", "CONV-4")
@pytest.mark.parametrize("N", [16, 48])
def test_plane_wave_lands_on_one_pixel(N: int) -> None:
    pattern = np.abs(far_field(np.full((N, N), 2.0 + 1.0j))) ** 2
    expected = np.zeros((N, N))
    expected[N // 2, N // 2] = 5.0 * N**2
    np.testing.assert_allclose(pattern, expected, atol=1e-9)


@pytest.mark.spec("FM-4", "CONV-1")
def test_phase_ramp_moves_the_pattern_along_the_right_axis() -> None:
    N, (ky, kx) = 32, (3, -5)
    y, x = np.mgrid[:N, :N]
    wave = smooth_probe(N, 1)[0]
    plain = np.abs(far_field(wave)) ** 2
    ramped = np.abs(far_field(wave * np.exp(2j * np.pi * (ky * y + kx * x) / N))) ** 2
    np.testing.assert_allclose(ramped, np.roll(plain, (ky, kx), axis=(0, 1)), atol=1e-9 * plain.max())
    assert np.abs(ramped - np.roll(plain, (kx, ky), axis=(0, 1))).max() > 0.1 * plain.max()


@pytest.mark.spec("FM-2", "CONV-1")
def test_whole_pixel_shift_moves_content_by_plus_delta(rng: np.random.Generator) -> None:
    wave = complex_noise(rng, 16, 16)
    moved = fourier_shift(wave, np.array([2.0, -3.0]))
    np.testing.assert_allclose(moved, np.roll(wave, (2, -3), axis=(0, 1)), atol=1e-12)
    for wrong in ((-2, 3), (-3, 2)):
        assert np.abs(moved - np.roll(wave, wrong, axis=(0, 1))).max() > 0.5


@pytest.mark.spec("FM-2")
def test_subpixel_shift_equals_the_sampled_function() -> None:
    N, delta = 32, np.array([0.3, -0.45])
    grid = np.arange(N)

    def sampled(dy: float, dx: float) -> np.ndarray:
        y, x = (grid - dy)[:, None], (grid - dx)[None, :]
        wave = 1.0 + (0.5 + 0.2j) * np.exp(2j * np.pi * (3 * y - 2 * x) / N) + 0.7j * np.exp(-2j * np.pi * (5 * x) / N)
        return np.asarray(wave)

    np.testing.assert_allclose(fourier_shift(sampled(0, 0), delta), sampled(*delta), atol=1e-12)
    assert np.abs(fourier_shift(sampled(0, 0), -delta) - sampled(*delta)).max() > 0.1


@pytest.mark.spec("FM-2")
@given(a=st.tuples(shifts, shifts), b=st.tuples(shifts, shifts), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_shift_is_unitary_composes_and_has_its_adjoint(
    a: tuple[float, float], b: tuple[float, float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    wave, other = complex_noise(rng, 16, 16), complex_noise(rng, 16, 16)
    a_px, b_px = np.array(a), np.array(b)
    moved = fourier_shift(wave, a_px)
    assert np.linalg.norm(moved) == pytest.approx(np.linalg.norm(wave), rel=1e-12)
    np.testing.assert_allclose(fourier_shift(moved, b_px), fourier_shift(wave, a_px + b_px), atol=1e-10)
    np.testing.assert_allclose(fourier_shift(moved, -a_px), wave, atol=1e-10)
    assert np.vdot(other, moved) == pytest.approx(np.vdot(fourier_shift(other, -a_px), wave), abs=1e-9)


@pytest.mark.spec("FM-2")
def test_shift_ramp_broadcasts_over_leading_axes() -> None:
    shift = np.array([[[0.1, 0.2]], [[-0.3, 0.4]]])
    ramp = shift_ramp(shift, 16)
    assert ramp.shape == (2, 1, 16, 16)
    np.testing.assert_allclose(np.abs(ramp), 1.0, atol=1e-14)
    # index 1 along y is one cycle a window, along x none
    assert ramp[1, 0, 1, 0] == pytest.approx(np.exp(2j * np.pi * 0.3 / 16))
    assert ramp[1, 0, 0, 1] == pytest.approx(np.exp(-2j * np.pi * 0.4 / 16))


@pytest.mark.spec("FM-2", "CONV-2")
@given(
    centre=st.lists(st.floats(-1e4, 1e4, allow_nan=False), min_size=2, max_size=2),
    N=st.sampled_from([16, 48, 64]),
)
@settings(deadline=None)
def test_integer_corners_split_positions_into_a_half_open_rest(centre: list[float], N: int) -> None:
    corners, rest = integer_corners(np.array(centre), N)
    assert corners.dtype == np.int64
    assert rest.dtype == np.float32
    assert (rest >= np.float32(-0.5)).all()
    assert (rest < np.float32(0.5)).all()
    np.testing.assert_allclose(corners + rest.astype(np.float64) + (N - 1) / 2, centre, atol=1e-6)


@pytest.mark.spec("FM-2", "CONV-2")
def test_integer_corners_at_the_ends_of_the_interval() -> None:
    N = 16
    centre = 7.5 + np.array([[0.0, 0.5], [-0.5, 0.49999999999], [np.nextafter(0.5, 0), -0.25]])
    corners, rest = integer_corners(centre, N)
    assert corners.tolist() == [[0, 1], [0, 0], [int(centre[2, 0] - 7.5 + 0.5), 0]]
    np.testing.assert_allclose(rest[0], [0.0, -0.5])
    assert rest[1, 0] == -0.5
    assert 0.4999999 < rest[1, 1] < 0.5
    assert -0.5 <= rest[2, 0] < 0.5


@pytest.mark.spec("FM-3", "FM-2")
def test_exit_wave_is_the_same_as_moving_the_object_the_other_way() -> None:
    N = 32
    probe = smooth_probe(N)
    patch = 1 + 0.3 * smooth_probe(N, 1)
    delta = np.array([[0.31, -0.22]])
    direct = exit_waves(patch, probe, delta)
    assert direct.shape == (1, 2, N, N)
    np.testing.assert_allclose(direct[0, 1], fourier_shift(probe[1], delta[0]) * patch[0], atol=1e-12)
    # patterns do not see a common shift: shifting the object by −δ under the still probe gives the same intensity
    other = probe * fourier_shift(patch[0], -delta[0])
    np.testing.assert_allclose(np.abs(far_field(direct[0])), np.abs(far_field(other)), atol=2e-3 * np.abs(probe).max())
    wrong = probe * fourier_shift(patch[0], delta[0])
    assert np.abs(np.abs(far_field(direct[0])) - np.abs(far_field(wrong))).max() > 0.1


@pytest.mark.spec("FM-5")
def test_modes_add_as_intensities_not_as_waves() -> None:
    problem = make_problem()
    patches = extract(problem.obj, problem.corners, 16)
    both = expected_counts(patches, problem.probe, problem.rest)
    single = [expected_counts(patches, problem.probe[p : p + 1], problem.rest) for p in range(2)]
    np.testing.assert_allclose(both, single[0] + single[1], rtol=1e-12)
    coherent = expected_counts(patches, problem.probe.sum(axis=0, keepdims=True), problem.rest)
    assert np.abs(coherent - both).max() > 0.1 * both.max()


@pytest.mark.spec("FM-5")
def test_scale_multiplies_waves_and_background_is_added_once() -> None:
    problem = make_problem()
    patches = extract(problem.obj, problem.corners, 16)
    plain = expected_counts(patches, problem.probe, problem.rest)
    full = expected_counts(patches, problem.probe, problem.rest, 2.5, problem.background)
    np.testing.assert_allclose(full, 2.5 * plain + problem.background, rtol=1e-12)
    # one power for the whole chain: Σλ = s Σ|P·Q|² + Σb
    lit = np.abs(exit_waves(patches, problem.probe, problem.rest)) ** 2
    np.testing.assert_allclose(
        full.sum(axis=(1, 2)), 2.5 * lit.sum(axis=(1, 2, 3)) + problem.background.sum(), rtol=1e-12
    )


@pytest.mark.spec("FM-6", "FM-18")
def test_closed_loop_reproduces_the_measured_rate() -> None:
    N = 32
    rng = np.random.default_rng(11)
    positions = (N - 1) / 2 + rng.uniform(0, [60, 30], size=(400, 2))
    probe = smooth_probe(N)
    obj = (0.7 + 0.3 * rng.random((N + 61, N + 31))) * np.exp(1j * rng.normal(size=(N + 61, N + 31)))
    corners, rest = integer_corners(positions, N)
    rate_of_truth = 1e8 / float(np.sum(np.abs(probe) ** 2))
    rate = expected_counts(extract(obj, corners, N), probe, rest, rate_of_truth)
    raw = RawData.from_arrays(
        sample_counts(rate, rng), positions, probe * np.sqrt(rate_of_truth), probe_calibrated=True
    )
    container = PtychoDataContainer.of(raw)
    assert container.statistics.scale == 1.0
    again = expected_counts(extract(obj, corners, N), container.probe, rest, container.statistics.scale)
    measured = container.statistics.mean_counts
    assert again.sum() / raw.n_frames == pytest.approx(measured, rel=2e-5)
    assert again.sum() == pytest.approx(rate.sum(), rel=2e-5)


@pytest.mark.spec("FM-6")
def test_scale_starts_from_the_mean_counts_and_leaves_the_probe_alone() -> None:
    problem = make_problem()
    raw = RawData.from_arrays(problem.counts, problem.positions_px, problem.probe, mask=problem.mask)
    statistics = Statistics.of(raw)
    mean_counts = problem.counts[:, problem.mask].sum(axis=1).mean()
    assert statistics.mean_counts == pytest.approx(mean_counts)
    lit = np.sum(np.abs(far_field(problem.probe)) ** 2, axis=0)[problem.mask].sum()
    assert statistics.scale == pytest.approx(mean_counts / lit, rel=1e-6)
    whole = Statistics.of(RawData.from_arrays(problem.counts, problem.positions_px, problem.probe))
    assert whole.scale == pytest.approx(whole.mean_counts / np.sum(np.abs(problem.probe) ** 2), rel=1e-6)
    assert statistics.n_frames == 6
    np.testing.assert_array_equal(raw.probe, problem.probe.astype(np.complex64))
