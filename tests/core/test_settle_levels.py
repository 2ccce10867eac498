"""Backgrounds and gains: cut as frames are, recognised in values, read off their noise."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_core.data.frames import ArrayFrames
from ptycho_core.data.raw import RawData, Source
from ptycho_core.data.recording import Recording
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.io.settle import scan_of
from ptycho_core.io.settle.levels import gain_by_noise, quantum_of
from ptycho_core.reader_protocol import ReadOptions
from ptycho_core.simulation.scan import SimulationConfig, simulate_scan

M, H, W = 20, 26, 30
COUNTS = np.random.default_rng(3).poisson(11.0, (M, H, W)).astype(np.float32)


def recording(frames: np.ndarray = COUNTS, stored: str = "counts", **changes) -> Recording:
    given = {
        "frames": ArrayFrames(frames, stored),
        "positions": np.random.default_rng(4).uniform(0, (50, 70), (len(frames), 2)),
        "position_unit": "px",
        "source": Source(path="levels.h5", measurement=stored),
    }
    return Recording(**(given | changes))


def settled(of: Recording | None = None, **said) -> RawData:
    return scan_of(of or recording(), ReadOptions(**said))


def counts_of(raw: RawData) -> np.ndarray:
    return raw.read_counts(np.arange(raw.n_frames))


# ---- background


@pytest.mark.spec("SETTLE-32")
def test_a_background_is_cut_and_binned_as_frames_are(tmp_path):
    rng = np.random.default_rng(1)
    level, good = rng.uniform(0, 3, (H, W)), np.ones((H, W), bool)
    good[5, 8] = False
    np.save(tmp_path / "level.npy", level)
    raw = settled(recording(mask=good), background=tmp_path / "level.npy", crop=20, bin=2, centre=(12, 13))
    window = (slice(2, 22), slice(3, 23))
    share = good[window].reshape(10, 2, 10, 2).mean(axis=(1, 3))
    sums = np.where(good, level, 0)[window].reshape(10, 2, 10, 2).sum(axis=(1, 3))
    np.testing.assert_allclose(raw.background, sums / share, rtol=1e-6)
    # four pixels of a number each
    np.testing.assert_allclose(settled(background=0.25, bin=2).background, 1.0)
    assert any("background of 0.25 counts a pixel" in text for text in settled(background=0.25).source.assumptions)
    # beyond the detector there is none
    padded = settled(background=0.5, pad=40)
    np.testing.assert_array_equal(padded.background, np.where(padded.mask, 0.5, 0))


@pytest.mark.spec("SETTLE-32", "SETTLE-33")
def test_a_given_background_is_in_photons_and_the_files_own_in_its_units():
    own = np.full((H, W), 74.0)
    raw = settled(recording(COUNTS * 37, background=own), gain=37.0)
    np.testing.assert_allclose(raw.background, 2.0)
    np.testing.assert_allclose(counts_of(raw), COUNTS[:, :, 2:28], rtol=1e-6)
    np.testing.assert_allclose(
        settled(recording(COUNTS * 37, background=own), gain=37.0, background=0.5).background, 0.5
    )


def test_a_background_that_cannot_be_is_refused(tmp_path):
    np.save(tmp_path / "b.npy", np.full((H, W), -0.5))
    with pytest.raises(DataError, match=r"b.npy: the background must be finite expected counts ≥ 0.*-0.5"):
        settled(background=tmp_path / "b.npy")
    np.save(tmp_path / "b.npy", np.ones((H, 3)))
    with pytest.raises(DataError, match=r"has shape \(26, 3\) but frames are 26×30"):
        settled(background=tmp_path / "b.npy")
    with pytest.raises(DataError, match=r"background = -1: it must be finite"):
        settled(background=-1.0)


# ---- the quantum of values


@pytest.mark.spec("SETTLE-33")
@pytest.mark.parametrize("quantum", [0.01, 1 / 83.0, 1.0, 2.0, 3.7, 37.0, 300.0, 1 / 6_543_210])
@pytest.mark.parametrize("rate", [0.05, 4.0, 1500.0])
def test_whole_multiples_of_one_number_are_recognised(quantum, rate):
    counts = np.random.default_rng(9).poisson(rate, (8, 40, 40))
    values = (counts * quantum).astype(np.float32)
    assert quantum_of(values) == pytest.approx(quantum, rel=1e-5)
    roots = np.sqrt(counts * quantum).astype(np.float32)
    assert quantum_of(np.square(roots)) == pytest.approx(quantum, rel=1e-5)
    # neighbouring multiples need not both be there
    apart = np.array([6, 10, 15] * 20)
    assert quantum_of((apart * quantum).astype(np.float32)) == pytest.approx(quantum, rel=1e-5)


@pytest.mark.spec("SETTLE-33")
def test_values_that_have_no_quantum_have_none():
    rng = np.random.default_rng(2)
    assert quantum_of(rng.random((8, 40, 40)).astype(np.float32)) is None
    assert quantum_of(rng.poisson(9, (8, 40, 40)) * 3.0 + rng.normal(size=(8, 40, 40))) is None


@pytest.mark.spec("SETTLE-33")
@pytest.mark.parametrize("stored", ["counts", "amplitude"])
def test_frames_normalised_to_1_become_the_photons_that_they_were(stored):
    values = COUNTS / COUNTS.max()
    values = values if stored == "counts" else np.sqrt(values)
    raw = settled(recording(values.astype(np.float32), stored))
    np.testing.assert_allclose(counts_of(raw), COUNTS[:, :, 2:28], rtol=2e-6)
    (text,) = [text for text in raw.source.assumptions if "whole multiples of" in text]
    assert "all at most 1, and not whole, cannot be photons" in text
    # whole numbers are left alone, ones and zeros too
    assert counts_of(settled(recording((COUNTS > 14).astype(np.float32)))).max() == 1


@pytest.mark.spec("SETTLE-33")
def test_a_gain_is_taken_as_given_and_found_when_asked():
    given = settled(recording(COUNTS * 3), gain=3.0)
    np.testing.assert_array_equal(counts_of(given), COUNTS[:, :, 2:28])
    assert any("divided by 3, the gain given" in text for text in given.source.assumptions)
    found = settled(recording(COUNTS * 3), gain="auto")
    np.testing.assert_array_equal(counts_of(found), COUNTS[:, :, 2:28])
    assert any("whole multiples of 3; they were divided by it, as asked" in text for text in found.source.assumptions)
    np.testing.assert_array_equal(counts_of(settled(gain="auto")), COUNTS[:, :, 2:28])
    with pytest.raises(ConfigError, match="gain = 'much'"):
        settled(gain="much")
    with pytest.raises(ConfigError, match="must be finite and > 0"):
        settled(gain=-2.0)
    flat = np.random.default_rng(0).random((M, H, W)).astype(np.float32)
    with pytest.raises(DataError, match=r"cannot be told.*--gain NUMBER"):
        settled(recording(flat), gain="auto")
    # without being asked it is said, and nothing is divided
    raw = settled(recording(flat))
    np.testing.assert_array_equal(counts_of(raw), flat[:, :, 2:28])
    assert any("figures against the noise mean nothing" in text for text in raw.source.warnings)


# ---- the noise


def simulated(diameter: float, photons: float, N: int) -> np.ndarray:
    config = SimulationConfig(N=N, n_frames=64, photons=photons, probe_diameter=diameter, seed=3)
    return simulate_scan(config).raw.read_counts(np.arange(64))


@pytest.mark.spec("SETTLE-33")
@pytest.mark.parametrize(("diameter", "photons", "N"), [(0.3, 1e5, 64), (0.5, 1e4, 64), (0.5, 1e5, 128)])
def test_the_gain_shows_in_the_noise_of_a_scan(diameter, photons, N):
    counts = simulated(diameter, photons, N)
    rng = np.random.default_rng(1)
    noise, bad = rng.normal(size=counts.shape), np.zeros(counts.shape[1:], bool)
    bad[20:23] = True
    for gain in (0.01, 1.0, 37.0, 300.0):
        for readout in (0.0, 0.5):  # photons
            values = (gain * (counts + readout * noise + 20 * readout)).astype(np.float32)
            values[:, bad] = 1e6 * gain
            assert gain_by_noise(values, ~bad) == pytest.approx(gain, rel=0.25)


@pytest.mark.spec("SETTLE-33")
def test_noise_that_does_not_tell_the_gain_gives_none():
    rng = np.random.default_rng(1)
    assert gain_by_noise(rng.normal(100, 3, (20, 64, 64)).astype(np.float32)) is None  # no brighter and darker pixels
    assert gain_by_noise(rng.random((64, 64)).astype(np.float32)[None] * np.ones((20, 1, 1), np.float32)) is None


@pytest.mark.spec("SETTLE-33")
def test_frames_in_adu_are_said_to_be_none_of_photons_and_read_as_photons_when_asked():
    counts = simulated(0.3, 1e5, 64)
    adu = np.rint(37.3 * counts + np.random.default_rng(1).normal(0, 9, counts.shape) + 60).astype(np.float32)
    places = np.random.default_rng(4).uniform(0, 90, (64, 2))
    raw = settled(recording(adu, positions=places))
    assert any("by the noise of their whole numbers a photon is about" in text for text in raw.source.warnings)
    assert any("--gain auto" in text for text in raw.source.warnings)
    found = settled(recording(adu, positions=places), gain="auto")
    ratio = adu.sum() / counts_of(found).sum()
    assert ratio == pytest.approx(37.3, rel=0.25)
    assert settled(recording(counts, positions=places)).source.warnings == ()
