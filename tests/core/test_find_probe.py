"""A start without a probe: aperture, defocus, holes, orientation, and what is said where nothing is found."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from ptycho_core import find_probe
from ptycho_core.api.explained import KEPT, judged_trial, null_misfits
from ptycho_core.api.find_probe import ALL_CLASSES
from ptycho_core.api.probe_trials import Bench, reduction_for
from ptycho_core.api.trials import TrialPlan, stepping_engine, try_scan
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.orientation import oriented
from ptycho_core.data.probe_guess import Aperture
from ptycho_core.data.propagation import Propagation
from ptycho_core.data.raw import Geometry, RawData
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.io.probe_choice import probe_from_words
from ptycho_core.physics.aperture import find_aperture
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.lattice import scan_lattice
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import aperture_probe, defocused, disc_probe, probe_from_mean_pattern
from ptycho_core.physics.propagation import far_field
from ptycho_core.physics.reduction import Reduction
from ptycho_core.protocol import no_progress
from ptycho_core.report.probe_pictures import focus_figure, probe_words, through_focus, trials_figure
from ptycho_core.runtime import DEFAULT_RUNTIME
from ptycho_core.simulation.scan import SimulationConfig, simulate_scan

N = 32
DEFOCUS = 12.0


@cache
def measured(kind: str = "lens", photons: float = 3e4) -> RawData:
    """A scan without a probe, of a lens out of focus or of a hole, and its true probe among the details."""
    made = simulate_scan(
        SimulationConfig(
            object="dead_leaves", N=N, n_frames=110, step_px=3.0, photons=photons, aperture_radius=0.33,
            central_stop=0.0, defocus_px2=DEFOCUS, aberration_rms_rad=0.0, seed=3,
        )
    )  # fmt: skip
    if kind == "lens":
        return replace(made.raw, probe=None, object_guess=None)
    truth = made.raw.object_guess
    assert truth is not None
    corners, rest = integer_corners(made.raw.positions_px, N)
    patches = extract(truth.object, corners - np.round(truth.origin_px).astype(np.int64), N)
    rate = expected_counts(patches, disc_probe(N, 6.3, total=photons), rest, 1.0)
    return RawData.from_arrays(np.random.default_rng(1).poisson(rate).astype(np.float32), made.raw.positions_px)


def likeness(one: np.ndarray, two: np.ndarray) -> float:
    """|⟨a, b⟩| / (‖a‖ ‖b‖) at the shift where it is most."""
    cross = np.fft.ifft2(np.fft.fft2(one) * np.conj(np.fft.fft2(two)))
    return float(np.abs(cross).max() / (np.linalg.norm(one) * np.linalg.norm(two)))


class TestSearch:
    @pytest.mark.spec("PROBE-3", "PROBE-5", "PROBE-6")
    def test_size_and_sign_of_the_defocus_are_found_and_the_probe_with_it(self):
        guess = find_probe(measured())
        assert guess.how == "lens"
        assert guess.convincing
        assert guess.orientation == "none"
        assert guess.defocus_px2 == pytest.approx(DEFOCUS, abs=2.0)
        true = aperture_probe(N, 0.33 * N, defocus_px2=DEFOCUS)
        assert likeness(guess.probe[0], true[0]) > 0.9
        assert likeness(guess.probe[0], np.conj(true[0])) < 0.7
        assert any("180°" in text for text in guess.sentences)
        assert {trial.tried["stage"] for trial in guess.trials} == {"coarse", "fine", "settle"}

    @pytest.mark.spec("PROBE-6")
    def test_the_twin_has_the_other_sign_in_positions_turned_by_half(self):
        guess = find_probe(oriented(measured(), "flip_y+flip_x"))
        assert guess.convincing
        assert guess.defocus_px2 == pytest.approx(-DEFOCUS, abs=2.0)

    @pytest.mark.spec("PROBE-5")
    def test_an_orientation_is_found_with_the_probe_the_sample_downstream_of_the_focus(self):
        raw = oriented(measured(), "transpose")
        guess = find_probe(raw, orientations=("none", "transpose", "flip_y+flip_x", "transpose+flip_y+flip_x"))
        assert guess.orientation == "transpose"
        assert guess.defocus_px2 == pytest.approx(DEFOCUS, abs=2.0)
        assert any("orientation transpose" in text for text in guess.sentences)

    @pytest.mark.spec("PROBE-5")
    def test_a_wrong_orientation_alone_convinces_of_nothing(self):
        guess = find_probe(oriented(measured(), "transpose"))
        assert not guess.convincing
        assert guess.orientation == "none"
        assert "no probe was found" in guess.doubts[0]

    @pytest.mark.spec("PROBE-5")
    @pytest.mark.parametrize("mean", [1.0, 20.0])
    def test_pure_noise_convinces_of_no_probe(self, mean):
        rng = np.random.default_rng(2)
        places = np.stack(np.unravel_index(np.arange(110), (11, 10)), axis=1) * 3.0 + rng.uniform(-0.6, 0.6, (110, 2))
        found = find_probe(RawData.from_arrays(rng.poisson(mean, (110, N, N)).astype(np.float32), places))
        assert not found.convincing
        assert found.how == "mean pattern"
        assert found.explained < 0.3

    @pytest.mark.spec("PROBE-3")
    def test_a_hole_is_told_from_a_lens(self):
        guess = find_probe(measured("hole"))
        assert guess.how == "disc"
        assert guess.convincing
        assert guess.disc_radius_px == pytest.approx(6.3, abs=0.4)
        assert likeness(guess.probe[0], disc_probe(N, 6.3)[0]) > 0.95

    @pytest.mark.spec("PROBE-4")
    def test_frames_that_may_not_be_looked_at_change_nothing(self):
        raw, frames = measured(), np.arange(0, 110, 2)
        counts = raw.read_counts(np.arange(110)).copy()
        counts[1::2] = counts[1::2][:, ::-1] * 3
        other = RawData.from_arrays(counts, raw.positions_px)
        one, two = (find_probe(scan, frames=frames, most_modes=1) for scan in (raw, other))
        np.testing.assert_array_equal(one.probe, two.probe)
        assert len(one.probe) == 1

    def test_what_cannot_be_searched_is_the_mean_pattern_and_says_why(self):
        raw = measured()
        few = find_probe(raw.subset(np.arange(20)))
        assert few.how == "mean pattern"
        assert not few.trials
        assert "20 frames with counts are too few" in few.sentences[0]
        near = find_probe(replace(raw, propagation=Propagation("near_field", 0.05)))
        assert near.how == "near field"
        with pytest.raises(ConfigError, match="orientations is empty"):
            find_probe(raw, orientations=())
        assert len(ALL_CLASSES) == 4

    @pytest.mark.spec("PROBE-2")
    def test_a_right_start_gains_where_its_noise_is_worse_than_nothing_and_a_wrong_one_does_not(self):
        raw, engine = measured(photons=150.0), stepping_engine()
        heldout = np.arange(0, 110, 4)
        pattern = raw.subset(np.setdiff1d(np.arange(110), heldout)).mean_pattern()
        found = {}
        for sign in (1, -1):
            probed = raw.with_probe(probe_from_mean_pattern(pattern, defocus_px2=sign * DEFOCUS))
            trial, image = try_scan(probed, heldout, {}, plan=TrialPlan(epochs=6), engine=engine)
            scan = PtychoDataContainer.of(probed, heldout=heldout)
            found[sign] = judged_trial(trial, image, scan, engine, null_misfits(scan))
        assert found[1].misfit > found[1].null_misfit  # all of its contrast explains less than no object
        assert 0 < found[1].kept < 1
        assert found[1].gain > 5 * max(found[-1].gain, 0.0)
        assert found[1].trust > 2
        assert KEPT[0] == 0


class TestAperture:
    @pytest.mark.spec("PROBE-1")
    @pytest.mark.parametrize("inner", [0.0, 6.0])
    def test_disc_and_annulus_are_measured_though_light_is_scattered_and_pixels_are_bad(self, inner):
        y, x = np.indices((64, 64))
        r = np.hypot(y - 30.0, x - 35.0)
        pattern = np.where((r <= 17) & (r >= inner), 90.0, 3.0)
        mask = np.ones((64, 64), bool)
        mask[27:33, 42:48] = False
        pattern[~mask] = 0
        pattern[2, 2] = 1e4  # one hot pixel, alone
        found = find_aperture(pattern, mask)
        assert found is not None
        assert found.radius == pytest.approx(17, abs=0.5)
        assert found.inner_radius == pytest.approx(inner, abs=0.6)
        assert found.centre == pytest.approx((30, 35), abs=0.3)
        assert find_aperture(np.zeros((8, 8))) is None


class TestReduction:
    def test_a_probe_comes_back_from_the_small_scan(self):
        rng = np.random.default_rng(4)
        window = np.hanning(16)[:, None] * np.hanning(16)[None, :]
        full = np.zeros((48, 48), complex)
        full[16:32, 15:31] = window * (rng.normal(size=(16, 16)) + 1j * rng.normal(size=(16, 16)))
        made = Reduction(full=48, crop=48, bin=2)
        # the small scan sees the far field in the middle of each bin, by its definition
        k, r = 2 * (np.arange(24) - 12) + 0.5, np.arange(48) - 24
        sampled = np.exp(-2j * np.pi * np.outer(k, r) / 48)
        field = sampled @ full @ sampled.T
        q = np.arange(24) - 12
        inverse = np.exp(2j * np.pi * np.outer(q, q) / 24) / 24
        small = (inverse @ field @ inverse.T)[None]
        pattern = np.full((48, 48), np.sum(np.abs(full) ** 2) / 48**2)
        back = made.probe_back(small, pattern)
        np.testing.assert_allclose(np.abs(back[0]), np.abs(full), atol=1e-5)
        assert likeness(back[0], full) > 0.99999

    def test_beyond_the_crop_the_weakest_mode_has_the_mean_pattern(self):
        rng = np.random.default_rng(5)
        small = rng.normal(size=(2, 16, 16)) + 1j * rng.normal(size=(2, 16, 16))
        small[1] *= 0.3
        pattern = rng.uniform(1, 2, (24, 24))
        made = Reduction(full=24, crop=16)
        field = np.abs(far_field(made.probe_back(small, pattern, 7.0))) ** 2
        inner, outer = np.s_[4:20, 4:20], np.ones((24, 24), bool)
        outer[inner] = False
        np.testing.assert_allclose(field[1][outer], pattern[outer], rtol=1e-4)
        np.testing.assert_allclose(field[0][outer], 0, atol=1e-6)
        ratio = field[0][inner] / np.abs(far_field(small))[0] ** 2
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)
        np.testing.assert_allclose(field.sum(), pattern.sum(), rtol=1e-5)
        assert made.defocus(1.0) == pytest.approx((24 / 16) ** 2)

    def test_hundreds_of_large_frames_never_lie_in_memory(self):
        side, M = 256, 600
        y, x = np.indices((side, side)) - side // 2
        disc = np.where(np.hypot(y, x) < 40, 100.0, 0.0).astype(np.float32)

        class Frames:
            shape = (M, side, side)

            def read(self, numbers):
                return np.repeat(disc[None], len(numbers), axis=0)

        places = np.stack(np.unravel_index(np.arange(M), (24, 25)), axis=1) * 4.0
        raw = RawData.from_arrays(Frames(), places)
        bench = Bench(raw, np.arange(M), disc.astype(float), stepping_engine(), DEFAULT_RUNTIME, 0, no_progress)
        assert bench.reduction.side == 84
        tracemalloc.start()
        piece = bench._piece(M)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert piece.raw.n_frames == M
        assert peak < 0.7 * M * side**2 * 4

    def test_frames_are_made_as_small_as_the_bright_field_allows(self):
        def small(side: int, radius: float, centre: float) -> tuple[int, int]:
            aperture = Aperture(
                radius=radius, inner_radius=0.0, threshold=1.0, centre=(side / 2, side / 2 + centre), share=1.0
            )
            made = reduction_for(side, aperture)
            return made.crop, made.bin

        assert small(64, 10, 0) == (64, 1)
        assert small(104, 11, 2) == (64, 1)
        assert small(128, 62, 0) == (128, 2)
        assert small(512, 100, 10) == (232, 2)
        mask = np.ones((8, 8), bool)
        mask[5, 2] = False
        np.testing.assert_array_equal(Reduction(full=8, crop=4, bin=2).mask(mask), [[True, True], [False, True]])


class TestPhysics:
    @pytest.mark.spec("PROBE-3", "PROBE-8")
    def test_a_hole_and_a_way_along_the_beam(self):
        disc = disc_probe(40, 9.0, total=5.0)
        assert np.sum(np.abs(disc) ** 2) == pytest.approx(5)
        assert (np.abs(disc[0]) > 0.5 * np.abs(disc).max()).sum() == pytest.approx(np.pi * 81, rel=0.03)
        with pytest.raises(ConfigError, match="radius 21 object pixels"):
            disc_probe(40, 21.0)
        start = aperture_probe(40, 12, inner_radius_px=3, defocus_px2=4.0)
        np.testing.assert_allclose(
            defocused(start, -9.5), aperture_probe(40, 12, inner_radius_px=3, defocus_px2=-5.5), atol=1e-6
        )

    @pytest.mark.spec("PROBE-6")
    def test_a_lattice_is_seen_in_a_raster_that_is_turned_and_none_in_a_jittered_one(self):
        i, j = np.mgrid[:9, :14].reshape(2, -1)
        places = np.stack([4 * i - 3.1 * j, 3 * i + 4.3 * j], axis=-1) + 7.7
        found = scan_lattice(places)
        assert found is not None
        assert abs(np.linalg.det(found)) == pytest.approx(4 * 4.3 + 3.1 * 3)
        assert scan_lattice(places + np.random.default_rng(0).uniform(-1, 1, places.shape)) is None
        assert scan_lattice(np.stack([np.arange(30.0), np.zeros(30)], axis=-1)) is None


class TestWords:
    def raw(self) -> RawData:
        counts = np.random.default_rng(0).poisson(4, (6, N, N))
        places = np.random.default_rng(1).uniform(0, 20, (6, 2))
        geometry = Geometry(energy_eV=3e5, pixel_size_m=9.3e-10, radiation="electron")
        return RawData.from_arrays(counts, places, np.ones((N, N)), geometry=geometry)

    @pytest.mark.spec("PROBE-7")
    def test_a_lens_is_described_in_pixels_and_in_the_words_of_a_microscope(self):
        raw = self.raw()
        made = probe_from_words("aperture(radius=15.5, inner=3, defocus_px2=-30.7)", raw)
        total = float(raw.frame_totals.mean())
        np.testing.assert_allclose(
            made.probe, aperture_probe(N, 15.5, inner_radius_px=3, defocus_px2=-30.7, total=total), rtol=1e-5
        )
        wavelength = raw.geometry.wavelength_m
        assert wavelength is not None
        made = probe_from_words("aperture(semi_angle=1.03mrad, stop=0.25, defocus=-13.5um)", raw)
        outer, px2 = 1.03e-3 * N * 9.3e-10 / wavelength, -13.5e-6 * wavelength / 9.3e-10**2
        wanted = aperture_probe(N, outer, inner_radius_px=outer / 4, defocus_px2=px2, total=total)
        np.testing.assert_allclose(made.probe, wanted, rtol=1e-5)
        assert f"defocus {px2:.4g} square object px" in made.source.assumptions[-1]
        zone = probe_from_words("aperture(outer_zone=1nm, defocus_px2=3)", raw)
        wanted = aperture_probe(N, N * 9.3e-10 / 2e-9, defocus_px2=3, total=total)
        np.testing.assert_allclose(zone.probe, wanted, rtol=1e-5)
        hole = probe_from_words("disc(radius=4.65nm)", raw)
        np.testing.assert_allclose(hole.probe, disc_probe(N, 5.0, total=total), rtol=1e-4)

    @pytest.mark.spec("PROBE-7")
    def test_auto_leaves_the_probe_out_and_a_path_is_read(self, tmp_path):
        raw = self.raw()
        searched = probe_from_words("auto", raw)
        assert searched.probe is None
        assert "the scan's is left out" in searched.source.assumptions[-1]
        probe = np.random.default_rng(2).normal(size=(N, N)) + 1j
        np.savez(tmp_path / "p.npz", probe=probe)
        given = probe_from_words(str(tmp_path / "p.npz"), raw)
        np.testing.assert_allclose(given.probe[0], probe, rtol=1e-6)
        assert "the probe is that of p.npz, as given" in given.source.assumptions

    @pytest.mark.spec("PROBE-7")
    @pytest.mark.parametrize(
        ("text", "error", "words"),
        [
            ("aperture(radius=15, semi_angle=1mrad)", ConfigError, "radius and semi_angle"),
            ("aperture(defocus_px2=3)", ConfigError, "needs one of radius, semi_angle and outer_zone"),
            ("aperture(radius=15, defocus=1um, defocus_px2=3)", ConfigError, "defocus and defocus_px2"),
            ("aperture(radius=15, inner=2, stop=0.1)", ConfigError, "inner and stop say the same"),
            ("aperture(radios=15)", ConfigError, "Did you mean 'radius'"),
            ("aperture(radius=wide)", ConfigError, "radius = 'wide'; it must be a number"),
            ("disc()", ConfigError, "a disc needs its radius"),
            ("aperture(semi_angle=1mrad)", DataError, "semi_angle needs the wavelength"),
        ],
    )
    def test_what_cannot_be_read_is_said(self, text, error, words):
        raw = self.raw()
        if error is DataError:
            raw = replace(raw, geometry=Geometry())
        with pytest.raises(error, match=words):
            probe_from_words(text, raw)


class TestPictures:
    @pytest.mark.spec("PROBE-8")
    def test_the_focus_lies_upstream_by_the_defocus(self):
        beam = through_focus(aperture_probe(48, 14, defocus_px2=20.0))
        step = beam.distances_px2[1] - beam.distances_px2[0]
        assert beam.focus_px2 == pytest.approx(-20.0, abs=1.5 * step)
        assert beam.at_focus.max() > 3 * beam.at_sample.max()
        assert focus_figure(aperture_probe(48, 14, defocus_px2=20.0), Geometry())[:4] == b"\x89PNG"

    @pytest.mark.spec("PROBE-8")
    def test_of_a_large_probe_the_detector_without_light_is_left_out_and_the_focus_stays(self):
        large, small = (
            through_focus(aperture_probe(side, radius, inner_radius_px=5.0, defocus_px2=400.0))
            for side, radius in ((512, 50), (256, 50))
        )
        assert large.at_focus.shape == (256, 256)
        assert large.along_x.shape == (61, 256)
        # the same aperture in twice the detector: pixels half as large, so that the plane is a quarter as far
        assert large.focus_px2 == pytest.approx(-400, abs=70)
        np.testing.assert_allclose(large.distances_px2, 4 * small.distances_px2, rtol=0.05)
        assert np.abs(large.at_focus).max() / large.at_focus.sum() > 3 * large.at_sample.max() / large.at_sample.sum()

    def test_trials_are_drawn_and_listed(self):
        guess = find_probe(measured(), most_modes=1)
        picture, page = trials_figure(guess), probe_words(guess)
        assert picture is not None
        assert picture[:4] == b"\x89PNG"
        assert f"{guess.defocus_px2:.4g} px²" in page
        assert "explains a far field equally" in page
        assert probe_words(None) == ""
        assert len(guess.to_mapping()["trials"]) == len(guess.trials)
