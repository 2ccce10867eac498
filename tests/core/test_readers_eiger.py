"""Master files of Dectris detectors: blocks behind links, the instrument, the mask, and positions beside them."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from h5_writer import writing
from reader_truth import DETECTOR_PIXEL_M, DISTANCE_M, WAVELENGTH_M, a_truth, misfit

from ptycho_core.errors import DataError
from ptycho_core.io import read_scan
from ptycho_core.io.registry import choose_reader, read_recording
from ptycho_core.physics.propagation import HC_EV_M
from ptycho_core.reader_protocol import ReadOptions

RNG = np.random.default_rng(9)
M, H, W = 13, 18, 22
COUNTS = RNG.poisson(30, (M, H, W)).astype(np.uint32)
BAD = np.zeros((H, W), np.uint32)
BAD[4, 7], BAD[10:12, 3] = 1, 2**30
DETECTOR = "entry/instrument/detector"
SPECIFIC = f"{DETECTOR}/detectorSpecific"


def block(path: Path, frames: np.ndarray, how=None) -> None:
    with h5py.File(path, "w") as h5:
        h5.create_dataset("entry/data/data", data=frames, chunks=(1, *frames.shape[1:]), **(how or hdf5plugin.LZ4()))


def master(folder: Path, frames: np.ndarray = COUNTS, per_block: int = 5, virtual: bool = False, **changes) -> Path:
    """A master file as the detector writes it: one link a block, the tenth block after the ninth."""
    starts = range(0, len(frames), per_block)
    for number, start in enumerate(starts, 1):
        how = hdf5plugin.Bitshuffle() if number % 2 else hdf5plugin.LZ4()
        block(folder / f"scan_data_{number:06d}.h5", frames[start : start + per_block], how)
    content = {
        f"{DETECTOR}/detector_distance": (DISTANCE_M, "m"),
        f"{DETECTOR}/x_pixel_size": (DETECTOR_PIXEL_M * 1e6, "um"),
        f"{DETECTOR}/y_pixel_size": (DETECTOR_PIXEL_M * 1e6, "um"),
        f"{DETECTOR}/bit_depth_image": (8 * frames.dtype.itemsize, ""),
        f"{SPECIFIC}/nimages": (len(frames), ""),
        f"{SPECIFIC}/ntrigger": (1, ""),
        "entry/instrument/beam/incident_wavelength": (WAVELENGTH_M * 1e10, "angstrom"),
        **changes,
    }
    path = folder / "scan_master.h5"
    with h5py.File(path, "w") as h5:
        for name, (value, unit) in content.items():
            if value is not None:
                h5[name] = value
                h5[name].attrs["units"] = unit
        if virtual:
            layout = h5py.VirtualLayout(frames.shape, frames.dtype)
            for number, start in enumerate(starts, 1):
                part = frames[start : start + per_block]
                layout[start : start + len(part)] = h5py.VirtualSource(
                    f"scan_data_{number:06d}.h5", "entry/data/data", part.shape
                )
            h5.create_virtual_dataset("entry/data/data", layout)
        else:
            for number in range(1, len(starts) + 1):
                h5[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(f"scan_data_{number:06d}.h5", "entry/data/data")
    return path


def where(folder: Path, n: int = M) -> Path:
    path = folder / "where.txt"
    np.savetxt(path, RNG.uniform(0, 3e-6, (n, 2)), header="y_m x_m")
    return path


@pytest.mark.spec("READ-45")
@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("per_block", [1, 5])
def test_blocks_are_one_scan_in_the_order_of_their_numbers(tmp_path, virtual, per_block):
    path = master(tmp_path, per_block=per_block, virtual=virtual)
    assert choose_reader(path)[0].name == "eiger"
    recording = read_recording(path, ReadOptions())
    frames = pickle.loads(pickle.dumps(recording.frames))
    numbers = np.array([12, 0, 9, 10, 4, 0])
    np.testing.assert_array_equal(frames.read(numbers), COUNTS[numbers])
    assert recording.frames.shape == (M, H, W)
    assert recording.geometry.energy_eV == pytest.approx(HC_EV_M / WAVELENGTH_M, rel=1e-9)
    assert recording.geometry.distance_m == DISTANCE_M
    assert recording.geometry.detector_pixel_size_m == pytest.approx(DETECTOR_PIXEL_M, rel=1e-12)
    assert recording.positions is None
    assert recording.source.warnings == ()


@pytest.mark.spec("READ-45")
def test_the_mask_hides_what_is_not_zero_and_the_largest_number_marks_a_gap(tmp_path):
    frames = COUNTS.copy()
    frames[:, :, 15] = 2**32 - 1
    path = master(tmp_path, frames, **{f"{SPECIFIC}/pixel_mask": (BAD, "")})
    recording = read_recording(path, ReadOptions())
    np.testing.assert_array_equal(recording.mask, BAD == 0)
    raw = read_scan(path, positions=where(tmp_path))
    assert raw.mask is not None
    good = BAD == 0
    good[:, 15] = False
    np.testing.assert_array_equal(raw.mask, good[:, 2:20])
    counts = raw.read_counts(np.arange(M))
    np.testing.assert_array_equal(counts, np.where(good, frames, 0)[:, :, 2:20])


def test_without_positions_the_option_is_named(tmp_path):
    with pytest.raises(DataError, match="--positions FILE"):
        read_scan(master(tmp_path))


@pytest.mark.spec("READ-45")
def test_a_block_that_is_gone_is_named(tmp_path):
    path = master(tmp_path)
    (tmp_path / "scan_data_000002.h5").unlink()
    with pytest.raises(DataError, match=r"scan_data_000002\.h5"):
        read_scan(path, positions=where(tmp_path))
    (tmp_path / "scan_data_000003.h5").unlink()
    with pytest.raises(DataError, match=r"scan_data_000002\.h5"):
        read_scan(path, positions=where(tmp_path))


@pytest.mark.spec("READ-45")
def test_a_source_of_a_virtual_dataset_that_is_gone_is_named(tmp_path):
    path = master(tmp_path, virtual=True)
    (tmp_path / "scan_data_000003.h5").unlink()
    with pytest.raises(DataError, match=r"scan_data_000003\.h5"):
        read_scan(path, positions=where(tmp_path))


@pytest.mark.spec("READ-45")
def test_blocks_that_were_never_written_are_no_fault_where_all_frames_are_there(tmp_path):
    path = master(tmp_path)
    with h5py.File(path, "a") as h5:
        for number in (4, 5):
            h5[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(f"scan_data_{number:06d}.h5", "entry/data/data")
    recording = read_recording(path, ReadOptions())
    np.testing.assert_array_equal(recording.frames.read(np.arange(M)), COUNTS)
    assert any("data_000004" in text for text in recording.source.assumptions)
    block(tmp_path / "scan_data_000005.h5", COUNTS[:2])
    with pytest.raises(DataError, match=r"data_000005' is there, but a block before it is not"):
        read_scan(path, positions=where(tmp_path))


def test_a_scan_that_goes_on_is_read_as_far_as_its_blocks_are_there(tmp_path):
    path = master(tmp_path, **{f"{SPECIFIC}/nimages": (40, "")})
    (tmp_path / "scan_data_000003.h5").unlink()
    with pytest.raises(DataError, match=r"scan_data_000003\.h5"):
        read_recording(path, ReadOptions())
    recording = read_recording(path, ReadOptions(follow=True))
    np.testing.assert_array_equal(recording.frames.read(np.arange(10)), COUNTS[:10])
    assert recording.frames.shape[0] == 10
    assert recording.source.warnings == ("The detector was asked for 40 frames; 10 are in the file.",)


def test_blocks_of_two_shapes_are_refused(tmp_path):
    path = master(tmp_path)
    block(tmp_path / "scan_data_000002.h5", COUNTS[:, :-2])
    with pytest.raises(
        DataError, match=r"data_000002' has frames of \(16, 22\), 'entry/data/data_000001' of \(18, 22\)"
    ):
        read_scan(path, positions=where(tmp_path))


def test_a_mask_of_another_shape_and_pixels_that_are_not_square_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"pixel_mask' is \(18, 20\), but frames are 18×22"):
        read_scan(master(tmp_path, **{f"{SPECIFIC}/pixel_mask": (BAD[:, 2:], "")}))
    with pytest.raises(DataError, match="only square ones"):
        read_scan(master(tmp_path, **{f"{DETECTOR}/x_pixel_size": (172e-6, "m")}))


def test_what_the_detector_was_not_told_is_not_taken(tmp_path):
    """Detectors write a distance of 0 where nobody set it, and the beam at (0, 0)."""
    path = master(
        tmp_path, **{f"{DETECTOR}/detector_distance": (0.0, "m"), f"{DETECTOR}/beam_center_x": (0.0, "pixel")}
    )
    recording = read_recording(path, ReadOptions())
    assert recording.geometry.distance_m is None
    assert recording.centre_px is None
    beam = {f"{DETECTOR}/beam_center_{axis}": (value, "pixel") for axis, value in zip("yx", (8.25, 12.5), strict=True)}
    assert read_recording(master(tmp_path, **beam), ReadOptions()).centre_px == (8.25, 12.5)


def test_a_wavelength_without_a_unit_is_in_angstrom(tmp_path):
    path = master(tmp_path, **{"entry/instrument/beam/incident_wavelength": (WAVELENGTH_M * 1e10, "")})
    recording = read_recording(path, ReadOptions())
    assert recording.geometry.energy_eV == pytest.approx(HC_EV_M / WAVELENGTH_M, rel=1e-9)
    assert any("incident_wavelength states no unit; it was read in A." in text for text in recording.source.assumptions)
    assert not any("detector_distance states" in text for text in recording.source.assumptions)


def test_counts_are_what_a_detector_counts(tmp_path):
    with pytest.raises(DataError, match="measurement 'amplitude' was asked for"):
        read_scan(master(tmp_path), measurement="amplitude")


def test_the_truth_explains_a_master_file_with_positions_beside_it(tmp_path):
    truth = a_truth()
    counts = np.rint(truth.counts).astype(np.uint32)
    np.savetxt(
        tmp_path / "motors.csv", truth.positions_m[:, ::-1] * 1e6, header="x_um,y_um", delimiter=",", comments=""
    )
    raw = read_scan(master(tmp_path, counts, per_block=7), positions=tmp_path / "motors.csv")
    np.testing.assert_allclose(raw.positions_px, truth.positions_px, rtol=1e-9)
    assert misfit(raw, truth) < 0.02  # rounding to whole counts


@pytest.mark.spec("SETTLE-5")
def test_what_is_given_serves_where_the_files_own_is_damaged(tmp_path):
    changes = {f"{DETECTOR}/x_pixel_size": (0.0, "m"), f"{DETECTOR}/detector_distance": (-1.0, "m")}
    path = master(tmp_path, **changes)
    with pytest.raises(DataError, match="--detector_pixel_size_m"):
        read_recording(path, ReadOptions())
    found = read_recording(path, ReadOptions(detector_pixel_size_m=75e-6, distance_m=2.0))
    assert found.geometry.distance_m is None


@pytest.mark.spec("READ-4")
def test_a_block_that_is_being_written_is_read_up_to_its_last_whole_frame(tmp_path):
    path = tmp_path / "scan_master.h5"
    lines = (
        "d = f.create_dataset('entry/data/data_000001', (9, 18, 22), np.uint32, chunks=(1, 18, 22))\n"
        "f.swmr_mode = True\n"
        "d[:4] = 7\n"
        "d.flush()"
    )
    with writing(path, lines):
        with pytest.raises(DataError, match="--follow"):
            read_recording(path, ReadOptions())
        found = read_recording(path, ReadOptions(follow=True))
        assert found.frames.shape == (4, 18, 22)
        assert (found.frames.read(np.arange(4)) == 7).all()
        assert any("of its 9 frames the first 4 are read" in text for text in found.source.assumptions)
