"""4D-STEM: rasters in HDF5 (bare, EMD), NPZ, NPY, and raw files of an EMPAD."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5_writer import writing
from reader_truth import PIXEL_M, RASTER, N, Truth, a_truth, misfit

from ptycho_core.data.raw import RawData
from ptycho_core.errors import DataError
from ptycho_core.io import read_scan
from ptycho_core.io.registry import choose_reader, read_recording
from ptycho_core.physics.propagation import wavelength_m
from ptycho_core.reader_protocol import ReadOptions

RNG = np.random.default_rng(5)
STACK = RNG.poisson(9, (3, 4, 12, 10)).astype(np.uint16)
EMPAD = RNG.normal(40, 9, (2, 3, 130, 128)).astype(np.float32)
ELECTRON = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "electron_4dstem.h5"
OPTIONS = ("--scan_step", "--rotate", "--radiation electron", "--energy_eV", "--pixel_size_m")


def bare(path: Path, name: str = "data", **more) -> Path:
    with h5py.File(path, "w") as h5:
        h5[name] = STACK
        for key, value in more.items():
            h5[key] = value
    return path


def emd(
    path: Path, units: tuple[str, str] = ("nm", "A^-1"), calibration: bool = False, one_based: bool = False
) -> Path:
    """As emdfile 0.0.16 writes it: dims of two numbers each, and py4DSTEM's calibration in a group of its own."""
    with h5py.File(path, "w") as h5:
        h5.attrs["version_major"] = 1
        root = h5.create_group("datacube_root")
        root.attrs["emd_group_type"] = "root"
        cube = root.create_group("datacube")
        cube.attrs["emd_group_type"] = "array"
        cube["data"] = STACK
        if calibration:
            group = root.create_group("metadatabundle/calibration")
            values = {"R_pixel_size": 0.5, "R_pixel_units": units[0], "Q_pixel_size": 0.02, "Q_pixel_units": units[1]}
            for key, value in {**values, "QR_rotation": -0.4}.items():
                group[key] = value
        else:
            steps = zip((0.5, 0.25, 0.01, 0.02), (units[0], units[0], units[1], units[1]), strict=True)
            for axis, (step, unit) in enumerate(steps):
                cube[f"dim{axis + one_based}"] = np.array([3.0, 3.0 + step])
                cube[f"dim{axis + one_based}"].attrs["units"] = unit
    return path


def frames_of(recording, M: int) -> np.ndarray:
    return recording.frames.read(np.arange(M))


def raster_m(step_y: float, step_x: float, rows: int = 3, columns: int = 4) -> np.ndarray:
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    return np.stack([y * step_y, x * step_x], axis=1)


# ---- what a bare raster needs


@pytest.mark.spec("READ-40")
@pytest.mark.parametrize("container", ["h5", "npz", "npy"])
def test_a_bare_raster_is_read_with_x_fastest(tmp_path, container):
    path = tmp_path / f"scan.{container}"
    if container == "h5":
        bare(path)
    else:
        (np.savez if container == "npz" else lambda p, v: np.save(p, v))(path, STACK)
    options = ReadOptions(scan_step_m=(2e-9, 3e-9), pixel_size_m=4e-10, radiation="electron", energy_eV=2e5)
    recording = read_recording(path, options)
    np.testing.assert_array_equal(frames_of(recording, 12), STACK.reshape(12, 12, 10))
    assert recording.raster == (3, 4)
    assert recording.positions is None
    assert recording.source.measurement == "counts"
    raw = read_scan(path, options=options)
    np.testing.assert_array_equal(raw.read_counts(np.array([7])), STACK.reshape(12, 12, 10)[7:8, 1:11])
    np.testing.assert_allclose(raw.positions_px, raster_m(2e-9, 3e-9) / raw.geometry.pixel_size_m, rtol=1e-12)
    assert raw.geometry.radiation == "electron"


