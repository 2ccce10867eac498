"""One file a frame, TIFF stacks, Zarr stores."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from reader_truth import PIXEL_M, a_truth, misfit

from ptycho_core.errors import ConfigError, DataError, MissingPackageError
from ptycho_core.io import read_scan
from ptycho_core.io.registry import choose_reader, read_recording
from ptycho_core.limits import Limits
from ptycho_core.reader_protocol import ReadOptions

RNG = np.random.default_rng(6)
M, H, W = 12, 20, 14
COUNTS = RNG.poisson(30, (M, H, W)).astype(np.uint16)
PLACES = RNG.uniform(0, 30, (M, 2))


def write_frame(path: Path, frame: np.ndarray) -> None:
    """A frame in the format of the file's ending."""
    if path.suffix == ".npy":
        np.save(path, frame)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as h5:
            h5["entry/detector/image"] = frame[None]
            h5["entry/temperature"] = 4.2
    elif path.suffix == ".tif":
        pytest.importorskip("tifffile").imwrite(path, frame)
    else:
        fabio = pytest.importorskip("fabio")
        kind = fabio.cbfimage.CbfImage if path.suffix == ".cbf" else fabio.edfimage.EdfImage
        kind(data=frame.astype(np.int32)).write(str(path))


def series(folder: Path, ending: str = ".npy", numbers=range(M), frames: np.ndarray = COUNTS) -> Path:
    folder.mkdir()
    for number, frame in zip(numbers, frames, strict=False):
        write_frame(folder / f"star_07_{number}{ending}", frame)
    return folder


def text_of(folder: Path, n: int = M) -> Path:
    path = folder / "where.txt"
    np.savetxt(path, PLACES[:n], header="y_px x_px")
    return path


def read_all(path: Path | str, **said) -> np.ndarray:
    return read_recording(path, ReadOptions(**said)).frames.read(np.arange(M))


# ---- a file a frame


@pytest.mark.spec("READ-41")
@pytest.mark.parametrize(
    "ending",
    [
        ".npy",
        ".h5",
        ".tif",
        pytest.param(".cbf", marks=pytest.mark.peers),
        pytest.param(".edf", marks=pytest.mark.peers),
    ],
)
def test_files_are_frames_in_natural_order(tmp_path, ending):
    folder = series(tmp_path / "scan", ending)
    for path in (folder, f"{folder}/star*{ending}"):
        np.testing.assert_array_equal(read_all(path), COUNTS)
    recording = read_recording(folder, ReadOptions())
    assert recording.source.dialect == "files"
    assert any("from star_07_0" in text and "to star_07_11" in text for text in recording.source.assumptions)


@pytest.mark.spec("READ-41")
def test_files_are_read_as_a_scan_with_the_positions_beside(tmp_path):
    raw = read_scan(series(tmp_path / "scan"), positions=text_of(tmp_path))
    np.testing.assert_array_equal(raw.read_counts(np.array([4, 1])), COUNTS[[4, 1], 3:17])
    with pytest.raises(DataError, match="--positions FILE"):
        read_scan(tmp_path / "scan")


@pytest.mark.spec("READ-46")
def test_only_the_files_asked_for_are_opened(tmp_path):
    folder = series(tmp_path / "scan")
    frames = pickle.loads(pickle.dumps(read_recording(folder, ReadOptions()).frames))
    for number in range(M):
        if number not in (3, 9):
            (folder / f"star_07_{number}.npy").unlink()
    np.testing.assert_array_equal(frames.read(np.array([9, 3, 9])), COUNTS[[9, 3, 9]])
    with pytest.raises(DataError, match=r"star_07_4\.npy"):
        frames.read(np.array([4]))


@pytest.mark.spec("READ-41")
def test_what_lies_beside_the_frames_is_left_out_and_named(tmp_path):
    folder = series(tmp_path / "scan")
    (folder / "notes.txt").write_text("a good day")
    (folder / "dark").mkdir()
    recording = read_recording(folder, ReadOptions())
    np.testing.assert_array_equal(recording.frames.read(np.arange(M)), COUNTS)
    assert any("dark, notes.txt" in text for text in recording.source.assumptions)


@pytest.mark.spec("READ-41")
def test_a_text_among_the_frames_is_refused_by_name(tmp_path):
    folder = series(tmp_path / "scan")
    (folder / "star_07_5.npy").write_text("disk full")
    with pytest.raises(DataError, match=r"star_07_5\.npy is no NPY, unlike the other 11"):
        read_scan(folder)
    (folder / "star_07_5.npy").unlink()
    (folder / "star_x.txt").write_text("notes")
    with pytest.raises(DataError, match=r"star_x\.txt is no NPY"):
        read_scan(f"{folder}/star*")


@pytest.mark.spec("READ-41")
def test_a_frame_of_another_shape_is_refused_by_name(tmp_path):
    folder = series(tmp_path / "scan")
    np.save(folder / "star_07_7.npy", COUNTS[7, 1:])
    with pytest.raises(DataError, match=r"star_07_7\.npy: is 19×14, but star_07_0\.npy is 20×14"):
        read_scan(folder)


