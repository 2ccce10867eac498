"""PtyLab in HDF5, written by Python or by MATLAB, and the pair of files of pty-chi."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from dialect_scan import DETECTOR, DISTANCE, ENERGY, PIXEL, deviance, positions_m, truth
from h5_writer import writing

from ptycho_core.data.raw import Geometry
from ptycho_core.errors import DataError
from ptycho_core.io import read_scan
from ptycho_core.io.registry import choose_reader, read_recording
from ptycho_core.physics.propagation import wavelength_m
from ptycho_core.reader_protocol import ReadOptions

M, H, W = 6, 20, 14
RNG = np.random.default_rng(8)
COUNTS = RNG.poisson(11, (M, H, W)).astype(np.uint16)
PLACES = RNG.uniform(-1.2e-7, 2e-7, (M, 2))
PROBE = (RNG.normal(size=(3, W, W)) + 1j * RNG.normal(size=(3, W, W))).astype(np.complex64)


def write(path, attributes=None, user_block=False, **content):
    with h5py.File(path, "w", userblock_size=512 if user_block else 0) as h5:
        for name, value in content.items():
            if value is not None:
                h5[name.replace("__", "/")] = np.asarray(value).T if user_block else value
        for (name, key), value in (attributes or {}).items():
            h5[name].attrs[key] = value
    if user_block:
        with path.open("r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(512, b" "))
    return path


def ptylab(path, attributes=None, user_block=False, **changes):
    content = {"ptychogram": COUNTS, "encoder": PLACES, "wavelength": 6.3e-7, "zo": 0.046, "dxd": 9e-6}
    return write(path, attributes, user_block, **(content | changes))


# ---- PtyLab


@pytest.mark.spec("READ-21")
def test_ptylab_is_read_by_its_fields(tmp_path):
    recording = read_recording(ptylab(tmp_path / "scan.hdf5"), ReadOptions())
    np.testing.assert_array_equal(recording.frames.read(np.arange(M)), COUNTS)
    np.testing.assert_array_equal(recording.positions, PLACES)
    assert recording.position_unit == "m"
    assert recording.geometry.wavelength_m == pytest.approx(6.3e-7, rel=1e-15)
    assert (recording.geometry.distance_m, recording.geometry.detector_pixel_size_m) == (0.046, 9e-6)
    assert (recording.source.dialect, recording.source.measurement) == ("ptylab", "counts")
    assert recording.source.warnings == ()
    assert "encoder is (y, x) metres, along the rows and columns of the frames." in recording.source.assumptions


@pytest.mark.spec("READ-20")
def test_a_file_of_matlab_is_turned(tmp_path):
    path = ptylab(tmp_path / "scan.mat", user_block=True, ptychogram=COUNTS.transpose(1, 2, 0))
    recording = read_recording(path, ReadOptions())
    np.testing.assert_array_equal(recording.frames.read(np.arange(M)), COUNTS)
    np.testing.assert_array_equal(recording.positions, PLACES)


def test_units_are_obeyed_and_optional_fields_are_kept_or_warned_of(tmp_path):
    path = ptylab(
        tmp_path / "scan.hdf5",
        {("encoder", "units"): "um", ("wavelength", "units"): "nm", ("zo", "units"): "mm"},
        encoder=PLACES * 1e6,
        wavelength=[630.0],
        zo=46.0,
        entrancePupilDiameter=3.5e-4,
        spectralDensity=[630e-9, 640e-9, 655e-9],
        theta=[[35.0]],
        orientation=3,
    )
    recording = read_recording(path, ReadOptions())
    np.testing.assert_allclose(recording.positions, PLACES)
    assert recording.geometry.wavelength_m == pytest.approx(6.3e-7)
    assert recording.geometry.distance_m == pytest.approx(0.046)
    assert recording.source.details == {"entrance_pupil_diameter_m": 3.5e-4}
    assert any("3 wavelengths from 6.3e-07 to 6.55e-07" in text for text in recording.source.warnings)
    assert any("theta = 35: the sample is tilted" in text for text in recording.source.warnings)
    assert "Ignored: orientation." in recording.source.assumptions
    quiet = ptylab(tmp_path / "quiet.hdf5", spectralDensity=[6.3e-7], theta=np.nan, entrancePupilDiameter=np.nan)
    assert read_recording(quiet, ReadOptions()).source.warnings == ()


def test_what_is_missing_is_named_and_what_the_caller_gives_need_not_be_there(tmp_path):
    with pytest.raises(DataError, match="no wavelength"):
        read_recording(ptylab(tmp_path / "a.h5", wavelength=None), ReadOptions())
    given = read_recording(ptylab(tmp_path / "b.h5", wavelength=None), ReadOptions(energy_eV=2.0))
    assert given.geometry.energy_eV is None
    with pytest.raises(DataError, match=r"'encoder' is \(6, 3\)"):
        read_recording(ptylab(tmp_path / "c.h5", encoder=np.ones((M, 3))), ReadOptions())
    with pytest.raises(DataError, match=r"'ptychogram' is \(2, 6, 20, 14\)"):
        read_recording(ptylab(tmp_path / "d.h5", ptychogram=np.stack([COUNTS, COUNTS])), ReadOptions())
    with pytest.raises(DataError, match="Fourier ptychography"):
        read_recording(ptylab(tmp_path / "e.h5", zled=0.06), ReadOptions())
    with pytest.raises(DataError, match="'zo' must be a number > 0"):
        read_recording(ptylab(tmp_path / "f.h5", zo=-1.0), ReadOptions())


@pytest.mark.parametrize("user_block", [False, True])
def test_the_truth_explains_what_is_read_of_ptylab(tmp_path, user_block):
    raw, obj = truth()
    counts = raw.read_counts(np.arange(raw.n_frames))
    path = ptylab(
        tmp_path / "scan.hdf5",
        user_block=user_block,
        ptychogram=counts.transpose(1, 2, 0) if user_block else counts,
        encoder=positions_m(raw),
        wavelength=wavelength_m(ENERGY),
        zo=DISTANCE,
        dxd=DETECTOR,
    )
    read = read_scan(path)
    assert deviance(read, raw, obj) == pytest.approx(1.0, abs=0.1)
    assert deviance(read_scan(path, orientation="transpose+flip_y"), raw, obj) > 5
    assert read.geometry.pixel_size_m == pytest.approx(PIXEL)


# ---- pty-chi


def para(path, places=PLACES, probe=PROBE[None], **more):
    y, x = places.T
    attributes = {("object", "pixel_height_m"): 2e-8, ("object", "pixel_width_m"): 2e-8}
    content = {
        "probe_position_y_m": y,
        "probe_position_x_m": x,
        "probe": probe,
        "object": np.ones((1, 30, 40), complex),
    }
    return write(path, attributes, **(content | more))


@pytest.mark.spec("SETTLE-21")
def test_the_pair_of_pty_chi(tmp_path):
    frames = write(tmp_path / "scan_dp.hdf5", dp=COUNTS[:, :W])
    beside = para(tmp_path / "scan_para.hdf5")
    assert choose_reader(frames)[0].name == "ptychi"
    with pytest.raises(DataError, match=r"probably in scan_para\.hdf5"):
        read_scan(frames)
    raw = read_scan(frames, positions=beside)
    np.testing.assert_array_equal(raw.read_counts(np.arange(M)), COUNTS[:, :W])
    np.testing.assert_allclose(raw.positions_px, PLACES / 2e-8)
    assert raw.geometry == Geometry(pixel_size_m=2e-8)
    assert any("holds a probe too, which is not used; --probe" in note for note in raw.source.assumptions)
    with pytest.raises(DataError, match="no frames"):
        read_scan(beside)


def test_all_in_one_file_and_frames_of_the_exchange_format(tmp_path):
    path = para(tmp_path / "all.hdf5", dp=COUNTS[:, :W])
    recording = read_recording(path, ReadOptions())
    np.testing.assert_array_equal(recording.positions, PLACES)
    np.testing.assert_array_equal(recording.probe, PROBE)
    np.testing.assert_array_equal(recording.frames.read(np.array([4, 0])), COUNTS[[4, 0], :W])
    assert recording.geometry.pixel_size_m == 2e-8
    bare = read_recording(write(tmp_path / "x.h5", exchange__data=COUNTS), ReadOptions())
    assert bare.positions is None
    np.testing.assert_array_equal(bare.frames.read(np.arange(M)), COUNTS)
    with pytest.raises(DataError, match=r"'dp' is \(20, 14\)"):
        read_recording(write(tmp_path / "flat.h5", dp=COUNTS[0]), ReadOptions())


def test_the_truth_explains_what_is_read_of_pty_chi(tmp_path):
    raw, obj = truth()
    frames = write(tmp_path / "s_dp.hdf5", dp=raw.read_counts(np.arange(raw.n_frames)))
    beside = para(tmp_path / "s_para.hdf5", positions_m(raw), raw.probe)
    read = read_scan(frames, positions=beside, pixel_size_m=PIXEL)
    assert deviance(read, raw, obj) == pytest.approx(1.0, abs=0.1)


# ---- files that are still being written


def growing(name: str, positions: dict, n_written: int = 4) -> str:
    """Code of a writer that made room for six frames and has written some, and numbers of all positions but one."""
    lists = "\n".join(f"f[{key!r}] = np.array({np.asarray(value)[:5].tolist()!r})" for key, value in positions.items())
    counts = f"np.array({COUNTS[:n_written, :W].tolist()!r}, 'u2')"
    return f"""{lists}
