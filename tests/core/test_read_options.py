"""Options of reading: what means the same is taken the same way, and what would have no effect is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from io_scans import arrays, save

from ptycho_core.data.frames import ArrayFrames
from ptycho_core.data.raw import Geometry, ObjectGuess, RawData, Source
from ptycho_core.data.recording import Recording
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.io import read_scan
from ptycho_core.io.planes import one_in, read_mask
from ptycho_core.io.registry import read_recording
from ptycho_core.io.settle import scan_of
from ptycho_core.physics.propagation import wavelength_m
from ptycho_core.plugins.readers import find_reader
from ptycho_core.reader_protocol import ReadOptions

M, N = 12, 24
RNG = np.random.default_rng(31)
COUNTS = RNG.poisson(30, (M, N, N)).astype(np.float32)
PLACES = RNG.uniform((0, 3), (21, 17), (M, 2))
INSTRUMENT = Geometry(energy_eV=8000.0, distance_m=2.0, detector_pixel_size_m=75e-6, pixel_size_m=1.7e-7)


def recording(**changes) -> Recording:
    given = {
        "frames": ArrayFrames(COUNTS),
        "positions": PLACES,
        "position_unit": "px",
        "source": Source(path="scan.h5"),
    }
    return Recording(**(given | changes))


def settled(of: Recording | None = None, **said) -> RawData:
    return scan_of(of or recording(), ReadOptions(**said))


# ---- what means the same


@pytest.mark.spec("SETTLE-5")
def test_names_of_files_may_be_text_and_pairs_lists(tmp_path):
    where, level = tmp_path / "where.txt", tmp_path / "level.npy"
    np.savetxt(where, PLACES, header="y_px x_px")
    np.save(level, np.full((N, N), 0.25))
    as_text = settled(recording(positions=None, position_unit=""), positions=str(where), background=str(level))
    as_path = settled(recording(positions=None, position_unit=""), positions=where, background=level)
    np.testing.assert_array_equal(as_text.positions_px, as_path.positions_px)
    np.testing.assert_array_equal(as_text.positions_px, PLACES)
    np.testing.assert_array_equal(as_text.background, np.full((N, N), 0.25))
    given = ReadOptions(raster=[3, 4], scan_step_m=5e-8, centre=[11, 12], entry=2, frames=where, mapping=str(where))
    assert (given.raster, given.scan_step_m, given.centre) == ((3, 4), (5e-8, 5e-8), (11, 12))
    assert (given.entry, given.frames, given.mapping) == ("2", str(where), where)
    assert ReadOptions(centre="auto", background=2.5).background == 2.5


@pytest.mark.spec("SETTLE-3")
def test_an_orientation_that_is_to_be_found_names_what_finds_it():
    with pytest.raises(ConfigError, match=r"find_orientation\(scan\)"):
        settled(orientation="auto")


# ---- what would have no effect


@pytest.mark.spec("SETTLE-6")
@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"raster": (3, 4)}, r"raster = \(3, 4\).*--scan_step"),
        ({"raster": (3, 4), "scan_step_m": 5e-8, "position_unit": "nm"}, r"position_unit = 'nm'.*one of the two"),
        ({"crop": 0}, "crop = 0"),
        ({"pad": 0}, "pad = 0"),
        ({"crop": 16.0}, "crop = 16.0; it must be a whole number"),
        ({"pixel_size_m": 0.0}, "pixel_size_m = 0.0; it must be a finite number > 0"),
        ({"energy_eV": float("nan")}, "energy_eV = nan; it must be a finite number > 0"),
    ],
)
def test_an_option_that_would_be_left_aside_is_refused(said, words):
    with pytest.raises(ConfigError, match=words):
        settled(**said)


@pytest.mark.spec("SETTLE-6")
def test_a_raster_that_the_file_has_may_be_said_again():
    assert settled(recording(raster=(3, 4)), raster=(3, 4)).n_frames == M


@pytest.mark.spec("SETTLE-6")
@pytest.mark.parametrize("name", ["hdf5", "eiger", "ptyd", "ptylab", "ptychi", "ptychodus", "ptychoshelves", "mat5"])
def test_readers_of_one_scan_say_so(name):
    assert find_reader(name).spec.one_scan


@pytest.mark.spec("SETTLE-6")
def test_one_of_several_scans_is_refused_where_a_file_holds_one(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as h5:
        h5["frames"], h5["positions_px"] = COUNTS, PLACES
        h5["frames"].attrs["measurement"] = "counts"
    assert read_scan(path, entry=0).n_frames == M
    with pytest.raises(DataError, match=r"entry '1'.*--entry.*'hdf5' holds one scan"):
        read_scan(path, entry=1)
    mapping = tmp_path / "map.yaml"
    mapping.write_text("frames: {path: frames, measurement: counts}\npositions: {path: positions_px, unit: px}\n")
    with pytest.raises(DataError, match=r"no scan '1'"):
        read_scan(path, mapping=mapping, entry=1)
    save(tmp_path / "slac.npz", {"patterns": COUNTS, "indexes": np.arange(M)})
    with pytest.raises(DataError, match=r"no scan '1'"):
        read_recording(tmp_path / "slac.npz", ReadOptions(entry=1))


@pytest.mark.spec("SETTLE-4")
def test_a_frame_before_the_first_is_named(tmp_path):
    np.savetxt(tmp_path / "numbers.txt", [3, -2, 5], fmt="%d")
    with pytest.raises(DataError, match="names frame -2; the scan has 0 to 11"):
        settled(frames=tmp_path / "numbers.txt")


@pytest.mark.spec("SETTLE-34")
def test_a_step_that_is_given_is_mended_by_the_option_that_gave_it():
    of = recording(positions=None, position_unit="", geometry=Geometry(pixel_size_m=1e-8))
    with pytest.raises(DataError, match=r"overlap with no other.*--scan_step say it") as refused:
        settled(of, scan_step_m=1.0, raster=(3, 4))
    assert "--position_unit" not in str(refused.value)
    raw = settled(of, scan_step_m=2e-9, raster=(3, 4))  # a fifth of a pixel, with its unit: believed, and said
    assert any("--scan_step" in text for text in raw.source.warnings)


@pytest.mark.spec("SETTLE-3")
def test_frames_of_a_raster_keep_their_places():
    of = recording(geometry=Geometry(pixel_size_m=1e-8))
    raw = settled(of, scan_step_m=(3e-8, 5e-8), raster=(3, 4), frames="2:11:3")
    np.testing.assert_allclose(raw.positions_px, [[0, 10], [3, 5], [6, 0]], atol=1e-9)
    assert any("own positions were left aside for those of the raster" in text for text in raw.source.assumptions)


@pytest.mark.spec("SETTLE-34")
def test_a_small_step_is_told_of_enough_frames_only():
    few = recording(frames=ArrayFrames(COUNTS[:3]), positions=np.array([[0.0, 0.0], [0.0, 0.25], [0.2, 0.1]]))
    assert settled(few).source.warnings == ()
    with pytest.raises(DataError, match="would be the same"):
        settled(recording(positions=PLACES / 50))


@pytest.mark.spec("SETTLE-34")
def test_a_unit_that_makes_a_scan_a_point_is_refused_with_the_option_that_gave_it():
    of = recording(positions=PLACES * 1.7e-7, position_unit="m", geometry=INSTRUMENT)
    with pytest.raises(DataError, match=r"within 1.84e-05 object pixels of 1.7e-07 m.*--position_unit"):
        settled(of, position_unit="um")


# ---- what is given goes over what follows from the file


@pytest.mark.spec("SETTLE-5")
def test_another_energy_makes_another_pixel_than_the_file_states():
    raw = settled(recording(geometry=INSTRUMENT), energy_eV=6000.0)
    pixel = wavelength_m(6000.0) * 2.0 / (N * 75e-6)
    assert raw.geometry.pixel_size_m == pytest.approx(pixel, rel=1e-12)
    assert any("that the file states was left aside" in text for text in raw.source.assumptions)
    for said in ({}, {"energy_eV": 8000.0}, {"energy_eV": 6000.0, "pixel_size_m": 1.7e-7}):
        assert settled(recording(geometry=INSTRUMENT), **said).geometry.pixel_size_m == 1.7e-7


@pytest.mark.spec("SETTLE-6")
def test_an_object_does_not_stay_under_other_positions(tmp_path):
    np.savetxt(tmp_path / "where.txt", PLACES + 3.25, header="y_px x_px")
    guess = ObjectGuess(object=np.ones((50, 60), np.complex64), origin_px=np.zeros(2))
    assert settled(recording(object_guess=guess)).object_guess is guess
    assert settled(recording(object_guess=guess), positions=tmp_path / "where.txt").object_guess is None
    assert settled(recording(object_guess=guess), position_unit="px").object_guess is guess
    in_metres = recording(object_guess=guess, geometry=INSTRUMENT)
    assert settled(in_metres, position_unit="um", pixel_size_m=1e-6).object_guess is None


@pytest.mark.spec("SETTLE-3")
@pytest.mark.parametrize("dialect", ["cxi", "ptylab", "nxcxi", "shelves", "mapped"])
def test_a_unit_that_is_given_is_that_of_the_numbers_as_they_are_stored(tmp_path, dialect):
    path, said = tmp_path / "scan.h5", {}
    y, x = PLACES.T * 1.7e-7
    with h5py.File(path, "w") as h5:
        if dialect in ("cxi", "nxcxi"):
            detector = h5.create_group("entry_1/instrument_1/detector_1")
            detector["data"], detector["distance"] = COUNTS, 2.0
            detector["x_pixel_size"] = detector["y_pixel_size"] = 75e-6
            h5["entry_1/instrument_1/beam_1/energy"] = 8000.0
            h5["entry_1/instrument_1/beam_1/energy"].attrs["units"] = "eV"
        if dialect == "cxi":
            names = {"entry_1/sample_1/geometry_1/translation": np.stack([x, y, 0 * x], axis=1)}
        elif dialect == "nxcxi":
            h5["entry_1/definition"] = "NXcxi_ptycho"
            names = {f"entry_1/sample_1/transformations/{axis}": line for axis, line in (("x", x), ("y", y))}
        elif dialect == "ptylab":
            h5["ptychogram"], h5["wavelength"], h5["zo"], h5["dxd"] = COUNTS, 1.55e-10, 2.0, 75e-6
            names = {"encoder": PLACES * 1.7e-7}
        elif dialect == "shelves":
            h5["dp"], h5["dx"] = COUNTS, 1.7e-7
            names = {"ppY": y, "ppX": x}
        else:
            h5["images"] = COUNTS
            names = {"stage": PLACES * 1.7e-7}
            (tmp_path / "map.yaml").write_text(
                "frames: {path: images, measurement: counts}\npositions: {path: stage}\npixel_size: 170nm\n"
            )
            said["mapping"] = tmp_path / "map.yaml"
        for name, values in names.items():  # nanometres, and the file says otherwise
            h5[name] = values * 1e9
            h5[name].attrs["units"] = "um"
    right = read_recording(path, ReadOptions(position_unit="nm", **said)).positions * 1e-9
    np.testing.assert_allclose(right, PLACES * 1.7e-7, rtol=1e-9)
    raw = read_scan(path, position_unit="nm", **said)
    np.testing.assert_allclose(raw.positions_px * raw.geometry.pixel_size_m, PLACES * 1.7e-7, rtol=1e-9)
    with h5py.File(path, "r+") as h5:
        for name in names:
            h5[name].attrs["units"] = "steps"
    with pytest.raises(DataError, match="steps"):
        read_scan(path, **said)
    again = read_scan(path, position_unit="nm", **said)
    np.testing.assert_array_equal(again.positions_px, raw.positions_px)


@pytest.mark.spec("READ-3")
def test_pixels_by_name_that_state_a_length_are_for_the_caller_to_decide(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as h5:
        h5["frames"], h5["positions_px"] = COUNTS, PLACES
        h5["frames"].attrs["measurement"], h5["positions_px"].attrs["units"] = "counts", "um"
    with pytest.raises(DataError, match=r"object pixels by their name, and state the unit 'um'.*--position_unit"):
        read_scan(tmp_path / "scan.h5")
    np.testing.assert_array_equal(read_scan(tmp_path / "scan.h5", position_unit="px").positions_px, PLACES)


# ---- words of a recording


@pytest.mark.spec("SETTLE-6")
@pytest.mark.parametrize("changes", [{"position_unit": "um"}, {"mask_polarity": "1"}])
def test_a_reader_with_an_unknown_word_is_refused_and_not_taken_for_metres(changes):
    with pytest.raises(DataError, match=r"scan.h5: \w+ = '\w+'; allowed"):
        recording(**changes)


# ---- masks of other numbers than 0 and 1


@pytest.mark.spec("SETTLE-31")
def test_the_polarity_of_a_bit_field_is_as_told(tmp_path):
    good = np.full((N, N), 2, np.uint8)
    good[5, 6:9] = 0
    np.save(tmp_path / "two.npy", good)
    with pytest.raises(DataError, match=r"1 was taken as bad. Give --mask_polarity good"):
        settled(mask=tmp_path / "two.npy")
    raw = settled(mask=tmp_path / "two.npy", mask_polarity="good")
    np.testing.assert_array_equal(raw.mask, good == 2)
    path = save(tmp_path / "own.npz", arrays(N=N), measurement=np.array("amplitude"), mask=2 - good)
    np.testing.assert_array_equal(read_scan(path, mask_polarity="bad").mask, good == 2)


@pytest.mark.spec("SETTLE-31")
def test_a_mask_for_each_frame_says_that_one_is_made_of_it(tmp_path):
    each = np.ones((3, N, N), bool)
    each[0, 2, 3] = each[2, 7, 1] = False
    np.save(tmp_path / "each.npy", each)
    good, how = read_mask(Path(tmp_path / "each.npy"), None)
    assert set(zip(*np.nonzero(~good), strict=True)) == {(2, 3), (7, 1)}
    assert "of its 3 planes, pixels that are bad in any are bad" in how
    assert one_in(how) == "good"
