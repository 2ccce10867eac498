"""Simulated scans: the truth reproduces the rate, one seed is one scan, provenance tells what was drawn."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from ptycho_core.data.container import Statistics, integer_corners
from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.errors import ConfigError
from ptycho_core.physics.aberrations import ABERRATIONS, aberrate, zernike
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import aperture_probe, mode_powers
from ptycho_core.physics.propagation import far_field
from ptycho_core.simulation import (
    SimulatedScan,
    SimulationConfig,
    demo_config,
    simulate_scan,
    texture_config,
)
from ptycho_core.simulation.objects import OBJECTS, TEXTURES, draw_object, transmission


def small(**changes: Any) -> SimulationConfig:
    """A quick scan that is wider than high, with two modes and a background."""
    defaults: dict[str, Any] = {"N": 32, "grid_shape": (5, 7), "step_px": 4.3, "n_modes": 2, "background": 0.25}
    defaults["seed"] = 5
    return SimulationConfig(**(defaults | changes))


def all_counts(scan: SimulatedScan) -> np.ndarray:
    return scan.raw.read_counts(np.arange(scan.raw.n_frames))


def true_rate(scan: SimulatedScan) -> np.ndarray:
    raw = scan.raw
    corners, rest = integer_corners(raw.positions_px, raw.side)
    origin = scan.truth.origin_px.astype(np.int64)
    patches = extract(scan.truth.object, corners - origin, raw.side)
    return expected_counts(patches, raw.probe, rest, scan.rate_scale, raw.background)


@pytest.mark.parametrize("positions", ["jittered_raster", "fermat"])
@pytest.mark.parametrize("name", OBJECTS)
def test_the_truth_put_through_the_oracle_reproduces_the_rate(name: str, positions: str) -> None:
    extra = {"grid_shape": None, "n_frames": 23} if positions == "fermat" else {}
    scan = simulate_scan(small(object=name, positions=positions, noise=False, **extra))
    measured, rate = all_counts(scan), true_rate(scan)
    np.testing.assert_allclose(measured, rate, rtol=2e-5)
    corners, _ = integer_corners(scan.raw.positions_px, 32)
    assert corners.min() >= 0
    assert (corners.max(axis=0) + 32 <= scan.truth.object.shape).all()


def test_noise_is_poisson_about_the_rate_of_the_truth() -> None:
    scan = simulate_scan(small(photons=1e5))
    counts, rate = all_counts(scan), true_rate(scan)
    assert (counts == np.round(counts)).all()
    z = (counts - rate) / np.sqrt(rate)
    assert abs(z.mean()) < 5 / math.sqrt(z.size)
    assert z.var() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("photons", [3e3, 1e6])
def test_photons_are_the_mean_expected_counts_without_background(photons: float) -> None:
    scan = simulate_scan(small(photons=photons, noise=False))
    assert scan.raw.frame_totals.mean() == pytest.approx(photons + 0.25 * 32**2, rel=1e-4)
    dose = scan.provenance["dose"]
    assert dose["mean_expected_counts"] == pytest.approx(photons + 0.25 * 32**2, rel=1e-4)
    assert dose["mean_counts"] == pytest.approx(scan.raw.frame_totals.mean())


def test_the_probe_is_on_the_scale_of_photons_but_left_for_the_data_to_scale() -> None:
    scan = simulate_scan(small(object="siemens_star", amplitude_range=(0.99, 1.0)))
    assert not scan.raw.probe_calibrated
    assert Statistics.of(scan.raw).scale == pytest.approx(1, abs=0.03)


def test_one_seed_is_one_scan_and_another_is_another() -> None:
    first, again, other = (simulate_scan(small(seed=seed)) for seed in (5, 5, 6))
    for scan, same in ((again, True), (other, False)):
        assert np.array_equal(all_counts(first), all_counts(scan)) == same
        assert np.array_equal(first.raw.positions_px, scan.raw.positions_px) == same
        assert np.array_equal(first.raw.probe, scan.raw.probe) == same
        shape = [min(n) for n in zip(first.truth.object.shape, scan.truth.object.shape, strict=True)]
        crop = tuple(slice(n) for n in shape)
        assert np.array_equal(first.truth.object[crop], scan.truth.object[crop]) == same
        assert (first.provenance == scan.provenance) == same


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_differs_from_seed_to_seed(name: str) -> None:
    a, b = (draw_object(name, (90, 120), np.random.default_rng(seed)) for seed in (1, 2))
    assert np.abs(a[0] - b[0]).mean() > 0.01
    assert np.abs(a[1] - b[1]).mean() > 0.01


def test_the_dose_changes_neither_object_nor_positions_nor_bad_pixels() -> None:
    weak, strong = (simulate_scan(small(photons=p, bad_pixel_fraction=0.02)) for p in (1e3, 1e6))
    np.testing.assert_array_equal(weak.truth.object, strong.truth.object)
    np.testing.assert_array_equal(weak.raw.positions_px, strong.raw.positions_px)
    np.testing.assert_array_equal(weak.raw.mask, strong.raw.mask)


def test_global_randomness_is_neither_used_nor_disturbed() -> None:
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = all_counts(simulate_scan(small()))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.random.seed(4)  # noqa: NPY002
    np.testing.assert_array_equal(first, all_counts(simulate_scan(small())))


def test_provenance_is_plain_json_and_tells_what_was_drawn() -> None:
    scan = simulate_scan(small(object="texture", bad_pixel_fraction=0.01))
    drawn = scan.raw.source.details["simulation"]
    assert json.loads(json.dumps(drawn)) == drawn
    assert scan.raw.source.dialect == "simulation"
    assert drawn["config"]["step_px"] == 4.3
    assert drawn["seed"] == 5
    assert drawn["object"]["absorption"]["image"] in TEXTURES
    assert drawn["object"]["shape"] == list(scan.truth.object.shape)
    rms = np.linalg.norm(list(drawn["probe"]["aberrations_rad"].values()))
    assert rms == pytest.approx(scan.config.aberration_rms_rad)
    np.testing.assert_allclose(drawn["probe"]["mode_powers"], mode_powers(scan.raw.probe), atol=1e-6)
    np.testing.assert_allclose(drawn["positions"]["extent_px"], np.ptp(scan.raw.positions_px, axis=0))
    flat = np.flatnonzero(~scan.raw.mask)
    assert sorted(drawn["bad_pixels"]["dead"] + drawn["bad_pixels"]["hot"]) == flat.tolist()


def test_bad_pixels_are_masked_and_hold_nonsense_in_the_file() -> None:
    scan = simulate_scan(small(bad_pixel_fraction=0.05))
    bad = ~scan.raw.mask
    assert bad.sum() == math.ceil(0.05 * 32**2)
    stored = scan.raw.frames.read(np.arange(3))
    good_peak = stored[:, ~bad].max()
    assert set(np.unique(stored[:, bad] > 2 * good_peak)) == {True, False}
    assert (scan.raw.read_counts([0])[:, bad] == 0).all()
    assert simulate_scan(small()).raw.mask is None


def test_modes_and_background_enter_the_scan() -> None:
    scan = simulate_scan(small(n_modes=3, mode_fraction=0.04, background=0.5))
    assert scan.raw.probe.shape == (3, 32, 32)
    np.testing.assert_allclose(mode_powers(scan.raw.probe), [0.92, 0.04, 0.04], atol=1e-5)
    assert (scan.raw.background == 0.5).all()
    assert simulate_scan(small(background=0.0)).raw.background is None


def test_raster_positions_lie_within_the_jitter_of_a_raster_and_off_the_pixel_grid() -> None:
    scan = simulate_scan(small(step_px=5.0, jitter_px=0.7))
    p = scan.raw.positions_px.reshape(5, 7, 2)
    nominal = 5.0 * np.stack(np.meshgrid(np.arange(5), np.arange(7), indexing="ij"), axis=-1)
    spread = np.ptp((p - nominal).reshape(-1, 2), axis=0)
    assert (spread < 1.4).all()
    assert (spread > 0.7).all()
    exact = simulate_scan(small(step_px=5.0, jitter_px=0.0)).raw.positions_px.reshape(5, 7, 2) - nominal
    np.testing.assert_allclose(np.ptp(exact.reshape(-1, 2), axis=0), 0, atol=1e-9)
    assert 0.001 < np.mod(exact[0, 0, 0] - 0.5, 1) < 0.999


def test_fermat_spiral_has_one_position_for_each_square_step() -> None:
    scan = simulate_scan(SimulationConfig(N=16, n_frames=400, positions="fermat", step_px=3.0))
    p = scan.raw.positions_px
    radius = np.hypot(*(p - p.mean(axis=0)).T)
    # a disk of M steps² has radius step √(M/π)
    assert radius.max() == pytest.approx(3.0 * math.sqrt(400 / math.pi), rel=0.03)
    assert (radius < 0.5 * radius.max()).mean() == pytest.approx(0.25, abs=0.02)
    nearest = np.sort(np.hypot(*(p[:, None] - p[None]).transpose(2, 0, 1)), axis=1)[:, 1]
    assert nearest.min() > 0.7 * 3.0


def test_overlap_sets_the_step_from_the_probe_that_was_drawn() -> None:
    scan = simulate_scan(small(step_px=None, overlap=0.6, jitter_px=0.0))
    diameter = scan.provenance["probe"]["diameter_px"]
    p = scan.raw.positions_px.reshape(5, 7, 2)
    np.testing.assert_allclose(p[1, 0] - p[0, 0], [0.4 * diameter, 0], atol=1e-9)
    assert scan.provenance["positions"]["overlap"] == pytest.approx(0.6)
    assert simulate_scan(small(step_px=None)).provenance["positions"]["overlap"] == pytest.approx(0.7)


def test_the_default_probe_is_a_defocused_annulus_of_30_to_40_pixels() -> None:
    scan = simulate_scan(SimulationConfig(n_frames=4))
    drawn = scan.provenance["probe"]
    assert 30 < drawn["diameter_px"] < 40
    cone = np.abs(far_field(scan.raw.probe[0])) ** 2
    q = np.hypot(*np.meshgrid(np.arange(64) - 32, np.arange(64) - 32, indexing="ij"))
    lit = (q < drawn["aperture_radius_px"] + 1) & (q > drawn["inner_radius_px"] - 1)
    assert cone[lit].sum() > 0.999 * cone.sum()
    wider = simulate_scan(SimulationConfig(n_frames=4, probe_diameter=0.7)).provenance["probe"]
    assert wider["diameter_px"] > 1.15 * drawn["diameter_px"]
    focused = simulate_scan(SimulationConfig(n_frames=4, defocus_px2=0.0)).provenance["probe"]
    assert focused["diameter_px"] < 0.6 * drawn["diameter_px"]


def test_amplitude_and_phase_fill_the_ranges_asked_for() -> None:
    for name in OBJECTS:
        absorption, phase, facts = draw_object(name, (97, 131), np.random.default_rng(8))
        obj = transmission(absorption, phase, (0.5, 0.9), (-0.3, 1.1))
        assert obj.shape == (97, 131)
        assert obj.dtype == np.complex64
        assert [np.abs(obj).min(), np.abs(obj).max()] == pytest.approx([0.5, 0.9], abs=1e-5)
        assert [np.angle(obj).min(), np.angle(obj).max()] == pytest.approx([-0.3, 1.1], abs=1e-5)
        assert json.loads(json.dumps(facts)) == facts
    opaque = transmission(np.array([[0.0, 1.0]]), np.array([[0.0, 0.25]]), (0.5, 0.9), (0.0, 2.0))
    np.testing.assert_allclose(opaque, [[0.9, 0.5 * np.exp(0.5j)]], rtol=1e-6)


def test_lines_have_edges_one_pixel_soft_and_no_preferred_axis() -> None:
    absorption, _, _ = draw_object("lines", (300, 300), np.random.default_rng(0))
    assert 0.2 < (absorption == 0).mean() < 0.7
    power = np.abs(np.fft.fft2(absorption - absorption.mean())) ** 2
    assert power[:, 1:150].sum() / power[1:150].sum() == pytest.approx(1, abs=0.5)


def test_a_texture_smaller_than_the_canvas_is_enlarged_and_said_so() -> None:
    absorption, _, facts = draw_object("texture", (40, 600), np.random.default_rng(0), ("moon", "brick"))
    assert absorption.shape == (40, 600)
    assert facts["absorption"]["enlarged"] == pytest.approx(600 / 512)
    assert [facts["absorption"]["image"], facts["phase"]["image"]] == ["moon", "brick"]


@pytest.mark.parametrize("name", ABERRATIONS)
def test_zernikes_have_unit_rms_over_the_disk(name: str) -> None:
    """FM-17: coefficients are radians root mean square."""
    z = zernike(name, 256, 100.0)
    q = np.arange(256) - 128
    disk = np.hypot(q[:, None], q[None, :]) <= 100
    assert np.sqrt(np.mean(z[disk] ** 2)) == pytest.approx(1, abs=0.02)
    assert abs(z[disk].mean()) < 0.02
    others = [zernike(n, 256, 100.0)[disk] for n in ABERRATIONS if n != name]
    assert max(abs(np.mean(z[disk] * other)) for other in others) < 0.02


def test_aberrations_change_only_the_phase_of_the_cone() -> None:
    """FM-17, on two modes and an asymmetric sum of aberrations."""
    probe = np.concatenate([aperture_probe(48, 10.0, defocus_px2=30.0), aperture_probe(48, 7.0, total=0.3)])
    bent = aberrate(probe, 10.0, {"coma_y": 0.4, "astigmatism_45": -0.7})
    before, after = far_field(probe), far_field(bent)
    np.testing.assert_allclose(np.abs(after), np.abs(before), atol=1e-6)
    expected = 0.4 * zernike("coma_y", 48, 10.0) - 0.7 * zernike("astigmatism_45", 48, 10.0)
    lit = np.abs(before[0]) > 1e-3
    turned = np.angle(after[0][lit] * before[0][lit].conj())
    np.testing.assert_allclose(turned, np.angle(np.exp(1j * expected))[lit], atol=1e-3)
    # coma_y is odd along y: (y, x) order is not exchanged
    assert zernike("coma_y", 48, 10.0)[24 + 5, 24] == -zernike("coma_y", 48, 10.0)[24 - 5, 24] != 0
    assert zernike("coma_y", 48, 10.0)[24, 24 + 5] == pytest.approx(0)


def test_demo_and_texture_configs_are_the_scans_that_were_promised() -> None:
    demo, texture = demo_config(), texture_config(seed=7)
    assert (demo.object, demo.frame_count, demo.N, demo.step_px, demo.photons) == ("lines", 441, 64, 10.0, 1e6)
    assert (texture.object, texture.frame_count, texture.step_px, texture.seed) == ("texture", 1764, 5.0, 7)
    assert (texture.amplitude_range, texture.phase_range_rad) == ((0.6, 1.0), (-0.8, 0.8))


def test_n_frames_makes_the_squarest_raster() -> None:
    scan = simulate_scan(small(grid_shape=None, n_frames=11, jitter_px=0.0))
    assert scan.raw.n_frames == 11
    assert len(np.unique(np.round(scan.raw.positions_px[:, 0], 6))) == 3
    assert SimulationConfig().frame_count == 441


def test_pixel_size_reaches_the_geometry() -> None:
    assert simulate_scan(small(pixel_size_m=8e-9)).raw.geometry.pixel_size_m == 8e-9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"object": "line"}, "did you mean 'lines'"),
        ({"positions": "raster"}, "jittered_raster"),
        ({"N": 61}, "N = 61; it must be even, from 8 to 4096"),
        ({"fresnel_number": 0.01}, r"SimulationConfig: the near field aliases.*least F is 0.03125"),
        ({"wavelength_px": 0.5}, "needs its fresnel_number"),
        ({"step_px": 4.0, "overlap": 0.5}, "give one of them"),
        ({"step_px": 0.0}, "step_px"),
        ({"overlap": 1.0, "step_px": None}, "overlap"),
        ({"photons": 0.0}, "photons"),
        ({"photons": "many"}, "photons"),
        ({"amplitude_range": (1.0, 0.6)}, "lesser first"),
        ({"amplitude_range": (-0.1, 0.6)}, "amplitudes"),
        ({"phase_range_rad": (0.0,)}, "two numbers"),
        ({"grid_shape": (3, 4), "n_frames": 11}, "12 frames"),
        ({"grid_shape": (3, 4, 5)}, "rows and columns"),
        ({"positions": "fermat", "grid_shape": (3, 4)}, "no rows"),
        ({"images": ("moon", "grass")}, "only texture"),
        ({"object": "texture", "images": ("moon",)}, "takes two"),
        ({"n_modes": 0}, "n_modes"),
        ({"bad_pixel_fraction": 1.0}, "bad_pixel_fraction"),
        ({"background": -1.0}, "background"),
        ({"central_stop": 1.0}, "central_stop"),
        ({"aperture_radius": 0.01}, "detector pixels"),
        ({"seed": -1}, "seed"),
    ],
)
def test_an_impossible_config_is_refused_with_its_field(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"(?i){words}"):
        small(**changes)


def test_unknown_names_below_the_config_suggest_the_nearest() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="'gravel'"):
        draw_object("texture", (20, 20), rng, ("gravle", "moon"))
    with pytest.raises(ConfigError, match="'dead_leaves'"):
        draw_object("dead_leafs", (20, 20), rng)
    with pytest.raises(ConfigError, match="'spherical'"):
        zernike("sphericla", 32, 8.0)
    with pytest.raises(ConfigError, match="'moon'"):
        simulate_scan(small(object="texture", images=("mon", "grass")))


def test_every_field_has_an_effect() -> None:
    """A field that changes nothing would be a lie in the provenance."""
    base = small(object="texture", step_px=None)
    reference = all_counts(simulate_scan(base))
    changes: dict[str, Any] = {
        "object": "lines", "images": ("moon", "brick"), "amplitude_range": (0.2, 1.0), "phase_range_rad": (0.0, 0.5),
        "N": 48, "grid_shape": (7, 5), "positions": "fermat", "step_px": 3.0, "overlap": 0.5, "jitter_px": 0.0,
        "photons": 2e5, "aperture_radius": 0.25, "central_stop": 0.0, "probe_diameter": 0.4, "defocus_px2": 1.0,
        "aberration_rms_rad": 1.0, "n_modes": 1, "mode_fraction": 0.02, "background": 1.0, "bad_pixel_fraction": 0.1,
        "noise": False, "seed": 9, "n_frames": 20, "fresnel_number": 0.2,
    }  # fmt: skip
    assert {f.name for f in dataclasses.fields(SimulationConfig)} - set(changes) == {"pixel_size_m", "wavelength_px"}
    near = dataclasses.replace(base, fresnel_number=0.2)
    exact = dataclasses.replace(near, wavelength_px=0.9)
    assert not np.array_equal(all_counts(simulate_scan(near)), all_counts(simulate_scan(exact)))
    for name, value in changes.items():
        extra = {"grid_shape": None} if name in ("positions", "n_frames") else {}
        counts = all_counts(simulate_scan(dataclasses.replace(base, **({name: value} | extra))))
        assert counts.shape != reference.shape or not np.array_equal(counts, reference), name


@pytest.mark.spec("FM-5", "FM-23")
def test_a_near_field_scan_is_what_the_oracle_says_of_its_truth() -> None:
    config = SimulationConfig(
        N=32, n_frames=9, fresnel_number=0.11, wavelength_px=0.4, background=0.5, noise=False, step_px=6.0
    )
    scan = simulate_scan(config)
    assert scan.raw.propagation == Propagation("near_field", 0.11, 0.4)
    corners, rest = integer_corners(scan.raw.positions_px, 32)
    patches = extract(scan.truth.object, corners, 32)
    rate = expected_counts(patches, scan.raw.probe, rest, 1.0, scan.raw.background, scan.raw.propagation)
    np.testing.assert_allclose(scan.raw.read_counts(np.arange(9)), rate, rtol=2e-5, atol=1e-3)
    far = simulate_scan(dataclasses.replace(config, fresnel_number=None, wavelength_px=None))
    assert far.raw.propagation == FAR_FIELD
    assert np.abs(far.raw.read_counts([0]) - scan.raw.read_counts([0])).max() > 100
