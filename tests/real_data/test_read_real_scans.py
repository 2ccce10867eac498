"""Real scans: dialects agree with each other and with a known reconstruction, and a near-field scan is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptycho_core.api.score import score
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.propagation import FAR_FIELD
from ptycho_core.data.results import Image
from ptycho_core.errors import DataError
from ptycho_core.inspection.examine import inspect_scan
from ptycho_core.io import read_probe, read_scan, write_scan

pytestmark = pytest.mark.real_data


def fourier_error(raw, guess, shift_px=(0.0, 0.0)):
    """That of the object stored with a scan, at the scan's positions moved by `shift_px`."""
    raw = replace(raw, positions_px=raw.positions_px + np.asarray(shift_px))
    scan = PtychoDataContainer.of(raw)
    assert not guess.origin_px.any()
    image = Image(
        object=guess.object,
        coverage=np.ones(guess.object.shape, np.float32),
        origin_px=guess.origin_px,
        probe=raw.probe,
        scale=scan.statistics.scale,
        positions_px=raw.positions_px,
    )
    return score(image, scan, "the file's own").train.fourier_error


def test_star_64_with_its_own_probe_and_object(shared_data):
    raw = read_scan(shared_data / "siemens_star_64.npz", measurement="amplitude")
    assert raw.frames.shape == (516, 64, 64)
    assert raw.frame_totals.mean() == pytest.approx(440_000, rel=0.01)
    assert fourier_error(raw, raw.object_guess) == pytest.approx(0.0129, abs=5e-5)
    # half a pixel is what the N/2 rule is worth: without the shift, or with it twice, the object no longer fits
    assert fourier_error(raw, raw.object_guess, (0.5, 0.5)) > 0.0135
    assert fourier_error(raw, raw.object_guess, (-0.5, -0.5)) > 0.0135


def test_tike_file_is_the_same_scan_as_its_derived_npz(shared_data):
    derived = read_scan(shared_data / "siemens_star_128.npz", measurement="amplitude")
    tike = read_scan(shared_data / "tike_siemens_star_small.npz.bz2")
    assert tike.source.dialect == "tike"
    some = np.array([0, 17, 515])
    np.testing.assert_allclose(tike.read_counts(some), derived.read_counts(some), rtol=1e-6)
    # only the origin of the coordinates differs
    offset = tike.positions_px - derived.positions_px
    np.testing.assert_allclose(offset, np.broadcast_to(offset[0], offset.shape), atol=1e-4)
    moved = replace(tike, positions_px=tike.positions_px - offset.mean(axis=0)).with_probe(derived.probe)
    assert fourier_error(moved, derived.object_guess) == pytest.approx(0.0179, abs=5e-5)
    assert tike.probe.shape == (1, 128, 128)
    np.testing.assert_array_equal(tike.probe, read_probe(shared_data / "tike_siemens_star_small.npz.bz2"))


def test_star_must_be_told_its_measurement(shared_data):
    with pytest.raises(DataError, match=r"--measurement amplitude\|counts.*look like amplitudes"):
        read_scan(shared_data / "siemens_star_64.npz")


def test_model_probe_is_far_from_the_scale_of_the_counts(shared_data):
    probe = read_probe(shared_data / "siemens_star_64_model_probe.npz")
    assert probe.shape == (1, 64, 64)
    assert np.sum(np.abs(probe) ** 2) == pytest.approx(206, rel=0.01)


def test_a_magnified_scan_is_read_as_a_near_field(shared_data):
    path = shared_data / "petra3_p25_near_field.cxi"
    raw = read_scan(path)
    assert raw.side == 100
    # 3.65 mm from the zone plate's focus to the sample, which the file does not say: 307 times
    m = 55e-6 / raw.geometry.pixel_size_m
    assert m == pytest.approx(1.12 / 3.65e-3, rel=0.015)
    assert raw.propagation.fresnel_number == pytest.approx(55e-6**2 / (m * 9.794912e-11 * 1.12), rel=1e-5)
    (note,) = [text for text in raw.source.assumptions if "Read as near field, Fresnel number 0.09" in text]
    assert float(note.split("focus is ")[1].split(" mm")[0]) == pytest.approx(3.65, rel=0.015)
    assert np.ptp(raw.positions_px, axis=0) == pytest.approx([106, 112], abs=2)


def test_a_magnified_scan_is_no_far_field(shared_data):
    with pytest.raises(DataError, match="near-field scan, the far-field condition is not met") as caught:
        read_scan(shared_data / "petra3_p25_near_field.cxi", propagation=FAR_FIELD)
    for fact in (
        "petra3_p25",
        "1.12 m",
        "55 µm",
        "0.09795 nm",
        "1.99 µm",
        "Fresnel number",
        "--propagation near_field",
    ):
        assert fact in str(caught.value)


def test_star_written_and_read_again(shared_data, tmp_path):
    raw = read_scan(shared_data / "siemens_star_64.npz", measurement="amplitude").subset(np.arange(0, 516, 9))
    for name in ("a.npz", "a.h5"):
        write_scan(tmp_path / name, raw)
        again = read_scan(tmp_path / name)
        np.testing.assert_array_equal(again.positions_px, raw.positions_px)
        np.testing.assert_array_equal(again.read_counts([0, 57]), raw.read_counts([0, 57]))
        np.testing.assert_array_equal(again.object_guess.object, raw.object_guess.object)


def test_inspection_of_the_star(shared_data):
    found = inspect_scan(shared_data / "siemens_star_64.npz")
    assert found.measurement is None
    assert [f.level for f in found.findings].count("error") == 1
    assert not [f for f in found.findings if f.level == "warning"]
    assert found.facts["values_look_like"] == "amplitude"
    assert found.facts["median_step_px"] == pytest.approx(4.5, abs=0.05)
    assert found.facts["probe_width_px"] == pytest.approx(35, abs=1)
    assert found.facts["counts_per_probe_power"] == pytest.approx(1.03, abs=0.01)
    near = inspect_scan(shared_data / "petra3_p25_near_field.cxi")
    assert near.usable
    assert [f.level for f in near.findings if "near field, Fresnel number" in f.text] == ["ok"]
