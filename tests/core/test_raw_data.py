"""RawData: validation, reading, subsets, splits, and the sources that frames are read from."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core.data.frames import ArrayFrames, Hdf5Frames, NpzFrames, SubsetFrames, TransposedFrames
from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.data.raw import SIDES, RawData, Source
from ptycho_core.data.raw_checks import check_canvas
from ptycho_core.errors import ConfigError, DataError

M, N = 12, 16


def arrays(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "counts": rng.poisson(5.0, size=(M, N, N)).astype(np.float32),
        "positions_px": np.column_stack([np.repeat(np.arange(4) * 3.3, 3), np.tile(np.arange(3) * 5.1, 4)]),
        "probe": np.exp(1j * rng.normal(size=(2, N, N))).astype(np.complex64),
    }


def make(**changes: Any) -> RawData:
    return RawData.from_arrays(**(arrays() | changes))


def holed(value: float) -> np.ndarray:
    counts = arrays()["counts"].copy()
    counts[7, 3, 4] = value
    return np.asarray(counts)


@pytest.mark.spec("DATA-1", "CONV-9")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": np.ones((M, N, N), complex)}, "frames are complex"),
        ({"counts": np.full((M, N, N), "a")}, "must be real numbers"),
        ({"counts": np.array([[[None]]], dtype=object)}, "hold object values"),
        ({"counts": [[[1, 2], [3]]]}, r"one array \(M, N, N\)"),
        ({"counts": np.ones((M, N))}, r"shape \(12, 16\); they must be \(M, N, N\)"),
        ({"counts": np.ones((M, N, N + 16))}, r"they must be \(M, N, N\)"),
        ({"counts": np.ones((M, 19, 19))}, "frames are 19×19; N must be even, from 8 to 4096"),
        ({"counts": np.ones((M, 6, 6))}, "frames are 6×6; N must be even, from 8 to 4096"),
        ({"propagation": Propagation("near_field", 0.06)}, r"scan_17.npz: the near field aliases.*least N is 18"),
        ({"counts": np.ones((0, N, N)), "positions_px": np.zeros((0, 2))}, "no frames"),
        ({"counts": np.zeros((M, N, N))}, "every good pixel of every frame is zero"),
        ({"counts": holed(np.nan)}, "frame 7 holds NaN or infinite"),
        ({"counts": holed(np.inf)}, "frame 7 holds NaN or infinite"),
        ({"counts": holed(-2.5)}, r"frame 7 holds negative counts \(-2\.5\)"),
        ({"positions_px": np.zeros((M - 1, 2)) + np.arange(M - 1)[:, None]}, "12 frames but 11 positions"),
        ({"positions_px": np.zeros((M, 3))}, r"shape \(12, 3\)"),
        ({"positions_px": np.zeros((M, 2))}, "same point"),
        ({"positions_px": arrays()["positions_px"] * 1e-8}, "they are metres"),
        ({"positions_px": np.where(np.arange(M)[:, None] == 5, np.nan, arrays()["positions_px"])}, "first: frame 5"),
        ({"positions_px": [["a", "b"]] * M}, "must be numbers"),
        ({"positions_px": arrays()["positions_px"] * 1j}, "must be numbers"),
        ({"probe": np.ones((N + 16, N + 16))}, "probe has shape"),
        ({"probe": np.ones(N)}, "probe has shape"),
        ({"probe": np.zeros((N, N))}, "probe is zero everywhere"),
        ({"probe": np.full((N, N), np.nan)}, "probe holds NaN"),
        ({"probe": np.full((N, N), "x")}, "must hold complex numbers"),
        ({"mask": np.zeros((N, N), bool)}, "mask hides every pixel"),
        ({"mask": np.ones((N, N + 1), bool)}, r"mask has shape \(16, 17\)"),
        ({"background": np.full((N, N), -1.0)}, "finite expected counts ≥ 0"),
        ({"background": np.full((N, N), np.nan)}, "finite expected counts ≥ 0"),
        ({"background": np.ones((N, N)) * 1j}, "background must be real numbers"),
        ({"background": np.full((N, N), "x")}, "background must be real numbers"),
    ],
)
def test_unusable_scans_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        make(source=Source(path="scan_17.npz"), **change)
    assert "scan_17.npz" in str(caught.value)


@pytest.mark.spec("DATA-1")
def test_what_is_unusual_but_usable_is_accepted() -> None:
    counts = arrays()["counts"].astype(np.uint16)
    counts[4] = 0
    counts[:, 0, 0] = 60_000
    raw = make(counts=counts, probe=arrays()["probe"][0], background=np.zeros((N, N)))
    assert raw.probe is not None
    assert raw.probe.shape == (1, N, N)
    assert raw.frame_totals[4] == 60_000
    assert make(counts=counts > 3).read_counts([0]).max() == 1
    assert make(probe=None).probe is None
    assert RawData.from_arrays(np.ones((1, N, N)), [[3.0, 4.0]]).n_frames == 1


@pytest.mark.spec("DATA-1", "DATA-3")
def test_bad_pixels_may_hold_anything_and_read_as_zero() -> None:
    counts = arrays()["counts"]
    counts[:, 2, 3], counts[:, 5, 1] = np.nan, -9
    mask = np.ones((N, N), bool)
    mask[2, 3] = mask[5, 1] = False
    raw = make(counts=counts, mask=mask)
    read = raw.read_counts([3, 1])
    assert (read[:, 2, 3] == 0).all()
    assert (read[:, 5, 1] == 0).all()
    np.testing.assert_array_equal(read[:, mask], counts[[3, 1]][:, mask])
    np.testing.assert_allclose(raw.frame_totals, np.where(mask, counts, 0).sum(axis=(1, 2)))
    assert np.isnan(counts[0, 2, 3])  # the caller's array is left alone


@pytest.mark.spec("DATA-2")
def test_scans_are_frozen_and_their_arrays_read_only() -> None:
    raw = make(mask=np.ones((N, N), bool), background=np.ones((N, N)))
    for part in (raw, raw.subset([1, 2]), raw.with_probe(np.ones((N, N)))):
        for name in ("positions_px", "probe", "mask", "background", "frame_numbers", "frame_totals"):
            with pytest.raises(ValueError, match="read-only"):
                getattr(part, name)[...] = 0
    with pytest.raises(FrozenInstanceError):
        raw.probe = None  # type: ignore[misc]


@pytest.mark.spec("DATA-2")
def test_frames_are_a_copy_of_an_array_that_can_change() -> None:
    given = arrays()["counts"].astype(np.float32)
    raw = make(counts=given)
    before = raw.read_counts([0])
    given[0] = 99
    np.testing.assert_array_equal(raw.read_counts([0]), before)


@pytest.mark.spec("DATA-2")
def test_positions_are_a_copy() -> None:
    given_positions = arrays()["positions_px"]
    raw = make(positions_px=given_positions)
    given_positions[0] = 99
    assert raw.positions_px[0, 0] == 0


@pytest.mark.spec("DATA-3", "CONV-3")
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float64, np.uint8])
def test_amplitudes_are_squared_after_the_cast(dtype: Any) -> None:
    amplitude = np.zeros((3, N, N), dtype)
    amplitude[1, 2, 3] = 250
    source = ArrayFrames(amplitude, "amplitude")
    counts = source.read(np.array([1, 0]))
    assert counts.dtype == np.float32
    assert counts[0, 2, 3] == 62_500
    assert counts[1].max() == 0
    assert amplitude[1, 2, 3] == 250


@pytest.mark.spec("DATA-3")
@pytest.mark.parametrize(("dtype", "limit"), [(np.float16, 2**8), (np.float32, 2**22), (np.float64, 2**24)])
def test_squares_of_stored_roots_are_the_whole_counts_they_were(dtype: Any, limit: int) -> None:
    side = int(limit**0.5)
    counts = np.arange(side * side).reshape(1, side, side)
    read = ArrayFrames(np.sqrt(counts).astype(dtype), "amplitude").read(np.array([0]))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, counts)


@pytest.mark.spec("DATA-3")
def test_amplitudes_that_are_no_roots_of_whole_numbers_are_squared_only() -> None:
    amplitude = np.random.default_rng(5).uniform(0, 30, (2, N, N)).astype(np.float32)
    amplitude[0, 0, :4] = np.sqrt(np.array([2, 2 + 2e-6, 2 - 2e-6, 900 + 1e-3]))
    amplitude[0, 1, :2] = np.nan, np.inf
    read = ArrayFrames(amplitude, "amplitude").read(np.array([0, 1]))
    assert not np.isfinite(read[0, 1, :2]).any()
    finite = np.isfinite(amplitude)
    np.testing.assert_allclose(read[finite], np.square(amplitude[finite]), rtol=2.4e-7)
    assert read[0, 0, 0] == 2
    np.testing.assert_array_equal(read[0, 0, 1:4], np.square(amplitude[0, 0, 1:4]))
    assert (read != np.round(read)).mean() > 0.95


def stored(tmp_path: Path, kind: str, values: np.ndarray, measurement: str) -> Any:
    """A source on disk whose frames are `values`."""
    if kind == "hdf5":
        import h5py

        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("entry/frames", data=values, compression="gzip", chunks=(1, N, N))
        return Hdf5Frames(tmp_path / "a.h5", "entry/frames", values.shape, measurement)  # type: ignore[arg-type]
    order = "F" if kind == "npz-fortran" else "C"
    axes = (2, 0, 1) if kind == "npz-legacy" else (0, 1, 2)
    laid_out = np.asarray(values.transpose(1, 2, 0) if kind == "npz-legacy" else values, order=order)
    np.savez(tmp_path / "a.npz", frames=laid_out)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive, archive.open("frames.npy") as member:
        np.lib.format.read_magic(member)
        np.lib.format.read_array_header_1_0(member)
        start = member.tell()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        info = archive.getinfo("frames.npy")
        archive.fp.seek(info.header_offset + 26)  # type: ignore[union-attr]
        lengths = np.frombuffer(archive.fp.read(4), "<u2")  # type: ignore[union-attr]
    offset = info.header_offset + 30 + int(lengths.sum()) + start
    return NpzFrames(tmp_path / "a.npz", offset, laid_out.dtype.str, laid_out.shape, order == "F", axes, measurement)


@pytest.mark.spec("DATA-3", "DATA-4")
@pytest.mark.parametrize("kind", ["hdf5", "npz", "npz-fortran", "npz-legacy"])
@pytest.mark.parametrize("measurement", ["counts", "amplitude"])
def test_sources_on_disk_give_what_was_stored(tmp_path: Path, kind: str, measurement: str) -> None:
    values = np.random.default_rng(1).integers(0, 400, size=(M, N, N)).astype(np.uint16)
    source = stored(tmp_path, kind, values, measurement)
    assert source.shape == (M, N, N)
    wanted = values.astype(np.float32) ** (2 if measurement == "amplitude" else 1)
    for numbers in ([5, 2, 2, 11], [0], list(range(M))):
        read = pickle.loads(pickle.dumps(source)).read(np.array(numbers))
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, wanted[numbers])
        read[:] = -1  # a fresh array: writing to it must reach neither the file nor the next reader
    np.testing.assert_array_equal(source.read(np.array([3])), wanted[[3]])
    raw = RawData.from_arrays(source, arrays()["positions_px"])
    np.testing.assert_array_equal(raw.subset([4, 9]).subset([1]).read_counts([0])[0], wanted[9])
    np.testing.assert_allclose(raw.mean_pattern(), wanted.mean(axis=0), rtol=1e-6)


@pytest.mark.spec("DATA-4")
def test_a_source_on_disk_leaves_no_file_open(tmp_path: Path) -> None:
    values = np.ones((M, N, N), np.uint16)
    source = stored(tmp_path, "hdf5", values, "counts")
    source.read(np.array([1]))
    import h5py

    with h5py.File(source.path, "r+") as file:  # h5py refuses to write to a file that is open for reading
        file["entry/frames"][1] = 7
    assert source.read(np.array([1])).min() == 7


@pytest.mark.spec("DATA-4")
def test_only_the_frames_asked_for_are_read() -> None:
    asked: list[int] = []

    class Counting:
        shape = (M, N, N)

        def read(self, frame_numbers: np.ndarray) -> np.ndarray:
            asked.extend(frame_numbers.tolist())
            return np.ones((len(frame_numbers), N, N), np.float32)

    raw = RawData.from_arrays(Counting(), arrays()["positions_px"])
    assert asked == list(range(M))  # once, to check them
    asked.clear()
    raw.subset([3, 8, 5]).read_counts([2, 0])
    assert asked == [5, 3]


def test_transposed_and_subset_sources() -> None:
    values = np.random.default_rng(2).random((M, N, N))
    base = ArrayFrames(values)
    turned = TransposedFrames(SubsetFrames(base, np.array([7, 1])))
    assert turned.shape == (2, N, N)
    np.testing.assert_array_equal(turned.read(np.array([1])), values[[1]].astype(np.float32).swapaxes(1, 2))


def test_chunks_cover_every_frame_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptycho_core.data.raw._CHUNK_BYTES", 5 * 4 * N * N)
    raw = make()
    pieces = list(raw.chunks())
    assert [len(indices) for indices, _ in pieces] == [5, 5, 2]
    np.testing.assert_array_equal(np.concatenate([i for i, _ in pieces]), np.arange(M))
    np.testing.assert_array_equal(np.concatenate([c for _, c in pieces]), arrays()["counts"])


def test_a_subset_keeps_everything_together() -> None:
    raw = make()
    part = raw.subset([9, 2]).subset([1, 0])
    np.testing.assert_array_equal(part.frame_numbers, [2, 9])
    np.testing.assert_array_equal(part.positions_px, raw.positions_px[[2, 9]])
    np.testing.assert_array_equal(part.frame_totals, raw.frame_totals[[2, 9]])
    np.testing.assert_array_equal(part.read_counts([0, 1]), raw.read_counts([2, 9]))
    flags = np.arange(M) % 5 == 0
    np.testing.assert_array_equal(raw.subset(flags).frame_numbers, [0, 5, 10])


@pytest.mark.spec("CONV-9")
@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], "no frames"),
        ([0, M], "0 to 12 asked for; the scan has 0 to 11"),
        ([-1], "-1 to -1 asked for"),
        (np.zeros(M, bool), "no frames"),
        (np.ones(M - 1, bool), "11 flags, but the scan has 12"),
    ],
)
def test_impossible_subsets_are_refused(indices: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make().subset(indices)


@pytest.mark.spec("DATA-5", "CONV-7")
def test_subsample_is_sorted_seeded_and_without_repeats() -> None:
    raw = make()
    first, again, other = raw.subsample(7, 3), raw.subsample(7, 3), raw.subsample(7, 4)
    assert (np.diff(first.frame_numbers) > 0).all()
    np.testing.assert_array_equal(first.frame_numbers, again.frame_numbers)
    assert first.frame_numbers.tolist() != other.frame_numbers.tolist()
    np.testing.assert_array_equal(raw.subsample(M, 0).frame_numbers, np.arange(M))
    for n in (0, M + 1):
        with pytest.raises(ConfigError, match=f"n_subsample = {n}, but the scan has 12 frames"):
            raw.subsample(n, 0)


@pytest.mark.spec("DATA-6")
@given(fraction=st.floats(0, 0.9), seed=st.integers(0, 1000), how=st.sampled_from(["random", "region"]))
@settings(max_examples=40, deadline=None)
def test_splits_share_no_frame_and_lose_none(fraction: float, seed: int, how: str) -> None:
    raw = make()
    train, test = raw.split(fraction, seed, how)
    held_out = [] if test is None else test.frame_numbers.tolist()
    assert len(held_out) == round(M * fraction)
    assert sorted(train.frame_numbers.tolist() + held_out) == list(range(M))
    assert (np.diff(train.frame_numbers) > 0).all()


@pytest.mark.spec("DATA-6", "CONV-7")
@pytest.mark.parametrize("how", ["random", "region"])
def test_splits_are_decided_by_the_seed(how: str) -> None:
    raw = make()
    picks = {seed: tuple(raw.split(0.3, seed, how)[1].frame_numbers) for seed in range(8)}  # type: ignore[union-attr]
    assert picks[5] == tuple(raw.split(0.3, 5, how)[1].frame_numbers)  # type: ignore[union-attr]
    assert len(set(picks.values())) > 1


@pytest.mark.spec("DATA-6")
def test_a_region_is_the_neighbourhood_of_one_frame() -> None:
    rng = np.random.default_rng(5)
    positions = rng.uniform(0, [100, 40], size=(200, 2))
    raw = RawData.from_arrays(np.ones((200, N, N), np.uint8), positions)
    _, test = raw.split(0.1, 3, "region")
    assert test is not None
    inside = test.frame_numbers
    outside = np.setdiff1d(np.arange(200), inside)

    def is_ball(centre: int) -> bool:
        distance = np.linalg.norm(positions - positions[centre], axis=1)
        return bool(distance[inside].max() <= distance[outside].min())

    assert any(is_ball(int(c)) for c in inside)
    _, scattered = raw.split(0.1, 3, "random")
    assert scattered is not None
    assert np.ptp(scattered.positions_px, axis=0).min() > np.ptp(test.positions_px, axis=0).max()


@pytest.mark.spec("CONV-9")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.97, 0), "leaves no training frame of 12"),
        ((-0.2, 0), "test_fraction = -0.2; it must be at least 0"),
        ((1.0, 0), "below 1"),
        ((0.2, 0, "regional"), "test_split = 'regional'; allowed: random, region. Did you mean 'region'"),
    ],
)
def test_impossible_splits_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make().split(*arguments)


def test_with_probe_checks_the_probe() -> None:
    raw = make()
    other = raw.with_probe(np.full((N, N), 2j), calibrated=True)
    assert other.probe_calibrated
    assert other.probe is not None
    assert other.probe.dtype == np.complex64
    with pytest.raises(DataError, match="probe has shape"):
        raw.with_probe(np.ones((8, 8)))


@pytest.mark.spec("CONV-7")
def test_the_global_random_state_is_left_alone() -> None:
    def state() -> bytes:
        return np.random.get_state()[1].tobytes()  # type: ignore[index,union-attr,return-value]  # noqa: NPY002

    before = state()
    jobs: list[Callable[[RawData], Any]] = [lambda r: r.subsample(4, 1), lambda r: r.split(0.3, 1)]
    for job in jobs:
        job(make())
    assert state() == before


@pytest.mark.spec("DATA-1")
def test_any_even_side_from_8_to_4096_is_a_scan() -> None:
    assert (min(SIDES), max(SIDES), 100 in SIDES, 101 in SIDES) == (8, 4096, True, False)
    positions = arrays()["positions_px"]
    for side in (8, 50, 100):
        assert RawData.from_arrays(np.ones((M, side, side)), positions).side == side


@pytest.mark.spec("DATA-22")
def test_a_scan_keeps_how_its_waves_propagate() -> None:
    assert make().propagation == FAR_FIELD
    near = Propagation("near_field", 0.3, 0.01)
    raw = make(propagation=near)
    train, test = raw.split(0.25, seed=1)
    for part in (raw, train, test, raw.subset([1, 2]), raw.subsample(4, 0), raw.with_probe(np.ones((N, N)))):
        assert part.propagation == near


def test_a_canvas_that_frames_cover_several_times_is_no_bomb():
    """A large sample has many frames; the limit is for positions that so few frames cannot fill."""
    axis = np.arange(20) * 600.0
    positions = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    numbers = np.arange(len(positions))
    check_canvas(positions, 1024, numbers, "scan")  # 12 424², and 419 million pixels of frames
    with pytest.raises(DataError, match=r"an object of 1\.3.*e\+08 pixels; at most 67108864 are allowed.*--max_canvas"):
        check_canvas(positions, 256, numbers, "scan")