@pytest.mark.spec("READ-40")
@pytest.mark.parametrize("container", ["h5", "npz", "npy"])
def test_what_is_missing_is_said_all_at_once(tmp_path, container):
    path = tmp_path / f"scan.{container}"
    bare(path) if container == "h5" else (np.savez if container == "npz" else np.save)(path, STACK)
    with pytest.raises(DataError) as refused:
        read_scan(path)
    for option in OPTIONS:
        assert option in str(refused.value), option
    with pytest.raises(DataError) as refused:
        read_scan(path, scan_step_m=(1e-9, 1e-9), rotate_deg=3.0, radiation="electron")
    assert [option for option in OPTIONS if option in str(refused.value)] == ["--energy_eV", "--pixel_size_m"]


@pytest.mark.spec("READ-40")
def test_energy_distance_and_detector_pixel_do_for_the_object_pixel(tmp_path):
    known = {"energy_eV": 2e5, "distance_m": 1.0, "detector_pixel_size_m": 1e-4, "radiation": "electron"}
    raw = read_scan(bare(tmp_path / "a.h5"), scan_step_m=(1e-9, 1e-9), **known)
    assert raw.geometry.pixel_size_m == pytest.approx(wavelength_m(2e5, "electron") / (10 * 1e-4), rel=1e-12)


def test_positions_beside_take_the_place_of_a_step(tmp_path):
    np.save(tmp_path / "where.npy", raster_m(2, 3) + 0.25)
    path = bare(tmp_path / "a.h5")
    raw = read_scan(path, positions=tmp_path / "where.npy", position_unit="px", pixel_size_m=1e-10)
    assert raw.n_frames == 12


@pytest.mark.parametrize("name", ["data", "datacube/data", "exp/DP"])
def test_a_raster_is_found_by_its_shape_and_a_usual_name(tmp_path, name):
    reader, _ = choose_reader(bare(tmp_path / "a.h5", name))
    assert reader.name == "stem"


def test_four_axes_beside_positions_are_not_a_bare_raster(tmp_path):
    with pytest.raises(DataError, match="--suggest-mapping"):
        choose_reader(bare(tmp_path / "a.h5", probe_position_x_m=np.arange(12.0)))


def test_two_rasters_are_listed(tmp_path):
    path = bare(tmp_path / "a.h5", **{"b/data": STACK + 1})
    with pytest.raises(DataError, match=r"2 scans: b/data, data.*--entry"):
        read_scan(path)
    options = ReadOptions(entry="b/data", scan_step_m=(1e-9, 1e-9), pixel_size_m=1e-10)
    np.testing.assert_array_equal(frames_of(read_recording(path, options), 12), STACK.reshape(12, 12, 10) + 1)


# ---- what an EMD file says


@pytest.mark.parametrize("one_based", [False, True])
def test_an_emd_file_says_its_steps(tmp_path, one_based):
    recording = read_recording(emd(tmp_path / "a.h5", one_based=one_based), ReadOptions(energy_eV=2e5))
    np.testing.assert_allclose(recording.positions, raster_m(0.5e-9, 0.25e-9), rtol=1e-12)
    assert recording.position_unit == "m"
    assert recording.geometry.radiation == "electron"
    assert recording.geometry.pixel_size_m == pytest.approx(1e-10 / (10 * 0.02), rel=1e-12)


def test_older_units_of_emd_are_understood(tmp_path):
    recording = read_recording(emd(tmp_path / "a.h5", ("[n_m]", "[n_m^-1]")), ReadOptions(energy_eV=2e5))
    np.testing.assert_allclose(recording.positions, raster_m(0.5e-9, 0.25e-9), rtol=1e-12)
    assert recording.geometry.pixel_size_m == pytest.approx(1e-9 / (10 * 0.02), rel=1e-12)


def test_a_detector_pixel_in_angle_needs_the_energy(tmp_path):
    path = emd(tmp_path / "a.h5", ("nm", "mrad"))
    with pytest.raises(DataError, match="--energy_eV"):
        read_scan(path)
    wave = wavelength_m(3e5, "electron")
    geometry = read_recording(path, ReadOptions(energy_eV=3e5)).geometry
    assert geometry.pixel_size_m == pytest.approx(wave / (10 * 0.02e-3), rel=1e-12)


