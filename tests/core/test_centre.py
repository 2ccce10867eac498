"""Where zero frequency lies: by the mean pattern alone, by the given probe, and by trials."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from orient_scan import grainy, places, plain_scan, probe_of, scan_of

from ptycho_core.api.centre import _variants, find_centre
from ptycho_core.api.trials import region_of
from ptycho_core.data.propagation import Propagation
from ptycho_core.data.raw import RawData
from ptycho_core.errors import DataError
from ptycho_core.inspection.examine import examine
from ptycho_core.io import read_scan, write_scan
from ptycho_core.io.centre import estimate_centre
from ptycho_core.physics.forward import mode_intensity
from ptycho_core.physics.propagation import far_field


def annulus(shape: tuple[int, int], centre: tuple[float, float], seed: int = 0) -> np.ndarray:
    """What a zone plate shows, lit unevenly, with speckle of the object: its centre of mass lies elsewhere."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape) - np.array(centre)[:, None, None]
    r = np.hypot(y, x)
    ring = np.clip(13 - r, 0, 1) * np.clip(r - 4, 0, 1)
    return 400 * ring * (1 + 0.04 * x - 0.02 * y) * rng.uniform(0.8, 1.2, shape) + rng.uniform(0, 1, shape)


@pytest.mark.spec("FIND-5")
@pytest.mark.parametrize("centre", [(24.0, 31.0), (21.5, 36.0), (30.0, 20.5)])
def test_the_centre_of_symmetry_is_found_within_half_a_pixel(centre: tuple[float, float]) -> None:
    found = estimate_centre(annulus((52, 60), centre))
    assert found.how == "symmetry"
    assert found.centre_px == pytest.approx(centre, abs=0.2)
    assert found.symmetry > 0.9
    assert np.abs(np.subtract(found.candidates["mass"], centre)).max() > 0.5
    assert found.candidates["middle"] == (26.0, 30.0)
    assert found.off_px == pytest.approx(np.hypot(centre[0] - 26, centre[1] - 30), abs=0.3)


@pytest.mark.spec("FIND-5")
def test_gaps_and_hot_pixels_do_not_move_it() -> None:
    pattern = annulus((52, 60), (24.0, 31.0))
    pattern[3, 55] = 1e7
    good = np.ones(pattern.shape, bool)
    good[19:22] = False
    pattern[19:22] = np.nan
    pattern[:, 40] = np.nan
    found = estimate_centre(pattern, good)
    assert found.centre_px == pytest.approx((24.0, 31.0), abs=0.3)
    assert abs(found.candidates["mass"][0] - 24) < 3


def test_a_large_detector_is_looked_at_in_full_where_it_matters() -> None:
    big = np.random.default_rng(0).poisson(0.01, (1100, 1300)).astype(float)
    big[800:852, 300:360] += annulus((52, 60), (24.5, 31.0))
    assert estimate_centre(big).centre_px == pytest.approx((824.5, 331.0), abs=0.3)


def test_a_pattern_without_symmetry_has_its_centre_of_mass() -> None:
    pattern = np.zeros((40, 44))
    pattern[5:9, 6:30], pattern[9:36, 6:9] = 3.0, 4.0
    found = estimate_centre(pattern)
    assert found.how == "mass"
    assert found.symmetry < 0.8
    y, x = np.indices(pattern.shape)
    assert found.centre_px == pytest.approx(((y * pattern).sum() / pattern.sum(), (x * pattern).sum() / pattern.sum()))
    assert "centre of mass" in found.describe()
    with pytest.raises(DataError, match="scan: the mean pattern is dark"):
        estimate_centre(np.zeros((8, 8)))


def rolled(raw: RawData, shift: tuple[int, int], **more) -> RawData:
    """The scan with its frames moved."""
    counts = np.roll(raw.read_counts(np.arange(raw.n_frames)), shift, (1, 2))
    return RawData.from_arrays(counts, raw.positions_px, raw.probe, **more)