d = f.create_dataset({name!r}, (6, {W}, {W}), 'u2', chunks=(1, {W}, {W}))
d[:{n_written}] = {counts}
f.swmr_mode = True"""


@pytest.mark.spec("READ-4")
@pytest.mark.parametrize("n_written", [4, 6])
@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("ptychogram", {"encoder": PLACES, "wavelength": 6.3e-7 * np.ones(5)}),
        ("dp", {"ppY": PLACES[:, 0], "ppX": PLACES[:, 1]}),
        ("dp", {"probe_position_y_m": PLACES[:, 0], "probe_position_x_m": PLACES[:, 1]}),
        (
            "patterns",
            {"probe_position_y_px": PLACES[:, 0], "probe_position_x_px": PLACES[:, 1], "bad_pixels": np.zeros((5, 5))},
        ),
    ],
)
def test_a_growing_file_is_read_up_to_the_last_frame_that_has_its_position(tmp_path, name, positions, n_written):
    path = tmp_path / "live.h5"
    with writing(path, growing(name, positions, n_written)):
        with pytest.raises(DataError, match="--follow"):
            read_recording(path, ReadOptions())
        recording = read_recording(path, ReadOptions(follow=True))
        whole = min(n_written, 5)
        assert recording.frames.shape == (whole, W, W)
        np.testing.assert_array_equal(recording.frames.read(np.arange(whole)), COUNTS[:whole, :W])
        np.testing.assert_array_equal(recording.positions, PLACES[:whole])
        assert any(f"of 6 frames the first {whole} are read" in note for note in recording.source.assumptions)


@pytest.mark.spec("READ-22")
def test_positions_of_one_file_are_paired_with_its_frames_by_their_numbers(tmp_path):
    order = np.array([3, 0, 5, 1, 4, 2])
    content = {"dp": COUNTS, "probe_position_y_m": PLACES[order, 0], "probe_position_x_m": PLACES[order, 1]}
    path = write(tmp_path / "all.hdf5", probe_position_indexes=order, **content)
    np.testing.assert_array_equal(read_recording(path, ReadOptions()).positions, PLACES)
    path = write(tmp_path / "gap.hdf5", probe_position_indexes=order + 1, **content)
    with pytest.raises(DataError, match=r"of frames 1 to 6.*--positions .*--frames FILE"):
        read_recording(path, ReadOptions())
    assert read_recording(path, ReadOptions(positions=path)).positions is None


@pytest.mark.spec("SETTLE-5")
def test_what_is_given_serves_where_the_files_own_is_damaged(tmp_path):
    path = ptylab(tmp_path / "scan.hdf5", {("wavelength", "units"): "furlong"}, zo=-1.0, dxd=0.0)
    with pytest.raises(DataError, match="--energy_eV"):
        read_recording(path, ReadOptions())
    with pytest.raises(DataError, match="--distance_m"):
        read_recording(path, ReadOptions(energy_eV=2.0))
    found = read_recording(path, ReadOptions(energy_eV=2.0, distance_m=0.046, detector_pixel_size_m=9e-6)).geometry
    assert (found.energy_eV, found.distance_m, found.detector_pixel_size_m) == (None, None, None)