def test_frames_of_two_formats_are_refused(tmp_path):
    folder = series(tmp_path / "scan")
    for number in range(3):
        write_frame(folder / f"other_{number}.h5", COUNTS[number])
    with pytest.raises(DataError, match=r"several formats \(12 NPY, 3 HDF5\)"):
        read_scan(folder)
    np.testing.assert_array_equal(read_all(f"{folder}/*.npy"), COUNTS)


@pytest.mark.spec("READ-41")
def test_a_gap_in_the_series_is_named_and_refused_where_it_shifts_positions(tmp_path):
    numbers = [n for n in range(M + 2) if n not in (4, 9)]
    folder = series(tmp_path / "scan", numbers=numbers)
    recording = read_recording(folder, ReadOptions())
    assert any("2 frames are missing" in text and "4, 9" in text for text in recording.source.warnings)
    full = tmp_path / "full.npy"
    np.save(full, RNG.uniform(0, 30, (M + 2, 2)))
    with pytest.raises(DataError, match=r"4, 9. There are 14 positions for 12 frames"):
        read_scan(folder, positions=full)
    with pytest.raises(DataError, match="14 positions for 12 frames"):
        read_scan(folder, raster=(2, 7), scan_step_m=(1e-6, 1e-6))
    assert read_scan(folder, positions=text_of(tmp_path)).n_frames == M
    # a column of numbers of frames pairs them by those, whatever is missing
    places = RNG.uniform(0, 30, (M + 2, 2))
    np.savetxt(tmp_path / "numbered.txt", np.column_stack([np.arange(M + 2), places]), header="frame y_px x_px")
    raw = read_scan(folder, positions=tmp_path / "numbered.txt")
    np.testing.assert_allclose(raw.positions_px[:, 1], places[numbers, 1], rtol=1e-9)


def test_a_series_without_a_gap_is_not_warned_of(tmp_path):
    folder = series(tmp_path / "scan", numbers=range(95, 95 + M))
    assert read_recording(folder, ReadOptions()).source.warnings == ()


def test_a_last_file_that_is_not_whole_is_left_out_when_following(tmp_path):
    folder = series(tmp_path / "scan")
    whole = (folder / "star_07_11.npy").read_bytes()
    (folder / "star_07_11.npy").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"star_07_11\.npy"):
        read_scan(folder)
    recording = read_recording(folder, ReadOptions(follow=True))
    np.testing.assert_array_equal(recording.frames.read(np.arange(M - 1)), COUNTS[:-1])
    assert any("star_07_11.npy is not whole yet" in text for text in recording.source.assumptions)


def test_a_folder_that_grows_has_the_first_of_its_positions(tmp_path):
    folder = series(tmp_path / "scan", frames=COUNTS[:9])
    with pytest.raises(DataError, match="12 positions, but"):
        read_scan(folder, positions=text_of(tmp_path))
    raw = read_scan(folder, positions=text_of(tmp_path), follow=True)
    np.testing.assert_allclose(raw.positions_px[:, 1], PLACES[:9, 1])
    assert any("the first 9 were taken" in text for text in raw.source.assumptions)
    said = {"raster": (3, 4), "scan_step_m": (1e-6, 2e-6), "pixel_size_m": 1e-6, "follow": True}
    raw = read_scan(folder, **said)
    np.testing.assert_allclose(raw.positions_px[8], (2 * W / W, 0), atol=1e-12)
    assert any("Of the raster 9 frames are there" in text for text in raw.source.assumptions)
    with pytest.raises(ConfigError, match="a raster of 3 × 4 has 12 frames, but 9 are there"):
        read_scan(folder, **(said | {"follow": False}))


def test_a_measurement_is_asked_for_where_numbers_do_not_tell_it(tmp_path):
    folder = series(tmp_path / "scan", frames=np.sqrt(COUNTS).astype(np.float32))
    with pytest.raises(DataError, match=r"--measurement amplitude\|counts"):
        read_scan(folder)
    np.testing.assert_array_equal(read_all(folder, measurement="amplitude"), COUNTS)


def test_several_datasets_of_one_frame_are_listed(tmp_path):
    folder = series(tmp_path / "scan", ".h5")
    with h5py.File(folder / "star_07_0.h5", "a") as h5:
        h5["dark"] = COUNTS[0]
    with pytest.raises(DataError, match=r"2 datasets of one frame.*dark \(20, 14\)"):
        read_scan(folder)


def test_the_truth_explains_files_on_a_raster(tmp_path):
    truth = a_truth(on_raster=True)
    folder = series(tmp_path / "scan", frames=truth.counts, numbers=range(20))
    raw = read_scan(
        folder,
        measurement="counts",
        raster=(4, 5),
        scan_step_m=(5.3 * PIXEL_M, 4.1 * PIXEL_M),
        pixel_size_m=PIXEL_M,
    )
    shifted = type(raw).from_arrays(raw.frames, raw.positions_px + truth.positions_px[0])
    assert misfit(shifted, truth) < 1e-3