def test_the_calibration_of_py4dstem_is_used_and_its_turn_is_told(tmp_path):
    recording = read_recording(emd(tmp_path / "a.h5", calibration=True), ReadOptions(energy_eV=2e5))
    np.testing.assert_allclose(recording.positions, raster_m(0.5e-9, 0.5e-9), rtol=1e-12)
    assert any("-0.4 rad (-22.92 degrees)" in text and "--rotate" in text for text in recording.source.assumptions)


def test_pixels_of_the_scan_are_no_length(tmp_path):
    with pytest.raises(DataError, match="--scan_step"):
        read_scan(emd(tmp_path / "a.h5", ("pixels", "pixels")), energy_eV=2e5)


# ---- end to end, and real


@pytest.mark.spec("READ-40")
@pytest.mark.parametrize("container", ["h5", "npy"])
def test_the_truth_explains_a_raster(tmp_path, container):
    truth: Truth = a_truth(on_raster=True)
    cube = truth.counts.reshape(*RASTER, N, N)
    path = tmp_path / f"a.{container}"
    if container == "npy":
        np.save(path, cube)
    else:
        with h5py.File(path, "w") as h5:
            h5["data"] = cube
    raw = read_scan(path, scan_step_m=(5.3 * PIXEL_M, 4.1 * PIXEL_M), pixel_size_m=PIXEL_M)
    assert misfit(at_home(raw, truth), truth) < 1e-3
    swapped = read_scan(path, scan_step_m=(4.1 * PIXEL_M, 5.3 * PIXEL_M), pixel_size_m=PIXEL_M)
    assert misfit(at_home(swapped, truth), truth) > 0.05


def at_home(raw: RawData, truth: Truth) -> RawData:
    """With the free origin of its positions at that of the truth."""
    return RawData.from_arrays(raw.frames, raw.positions_px + truth.positions_px[0] - raw.positions_px[0])


@pytest.mark.real_data
@pytest.mark.skipif(not ELECTRON.exists(), reason="../shared/data is not there")
def test_the_real_electron_scan_lies_as_its_description_says():
    with pytest.raises(DataError) as refused:
        read_scan(ELECTRON)
    assert all(option in str(refused.value) for option in OPTIONS)
    said = {"rotate_deg": -126.0, "radiation": "electron", "energy_eV": 3e5, "pixel_size_m": 9.3e-10}
    raw = read_scan(ELECTRON, scan_step_m=(93.75e-10,) * 2, **said)
    assert (raw.n_frames, raw.side) == (1849, 128)
    i, j = np.mgrid[:43, :43].reshape(2, -1)
    a = np.radians(-126)
    wanted = 93.75 / 9.3 * np.stack([i * np.cos(a) - j * np.sin(a), i * np.sin(a) + j * np.cos(a)], axis=1)
    np.testing.assert_allclose(raw.positions_px, wanted, atol=1e-9)
    assert raw.geometry.wavelength_m == pytest.approx(1.969e-12, rel=1e-3)


# ---- lazily


@pytest.mark.spec("READ-46")
def test_frames_of_a_raster_are_read_in_any_order_and_pickled(tmp_path):
    options = ReadOptions(scan_step_m=(1e-9, 1e-9), pixel_size_m=1e-10)
    frames = pickle.loads(pickle.dumps(read_recording(bare(tmp_path / "a.h5"), options).frames))
    numbers = np.array([11, 3, 4, 5, 3, 0])
    np.testing.assert_array_equal(frames.read(numbers), STACK.reshape(12, 12, 10)[numbers])
    assert frames.read(np.zeros(0, np.int64)).shape == (0, 12, 10)


# ---- EMPAD


def empad(path: Path, frames: np.ndarray = EMPAD) -> Path:
    path.write_bytes(frames.astype("<f4").tobytes())
    return path


SAID = {"scan_step_m": (1e-9, 1e-9), "pixel_size_m": 1e-10, "radiation": "electron", "energy_eV": 2e5}


