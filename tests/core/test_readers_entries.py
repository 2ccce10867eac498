"""Several scans in one file: listed, one chosen, never merged into one image."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from io_scans import arrays, full_scan, save

from ptycho_core.errors import DataError
from ptycho_core.io import read_scan, write_scan
from ptycho_core.io.registry import choose_reader, read_recording
from ptycho_core.reader_protocol import ReadOptions


def two_samples(tmp_path, index=(4, 4, 7, 4, 7, 7, 4), **changes):
    return save(tmp_path / "a.npz", arrays(), measurement=np.array("amplitude"), scan_index=np.array(index), **changes)


# ---- scan_index


@pytest.mark.spec("READ-44")
@pytest.mark.parametrize("compressed", [False, True])
def test_two_samples_in_one_npz_are_refused_unless_one_is_chosen(tmp_path, compressed):
    content = arrays() | {"measurement": np.array("amplitude"), "scan_index": np.array([4, 4, 7, 4, 7, 7, 4])}
    path = save(tmp_path / "a.npz", content, compressed)
    with pytest.raises(
        DataError, match=r"a\.npz: by its 'scan_index': holds 2 scans: 4, 7\. Choose one with --entry 4"
    ):
        read_scan(path)
    for entry, frames in (("7", [2, 4, 5]), ("1", [2, 4, 5]), ("0", [0, 1, 3, 6])):
        found = read_recording(path, ReadOptions(entry=entry))
        counts = np.square(content["diff3d"].astype(np.float64))[frames]
        np.testing.assert_allclose(found.frames.read(np.arange(len(frames))), counts, rtol=1e-6)
        np.testing.assert_array_equal(found.positions[:, 1] + 0.5, content["xcoords"][frames])
        assert any(f"{len(frames)} of 7 frames" in text for text in found.source.assumptions)
    with pytest.raises(DataError, match=r"has no scan '5'.*it holds: 4, 7"):
        read_scan(path, entry="5")


def test_one_scan_by_its_index_and_numbers_of_frames_are_no_choice(tmp_path):
    assert read_scan(two_samples(tmp_path, [3] * 7)).n_frames == 7
    assert read_scan(two_samples(tmp_path, range(7))).n_frames == 7
    assert read_scan(two_samples(tmp_path, [3] * 7), entry="3").n_frames == 7
    with pytest.raises(DataError, match="has no scan '2'"):
        read_scan(two_samples(tmp_path, [3] * 7), entry="2")


def test_an_index_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"'scan_index' holds 3 int64 values for 7 frames"):
        read_scan(two_samples(tmp_path, [1, 1, 2]))
    with pytest.raises(DataError, match="one whole number a frame"):
        read_scan(two_samples(tmp_path, np.linspace(0, 1, 7)))


# ---- groups


def groups(tmp_path):
    """Two scans of our own dialect, each in a group of one file."""
    path = tmp_path / "both.h5"
    with h5py.File(path, "w") as h5:
        for number, name in enumerate(("night/first", "night/second")):
            raw = full_scan(M=5 + number, seed=number)
            write_scan(tmp_path / f"{number}.h5", raw)
            with h5py.File(tmp_path / f"{number}.h5") as one:
                group = h5.create_group(name)
                group.attrs.update(one.attrs)
                for key in one:
                    one.copy(key, group)
    return path


@pytest.mark.spec("READ-44")
def test_groups_with_a_scan_each_are_listed_and_one_is_read(tmp_path):
    path = groups(tmp_path)
    assert choose_reader(path)[0].name == "groups"
    with pytest.raises(DataError, match=r"2 scans: night/first, night/second"):
        read_scan(path)
    for number, entry in enumerate(("night/first", "1")):
        found = read_recording(path, ReadOptions(entry=entry))
        alone = read_recording(tmp_path / f"{number}.h5", ReadOptions())
        np.testing.assert_array_equal(found.frames.read(np.arange(5)), alone.frames.read(np.arange(5)))
        assert found.frames.shape == alone.frames.shape
        np.testing.assert_array_equal(found.positions, alone.positions)
        np.testing.assert_array_equal(found.probe, alone.probe)
        np.testing.assert_array_equal(found.mask, alone.mask)
        np.testing.assert_array_equal(found.object_guess.object, alone.object_guess.object)
        assert found.geometry == alone.geometry
        assert found.source.details == alone.source.details


def test_a_scan_at_the_root_is_read_whatever_groups_there_are(tmp_path):
    path = tmp_path / "a.h5"
    write_scan(path, full_scan())
    with h5py.File(path, "a") as h5:
        h5["other/frames"] = np.ones((3, 16, 16))
        h5["other/positions_px"] = np.ones((3, 2))
    assert choose_reader(path)[0].name == "hdf5"
