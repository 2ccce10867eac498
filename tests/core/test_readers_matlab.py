"""PtychoShelves in HDF5, in MAT files of version 7.3 and of version 5: names, order of axes, complex probes."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from dialect_scan import DISTANCE, ENERGY, PIXEL, deviance, positions_m, truth
from scipy.io import savemat

from ptycho_core.errors import DataError
from ptycho_core.io import read_probe, read_scan
from ptycho_core.io.candidate import examine
from ptycho_core.io.readers import ptychoshelves
from ptycho_core.io.registry import read_recording
from ptycho_core.physics.propagation import wavelength_m
from ptycho_core.reader_protocol import ReadOptions

M, H, W = 7, 18, 14
RNG = np.random.default_rng(3)
COUNTS = RNG.poisson(9, (M, H, W)).astype(np.uint16)
PLACES = RNG.uniform(-1.5e-7, 2.5e-7, (M, 2))
PROBE = (RNG.normal(size=(2, 14, 14)) + 1j * RNG.normal(size=(2, 14, 14))).astype(np.complex64)
NUMBERS = {"lambda": 1.4e-10, "z": 2.25, "dx": 3.1e-8, "ds": 172e-6}


def matlab(counts=COUNTS, places=PLACES, modes=PROBE, **changes) -> dict:
    """What the workspace of MATLAB holds: frames (H, W, M), columns, modes last."""
    content = {
        "dp": counts.transpose(1, 2, 0),
        "ppX": places[:, 1:],
        "ppY": places[:, :1],
        **{name: np.array([[value]]) for name, value in NUMBERS.items()},
    }
    if modes is not None:
        content["probe"] = modes.transpose(1, 2, 0)
    return {name: value for name, value in (content | changes).items() if value is not None}


def write_73(path, content, user_block=True, mark=True):
    """As MATLAB saves with -v7.3: a user block, axes turned round, complex numbers as pairs."""
    with h5py.File(path, "w", userblock_size=512 if user_block else 0) as h5:
        for name, value in content.items():
            stored = np.asarray(value).T
            if stored.dtype.kind == "c":
                pairs = np.empty(stored.shape, [("real", "<f8"), ("imag", "<f8")])
                pairs["real"], pairs["imag"] = stored.real, stored.imag
                stored = pairs
            h5[name] = stored
            if mark:
                h5[name].attrs["MATLAB_class"] = np.bytes_("double")
    if user_block:
        with path.open("r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" "))
    return path


def write_python(path, **changes):
    """The same names with frames first, as programs in Python write them."""
    content = {"dp": COUNTS, "ppX": PLACES[:, 1], "ppY": PLACES[:, 0], "probe": PROBE, **NUMBERS} | changes
    with h5py.File(path, "w") as h5:
        for name, value in content.items():
            if value is not None:
                h5[name] = value
    return path


def assert_all(recording, dialect):
    np.testing.assert_array_equal(recording.frames.read(np.arange(M)), COUNTS)
    np.testing.assert_array_equal(recording.frames.read(np.array([5, 1, 5])), COUNTS[[5, 1, 5]])
    np.testing.assert_array_equal(recording.positions, PLACES)
    assert recording.position_unit == "m"
    np.testing.assert_array_equal(recording.probe, PROBE)
    geometry = recording.geometry
    assert geometry.energy_eV == pytest.approx(1.239841984e-6 / 1.4e-10)
    assert (geometry.distance_m, geometry.pixel_size_m, geometry.detector_pixel_size_m) == (2.25, 3.1e-8, 172e-6)
    assert recording.source.dialect == dialect
    assert recording.source.measurement == "counts"


@pytest.mark.spec("READ-20")
def test_a_mat_file_of_version_7_3_is_turned(tmp_path):
    path = write_73(tmp_path / "scan.mat", matlab())
    recording = read_recording(path, ReadOptions())
    assert_all(recording, "ptychoshelves")
    assert any(
        "written by MATLAB, so that its axes are turned: frames of 18×14" in n for n in recording.source.assumptions
    )
    # either mark of MATLAB tells it
    assert_all(read_recording(write_73(tmp_path / "a.h5", matlab(), user_block=False), ReadOptions()), "ptychoshelves")
    assert_all(read_recording(write_73(tmp_path / "b.mat", matlab(), mark=False), ReadOptions()), "ptychoshelves")


@pytest.mark.spec("READ-20")
def test_the_same_names_from_python_are_not_turned(tmp_path):
    assert_all(read_recording(write_python(tmp_path / "scan.h5"), ReadOptions()), "ptychoshelves")
    last = write_python(tmp_path / "last.h5", dp=COUNTS.transpose(1, 2, 0))
    recording = read_recording(last, ReadOptions())
    assert_all(recording, "ptychoshelves")
    assert any("frames lie along its last axis" in note for note in recording.source.assumptions)


@pytest.mark.spec("READ-20")
def test_a_mat_file_of_version_5_is_read_as_it_lies(tmp_path):
    savemat(tmp_path / "scan.mat", matlab(), do_compression=True)
    assert_all(read_recording(tmp_path / "scan.mat", ReadOptions()), "mat5")
    content = matlab()
    savemat(tmp_path / "struct.mat", {"p": {name: content.pop(name) for name in list(NUMBERS)}, **content})
    assert_all(read_recording(tmp_path / "struct.mat", ReadOptions()), "mat5")


def test_frames_of_a_map_are_counted_as_matlab_counts(tmp_path):
    """(H, W, My, Mx): the third index runs faster than the fourth."""
    stack = RNG.poisson(5, (12, 10, 3, 4)).astype(np.uint8)
    places = RNG.uniform(size=(12, 2)) * 1e-6
    content = matlab(dp=stack, ppX=places[:, 1:], ppY=places[:, :1], probe=None)
    expected = stack.reshape(12, 10, 12, order="F").transpose(2, 0, 1)
    savemat(tmp_path / "v5.mat", content)
    for path in (tmp_path / "v5.mat", write_73(tmp_path / "v73.mat", content)):
        np.testing.assert_array_equal(read_recording(path, ReadOptions()).frames.read(np.arange(12)), expected)


def test_other_names_of_frames_and_positions(tmp_path):
    content = matlab(dp=None, detectorData=COUNTS.transpose(1, 2, 0), ppX=None, ppY=None, positions_real=PLACES)
    np.testing.assert_array_equal(
        read_recording(write_73(tmp_path / "a.mat", content), ReadOptions()).positions, PLACES
    )
    content = matlab(
        dp=None, measurement=COUNTS.transpose(1, 2, 0), ppX=None, ppY=None, probe_positions_0=PLACES[:, ::-1]
    )
    recording = read_recording(write_73(tmp_path / "b.mat", content), ReadOptions())
    np.testing.assert_array_equal(recording.positions, PLACES)
    np.testing.assert_array_equal(recording.frames.read(np.arange(M)), COUNTS)
    assert any("probe_positions_0 is metres, its columns x, y" in note for note in recording.source.assumptions)


def test_units_and_masks_and_variations_of_the_probe(tmp_path):
    mask = RNG.random((H, W)) > 0.2
    varied = np.stack([PROBE, 7 * PROBE], axis=0).transpose(2, 3, 1, 0)  # (N, N, P, variations)
    path = write_73(
        tmp_path / "s.mat", matlab(fmask=mask.astype(float), probe=varied, ppX=1e6 * PLACES[:, 1:], dx=[[31.0]])
    )
    with h5py.File(path, "r+") as h5:
        h5["ppX"].attrs["units"] = "um"
        h5["dx"].attrs["units"] = "nm"
    recording = read_recording(path, ReadOptions())
    np.testing.assert_allclose(recording.positions, PLACES)
    np.testing.assert_array_equal(recording.mask, mask)
    np.testing.assert_array_equal(recording.probe, PROBE)
    assert recording.geometry.pixel_size_m == pytest.approx(3.1e-8)
    assert f"it hides {int((~mask).sum())} pixels" in " ".join(recording.source.assumptions)


@pytest.mark.spec("READ-20")
@pytest.mark.parametrize("kind", ["7.3", "5", "python"])
def test_the_truth_explains_what_is_read(tmp_path, kind):
    """Frames and positions belong together: neither exchanged nor negated, the probe on the axes of the frames."""
    raw, obj = truth()
    counts, places = raw.read_counts(np.arange(raw.n_frames)), positions_m(raw)
    numbers = {"lambda": wavelength_m(ENERGY), "z": DISTANCE, "dx": PIXEL, "ds": None}
    path = tmp_path / "scan.mat"
    content = matlab(counts, places, np.asarray(raw.probe), **{k: v and np.array([[v]]) for k, v in numbers.items()})
    if kind == "python":
        write_python(path, dp=counts, ppX=places[:, 1], ppY=places[:, 0], probe=raw.probe, **numbers)
    elif kind == "5":
        savemat(path, content)
    else:
        write_73(path, content)
    read = read_scan(path)
    assert deviance(read, raw, obj) == pytest.approx(1.0, abs=0.1)
    np.testing.assert_array_equal(read.probe, raw.probe)
    turned = read_scan(path, orientation="transpose")
    assert deviance(turned, raw, obj) > 5


def test_lengths_in_angstroms_are_refused_with_the_options_and_read_with_them(tmp_path):
    content = matlab(
        **{"lambda": [[0.0197]], "dx": [[0.31]], "z": None, "ds": None},
        ppX=1e10 * PLACES[:, 1:],
        ppY=1e10 * PLACES[:, :1],
    )
    path = write_73(tmp_path / "e.mat", content)
    with pytest.raises(DataError, match=r"lambda = 0.0197 cannot be metres.*--position_unit A.*--energy_eV"):
        read_recording(path, ReadOptions())
    said = ReadOptions(position_unit="A", energy_eV=300e3, radiation="electron", pixel_size_m=0.31e-10)
    recording = read_recording(path, said)
    assert recording.geometry.pixel_size_m is None
    assert any("the lengths of the file are not used" in note for note in recording.source.assumptions)


def test_what_cannot_be_frames_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"'dp' is \(18, 14\) .*\(H, W, M\)"):
        read_recording(write_python(tmp_path / "a.h5", dp=COUNTS[0]), ReadOptions())
    with pytest.raises(DataError, match="'ppY' has 7 numbers and 'ppX' 6"):
        read_recording(write_python(tmp_path / "b.h5", ppX=PLACES[:6, 1]), ReadOptions())
    with pytest.raises(DataError, match="states that its frames are counts"):
        read_recording(write_python(tmp_path / "c.h5"), ReadOptions(measurement="amplitude"))


def test_a_mat_file_without_frames_lists_what_it_holds_and_what_it_cannot(tmp_path):
    cell = np.empty((1, 2), object)
    cell[0, 0], cell[0, 1] = np.ones(3), np.ones(2)
    savemat(tmp_path / "other.mat", {"images": COUNTS.transpose(1, 2, 0), "parts": cell, "s": {"inner": 4.0}})
    with pytest.raises(DataError, match=r"images \(18, 14, 7\), s/inner .*Not read, being cells.*: parts\..*--map"):
        read_scan(tmp_path / "other.mat")
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0 MAT-file, but nothing more".ljust(200))
    with pytest.raises(DataError, match=r"broken.mat"):
        read_scan(tmp_path / "broken.mat")


def test_frames_without_positions_name_the_file_that_has_them(tmp_path):
    frames = write_python(tmp_path / "data_roi0_dp.hdf5", ppX=None, ppY=None, probe=None)
    write_python(tmp_path / "data_roi0_para.hdf5", dp=None)
    with pytest.raises(DataError, match=r"probably in data_roi0_para.hdf5"):
        read_scan(frames)
    square = {"dp": COUNTS[:, :14], "ppX": None, "ppY": None, "probe": None}
    raw = read_scan(write_python(tmp_path / "square_dp.hdf5", **square), positions=tmp_path / "data_roi0_para.hdf5")
    np.testing.assert_allclose(raw.positions_px, PLACES / 3.1e-8)


def test_a_file_of_dp_alone_is_not_taken_for_one_of_matlab(tmp_path):
    names = dict.fromkeys((*NUMBERS, "ppX", "ppY", "probe"))
    path = write_python(tmp_path / "alone.h5", **names)
    assert not ptychoshelves.recognises(examine(path))


@pytest.mark.spec("READ-20")
@pytest.mark.parametrize("stored", [PROBE[0], PROBE, np.stack([PROBE, 3 * PROBE])])
def test_a_probe_is_taken_from_mat_files_of_both_kinds(tmp_path, stored):
    """(N, N), (N, N, P) and (N, N, P, variations) in MATLAB, of which the first variation counts."""
    mine = {2: (0, 1), 3: (1, 2, 0), 4: (2, 3, 1, 0)}[stored.ndim]
    savemat(tmp_path / "v5.mat", {"probe": stored.transpose(mine)})
    write_73(tmp_path / "v73.mat", {"probe": stored.transpose(mine)})
    expected = stored[None] if stored.ndim == 2 else stored[0] if stored.ndim == 4 else stored
    for name in ("v5.mat", "v73.mat"):
        np.testing.assert_array_equal(read_probe(tmp_path / name), expected)
    savemat(tmp_path / "none.mat", {"object": np.ones((3, 3))})
    with pytest.raises(DataError, match=r"no probe.* holds: object"):
        read_probe(tmp_path / "none.mat")


@pytest.mark.parametrize("order", ["matlab", "python"])
def test_a_mask_for_each_frame_hides_what_is_bad_in_any(tmp_path, order):
    each = np.ones((M, H, W))
    each[0, 3, 5] = each[M - 1, 1, 2] = 0
    if order == "matlab":
        path = write_73(tmp_path / "s.mat", matlab(fmask=each.transpose(1, 2, 0)))
    else:
        path = write_python(tmp_path / "s.h5", fmask=each)
    np.testing.assert_array_equal(read_recording(path, ReadOptions()).mask, each.all(axis=0))


def test_a_mask_of_another_shape_is_warned_of(tmp_path):
    recording = read_recording(write_73(tmp_path / "s.mat", matlab(fmask=np.ones((H, W - 1)))), ReadOptions())
    assert recording.mask is None
    assert any("fmask is" in text and "--mask FILE" in text for text in recording.source.warnings)
