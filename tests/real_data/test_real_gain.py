"""What a photon is in real frames: all of them hold counts, and none is suspected of anything else."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_core.io import read_scan
from ptycho_core.io.settle.noise import gain_by_noise, gain_of_white_noise

pytestmark = pytest.mark.real_data

SCANS = {
    "siemens_star_64.npz": {"measurement": "amplitude"},
    "siemens_star_128.npz": {"measurement": "amplitude"},
    "tike_siemens_star_small.npz.bz2": {},
    "gold_balls_104.cxi": {},
    "petra3_p25_near_field.cxi": {},
    "electron_4dstem.h5": {"scan_step_m": 93.75e-10, "pixel_size_m": 9.3e-10, "radiation": "electron"},
}


@pytest.mark.spec("SETTLE-36")
@pytest.mark.parametrize("name", SCANS)
def test_no_real_scan_is_suspected_of_another_gain(shared_data, name):
    raw = read_scan(shared_data / name, **SCANS[name])
    assert not [text for text in raw.source.warnings if "a photon is" in text]


@pytest.mark.spec("SETTLE-36")
def test_electrons_that_are_shared_among_pixels_tell_no_gain(shared_data):
    raw = read_scan(shared_data / "electron_4dstem.h5", **SCANS["electron_4dstem.h5"])
    frames = raw.read_counts(np.linspace(0, raw.n_frames - 1, 64).astype(int))
    assert gain_by_noise(frames) == pytest.approx(0.33, abs=0.01)  # from pixel to pixel
    spread = frames.var(axis=0)[40:90, 40:90] / frames.mean(axis=0)[40:90, 40:90]
    assert np.median(spread) == pytest.approx(1.0, abs=0.1)  # from frame to frame
    assert gain_of_white_noise(frames) is None
    found = read_scan(shared_data / "electron_4dstem.h5", gain="auto", **SCANS["electron_4dstem.h5"])
    np.testing.assert_array_equal(found.read_counts([7]), raw.read_counts([7]))


@pytest.mark.spec("SETTLE-36")
def test_counts_in_units_of_the_detector_are(shared_data):
    counts = read_scan(shared_data / "gold_balls_104.cxi")
    frames = counts.read_counts(np.linspace(0, counts.n_frames - 1, 64).astype(int))
    adu = np.rint(37.3 * frames + np.random.default_rng(1).normal(60, 9, frames.shape)).astype(np.float32)
    assert gain_of_white_noise(adu) == pytest.approx(37.3, rel=0.1)