# ---- TIFF stacks


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"imagej": True}, {"bigtiff": True}, {"byteorder": ">"}])
def test_a_stack_is_a_page_a_frame(tmp_path, how):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "scan.dat"
    tifffile.imwrite(path, COUNTS, photometric="minisblack", **how)
    assert choose_reader(path)[0].name == "tiff"
    frames = pickle.loads(pickle.dumps(read_recording(path, ReadOptions()).frames))
    numbers = np.array([7, 2, 3, 4, 7])
    np.testing.assert_array_equal(frames.read(numbers), COUNTS[numbers])


def test_pages_written_one_by_one_are_a_stack(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for frame in COUNTS:
            file.write(frame, contiguous=False, compression="zlib")
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), COUNTS)


def test_pages_of_two_shapes_and_colours_are_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(COUNTS)
        file.write(COUNTS[0, 2:])
    with pytest.raises(DataError, match=r"2 series of images \(\(12, 20, 14\), \(18, 14\)\)"):
        read_scan(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", RNG.integers(0, 9, (5, 16, 16, 3)).astype(np.uint8), photometric="rgb")
    with pytest.raises(DataError, match="colours"):
        read_scan(tmp_path / "b.tif")


def test_a_tiff_that_was_cut_off_is_refused(tmp_path):
    pytest.importorskip("tifffile").imwrite(tmp_path / "a.tif", COUNTS, photometric="minisblack")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.tif"):
        read_scan(tmp_path / "a.tif", positions=text_of(tmp_path))


# ---- Zarr


@pytest.fixture
def zarr():
    return pytest.importorskip("zarr")


def store(zarr, path: Path, version: int, **arrays: np.ndarray) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=version)
    for name, values in arrays.items():
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(5, *values.shape[1:]))
        array[:] = values
    return path


@pytest.mark.peers
@pytest.mark.spec("READ-46")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_store_is_read_by_the_names_of_our_own_dialect(tmp_path, zarr, version, zipped):
    mask = np.ones((H, W), bool)
    mask[3, 5:8] = False
    path = store(zarr, tmp_path / "scan", version, frames=COUNTS, positions_px=PLACES, mask=mask.astype(np.uint8))
    if zipped:
        path = Path(shutil.make_archive(str(path), "zip", path))
    recording = read_recording(path, ReadOptions())
    assert recording.source.dialect == ("zarr_zip" if zipped else "zarr")
    np.testing.assert_array_equal(recording.positions, PLACES)
    np.testing.assert_array_equal(recording.mask, mask)
    assert recording.position_unit == "px"
    frames = pickle.loads(pickle.dumps(recording.frames))
    np.testing.assert_array_equal(frames.read(np.array([11, 4, 5, 4])), COUNTS[[11, 4, 5, 4]])


@pytest.mark.peers
def test_one_array_is_bare_frames_and_several_are_refused_with_the_draft(tmp_path, zarr):
    array = zarr.open_array(tmp_path / "a.zarr", mode="w", shape=COUNTS.shape, dtype=COUNTS.dtype, chunks=(5, H, W))
    array[:] = COUNTS
    np.testing.assert_array_equal(read_all(tmp_path / "a.zarr"), COUNTS)
    store(zarr, tmp_path / "b.zarr", 3, one=COUNTS, two=COUNTS)
    with pytest.raises(DataError, match=r"one \(12, 20, 14\) uint16, two.*--suggest-mapping"):
        read_scan(tmp_path / "b.zarr")


@pytest.mark.peers
def test_a_store_states_its_measurement(tmp_path, zarr):
    path = store(zarr, tmp_path / "a", 3, frames=np.sqrt(COUNTS).astype(np.float32), positions_px=PLACES)
    with pytest.raises(DataError, match="--measurement"):
        read_scan(path)
    zarr.open_group(path, mode="a")["frames"].attrs["measurement"] = "amplitude"
    np.testing.assert_array_equal(read_all(path), COUNTS)


@pytest.mark.parametrize("package", ["zarr", "tifffile", "fabio"])
def test_without_its_package_a_format_says_what_to_install(tmp_path, monkeypatch, package):
    """The package is asked for where there is a file of the format, and nowhere else."""
    monkeypatch.setitem(sys.modules, package, None)
    if package == "zarr":
        path = tmp_path / "a.zarr"
        path.mkdir()
        (path / "zarr.json").write_text("{}")
    elif package == "tifffile":
        path = tmp_path / "a.tif"
        path.write_bytes(b"II*\0" + bytes(100))
    else:
        path = tmp_path / "scan"
        path.mkdir()
        for number in range(3):
            (path / f"a_{number}.cbf").write_bytes(b"###CBF: VERSION 1.5\r\n" + bytes(100))
    with pytest.raises(MissingPackageError, match=rf"{package}.*pip install 'ptycho-core\[readers\]'"):
        read_scan(path, limits=Limits(guard=False))  # in this process, where the package is hidden
    other = series(tmp_path / "other")
    assert read_recording(other, ReadOptions()).source.warnings == ()
