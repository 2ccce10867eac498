"""What a caller says of a recording, settled: frames, positions, instrument, window, axes, each and together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptycho_core.data.frames import ArrayFrames
from ptycho_core.data.propagation import Propagation
from ptycho_core.data.raw import Geometry, ObjectGuess, RawData, Source
from ptycho_core.data.recording import Recording, recording_of
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.inspection.examine import examine
from ptycho_core.io import read_scan, write_scan
from ptycho_core.io.settle import scan_of
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import aperture_probe, windowed_probe
from ptycho_core.physics.propagation import far_field, fresnel_number_of, wavelength_m
from ptycho_core.reader_protocol import ReadOptions
from ptycho_core.testing.problems import complex_noise, smooth_probe

M, H, W = 11, 30, 40
INSTRUMENT = Geometry(energy_eV=8000.0, distance_m=2.0, detector_pixel_size_m=75e-6)
rng = np.random.default_rng(5)
COUNTS = rng.poisson(9.0, (M, H, W)).astype(np.float32)
PLACES = np.stack([rng.uniform(0, 3e-6, M), rng.uniform(-1e-6, 4e-6, M)], axis=-1)


def recording(**changes) -> Recording:
    given = {
        "frames": ArrayFrames(COUNTS),
        "positions": PLACES,
        "position_unit": "m",
        "geometry": INSTRUMENT,
        "source": Source(path="somewhere.h5", dialect="mine", assumptions=("As read.",)),
    }
    return Recording(**(given | changes))


def settled(of: Recording | None = None, **said) -> RawData:
    return scan_of(of or recording(), ReadOptions(**said))


def counts_of(raw: RawData) -> np.ndarray:
    return raw.read_counts(np.arange(raw.n_frames))


def pixel_m(n: int, geometry: Geometry = INSTRUMENT) -> float:
    return (
        wavelength_m(geometry.energy_eV, geometry.radiation)
        * geometry.distance_m
        / (n * geometry.detector_pixel_size_m)
    )


# ---- the window


@pytest.mark.spec("SETTLE-1")
def test_frames_that_are_no_square_are_cut_to_the_largest_even_one_about_the_middle():
    raw = settled()
    np.testing.assert_array_equal(counts_of(raw), COUNTS[:, :, 5:35])
    assert raw.mask is None
    assert raw.geometry.pixel_size_m == pytest.approx(pixel_m(30))
    np.testing.assert_allclose(raw.positions_px, PLACES / pixel_m(30))
    assert any("a window of 30×30 about pixel (15, 20)" in text for text in raw.source.assumptions)
    odd = settled(recording(frames=ArrayFrames(COUNTS[:, :29, :29])))
    np.testing.assert_array_equal(counts_of(odd), COUNTS[:, :28, :28])


@pytest.mark.spec("SETTLE-1", "FM-36")
@pytest.mark.parametrize(("top", "left", "centre"), [(4, 9, (12.0, 17.0)), (-5, 30, (3.2, 37.8)), (-8, -8, (0.0, 0.0))])
def test_a_window_lies_about_the_centre_and_what_is_beyond_the_detector_is_masked(top, left, centre):
    raw = settled(crop=16, centre=centre)
    wide = np.pad(COUNTS, ((0, 0), (16, 16), (16, 16)))
    expected = wide[:, 16 + top : 32 + top, 16 + left : 32 + left]
    on = np.pad(np.ones((H, W), bool), 16)[16 + top : 32 + top, 16 + left : 32 + left]
    np.testing.assert_array_equal(counts_of(raw), expected)
    assert (raw.mask is None) == on.all()
    if raw.mask is not None:
        np.testing.assert_array_equal(raw.mask, on)
    np.testing.assert_allclose(raw.positions_px, PLACES / pixel_m(16))


@pytest.mark.spec("SETTLE-1")
def test_a_pad_keeps_every_pixel_and_masks_what_it_adds():
    raw = settled(pad=48)
    on = np.zeros((48, 48), bool)
    on[9:39, 4:44] = True
    np.testing.assert_array_equal(raw.mask, on)
    np.testing.assert_array_equal(counts_of(raw)[:, 9:39, 4:44], COUNTS)
    assert counts_of(raw).sum() == COUNTS.sum()
    assert raw.geometry.pixel_size_m == pytest.approx(pixel_m(48))


@pytest.mark.spec("SETTLE-2")
def test_binning_adds_up_and_a_gap_costs_light_but_no_level():
    good = np.ones((H, W), bool)
    good[4:6, 8] = False  # half of the binned pixel (2, 4)
    good[10:12, 12:14] = False  # all of (5, 6)
    good[20, 20:22] = False
    good[21, 20] = False  # three quarters of (10, 10)
    raw = settled(recording(mask=good), crop=24, centre=(12, 12), bin=2)
    sums = np.where(good, COUNTS, 0)[:, :24, :24].reshape(M, 12, 2, 12, 2).sum(axis=(2, 4))
    share = good[:24, :24].reshape(12, 2, 12, 2).mean(axis=(1, 3))
    assert share[2, 4] == 0.5
    np.testing.assert_array_equal(raw.mask, share >= 0.5)
    expected = np.where(share >= 0.5, sums / np.maximum(share, 0.1), 0)
    np.testing.assert_allclose(counts_of(raw), expected, rtol=1e-6)
    # the window decides the pixel, whatever it is binned by
    assert raw.geometry.pixel_size_m == pytest.approx(pixel_m(24))


@pytest.mark.spec("SETTLE-2")
@pytest.mark.parametrize(("by", "beam"), [(1, [[3]]), (2, [[3, 0], [0, 0]]), (3, [[1, 0, 2], [0, 3, 0], [0, 0, 5]])])
def test_zero_frequency_is_in_the_middle_of_the_pixels_that_become_the_middle(by, beam):
    frames = np.zeros((M, H, W), np.float32)
    first = (by - 1) // 2
    frames[:, 15 - first : 15 - first + by, 20 - first : 20 - first + by] = beam
    raw = settled(recording(frames=ArrayFrames(frames)), crop=24, bin=by)
    found = counts_of(raw)[0]
    assert found[12 // by, 12 // by] == found.sum() == np.sum(beam)


@pytest.mark.spec("SETTLE-1")
@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"crop": 16, "pad": 64}, "crop and pad are given both"),
        ({"crop": 41}, "crop = 41, but frames are 30×40; give 1 to 40"),
        ({"pad": 32}, "pad = 32, but frames are 30×40"),
        ({"crop": 18, "bin": 4}, "window of 18 detector pixels binned by 4"),
        ({"crop": 6}, "window of 6 .* even, from 8 to 4096"),
        ({"bin": 0}, "bin = 0"),
        ({"centre": (31.0, 3.0)}, r"centre = \(31.0, 3.0\), but frames are 30×40"),
        ({"centre": "left"}, "centre = 'left'; it must be auto"),
    ],
)
def test_windows_that_cannot_be(said, match):
    with pytest.raises(ConfigError, match=match):
        settled(**said)


@pytest.mark.spec("SETTLE-1")
def test_the_centre_of_the_light_is_found():
    y, x = np.mgrid[:H, :W]
    beam = 500 * np.exp(-((y - 11.3) ** 2 + (x - 22.6) ** 2) / 8)
    raw = settled(
        recording(frames=ArrayFrames(np.random.default_rng(1).poisson(beam, (M, H, W)))), centre="auto", crop=16
    )
    found = counts_of(raw).mean(axis=0)
    assert np.abs(np.array(np.unravel_index(found.argmax(), found.shape)) - 8).max() <= 1


# ---- a probe in the window


def wave_of(N: int = 32) -> np.ndarray:
    """Two modes that are small in their window and on the detector, so that no window cuts them."""
    lens = aperture_probe(N, 5.3, inner_radius_px=1.2, defocus_px2=25.0)[0].astype(complex)
    return np.stack([lens, 0.4 * lens * np.exp(0.11j * np.arange(N))])


@pytest.mark.spec("FM-36")
@pytest.mark.parametrize(("top", "side"), [(4, 24), (-6, 44)])
def test_a_probe_cut_with_the_detector_has_the_same_wave_there(top, side):
    probe = wave_of()
    cut = windowed_probe(probe, top, top, side)
    assert cut.shape == (2, side, side)
    expected = np.abs(far_field(probe)) ** 2
    found = np.abs(far_field(cut)) ** 2
    if top > 0:
        np.testing.assert_allclose(found, expected[:, top : top + side, top : top + side], atol=1e-7)
    else:
        np.testing.assert_allclose(found[:, -top : -top + 32, -top : -top + 32], expected, atol=1e-7)
    # the middle of the window stays the middle: the centre of mass, in units of the window, is where it was
    for before, after in zip(probe, cut, strict=True):
        assert centre_of(before) / 32 == pytest.approx(centre_of(after) / side, abs=2e-3)


def centre_of(mode: np.ndarray) -> np.ndarray:
    N = len(mode)
    weight = np.abs(mode) ** 2 / np.sum(np.abs(mode) ** 2)
    r = np.arange(N) - (N - 1) / 2
    return np.array([np.sum(weight.sum(axis=1) * r), np.sum(weight.sum(axis=0) * r)])


@pytest.mark.spec("FM-36", "SETTLE-1")
@pytest.mark.parametrize("said", [{}, {"crop": 24}])
def test_a_centre_that_is_given_is_where_the_probe_has_its_own(said):
    probe = wave_of()
    square = recording(frames=ArrayFrames(COUNTS[:, :, :30]), probe=probe[:, 1:31, 1:31])
    raw, plain = settled(square, centre=(12.0, 19.0), **said), settled(square, **said)
    np.testing.assert_array_equal(raw.probe, plain.probe)
    assert not np.array_equal(counts_of(raw), counts_of(plain))


@pytest.mark.spec("FM-36")
def test_a_probe_of_binned_frames_is_the_middle_of_its_window():
    probe = wave_of(64)
    binned = windowed_probe(probe, 0, 0, 64, 2)
    np.testing.assert_allclose(np.abs(binned), np.abs(probe[:, 16:48, 16:48]), atol=1e-6)
    near = Propagation("near_field", 0.2)
    cut = windowed_probe(probe, 8, 12, 40, 2, near)
    np.testing.assert_allclose(cut, probe[:, 8:48, 12:52].reshape(2, 20, 2, 20, 2).mean(axis=(2, 4)), atol=1e-6)


@pytest.mark.spec("FM-36", "SETTLE-1")
@pytest.mark.parametrize("said", [{"crop": 64}, {"pad": 128}, {"bin": 2}, {"bin": 3}])
def test_a_scan_in_a_window_is_explained_by_the_truth_in_it(said):
    """The whole chain: positions, pixel and probe of the window agree, so the true object still explains the frames."""
    N, scale = 96, 1.0
    probe = np.zeros((1, N, N), complex)
    lens = aperture_probe(N, 24.0, inner_radius_px=3.0, defocus_px2=4.0, total=4e4)[0]
    probe[0] = lens
    # an object smooth enough to be known between its pixels: a few waves
    corner = np.array([[0, 0], [2, 5], [7, 1], [9, 8], [4, 12]])
    size = N + 12

    def obj(ratio: float, height: int, width: int, first: float) -> np.ndarray:
        y, x = (np.arange(n) / ratio + first for n in (height, width))
        return np.exp(0.4j * np.sin(0.11 * y[:, None] + 0.05 * x[None, :]) + 0.2j * np.cos(0.07 * x[None, :]))

    centres = corner + (N - 1) / 2
    counts = expected_counts(extract(obj(1, size, size, 0), corner, N), probe, np.zeros((5, 2)), scale)
    raw = scan_of(
        Recording(
            frames=ArrayFrames(counts.astype(np.float32)),
            positions=centres,
            position_unit="px",
            probe=probe,
            probe_calibrated=True,
            propagation=Propagation(),
        ),
        ReadOptions(**said),
    )
    ratio = said.get("crop", said.get("pad", N)) / N  # pixels of the window in one that was stored
    n = raw.side
    places = raw.positions_px - (n - 1) / 2
    whole = np.floor(places + 0.5).astype(int)
    rest = places - whole
    low = whole.min(axis=0)
    height, width = whole.max(axis=0) - low + n
    # pixel i of the window is (i + ½) / ratio − ½ of what was stored
    y0, x0 = ((low + 0.5) / ratio - 0.5).tolist()
    y, x = np.arange(height) / ratio + y0, np.arange(width) / ratio + x0
    truth = np.exp(0.4j * np.sin(0.11 * y[:, None] + 0.05 * x[None, :]) + 0.2j * np.cos(0.07 * x[None, :]))
    found = expected_counts(extract(truth, whole - low, n), raw.probe.astype(complex), rest, scale)
    seen = raw.read_counts(np.arange(5))
    good = np.ones((n, n), bool) if raw.mask is None else raw.mask
    error = np.sum((np.sqrt(found) - np.sqrt(seen))[:, good] ** 2) / np.sum(seen[:, good])
    # what is binned is summed where the oracle samples; with the sum's centre left out the error is four times this
    assert error < {1: 2e-4, 2: 4e-3, 3: 1e-2}[said.get("bin", 1)], error


# ---- positions


@pytest.mark.spec("SETTLE-3")
def test_positions_take_the_unit_that_is_said():
    in_um = recording(positions=PLACES * 1e6, position_unit="")
    np.testing.assert_allclose(settled(in_um, position_unit="um").positions_px, PLACES / pixel_m(30))
    pixels = settled(recording(position_unit="px", positions=PLACES * 1e7, geometry=Geometry()))
    # a smaller window has larger pixels: 30 of 40 columns
    np.testing.assert_allclose(pixels.positions_px, PLACES * 1e7 * [1, 30 / 40])
    with pytest.raises(ConfigError, match="position_unit = 'feet'; allowed: px, m, cm"):
        settled(position_unit="feet")
    with pytest.raises(DataError, match=r"size of an object pixel is not known. Give --energy_eV … --distance_m …"):
        settled(recording(geometry=Geometry(detector_pixel_size_m=1e-4)))


@pytest.mark.spec("SETTLE-3")
def test_a_raster_has_its_steps_and_x_runs_fastest():
    bare = recording(positions=None, frames=ArrayFrames(COUNTS[:6]))
    raw = settled(bare, raster=(2, 3), scan_step_m=(3e-7, 2e-7))
    expected = np.array([[0, 0], [0, 2], [0, 4], [3, 0], [3, 2], [3, 4]]) * 1e-7
    np.testing.assert_allclose(raw.positions_px, expected / pixel_m(30))
    known = replace(bare, raster=(3, 2))
    np.testing.assert_allclose(settled(known, scan_step_m=(1e-7, 1e-7)).positions_px[1] * pixel_m(30), [0, 1e-7])
    with pytest.raises(ConfigError, match=r"raster = \(2, 3\), but .* on a raster of \(3, 2\)"):
        settled(known, raster=(2, 3), scan_step_m=(1e-7, 1e-7))
    with pytest.raises(ConfigError, match=r"2 × 2 has 4 frames, but 6"):
        settled(bare, raster=(2, 2), scan_step_m=(1e-7, 1e-7))
    with pytest.raises(ConfigError, match="--raster NY,NX"):
        settled(bare, scan_step_m=(1e-7, 1e-7))
    with pytest.raises(DataError, match=r"holds no positions. Give .* \(--positions FILE\)"):
        settled(bare)


@pytest.mark.spec("SETTLE-3", "FIND-1")
def test_a_turn_comes_before_the_orientation():
    raw = settled(rotate_deg=90.0, orientation="transpose")
    y, x = PLACES.T  # a quarter turn: (y, x) → (−x, y); exchanged: (y, −x)
    np.testing.assert_allclose(raw.positions_px, np.stack([y, -x], axis=-1) / pixel_m(30), atol=1e-9)
    texts = " ".join(raw.source.assumptions)
    assert "turned by 90 degrees" in texts
    assert "transpose, as given" in texts


# ---- frames


@pytest.mark.spec("SETTLE-4")
def test_frames_are_chosen_with_their_positions(tmp_path):
    raw = settled(frames="1:9:3")
    np.testing.assert_array_equal(raw.frame_numbers, [1, 4, 7])
    np.testing.assert_array_equal(counts_of(raw), COUNTS[[1, 4, 7], :, 5:35])
    np.testing.assert_allclose(raw.positions_px, PLACES[[1, 4, 7]] / pixel_m(30))
    np.savetxt(tmp_path / "those.txt", [8, 2, 5], fmt="%d")
    named = settled(frames=str(tmp_path / "those.txt"))
    np.testing.assert_array_equal(named.frame_numbers, [8, 2, 5])
    np.testing.assert_allclose(named.positions_px, PLACES[[8, 2, 5]] / pixel_m(30))


@pytest.mark.spec("SETTLE-4")
@pytest.mark.parametrize(
    ("frames", "error", "match"),
    [
        ("20:", DataError, "leaves none of its 11"),
        ("::0", ConfigError, "its step must not be 0"),
        ("4", ConfigError, "is one frame"),
        ("[11]", DataError, "scan has 0 to 10"),
        ("[1, 1]", DataError, "a frame twice"),
        ("[0.5]", DataError, "needs whole numbers"),
    ],
)
def test_frames_that_are_not_there(tmp_path, frames, error, match):
    if frames.startswith("["):
        np.save(tmp_path / "those.npy", eval(frames))
        frames = str(tmp_path / "those.npy")
    with pytest.raises(error, match=match):
        settled(frames=frames)


@pytest.mark.spec("SETTLE-4")
def test_more_frames_than_positions_are_refused_with_the_option_that_pairs_them():
    fewer = recording(positions=PLACES[:10])
    with pytest.raises(DataError, match=r"11 frames but 10 positions; .* give --frames 0:10"):
        settled(fewer)
    np.testing.assert_array_equal(settled(fewer, frames="0:10").frame_numbers, np.arange(10))
    paired = settled(fewer, frames="1:11")  # as many as there are positions: whose they are is said
    np.testing.assert_allclose(paired.positions_px, PLACES[:10] / pixel_m(30))
    assert any("The 10 positions belong to the frames that were chosen" in text for text in paired.source.assumptions)
    more = recording(frames=ArrayFrames(COUNTS[:10]))
    with pytest.raises(DataError, match=r"10 frames but 11 positions; .* give --frames 0:10"):
        settled(more)
    np.testing.assert_allclose(settled(more, frames="0:10").positions_px, PLACES[:10] / pixel_m(30))


# ---- instrument, provenance, and what is left as it is


@pytest.mark.spec("SETTLE-5", "FM-35")
def test_what_is_given_goes_over_what_the_file_says_and_is_said():
    raw = settled(energy_eV=300e3, radiation="electron", distance_m=1.5)
    assert raw.geometry.wavelength_m * 1e12 == pytest.approx(1.9687, rel=1e-4)
    assert raw.geometry.pixel_size_m * 1e9 == pytest.approx(1.9687e-3 * 1.5 / (30 * 75e-6), rel=1e-4)
    assert "energy_eV = 300000 as given, instead of 8000 as the file says." in raw.source.assumptions
    assert raw.source.assumptions[0] == "As read."
    read_with = raw.source.details["read_with"]
    assert read_with == {"energy_eV": "300000.0", "distance_m": "1.5", "radiation": "electron"}


@pytest.mark.spec("FM-35")
@pytest.mark.parametrize(("energy_eV", "picometres"), [(80e3, 4.17572), (200e3, 2.50793), (300e3, 1.96875)])
def test_wavelengths_of_electrons_are_relativistic(energy_eV, picometres):
    assert wavelength_m(energy_eV, "electron") * 1e12 == pytest.approx(picometres, rel=2e-5)
    assert wavelength_m(energy_eV) * energy_eV == pytest.approx(1.239841984e-6, rel=1e-9, abs=0)


@pytest.mark.spec("SETTLE-5")
def test_a_scan_of_which_nothing_is_said_stays_as_it_is():
    probe = smooth_probe(16)
    counts = np.random.default_rng(2).poisson(7, (9, 16, 16)).astype(np.float32)
    guess = ObjectGuess(object=complex_noise(rng, 40, 41).astype(np.complex64), origin_px=np.array([1.5, -2.0]))
    before = RawData.from_arrays(
        counts, rng.uniform(0, 20, (9, 2)), probe, mask=counts[0] < 12, background=np.full((16, 16), 0.5),
        object_guess=guess, probe_calibrated=True, geometry=Geometry(pixel_size_m=3e-8, energy_eV=700.0),
    )  # fmt: skip
    after = scan_of(recording_of(before), ReadOptions())
    for name in ("positions_px", "probe", "mask", "background", "frame_totals", "frame_numbers"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert (after.geometry, after.propagation, after.source) == (before.geometry, before.propagation, before.source)
    assert after.object_guess is guess
    assert after.probe_calibrated
    moved = scan_of(recording_of(before), ReadOptions(orientation="flip_x"))
    assert moved.object_guess is None
    assert any("object given with the scan was left out" in text for text in moved.source.assumptions)


@pytest.mark.spec("SETTLE-7")
def test_a_dark_level_that_was_taken_off_is_added_to_frames_and_background():
    dark = np.random.default_rng(8).normal(0, 2, (M, H, W)).astype(np.float32)
    noisy = recording(frames=ArrayFrames(np.minimum(COUNTS, 6) + dark), background=np.full((H, W), 0.5))
    with pytest.raises(DataError, match=r"negative \(down to .* add it again \(--offset NUMBER"):
        settled(noisy)
    raw = settled(noisy, offset=4.0, crop=24, bin=2)
    shifted = np.maximum(np.minimum(COUNTS, 6) + dark + 4, 0)
    window = shifted[:, 3:27, 8:32]
    np.testing.assert_allclose(counts_of(raw), window.reshape(M, 12, 2, 12, 2).sum(axis=(2, 4)), rtol=1e-5)
    np.testing.assert_allclose(raw.background, 4 * 4.5)
    assert any("4 was added to every value and to the background" in text for text in raw.source.assumptions)
    given = settled(noisy, offset=4.0, background=1.0)
    np.testing.assert_allclose(given.background, 5.0)
    with pytest.raises(ConfigError, match="offset = -1; it must be a finite number > 0"):
        settled(noisy, offset=-1)


@pytest.mark.spec("SETTLE-2")
def test_a_near_field_that_is_binned_has_larger_pixels_and_the_same_physics():
    near = Propagation("near_field", 0.05, 0.01)
    raw = settled(recording(propagation=near, geometry=Geometry(pixel_size_m=2e-8)), crop=24, bin=3)
    assert raw.propagation.fresnel_number == pytest.approx(0.45)
    assert raw.propagation.wavelength_px == pytest.approx(0.01 / 3)
    assert raw.geometry.pixel_size_m == pytest.approx(6e-8)
    np.testing.assert_allclose(raw.positions_px, PLACES / 6e-8)


@pytest.mark.spec("SETTLE-5")
def test_some_frames_are_looked_at_and_the_rest_is_not_known():
    read = []

    class Counting(ArrayFrames):
        def read(self, numbers):
            read.extend(np.asarray(numbers).tolist())
            return super().read(numbers)

    raw = settled(recording(frames=Counting(COUNTS), position_unit="px", positions=PLACES * 1e7), look_at=3)
    np.testing.assert_array_equal(raw.looked_at, [0, 5, 10])
    np.testing.assert_array_equal(np.isnan(raw.frame_totals), ~np.isin(np.arange(M), [0, 5, 10]))
    assert set(read) <= {0, 5, 10}


@pytest.mark.spec("SETTLE-2")
@pytest.mark.parametrize("said", [{}, {"bin": 2}, {"bin": 3, "crop": 24}, {"bin": 2, "pad": 44}])
def test_the_instrument_of_a_binned_scan_agrees_with_itself_and_can_be_written(tmp_path, said):
    raw = settled(**said)
    assert raw.geometry.detector_pixel_size_m == pytest.approx(75e-6 * said.get("bin", 1), rel=1e-12)
    assert raw.geometry.pixel_size_m == pytest.approx(pixel_m(raw.side, raw.geometry), rel=1e-12)
    assert not [finding for finding in examine(raw) if "λz/(N p)" in finding.text]
    assert write_scan(tmp_path / "binned.cxi", raw) == ()
    again = read_scan(tmp_path / "binned.cxi")
    np.testing.assert_array_equal(counts_of(again), counts_of(raw))
    np.testing.assert_allclose(again.positions_px, raw.positions_px, atol=1e-6)


@pytest.mark.spec("SETTLE-2")
def test_the_fresnel_number_of_a_binned_near_field_is_that_of_its_instrument():
    magnified = Geometry(energy_eV=8000.0, distance_m=2.0, detector_pixel_size_m=75e-6, pixel_size_m=75e-6 / 40)
    F = fresnel_number_of(8000.0, 2.0, 75e-6, 40.0)
    near = recording(geometry=magnified, propagation=Propagation("near_field", F))
    raw = settled(near, bin=2)
    g = raw.geometry
    assert raw.propagation.fresnel_number == pytest.approx(4 * F, rel=1e-12)
    m = g.detector_pixel_size_m / g.pixel_size_m
    assert fresnel_number_of(8000.0, 2.0, g.detector_pixel_size_m, m) == pytest.approx(4 * F, rel=1e-12)
