"""What is taken off a phase to show it: the global phase and the ramp, and neither more nor less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from report_scan import make_scored

from ptycho_core.api.score import oracle_counts
from ptycho_core.physics.gauge import phase_ramp, ramp_wave, shown_phase, taken_off
from ptycho_core.report.figures import object_view

SHAPE = (61, 88)


def thing(depth: float = 0.5) -> np.ndarray:
    """A lopsided phase object with an absorbing corner, and light that is stronger on one side."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    phase = depth * (np.hypot(y - 20, x - 60) < 15) + 0.2 * depth * np.sin(x / 3 + y / 7)
    return (1 - 0.3 * (y > 45) * (x < 30)) * np.exp(1j * phase)


def light() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.where((y > 4) & (x < 80), 1 + 3 * np.exp(-((y - 40) ** 2 + (x - 30) ** 2) / 800), 0.0)


@pytest.mark.spec("FM-37")
@pytest.mark.parametrize("ramp", [(0.0, 0.0), (0.013, -0.004), (-0.31, 0.22)])
def test_a_ramp_and_a_global_phase_change_nothing_that_is_shown(ramp: tuple[float, float]) -> None:
    bare, bare_off = shown_phase(thing(), light())
    turned, off = shown_phase(thing() * np.exp(2.9j) * ramp_wave(ramp, (3.0, 7.5), SHAPE), light())
    lit = light() > 0
    np.testing.assert_allclose(turned[lit], bare[lit], atol=2e-4)
    wanted = np.array(bare_off.ramp_rad_per_px) + ramp
    np.testing.assert_allclose(off.ramp_rad_per_px, wanted, atol=1e-6)


@pytest.mark.spec("FM-37")
def test_what_was_taken_off_gives_the_object_back() -> None:
    obj = thing() * ramp_wave((0.05, -0.02), (0.0, 0.0), SHAPE) * np.exp(-1.2j)
    phase, off = shown_phase(obj, light())
    np.testing.assert_allclose(np.abs(obj) * np.exp(1j * phase) * off.wave(SHAPE), obj, atol=1e-5)
    left = taken_off(obj / off.wave(SHAPE), light())
    assert left.phase_rad == pytest.approx(0, abs=1e-7)
    assert left.ramp_rad_per_px == pytest.approx((0, 0), abs=1e-8)
    assert off.wave((5, 6), (20, 30))[2, 4] == pytest.approx(off.wave(SHAPE)[22, 34], abs=1e-12)


def test_the_ramp_is_the_plane_of_least_squares_of_a_weak_phase() -> None:
    w, weak = light(), thing(0.02) / np.abs(thing(0.02)) * ramp_wave((2e-4, -1e-4), (30.0, 44.0), SHAPE)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    columns = np.stack([np.ones(y.size), y.ravel(), x.ravel()], axis=1)
    root = np.sqrt(w.ravel())
    plane = np.linalg.lstsq(columns * root[:, None], np.angle(weak).ravel() * root, rcond=None)[0]
    np.testing.assert_allclose(phase_ramp(weak, w), plane[1:], rtol=0.02)
    assert np.abs(plane[1:]).min() > 2e-5


def test_a_grating_is_no_ramp() -> None:
    x = np.arange(96)
    grating = np.exp(2.4j * np.sin(2 * np.pi * x / 8))[None, :].repeat(40, axis=0)  # J0(2.4) = 0: no light in order 0
    assert np.abs(phase_ramp(grating, np.ones(grating.shape))).max() < 0.1


def test_without_light_nothing_is_taken_off() -> None:
    off = taken_off(thing(), np.zeros(SHAPE))
    assert (off.phase_rad, off.ramp_rad_per_px) == (0.0, (0.0, 0.0))


def test_neither_changes_what_is_expected_of_a_frame() -> None:
    scored = make_scored(noise=False)
    # one mode, whose spectrum ends before that of the window
    image, frames = replace(scored.image, probe=scored.image.probe[:1]), np.array([0, 33])
    ramp = (2 * np.pi / 32, -2 * np.pi / 32)  # a whole turn over the window, which a Fourier shift carries exactly
    wave = ramp_wave(ramp, (0.0, 0.0), image.object.shape)
    own = np.conj(ramp_wave(ramp, (0.0, 0.0), image.probe.shape[1:]))
    other = replace(
        image,
        object=(image.object * wave * np.exp(1.1j)).astype(np.complex64),
        probe=(image.probe * own * np.exp(-1.1j)).astype(np.complex64),
    )
    wanted, found = oracle_counts(image, scored.scan, frames), oracle_counts(other, scored.scan, frames)
    assert np.abs(found - wanted).max() < 1e-3 * wanted.max()


def test_pictures_have_the_phase_of_the_files() -> None:
    image = make_scored().image
    obj = (image.object * ramp_wave((0.03, 0.01), (0, 0), image.object.shape) * 1j).astype(np.complex64)
    view, (phase, _) = object_view(obj, image.coverage), shown_phase(obj, image.coverage)
    rows, columns = (slice(c, c + n) for c, n in zip(view.corner_px, view.phase.shape, strict=True))
    known = ~np.isnan(view.phase)
    np.testing.assert_allclose(view.phase[known], phase[rows, columns][known], atol=1e-5)
    assert known.mean() > 0.5