def test_a_raw_file_of_an_empad_leaves_its_two_last_rows_out(tmp_path):
    recording = read_recording(empad(tmp_path / "scan_x3_y2.raw"), ReadOptions(**SAID))
    assert recording.raster == (2, 3)
    np.testing.assert_array_equal(frames_of(recording, 6), EMPAD.reshape(6, 130, 128))
    assert recording.mask is not None
    assert recording.mask[:128].all()
    assert not recording.mask[128:].any()
    raw = read_scan(empad(tmp_path / "scan_x3_y2.raw"), **SAID, gain=1.0)
    assert raw.side == 128
    np.testing.assert_array_equal(raw.read_counts(np.arange(6)), np.maximum(EMPAD.reshape(6, 130, 128)[:, :128], 0))


def test_frames_of_130_by_128_in_an_array_are_those_of_an_empad(tmp_path):
    np.save(tmp_path / "a.npy", EMPAD)
    recording = read_recording(tmp_path / "a.npy", ReadOptions(**SAID))
    assert recording.centre_px == (64.0, 64.0)
    assert any("EMPAD" in text for text in recording.source.assumptions)
    np.save(tmp_path / "b.npy", EMPAD[:, :, :120])
    other = read_recording(tmp_path / "b.npy", ReadOptions(**SAID))
    assert (other.mask, other.centre_px) == (None, None)


def test_the_raster_of_a_raw_file_is_stated_square_or_refused(tmp_path):
    assert read_recording(empad(tmp_path / "a.raw", EMPAD[:, :2]), ReadOptions(**SAID)).raster == (2, 2)
    with pytest.raises(DataError, match=r"6 frames of 130×128.*--raster NY,NX"):
        read_scan(empad(tmp_path / "b.raw"), **SAID)
    assert read_recording(tmp_path / "b.raw", ReadOptions(**SAID, raster=(3, 2))).raster == (3, 2)


def test_a_raw_file_that_grows_is_read_to_its_last_whole_frame(tmp_path):
    path = empad(tmp_path / "scan_x3_y2.raw")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"part of one.*--follow"):
        read_scan(path, **SAID)
    recording = read_recording(path, ReadOptions(**SAID, follow=True))
    np.testing.assert_array_equal(frames_of(recording, 3), EMPAD[0])
    assert any("1 of the 2 rows" in text for text in recording.source.assumptions)


@pytest.mark.peers
@pytest.mark.spec("READ-40")
def test_a_file_that_emdfile_writes_is_read_as_it_means(tmp_path):
    emdfile = pytest.importorskip("emdfile")
    cube = emdfile.Array(
        STACK,
        name="datacube",
        dims=[0.5, 0.25, 0.01, 0.02],
        dim_units=["nm", "nm", "A^-1", "A^-1"],
        dim_names=["Rx", "Ry", "Qx", "Qy"],
    )
    emdfile.save(str(tmp_path / "a.emd"), cube)
    recording = read_recording(tmp_path / "a.emd", ReadOptions(energy_eV=2e5))
    np.testing.assert_array_equal(frames_of(recording, 12), STACK.reshape(12, 12, 10))
    np.testing.assert_allclose(recording.positions, raster_m(0.5e-9, 0.25e-9), rtol=1e-12)
    assert recording.geometry.pixel_size_m == pytest.approx(1e-10 / (10 * 0.02), rel=1e-12)
    assert recording.geometry.radiation == "electron"


@pytest.mark.spec("READ-4")
def test_a_raster_in_hdf5_that_is_being_written_is_read_up_to_its_last_whole_row(tmp_path):
    path = tmp_path / "scan.h5"
    lines = (
        "d = f.create_dataset('data', (6, 4, 12, 10), np.uint16, chunks=(1, 1, 12, 10))\n"
        "f.swmr_mode = True\n"
        "d[:3] = 5\n"
        "d[3, :2] = 5\n"
        "d.flush()"
    )
    with writing(path, lines):
        with pytest.raises(DataError, match="--follow"):
            read_recording(path, ReadOptions(**SAID))
        found = read_recording(path, ReadOptions(**SAID, follow=True))
        assert (found.raster, found.frames.shape) == ((3, 4), (12, 12, 10))
        assert (found.frames.read(np.arange(12)) == 5).all()
