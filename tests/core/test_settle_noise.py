"""A gain that noise tells: by closed forms, by simulated scans, and not where light or detector only look like it."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest

from ptycho_core.data.container import integer_corners
from ptycho_core.data.frames import ArrayFrames
from ptycho_core.data.raw import Source
from ptycho_core.data.recording import Recording
from ptycho_core.io.settle import scan_of
from ptycho_core.io.settle.noise import gain_by_noise, gain_of_white_noise
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.reader_protocol import ReadOptions
from ptycho_core.simulation.scan import SimulationConfig, simulate_scan

pytestmark = pytest.mark.spec("SETTLE-36")

H, W = 60, 74


def ramp(low: float, high: float) -> np.ndarray:
    """A level (H, W) without detail: brighter along both axes, unlike."""
    y, x = np.mgrid[:H, :W]
    return low + (high - low) * (0.3 * y / H + 0.7 * (x / W) ** 2)


def drawn(rate: np.ndarray, n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).poisson(rate, (n, *rate.shape[-2:])).astype(np.float64)


@functools.cache
def rates(kind: str, n: int, diameter: float, aperture: float, seed: int = 5) -> np.ndarray:
    """Expected counts (64, 64) of n of 64 frames of a simulated scan, one photon a frame on the mean."""
    made = "dead_leaves" if kind == "dead_leaves" else "lines"
    config = SimulationConfig(
        object=made, n_frames=64, probe_diameter=diameter, aperture_radius=aperture, seed=seed, noise=False
    )
    scan = simulate_scan(config)
    shape, rng = scan.truth.object.shape, np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    objects = {
        "dead_leaves": lambda: scan.truth.object,
        "random_phase": lambda: np.exp(1j * rng.uniform(-np.pi, np.pi, shape)),
        "weak": lambda: np.exp(0.2j * rng.normal(size=shape)),
        "smooth": lambda: np.exp(0.8j * np.sin(y / 19) * np.cos(x / 31 + 0.4)),
    }
    obj = objects[kind]().astype(np.complex64)
    corners, rest = integer_corners(scan.raw.positions_px[:: 64 // n], 64)
    found = np.asarray(expected_counts(extract(obj, corners, 64), scan.raw.probe, rest))
    return found * n / found.sum()


def warned(values: np.ndarray) -> list[str]:
    """What reading frames (n, H, W) says against their being photons."""
    places = np.random.default_rng(4).uniform(0, 90, (len(values), 2))
    recording = Recording(
        frames=ArrayFrames(values.astype(np.float32), "counts"),
        positions=places,
        position_unit="px",
        source=Source(path="noise.h5", measurement="counts"),
    )
    return [text for text in scan_of(recording, ReadOptions()).source.warnings if "a photon is" in text]


# ---- closed forms


@pytest.mark.parametrize("gain", [1.0, 0.33, 3.0, 40.0])
@pytest.mark.parametrize(("low", "high"), [(0.02, 4.0), (20.0, 900.0)])
def test_noise_of_single_pixels_tells_its_gain(gain, low, high):
    rng = np.random.default_rng(2)
    for n in (12, 40):
        photons = drawn(ramp(low, high), n)
        blurred = gain * (photons + 0.05 * rng.normal(size=photons.shape) + 3)
        assert gain_of_white_noise(blurred.astype(np.float32)) == pytest.approx(gain, rel=0.15)


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("share", [0.06, 0.1, -0.08])  # of its noise that a pixel gives to each neighbour, or takes
def test_noise_that_pixels_share_tells_none(share, axes):
    values = drawn(ramp(1.0, 40.0), 24)
    for axis in axes:
        values = (1 - 2 * share) * values + share * (np.roll(values, 1, axis) + np.roll(values, -1, axis))
    values = values[:, 1:-1, 1:-1].astype(np.float32)
    # at lags (N/2, N/2) the transfer function is 1 − 4 share along each axis, and nearer to 1 around them
    assert gain_by_noise(values) == pytest.approx((1 - 4 * share) ** (2 * len(axes)), rel=0.25)
    assert gain_of_white_noise(values) is None


def test_speckle_as_fine_as_a_pixel_tells_none():
    rng = np.random.default_rng(3)
    light = rng.exponential(1.0, (4, H, W)) * 600  # of a wave that fills its window, evenly: var = mean²
    values = rng.poisson(light).astype(np.float32)
    assert gain_by_noise(values) > 100
    assert gain_of_white_noise(values) is None


def test_one_frame_tells_none():
    assert gain_by_noise(drawn(ramp(1.0, 90.0), 1).astype(np.float32) * 40) == pytest.approx(40, rel=0.3)
    assert gain_of_white_noise(drawn(ramp(1.0, 90.0), 1).astype(np.float32) * 40) is None


def test_pixels_that_are_bad_tell_nothing():
    photons, good = drawn(ramp(1.0, 90.0), 24), np.ones((H, W), bool)
    good[20:22], good[40, 11] = False, False
    photons[:, ~good] = 1e5
    assert gain_of_white_noise((7 * photons).astype(np.float32), good) == pytest.approx(7, rel=0.15)


# ---- simulated scans

TEXTURED = [  # object, frames, diameter and aperture of the probe in the window, photons a frame
    ("dead_leaves", 64, 0.8, 0.3, 1e6),
    ("weak", 64, 0.9, 0.3, 1e6),
    ("random_phase", 64, 0.3, 0.08, 1e5),
    ("random_phase", 4, 0.5, 0.18, 1e6),
    ("random_phase", 4, 0.65, 0.08, 1e5),
    ("random_phase", 4, 0.8, 0.3, 1e6),
    ("random_phase", 4, 0.8, 0.18, 1e4),
]


@pytest.mark.parametrize(("kind", "n", "diameter", "aperture", "photons"), TEXTURED)
def test_texture_that_looks_like_a_gain_is_none(kind, n, diameter, aperture, photons):
    values = drawn(rates(kind, n, diameter, aperture) * photons, n)
    assert gain_by_noise(values.astype(np.float32)) > 3
    assert gain_of_white_noise(values.astype(np.float32)) is None
    assert warned(values) == []


@pytest.mark.parametrize("kind", ["dead_leaves", "random_phase", "smooth"])
@pytest.mark.parametrize("aperture", [0.08, 0.18])  # of the smaller one light is in a part of the window only
def test_counts_of_photons_are_never_doubted(kind, aperture):
    for n in (4, 64):
        rate = rates(kind, n, 0.5, aperture, seed=8)
        for photons in (1e2, 1e3, 1e4, 1e5, 1e6):
            assert warned(drawn(rate * photons, n, seed=9)) == [], (n, photons)


@pytest.mark.parametrize(("n", "photons"), [(4, 1e4), (64, 1e4), (64, 1e3)])
def test_values_of_a_detector_are_doubted(n, photons):
    rng = np.random.default_rng(6)
    counts = drawn(rates("dead_leaves", n, 0.5, 0.18) * photons, n)
    (text,) = warned(np.rint(40 * (counts + 0.1 * rng.normal(size=counts.shape) + 2)))
    assert "by the noise of their whole numbers a photon is about" in text
    (text,) = warned(0.2 * (counts + 0.1 * rng.random(counts.shape)))
    found = re.search(r"by the noise of their values a photon is about ([0-9.]+) of them", text)
    assert float(found[1]) == pytest.approx(0.2, rel=0.25)


@pytest.mark.parametrize("gain", [0.33, 3.0, 40.0])
@pytest.mark.parametrize(("kind", "n", "diameter", "aperture", "photons"), TEXTURED)
def test_whole_multiples_tell_a_gain_whatever_the_texture(gain, kind, n, diameter, aperture, photons):
    counts = drawn(rates(kind, n, diameter, aperture) * photons, n)
    (text,) = warned((gain * counts).astype(np.float32))
    assert f"their values are whole multiples of {gain:g}, so that a photon is that much" in text
    assert "--gain auto" in text


def test_a_gain_that_is_not_far_from_1_is_left_alone():
    counts = drawn(rates("dead_leaves", 64, 0.5, 0.18) * 1e4, 64)
    for gain in (0.4, 2.0):
        assert warned((gain * counts).astype(np.float32)) == []


def test_few_different_values_tell_no_multiple():
    counts = np.zeros((4, H, W))
    counts[:, 20:30, 9:40] = 12 * (np.random.default_rng(1).random((4, 10, 31)) > 0.8)
    assert warned(counts) == []
    counts[:, 22] *= 2
    assert warned(counts) == []
    counts[:, 24] *= 3
    assert "whole multiples of 12" in warned(counts)[0]
