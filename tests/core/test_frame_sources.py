"""Sources of frames: stored in any order of axes, one after another, corner first; always counts as asked for."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

from ptycho_core.data.frames import ArrayFrames, CentredFrames, ConcatenatedFrames, Hdf5Frames, WindowedFrames
from ptycho_core.data.raw import RawData
from ptycho_core.errors import DataError

M, H, W = 6, 5, 7
STACK = np.random.default_rng(3).integers(0, 90, (M, H, W)).astype(np.uint16)

LAYOUTS = {
    "frames first": (STACK, {}),
    "one view": (STACK[None], {"frame_axes": (1,), "image_axes": (2, 3)}),
    "a raster": (STACK.reshape(2, 3, H, W), {"frame_axes": (0, 1), "image_axes": (2, 3)}),
    "the raster last": (
        np.moveaxis(STACK.reshape(2, 3, H, W), (0, 1), (2, 3)),
        {"frame_axes": (2, 3), "image_axes": (0, 1)},
    ),
    "as MATLAB has it": (STACK.transpose(0, 2, 1), {"image_axes": (2, 1)}),
    "columns before rows, frames last": (STACK.transpose(2, 1, 0), {"frame_axes": (2,), "image_axes": (1, 0)}),
}


@pytest.mark.spec("DATA-3", "DATA-4")
@pytest.mark.parametrize("name", LAYOUTS)
def test_hdf5_frames_of_any_layout(tmp_path, name):
    stored, how = LAYOUTS[name]
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["at"] = stored
    source = pickle.loads(pickle.dumps(Hdf5Frames(tmp_path / "scan.h5", "at", stored.shape, **how)))
    assert source.shape == (M, H, W)
    numbers = np.array([4, 0, 4, 5, 1])
    np.testing.assert_array_equal(source.read(numbers), STACK[numbers].astype(np.float32))
    np.testing.assert_array_equal(source.read(np.arange(1, 4)), STACK[1:4])  # consecutive ones are read as one piece
    assert source.read(numbers[:0]).shape == (0, H, W)
    roots = Hdf5Frames(tmp_path / "scan.h5", "at", stored.shape, "amplitude", **how)
    np.testing.assert_array_equal(roots.read(numbers), STACK[numbers].astype(np.float32) ** 2)


@pytest.mark.spec("DATA-1")
def test_a_negative_amplitude_does_not_become_a_count():
    stored = np.array([[[-2.0, 3.0], [0.0, -1.5]]], np.float32)
    np.testing.assert_array_equal(ArrayFrames(stored, "amplitude").read(np.array([0])), [[[-4, 9], [0, -2.25]]])
    with pytest.raises(DataError, match="negative"):
        RawData.from_arrays(ArrayFrames(np.full((3, 8, 8), -2.0), "amplitude"), np.arange(6).reshape(3, 2) * 3.0)


@pytest.mark.spec("DATA-4")
def test_parts_come_one_after_another_in_the_order_asked_for():
    parts = ConcatenatedFrames((ArrayFrames(STACK[:1]), ArrayFrames(STACK[1:4]), ArrayFrames(STACK[4:])))
    assert parts.shape == (M, H, W)
    numbers = np.array([5, 0, 3, 4, 1, 1])
    np.testing.assert_array_equal(parts.read(numbers), STACK[numbers])


@pytest.mark.spec("DATA-3")
def test_frames_that_have_zero_frequency_at_the_corner_are_moved():
    stack = np.zeros((2, 6, 8), np.float32)
    stack[:, 0, 0], stack[:, 1, -1] = 9, 4
    moved = CentredFrames(ArrayFrames(stack)).read(np.array([1]))
    assert moved[0, 3, 4] == 9
    assert moved[0, 4, 3] == 4
    assert moved.sum() == 13


@pytest.mark.spec("SETTLE-2")
def test_a_gain_makes_photons_of_stored_values():
    window = WindowedFrames(ArrayFrames(STACK), 1, 2, 4, gain=2.5)
    np.testing.assert_allclose(window.read(np.array([3, 0])), STACK[[3, 0], 1:5, 2:6] / 2.5, rtol=1e-6)
    assert window.good_pixels().all()


class FewFrames:
    """Frames that must not be read."""

    shape = (8, 4096, 4096)

    def read(self, numbers):
        raise AssertionError("read before the positions were looked at")


@pytest.mark.spec("DATA-1")
def test_positions_that_ask_for_a_canvas_beyond_all_bounds_are_refused_and_the_frame_is_named():
    positions = np.random.default_rng(1).uniform(0, 30, (8, 2))
    positions[5] = 1e6, -3.0
    with pytest.raises(DataError, match=r"at most 4194304 are allowed .* Frame 17 lies farthest, 1e\+06"):
        RawData.from_arrays(np.ones((8, 16, 16)), positions, frame_numbers=np.arange(8) + 12)
    positions[5] = 1e5, 1e5
    with pytest.raises(DataError, match=rf"at most {8 * 4096**2} are allowed for 8 frames of 4096"):
        RawData.from_arrays(FewFrames(), positions)
    positions[5] = 1e4, -3.0
    assert RawData.from_arrays(np.ones((8, 16, 16)), positions).n_frames == 8


@pytest.mark.spec("DATA-1")
def test_a_scan_that_was_only_looked_at_makes_no_container():
    from ptycho_core.data.container import PtychoDataContainer

    raw = RawData.from_arrays(
        np.ones((8, 16, 16)), np.arange(16).reshape(8, 2) * 2.0, np.ones((16, 16)), look_at=[1, 6]
    )
    assert (raw.n_looked_at, [i.tolist() for i, _ in raw.chunks()]) == (2, [[1, 6]])
    assert raw.mean_pattern().mean() == 1
    part = raw.subset([6, 0, 1])
    np.testing.assert_array_equal(part.looked_at, [0, 2])
    with pytest.raises(DataError, match="only 2 of its 8 frames were looked at"):
        PtychoDataContainer.of(raw)
