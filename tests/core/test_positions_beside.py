"""Positions in a file of their own: what it may be, which numbers in it are y and x, their unit, and their frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from io_scans import cxi_file

from ptycho_core.data.frames import ArrayFrames
from ptycho_core.data.raw import Geometry, Source
from ptycho_core.data.recording import Recording
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.io import read_scan
from ptycho_core.io.settle import scan_of
from ptycho_core.io.settle.beside import read_beside
from ptycho_core.io.settle.named_axes import pairs_of, unit_in
from ptycho_core.physics.propagation import ELECTRON_REST_EV, energy_of_eV, wavelength_m
from ptycho_core.reader_protocol import ReadOptions

M, N = 9, 16
COUNTS = np.random.default_rng(4).poisson(30, (M, N, N)).astype(np.float32)
PLACES = np.random.default_rng(5).uniform((-2e-7, 1e-7), (2.5e-7, 6e-7), (M, 2))  # (y, x), metres, off every grid
PIXEL = 3.7e-8


def bare(**changes) -> Recording:
    """Frames without positions."""
    given = {
        "frames": ArrayFrames(COUNTS),
        "positions": None,
        "geometry": Geometry(pixel_size_m=PIXEL),
        "source": Source(path="scan.h5"),
    }
    return Recording(**(given | changes))


def placed(path, recording=None, **options):
    return scan_of(recording or bare(), ReadOptions(positions=Path(path), **options))


def hdf5(path, units=None, attributes=None, **content):
    with h5py.File(path, "w") as h5:
        for name, values in content.items():
            h5[name.replace("__", "/")] = values
            if units and name in units:
                h5[name.replace("__", "/")].attrs["units"] = units[name]
        for name, value in (attributes or {}).items():
            h5.attrs[name] = value
    return path


def product(path, indexes=None, places=PLACES, **attributes):
    """A product of ptychodus as its definition has it."""
    given = {"photon_energy_eV": 9000.0, "detector_object_distance_m": 1.5} | attributes
    indexes = np.arange(len(places)) if indexes is None else indexes
    y, x = places.T
    content = {"probe_position_indexes": indexes, "probe_position_y_m": y, "probe_position_x_m": x}
    content |= {"probe": np.ones((2, N, N), complex), "object": np.ones((3, 4), complex)}
    hdf5(path, None, given, **content)
    with h5py.File(path, "r+") as h5:
        h5["object"].attrs.update(pixel_height_m=PIXEL, pixel_width_m=PIXEL)
    return path


# ---- text


@pytest.mark.spec("SETTLE-20")
@pytest.mark.parametrize(
    "head",
    [
        "# Positions of scan 12\n# x_um y_um\n",
        "# scan 12\n#\nx_um,y_um\n",
        "# x_um, y_um\n# in the lab's frame\n",
    ],
    ids=["title first", "title of two words", "title last"],
)
def test_names_of_columns_are_found_under_and_over_a_title(tmp_path, head):
    y, x = PLACES.T * 1e6
    (tmp_path / "places.txt").write_text(head + "\n".join(f"{float(b)} {float(a)}" for a, b in zip(y, x, strict=True)))
    assert read_beside(tmp_path / "places.txt").settled() * 1e6 == pytest.approx(PLACES * 1e6, rel=1e-12)


@pytest.mark.spec("SETTLE-20")
@pytest.mark.parametrize(
    ("head", "scale", "order"),
    [
        ("y_um x_um", 1e6, (0, 1)),
        ("# x_nm, y_nm", 1e9, (1, 0)),
        ("pos_x[mm]; pos_y[mm]", 1e3, (1, 0)),
        ("y_m x_m", 1.0, (0, 1)),
        ("x_px y_px", 1 / PIXEL, (1, 0)),
        ("# Pos X [nm], Pos Y [nm]", 1e9, (1, 0)),
        ("y (um)   x (um)", 1e6, (0, 1)),
    ],
)
def test_columns_of_text_say_what_they_are(tmp_path, head, scale, order):
    path = tmp_path / "motors.txt"
    np.savetxt(path, (PLACES * scale)[:, order], header=head, comments="", fmt="%.12g")
    raw = placed(path)
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL, rtol=1e-9)
    assert any("y is column" in note for note in raw.source.assumptions)
    assert not any("Nobody says" in note for note in raw.source.assumptions)


@pytest.mark.spec("SETTLE-20")
@pytest.mark.parametrize("head", ['"x_um","y_um"\n', "\ufeffx_um,y_um\n"], ids=["quoted", "marked as UTF-8"])
def test_names_of_columns_as_spreadsheets_write_them(tmp_path, head):
    y, x = PLACES.T * 1e6
    text = head + "\n".join(f"{float(b)},{float(a)}" for a, b in zip(y, x, strict=True))
    (tmp_path / "places.csv").write_text(text, encoding="utf-8")
    assert read_beside(tmp_path / "places.csv").settled() * 1e6 == pytest.approx(PLACES * 1e6, rel=1e-12)


@pytest.mark.spec("SETTLE-20")
@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_an_array_whose_name_says_xy_is_x_y(tmp_path, kind):
    path = tmp_path / f"places.{kind}"
    if kind == "npz":
        np.savez(path, positions_xy_um=PLACES[:, ::-1] * 1e6)
    else:
        hdf5(path, {"stage__positions_xy": "um"}, stage__positions_xy=PLACES[:, ::-1] * 1e6)
    found = read_beside(path)
    assert found.settled() * 1e6 == pytest.approx(PLACES * 1e6, rel=1e-12)
    assert any("was read as (x, y), as its name says" in note for note in found.notes)


def test_two_columns_without_names_are_y_x_in_what_the_caller_says(tmp_path):
    path = tmp_path / "motors.txt"
    np.savetxt(path, PLACES * 1e6)
    raw = placed(path, position_unit="um")
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)
    assert "motors.txt: its two columns were read as y, x." in raw.source.assumptions
    np.savetxt(path, PLACES / PIXEL)
    assert any("Nobody says what unit" in note for note in placed(path).source.assumptions)


def test_different_units_of_y_and_x_are_each_obeyed(tmp_path):
    path = tmp_path / "motors.csv"
    np.savetxt(path, PLACES * [1e6, 1e3], header="y_um,x_mm", comments="", delimiter=",")
    np.testing.assert_allclose(placed(path).positions_px, PLACES / PIXEL)
    np.savetxt(path, PLACES, header="y_um,x", comments="", delimiter=",")
    with pytest.raises(DataError, match="have different units for y and x, um and none"):
        placed(path)


def test_a_given_unit_is_that_of_the_stored_numbers(tmp_path):
    """Not of metres that the name of a column has made of them."""
    path = tmp_path / "motors.txt"
    np.savetxt(path, PLACES * 1e6, header="y_mm x_mm", comments="")
    raw = placed(path, position_unit="um")
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)
    assert "motors.txt itself states mm." in raw.source.assumptions


def test_a_column_with_frame_numbers_pairs_rows_and_frames(tmp_path):
    path = tmp_path / "motors.txt"
    order = np.random.default_rng(0).permutation(M)
    np.savetxt(path, np.column_stack([order, PLACES[order] * 1e6]), header="frame y_um x_um", comments="")
    raw = placed(path)
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)
    assert "motors.txt: positions were paired with frames by their numbers." in raw.source.assumptions


@pytest.mark.parametrize(("head", "words"), [("a b", "one must be named y"), ("y y_2 x", "one must be named y")])
def test_columns_that_cannot_be_told_are_listed(tmp_path, head, words):
    path = tmp_path / "motors.txt"
    np.savetxt(path, np.ones((M, len(head.split()))), header=head, comments="")
    with pytest.raises(DataError, match=words):
        placed(path)


# ---- arrays


def test_numpy_and_lone_arrays_are_y_x(tmp_path):
    np.save(tmp_path / "p.npy", PLACES)
    np.testing.assert_allclose(placed(tmp_path / "p.npy", position_unit="m").positions_px, PLACES / PIXEL)
    np.savez(tmp_path / "p.npz", positions_um=PLACES * 1e6)
    np.testing.assert_allclose(placed(tmp_path / "p.npz").positions_px, PLACES / PIXEL)
    np.save(tmp_path / "three.npy", np.ones((M, 3)))
    with pytest.raises(DataError, match=r"three.npy: is \(9, 3\); positions are \(M, 2\)"):
        placed(tmp_path / "three.npy")


@pytest.mark.spec("SETTLE-20")
def test_datasets_are_named_behind_a_colon(tmp_path):
    y, x = PLACES.T
    path = hdf5(tmp_path / "m.h5", {"e__samy": "um"}, e__samy=y * 1e6, e__samx=x, e__other=y, both=PLACES.T, z=x)
    for named in ("/e/samy,/e/samx", "e/samy, e/samx"):
        with pytest.raises(DataError, match="different units for y and x, um and none"):
            placed(f"{path}:{named}")
    with h5py.File(path, "r+") as h5:
        h5["e/samx"].attrs["units"] = "m"
    raw = placed(f"{path}:/e/samy,/e/samx")
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)
    np.testing.assert_allclose(placed(f"{path}:/both", position_unit="m").positions_px, PLACES / PIXEL)
    with pytest.raises(DataError, match=r"holds no array 'e/samz'.*e/samx"):
        placed(f"{path}:/e/samz,/e/samx")
    with pytest.raises(DataError, match="must be two names, of y and of x, or one"):
        placed(f"{path}:/a,/b,/c")
    with pytest.raises(DataError, match=r"'both' is \(9, 2\)|has 18 numbers"):
        placed(f"{path}:/both,/z")


def test_keys_of_an_npz_are_named_behind_a_colon(tmp_path):
    y, x = PLACES.T
    np.savez(tmp_path / "m.npz", a_mm=y * 1e3, b_mm=x * 1e3, c=np.arange(M))
    np.testing.assert_allclose(placed(f"{tmp_path / 'm.npz'}:a_mm,b_mm").positions_px, PLACES / PIXEL)


def test_the_one_pair_of_names_is_found_and_two_are_listed(tmp_path):
    y, x = PLACES.T
    content = {"entry__stagey_um": y * 1e6, "entry__stagex_um": x * 1e6, "x_pixel_size": 1.0, "y_pixel_size": 2.0}
    raw = placed(hdf5(tmp_path / "one.h5", **content))
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)
    assert any("y is dataset 'entry/stagey_um', x is dataset 'entry/stagex_um'" in n for n in raw.source.assumptions)
    two = hdf5(tmp_path / "two.h5", **content, goal_y=y, goal_x=x)
    with pytest.raises(DataError, match=r"cannot be told; name them: --positions .*two.h5:Y,X .*goal_x \(9,\)"):
        placed(two)


def test_pairs_differ_in_one_letter():
    assert pairs_of({"ppX": 4, "ppY": 4, "xx": 4, "proxy": 4}) == [("ppY", "ppX")]
    assert pairs_of({"xcoords": 4, "ycoords": 4, "xcoords_start": 4, "ycoords_start": 4}) == [("ycoords", "xcoords")]
    assert pairs_of({"x": 4, "y": 5}) == []


@pytest.mark.parametrize(
    ("name", "unit"),
    [("y_um", "um"), ("ypx", ""), ("pos_y[Å]", "Å"), ("m_y", ""), ("y_m", "m"), ("y_pixels", "px"), ("A_y", "")],
)
def test_units_are_words_of_a_name(name, unit):
    assert unit_in(name) == unit


# ---- files that state what they are


@pytest.mark.spec("SETTLE-20")
def test_a_product_gives_positions_by_index_and_the_instrument_that_the_scan_lacks(tmp_path):
    order = np.random.default_rng(1).permutation(M)
    path = product(tmp_path / "product.h5", indexes=order, places=PLACES[order])
    raw = placed(path, bare(geometry=Geometry()))
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)
    assert raw.geometry == Geometry(energy_eV=9000.0, distance_m=1.5, pixel_size_m=PIXEL)
    assert f"product.h5 holds a probe too, which is not used; --probe {path} takes it." in raw.source.assumptions
    assert any("energy_eV = 9000" in note and "product.h5" in note for note in raw.source.assumptions)
    assert raw.probe is None
    # what the scan says itself goes before
    own = placed(path, bare(geometry=Geometry(energy_eV=7000.0, pixel_size_m=1e-8)))
    assert own.geometry == Geometry(energy_eV=7000.0, distance_m=1.5, pixel_size_m=1e-8)
    full = Geometry(energy_eV=7000.0, distance_m=2.0, detector_pixel_size_m=75e-6)
    derived = placed(path, bare(geometry=full)).geometry.pixel_size_m
    assert derived == pytest.approx(wavelength_m(7000.0) * 2.0 / (N * 75e-6))


def test_a_product_of_before_the_renaming_and_of_other_frames(tmp_path):
    path = product(tmp_path / "old.h5", photon_energy_eV=float("nan"), probe_energy_eV=8000.0)
    assert placed(path).geometry.energy_eV == 8000.0
    wide = bare(frames=ArrayFrames(np.ones((M, 20, 20), np.float32)), geometry=Geometry(pixel_size_m=None))
    with pytest.raises(DataError, match="the size of an object pixel is not known"):
        placed(path, wide)


def test_numbers_of_frames_that_the_file_states_are_those_of_the_product(tmp_path):
    """Frames 3, 5, 7 … of a run in the file of frames; a position each, and some of frames that were dropped."""
    stored = np.arange(M) * 2 + 3
    places = np.zeros((30, 2))
    places[stored] = PLACES
    path = product(tmp_path / "product.h5", places=places)
    raw = placed(path, bare(frame_indexes=stored))
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)
    assert any("21 positions are of frames that are not in scan.h5" in note for note in raw.source.assumptions)


def test_several_positions_of_a_frame_are_averaged_and_one_for_all_is_refused(tmp_path):
    twice = product(
        tmp_path / "twice.h5",
        indexes=np.repeat(np.arange(M), 2),
        places=np.repeat(PLACES, 2, axis=0) + np.tile([[1e-7, -2e-7], [-1e-7, 2e-7]], (M, 1)),
    )
    raw = placed(twice)
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)
    assert any("9 frames have several positions; their mean is used" in note for note in raw.source.assumptions)
    with pytest.raises(DataError, match="all 9 positions are of frame 0"):
        placed(product(tmp_path / "zeros.h5", indexes=np.zeros(M, int)))
    with pytest.raises(DataError, match=r"of frames 100 to 108, and scan.h5 has frames 0 to 8"):
        placed(product(tmp_path / "other.h5", indexes=np.arange(M) + 100))


def test_frames_without_a_position_are_named_and_can_be_left_out(tmp_path):
    path = product(tmp_path / "some.h5", indexes=np.arange(M)[3:], places=PLACES[3:])
    with pytest.raises(DataError, match=r"3 of the 9 frames in use have no finite position \(first: frame 0"):
        placed(path)
    raw = placed(path, frames="3:")
    np.testing.assert_allclose(raw.positions_px, PLACES[3:] / PIXEL)
    np.testing.assert_array_equal(raw.frame_numbers, np.arange(3, M))


def test_positions_of_ptychoshelves_come_with_wavelength_and_pixel(tmp_path):
    y, x = PLACES.T
    path = hdf5(tmp_path / "p_para.hdf5", ppX=x[None], ppY=y[None], **{"lambda": 1.4e-10, "dx": PIXEL})
    raw = placed(path, bare(geometry=Geometry()))
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)
    assert raw.geometry.energy_eV == pytest.approx(1.239841984e-6 / 1.4e-10)
    assert raw.geometry.pixel_size_m == PIXEL


def test_another_scan_gives_positions_by_its_own_reader(tmp_path):
    """Of a CXI file they are minus what is stored; its frames are not those that they are used for."""
    path = cxi_file(tmp_path / "refined.cxi", np.ones((M, 24, 24)), PLACES / PIXEL)
    with h5py.File(path) as h5:
        step = 1.24e-10 * 2.0 / (24 * 75e-6)
        assert h5["entry_1/sample_1/geometry_1/translation"][0, 0] < 0 or PLACES[0, 0] < 0
    raw = placed(path)
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL * step / PIXEL)
    assert any("positions as a scan of dialect cxi" in note for note in raw.source.assumptions)


def test_a_reconstruction_gives_the_positions_that_it_used(tmp_path):
    path = hdf5(
        tmp_path / "reconstruction.h5",
        entry__positions_px=PLACES / PIXEL,
        entry__object=np.ones((3, 4), complex),
        entry__coverage=np.ones((3, 4)),
    )
    np.testing.assert_allclose(placed(path).positions_px, PLACES / PIXEL)
    with h5py.File(path, "r+") as h5:
        h5["entry/object"].attrs["pixel_size_m"] = 2 * PIXEL
    np.testing.assert_allclose(placed(path).positions_px, 2 * PLACES / PIXEL)


def test_the_positions_of_an_old_mat_file(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "p.mat", {"ppX": PLACES[:, 1:], "ppY": PLACES[:, :1], "dx": PIXEL})
    np.testing.assert_allclose(placed(tmp_path / "p.mat").positions_px, PLACES / PIXEL)


# ---- what is wrong


@pytest.mark.spec("SETTLE-20")
def test_another_number_of_positions_is_refused_with_the_option(tmp_path):
    path = tmp_path / "motors.txt"
    np.savetxt(path, PLACES[:8] * 1e6, header="y_um x_um", comments="")
    with pytest.raises(DataError, match=r"motors.txt: 8 positions, but scan.h5 has 9 frames; .*--frames 0:8"):
        placed(path)
    np.testing.assert_allclose(placed(path, frames="0:8").positions_px, PLACES[:8] / PIXEL)
    np.testing.assert_allclose(placed(path, frames="1:9").positions_px, PLACES[:8] / PIXEL)


def test_chosen_frames_keep_their_own_positions(tmp_path):
    path = tmp_path / "motors.txt"
    np.savetxt(path, PLACES)
    for chosen in ("2:8:2", "::-1"):
        raw = placed(path, position_unit="m", frames=chosen)
        np.testing.assert_allclose(raw.positions_px, PLACES[raw.frame_numbers] / PIXEL)


def test_positions_that_are_no_numbers_are_refused_with_the_first_frame(tmp_path):
    path = tmp_path / "motors.txt"
    bad = PLACES.copy()
    bad[4, 1] = np.nan
    np.savetxt(path, bad, header="y_m x_m", comments="")
    with pytest.raises(DataError, match=r"motors.txt: 1 of the 9 frames in use .*first: frame 4.*--frames"):
        placed(path)
    bad_file = tmp_path / "words.txt"
    bad_file.write_text("y_m x_m\n1 2\nthree 4\n")
    with pytest.raises(DataError, match="line 3"):
        placed(bad_file)


def test_a_file_that_is_not_there_is_said_with_the_nearest_name(tmp_path):
    (tmp_path / "motors.txt").write_text("1 2\n")
    with pytest.raises(DataError, match=r"no such file; check --positions.*motors.txt"):
        placed(tmp_path / "motor.txt")


def test_positions_and_a_step_contradict_each_other(tmp_path):
    np.savetxt(tmp_path / "p.txt", PLACES)
    with pytest.raises(ConfigError, match="one of them"):
        placed(tmp_path / "p.txt", scan_step_m=(1e-7, 1e-7), raster=(3, 3))


def test_complex_positions_are_refused(tmp_path):
    np.savez(tmp_path / "p.npz", positions=PLACES + 1j, other=PLACES)
    with pytest.raises(DataError, match="holds complex128 values"):
        read_beside(Path(f"{tmp_path / 'p.npz'}:positions"))


# ---- a file that lies beside the frames


def frames_alone(folder: Path) -> Recording:
    scan = folder / "scan012_dp.hdf5"
    scan.write_bytes(b"frames")
    return replace(bare(), source=Source(path=str(scan)))


@pytest.mark.spec("SETTLE-21")
@pytest.mark.parametrize("name", ["scan012_para.hdf5", "scan012.txt", "scan012_positions.csv"])
def test_a_file_of_a_like_name_is_proposed_and_not_taken(tmp_path, name):
    recording = frames_alone(tmp_path)
    np.savetxt(tmp_path / "scan013.txt", PLACES)
    np.savetxt(tmp_path / "scan012_notes.txt", np.ones((3, 2)))
    if name.endswith("hdf5"):
        hdf5(tmp_path / name, ppX=PLACES[:, 1], ppY=PLACES[:, 0])
    else:
        np.savetxt(tmp_path / name, PLACES)
    with pytest.raises(DataError, match=f"holds no positions.*probably in {name}.*--positions .*{name}"):
        scan_of(recording, ReadOptions())


def test_a_folder_of_frames_may_hold_its_positions_as_text(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    recording = replace(bare(), source=Source(path=str(folder)))
    np.savetxt(folder / "positions.txt", PLACES)
    with pytest.raises(DataError, match=r"probably in positions\.txt"):
        scan_of(recording, ReadOptions())


def test_the_scans_own_positions_give_way_and_that_is_said(tmp_path):
    np.savetxt(tmp_path / "p.txt", PLACES, header="y_m x_m")
    raw = placed(tmp_path / "p.txt", bare(positions=PLACES[::-1], position_unit="m"))
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)
    assert "The scan's own positions were left aside for those of p.txt, as given." in raw.source.assumptions


def test_two_candidates_are_both_named_and_one_of_another_length_is_none(tmp_path):
    recording = frames_alone(tmp_path)
    np.savetxt(tmp_path / "scan012.txt", PLACES[:4])
    with pytest.raises(DataError) as caught:
        scan_of(recording, ReadOptions())
    assert "probably" not in str(caught.value)
    np.savetxt(tmp_path / "scan012_pos.txt", PLACES)
    np.savetxt(tmp_path / "scan012_motors.txt", PLACES)
    with pytest.raises(DataError, match=r"may be in .*scan012_motors.txt or .*scan012_pos.txt"):
        scan_of(recording, ReadOptions())


def test_the_energy_of_a_wavelength_is_the_inverse_of_the_wavelength_of_an_energy():
    for energy, radiation in (
        (8801.5, "photon"),
        (300e3, "electron"),
        (ELECTRON_REST_EV, "electron"),
        (5.0, "electron"),
    ):
        assert energy_of_eV(wavelength_m(energy, radiation), radiation) == pytest.approx(energy, rel=1e-12)


def test_an_npz_scan_is_placed_by_a_product_in_the_end(tmp_path):
    rng = np.random.default_rng(2)
    np.savez(
        tmp_path / "scan.npz",
        diff3d=COUNTS,
        measurement=np.array("counts"),
        xcoords=rng.uniform(0, 9, M),
        ycoords=rng.uniform(0, 9, M),
    )
    raw = read_scan(tmp_path / "scan.npz", positions=product(tmp_path / "product.h5"))
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)


def test_an_npz_of_frames_alone_takes_positions_from_beside_it_or_from_a_raster(tmp_path):
    counts = np.random.default_rng(3).poisson(40.0, (6, 16, 16))
    np.savez(tmp_path / "frames.npz", diff3d=counts, measurement="counts")
    places = np.array([[0.0, 0.5], [0.25, 7.0], [0.0, 13.75], [8.5, 1.0], [8.0, 7.25], [9.0, 13.0]])
    np.savetxt(tmp_path / "places.csv", places, header="y_px,x_px", delimiter=",", comments="")
    scan = read_scan(tmp_path / "frames.npz", positions=tmp_path / "places.csv")
    np.testing.assert_array_equal(scan.positions_px, places)
    np.testing.assert_array_equal(scan.read_counts(range(6)), counts)
    with pytest.raises(DataError, match=r"no ycoords .* holds: diff3d, measurement\. Or give .*\(--positions FILE\)"):
        read_scan(tmp_path / "frames.npz")
    raster = read_scan(tmp_path / "frames.npz", scan_step_m=(3e-7, 2e-7), raster=(2, 3), pixel_size_m=5e-8)
    np.testing.assert_allclose(np.ptp(raster.positions_px, axis=0), [6, 8])


def test_frames_of_one_scan_of_an_npz_are_named_by_their_numbers_in_the_file(tmp_path):
    """Positions of both scans lie beside it, numbered as its frames: the second takes none of the first."""
    counts = np.random.default_rng(3).poisson(40.0, (9, 16, 16))
    given = {"diff3d": counts, "measurement": "counts", "scan_index": [1, 1, 1, 2, 2, 1, 2, 2, 1]}
    np.savez(tmp_path / "two.npz", **given)
    raw = read_scan(tmp_path / "two.npz", entry="2", positions=product(tmp_path / "product.h5"))
    of_second = [3, 4, 6, 7]
    np.testing.assert_allclose(raw.positions_px, PLACES[of_second] / PIXEL)
    np.testing.assert_array_equal(raw.read_counts(range(4)), counts[of_second])
