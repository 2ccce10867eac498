"""Real scans without a probe: one is found from the frames alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptycho_core import RawData, find_probe, read_scan
from ptycho_core.data.orientation import ORIENTATIONS, oriented

pytestmark = pytest.mark.real_data


def likeness(one: np.ndarray, two: np.ndarray) -> float:
    """|⟨a, b⟩| / (‖a‖ ‖b‖) at the best shift and the best tilt: object and probe may share either."""
    N = one.shape[-1]
    r = np.arange(N) - N / 2
    best = 0.0
    for tilt_y in np.linspace(-0.5, 0.5, 9):
        for tilt_x in np.linspace(-0.5, 0.5, 9):
            ramp = np.exp(2j * np.pi * (tilt_y * r[:, None] + tilt_x * r) / N)
            cross = np.fft.fftshift(np.fft.fft2(one * ramp) * np.conj(np.fft.fft2(two)))
            wide = np.fft.ifft2(np.pad(cross, 3 * N // 2)) * 16  # quarters of a pixel
            best = max(best, float(np.abs(wide).max()))
    return best / float(np.linalg.norm(one) * np.linalg.norm(two))


@pytest.mark.spec("PROBE-5")
def test_the_star_is_found_with_positions_negated_and_exchanged(shared_data):
    """Measured: defocus 39.9 px², 80 % explained; 0.944 with the stored probe, 0.983 once the image is refined."""
    stored = read_scan(shared_data / "siemens_star_64.npz", measurement="amplitude")
    assert stored.probe is not None
    raw = replace(oriented(stored, "transpose+flip_y+flip_x"), probe=None, object_guess=None)
    guess = find_probe(raw, orientations=ORIENTATIONS)
    assert guess.convincing
    assert guess.orientation == "transpose+flip_y+flip_x"
    assert guess.defocus_px2 == pytest.approx(39.9, abs=2)
    assert likeness(guess.probe[0], stored.probe[0]) > 0.9
    twin = np.roll(np.conj(guess.probe[0][::-1, ::-1]), 1, (0, 1))
    assert likeness(twin, stored.probe[0]) < 0.5


@pytest.mark.spec("PROBE-2")
def test_electrons_tell_the_sign_of_the_defocus_though_the_object_explains_little(shared_data):
    """Measured: -32.6 px² where -30.7 is described, 4 % explained, by six standard errors."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(shared_data / "electron_4dstem.h5") as file:
        counts = file["data"][()].reshape(-1, 128, 128)
    a, (i, j) = np.deg2rad(-126), np.mgrid[:43, :43].reshape(2, -1)
    places = 93.75 / 9.3 * np.stack([i * np.cos(a) - j * np.sin(a), i * np.sin(a) + j * np.cos(a)], axis=-1)
    guess = find_probe(RawData.from_arrays(counts, places), most_modes=1)
    assert guess.convincing
    assert guess.defocus_px2 == pytest.approx(-30.7, abs=4)
    assert guess.aperture is not None
    assert guess.aperture.radius == pytest.approx(62, rel=0.12)
    assert any("lattice" in text for text in guess.doubts)


@pytest.mark.spec("PROBE-2")
def test_gold_balls_have_a_probe_near_its_focus(shared_data):
    guess = find_probe(read_scan(shared_data / "gold_balls_104.cxi"))
    assert guess.convincing
    with np.load(shared_data / "gold_balls_104_truth.npz") as truth:
        assert likeness(guess.probe[0], truth["probe"][0]) > 0.8