@pytest.mark.spec("FIND-5")
def test_a_given_probe_says_where_zero_frequency_is_whatever_its_symmetry() -> None:
    raw = plain_scan()
    lopsided = mode_intensity(far_field(raw.probe))
    for shift in ((0, 0), (3, -2), (-4, 1)):
        pattern = np.roll(raw.mean_pattern(), shift, (0, 1))
        found = estimate_centre(pattern, probe_intensity=lopsided)
        assert found.how == "probe"
        assert found.centre_px == (12.0 + shift[0], 12.0 + shift[1])
        assert found.probe_likeness > 0.9


@pytest.mark.spec("FIND-5")
@pytest.mark.parametrize("shift", [(0, 0), (2, -1), (0, 1)])
def test_trials_find_the_centre_where_a_pixel_off_is_a_phase_ramp(shift: tuple[int, int]) -> None:
    raw = plain_scan()
    mask = np.ones((raw.side, raw.side), bool)
    mask[4, 7] = False
    events = []
    found = find_centre(rolled(raw, shift, mask=np.roll(mask, shift, (0, 1))), progress=events.append)
    assert found.centre_px == (12.0 + shift[0], 12.0 + shift[1])
    assert found.certain
    assert len(events) == len(found.trials) > 1
    assert found.trials[0].heldout_deviance < 0.4 * found.trials[1].heldout_deviance
    assert "zero frequency at" in found.describe()
    assert found.to_mapping()["trials"][0]["tried"] == {"centre": f"{12 + shift[0]},{12 + shift[1]}"}


def test_without_a_probe_the_mean_pattern_says_it_and_a_near_field_has_none() -> None:
    raw = replace(rolled(plain_scan(), (3, 0)), probe=None)
    found = find_centre(raw)
    assert not found.trials
    assert np.abs(np.subtract(found.centre_px, (15, 12))).max() <= 1
    with pytest.raises(DataError, match=r"near field.*no centre"):
        find_centre(replace(raw, propagation=Propagation("near_field", 0.2)))


@pytest.mark.spec("FIND-5")
def test_reading_finds_it_and_inspecting_warns(tmp_path) -> None:
    raw = rolled(scan_of(grainy(), probe_of(), places()), (1, -2))
    warnings = [finding.text for finding in examine(raw) if finding.level == "warning"]
    (said,) = [text for text in warnings if "phase ramp" in text]
    assert said.endswith("give --centre 13,10.")
    assert not [f for f in examine(plain_scan()) if "phase ramp" in f.text]
    path = tmp_path / "off.h5"
    write_scan(path, raw)
    found = read_scan(path, centre="auto")
    assert any("found at pixel (13.0, 10.0)" in text for text in found.source.assumptions)
    inner = np.s_[:, 2:-2, 2:-2]
    np.testing.assert_array_equal(
        found.read_counts([0, 5])[inner], scan_of(grainy(), probe_of(), places()).read_counts([0, 5])[inner]
    )


@pytest.mark.spec("FIND-5")
def test_candidates_are_judged_on_the_pixels_that_stay_in_the_frame_for_all() -> None:
    raw = plain_scan()
    region = region_of(raw, most=16)
    places = [(12, 12), (15, 12), (11, 8)]
    made = _variants(region, places)
    stored = []
    for (y, x), variant in zip(places, made.values(), strict=True):
        stored.append(np.roll(variant.mask, (y - 12, x - 12), (0, 1)))
        np.testing.assert_array_equal(
            np.roll(variant.read_counts([3]), (y - 12, x - 12), (1, 2)),
            np.where(stored[-1], region.raw.read_counts([3]), 0),
        )
    # moved up by 3 at most, and down by 1; moved right by 4
    expected = np.zeros((24, 24), bool)
    expected[3:23, :20] = True
    for mask in stored:
        np.testing.assert_array_equal(mask, expected)
