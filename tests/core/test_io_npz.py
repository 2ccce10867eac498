"""The NPZ dialect: what is read, from where, and what is said to be assumed."""

from __future__ import annotations

import bz2
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from io_scans import arrays, assert_same_scan, full_scan, save

from ptycho_core.data.frames import ArrayFrames, NpzFrames
from ptycho_core.errors import DataError, OutputError
from ptycho_core.io import read_scan, write_scan
from ptycho_core.io.guarded.frames import GuardedFrames
from ptycho_core.io.probes import NO_PROBE


def all_counts(raw):
    return raw.read_counts(np.arange(raw.n_frames))


def test_amplitudes_are_squared_and_positions_moved_by_half_a_pixel(tmp_path):
    content = arrays()
    raw = read_scan(save(tmp_path / "a.npz", content), measurement="amplitude")
    np.testing.assert_allclose(all_counts(raw), content["diff3d"] ** 2, rtol=1e-6)
    # the N/2 rule: corner = coordinate − N/2, which in our convention is centre = coordinate − ½
    corner = np.stack([content["ycoords"], content["xcoords"]], axis=1) - 16 / 2
    np.testing.assert_allclose(raw.positions_px - 15 / 2, corner, atol=1e-12)
    np.testing.assert_array_equal(raw.probe, content["probeGuess"])
    assert raw.source.measurement == "amplitude"
    assert any("half a pixel" in text for text in raw.source.assumptions)
    assert any("read as amplitude, as asked for" in text for text in raw.source.assumptions)


@pytest.mark.parametrize(("centre", "shift"), [("(N-1)/2", 0.0), ("N/2", 0.5)])
def test_pixel_centre_stated_by_the_file_is_followed_silently(tmp_path, centre, shift):
    content = arrays()
    path = save(tmp_path / "a.npz", content, pixel_centre=np.array(centre), measurement=np.array("amplitude"))
    raw = read_scan(path)
    np.testing.assert_array_equal(raw.positions_px[:, 1], content["xcoords"] - shift)
    assert raw.source.assumptions == ()


@pytest.mark.parametrize(
    ("word", "meaning"), [("amplitude", "amplitude"), ("counts", "counts"), ("intensity", "counts")]
)
def test_measurement_is_taken_from_file_or_caller(tmp_path, word, meaning):
    content = arrays()
    told = read_scan(save(tmp_path / "a.npz", content, measurement=np.array(word)))
    asked = read_scan(save(tmp_path / "b.npz", content), measurement=word)
    expected = np.round(content["diff3d"] ** 2) if meaning == "amplitude" else content["diff3d"]
    for raw in (told, asked, read_scan(tmp_path / "a.npz", measurement=word)):
        assert raw.source.measurement == meaning
        np.testing.assert_array_equal(all_counts(raw), expected)


def test_values_of_the_other_measurement_are_a_warning(tmp_path):
    raw = read_scan(save(tmp_path / "a.npz", arrays()), measurement="counts")
    assert any("look like amplitudes" in text for text in raw.source.warnings)
    assert read_scan(tmp_path / "a.npz", measurement="amplitude").source.warnings == ()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_whole_counts_stored_as_amplitudes_are_whole_when_they_are_written_again(tmp_path, suffix, dtype):
    counts = np.random.default_rng(4).poisson(20, (7, 16, 16))
    frames = np.sqrt(counts).astype(dtype)
    raw = read_scan(save(tmp_path / "a.npz", arrays(), diff3d=frames), measurement="amplitude")
    np.testing.assert_array_equal(all_counts(raw), counts)
    write_scan(tmp_path / f"b{suffix}", raw)
    again = read_scan(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(all_counts(again), counts)
    assert again.source.warnings == ()
    write_scan(tmp_path / f"c{suffix}", again)
    assert_same_scan(again, read_scan(tmp_path / f"c{suffix}"))


def test_values_are_told_by_the_precision_they_are_stored_in_and_only_where_it_suffices(tmp_path):
    counts = np.random.default_rng(4).poisson(3, (7, 16, 16))
    path = save(tmp_path / "a.npz", arrays(), diff3d=np.sqrt(counts).astype(np.float16))
    with pytest.raises(DataError, match="look like amplitudes"):
        read_scan(path)
    large = np.random.default_rng(4).uniform(3e6, 4e6, (7, 16, 16)).astype(np.float32)  # in steps of a quarter
    with pytest.raises(DataError, match="or counts") as caught:
        read_scan(save(tmp_path / "b.npz", arrays(), diff3d=large))
    assert "look like" not in str(caught.value)


def test_counts_that_an_older_release_squared_are_no_longer_taken_for_amplitudes(tmp_path):
    squared = np.square(arrays()["diff3d"])
    assert not np.array_equal(squared, np.round(squared))
    assert read_scan(save(tmp_path / "a.npz", arrays(), diff3d=squared), measurement="counts").source.warnings == ()


def test_uint16_amplitudes_do_not_overflow_when_squared(tmp_path):
    frames = np.full((3, 16, 16), 300, dtype=np.uint16)
    raw = read_scan(save(tmp_path / "a.npz", arrays(M=3), diff3d=frames), measurement="amplitude")
    assert all_counts(raw).max() == 90000


def test_uncompressed_frames_stay_on_disk_and_compressed_ones_do_not(tmp_path):
    content = arrays()
    mapped = read_scan(save(tmp_path / "a.npz", content), measurement="counts")
    loaded = read_scan(save(tmp_path / "b.npz", content, compressed=True), measurement="counts")
    assert isinstance(mapped.frames, NpzFrames)
    assert isinstance(loaded.frames, ArrayFrames)
    assert_same_scan(mapped, loaded)


def write_member(path, values, version, extra=b"", fortran=False):
    """An NPZ by hand: any .npy header version, and a local zip header with an extra field of its own."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in arrays(M=values.shape[0]).items():
            info = zipfile.ZipInfo(f"{key}.npy")
            info.extra = extra
            with archive.open(info, "w") as member:
                frames = np.asfortranarray(values) if fortran else values
                array = frames if key == "diff3d" else value
                np.lib.format.write_array(member, array, version=version, allow_pickle=False)


@pytest.mark.filterwarnings("ignore:Stored array in format")
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<u2", "<f8"])
def test_mapped_frames_start_where_the_headers_say(tmp_path, version, fortran, dtype):
    values = np.random.default_rng(1).integers(0, 500, (5, 16, 16)).astype(dtype)
    write_member(tmp_path / "a.npz", values, version, extra=b"\x99\x99\x05\x00hello", fortran=fortran)
    raw = read_scan(tmp_path / "a.npz", measurement="counts")
    assert isinstance(raw.frames, NpzFrames)
    assert raw.frames.fortran_order is fortran
    np.testing.assert_array_equal(all_counts(raw), values)
    np.testing.assert_array_equal(raw.read_counts([3, 1]), values[[3, 1]])
    copy = pickle.loads(pickle.dumps(raw.frames))
    np.testing.assert_array_equal(copy.read(np.array([4])), values[[4]])


@pytest.mark.parametrize("compressed", [False, True])
def test_old_axis_order_is_found_by_the_number_of_coordinates_and_said(tmp_path, compressed):
    content = arrays()
    old = np.moveaxis(content["diff3d"], 0, -1).copy()
    raw = read_scan(save(tmp_path / "a.npz", content, compressed, diff3d=old), measurement="amplitude")
    np.testing.assert_allclose(all_counts(raw), content["diff3d"] ** 2, rtol=1e-6)
    assert any("(N, N, M)" in text for text in raw.source.assumptions)


def test_a_cube_of_frames_is_warned_of(tmp_path):
    content = arrays(M=16)
    raw = read_scan(save(tmp_path / "a.npz", content), measurement="amplitude")
    np.testing.assert_allclose(all_counts(raw), content["diff3d"] ** 2, rtol=1e-6)
    assert any("cannot be told" in text for text in raw.source.warnings)


@pytest.mark.parametrize("form", ["plane", "modes", "trailing", "trailing modes", "variations"])
def test_forms_of_probe(tmp_path, form):
    modes = arrays(P=3)["probeGuess"]
    stored, expected = {
        "plane": (modes[0], modes[:1]),
        "modes": (modes, modes),
        "trailing": (modes[0][..., None], modes[:1]),
        "trailing modes": (np.moveaxis(modes, 0, -1), modes),
        "variations": (np.stack([modes, 2 * modes]), modes),
    }[form]
    raw = read_scan(save(tmp_path / "a.npz", arrays(), probeGuess=stored), measurement="counts")
    np.testing.assert_array_equal(raw.probe, expected)


def test_alias_nominal_positions_and_missing_probe(tmp_path):
    content = arrays()
    path = save(
        tmp_path / "a.npz",
        content,
        diff3d=None,
        diffraction=content["diff3d"],
        probeGuess=None,
        xcoords=None,
        ycoords=None,
        xcoords_start=content["xcoords"],
        ycoords_start=content["ycoords"],
        label=np.zeros(3),
    )
    raw = read_scan(path, measurement="amplitude")
    np.testing.assert_array_equal(raw.positions_px[:, 0], content["ycoords"] - 0.5)
    assert raw.probe is None
    said = " ".join(raw.source.assumptions)
    assert "nominal" in said
    assert "holds no probe" in said
    assert "Ignored keys: label" in said


def test_nominal_positions_that_differ_are_mentioned(tmp_path):
    content = arrays()
    path = save(tmp_path / "a.npz", content, xcoords_start=content["xcoords"] + 0.25, ycoords_start=content["ycoords"])
    raw = read_scan(path, measurement="amplitude")
    np.testing.assert_array_equal(raw.positions_px[:, 1], content["xcoords"] - 0.5)
    assert any("differ by up to 0.25 px" in text for text in raw.source.assumptions)


def test_ptychodus_training_keys(tmp_path):
    content = arrays()
    bad = np.zeros((16, 16), dtype=bool)
    bad[3, 5] = True
    path = save(
        tmp_path / "a.npz",
        content,
        diff3d=(content["diff3d"] ** 2).round().astype(np.int32),
        bad_pixels=bad,
        scan_index=np.zeros(7, int),
        xcoords_start=content["xcoords"],
        ycoords_start=content["ycoords"],
        objectGuess=np.ones((50, 60), np.complex128),
    )
    raw = read_scan(path, measurement="intensity")
    np.testing.assert_array_equal(raw.mask, ~bad)
    # ptychodus names pixel (N−1)/2, and its object pixel (0, 0) is at coordinate 0
    np.testing.assert_array_equal(raw.positions_px[:, 1], content["xcoords"])
    np.testing.assert_array_equal(raw.object_guess.origin_px, [0, 0])
    assert raw.read_counts([0])[0, 3, 5] == 0
    assert any("hides 1 pixel." in text for text in raw.source.assumptions)


def test_bad_pixels_may_hold_anything(tmp_path):
    content = arrays()
    frames = content["diff3d"].copy()
    frames[:, 2, 3] = np.nan
    frames[:, 4, 5] = -7
    mask = np.ones((16, 16), bool)
    mask[2, 3] = mask[4, 5] = False
    raw = read_scan(save(tmp_path / "a.npz", content, diff3d=frames, mask=mask), measurement="amplitude")
    assert (raw.read_counts([0])[0][~mask] == 0).all()


def test_content_decides_not_the_suffix(tmp_path):
    content = arrays()
    path = save(tmp_path / "a.npz", content)
    odd = path.rename(tmp_path / "scan.h5")
    packed = tmp_path / "scan.dat"
    packed.write_bytes(bz2.compress(odd.read_bytes()))
    for found in (read_scan(odd, measurement="counts"), read_scan(packed, measurement="counts")):
        assert found.source.dialect == "npz"
        np.testing.assert_array_equal(all_counts(found), content["diff3d"])


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.hdf5"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_full_scan_reads_back_as_it_was(tmp_path, name, compress):
    raw = full_scan()
    write_scan(tmp_path / name, raw, compress=compress)
    again = read_scan(tmp_path / name)
    assert_same_scan(raw, again)
    assert again.source.dialect == ("npz" if name == "a.npz" else "hdf5")
    if name != "a.npz":
        assert isinstance(again.frames, GuardedFrames)
    elif not compress:
        assert isinstance(again.frames, NpzFrames)
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_round_trip_of_any_scan(tmp_path_factory, data):
    draw = data.draw
    M, N = draw(st.integers(2, 5)), draw(st.sampled_from([16, 32]))
    seed = draw(st.integers(0, 2**32 - 1))
    changes = {
        name: None for name in ("probe", "mask", "background", "object_guess", "geometry") if draw(st.booleans())
    }
    coordinate = st.floats(-1e3, 1e3, allow_nan=False)
    positions = np.array(draw(st.lists(st.tuples(coordinate, coordinate), min_size=M, max_size=M)))
    if np.ptp(positions, axis=0).max() < 1e-2:
        positions[0] += 5
    if "probe" in changes:
        changes["probe_calibrated"] = False
    raw = full_scan(M, N, draw(st.integers(1, 3)), seed, positions_px=positions, **changes)
    details = draw(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=9), st.none())))
    raw = replace(raw, source=replace(raw.source, details=details))
    path = tmp_path_factory.mktemp("trip") / draw(st.sampled_from(["a.npz", "a.h5"]))
    write_scan(path, raw, compress=draw(st.booleans()))
    again = read_scan(path)
    if raw.probe is None:
        assert again.probe is None
        raw = replace(raw, source=replace(raw.source, assumptions=(*raw.source.assumptions, NO_PROBE)))
    assert_same_scan(raw, again)


def test_a_subset_is_written_in_its_own_order(tmp_path):
    raw = full_scan().subset([5, 2, 3])
    write_scan(tmp_path / "a.npz", raw)
    assert_same_scan(raw, read_scan(tmp_path / "a.npz"))


def test_a_scan_is_not_written_over_the_file_it_is_read_from(tmp_path):
    for name in ("a.npz", "a.h5"):
        write_scan(tmp_path / name, full_scan())
        before = (tmp_path / name).read_bytes()
        with pytest.raises(OutputError, match="still read from this file"):
            write_scan(tmp_path / name, read_scan(tmp_path / name).subset([0, 1]))
        assert (tmp_path / name).read_bytes() == before


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.npz"
    write_scan(path, full_scan())
    before = path.read_bytes()
    raw = full_scan()
    broken = replace(raw, source=replace(raw.source, details={"array": np.zeros(2)}))
    with pytest.raises(DataError, match="plain JSON"):
        write_scan(path, broken)

    class Failing(ArrayFrames):
        def read(self, frame_numbers):
            raise RuntimeError("detector on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        write_scan(path, replace(raw, frames=Failing(np.zeros((7, 16, 16)))))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_unknown_suffix_and_missing_folder_are_refused(tmp_path):
    with pytest.raises(OutputError, match=r"\.npz, \.h5, \.hdf5, \.cxi or \.nxs"):
        write_scan(tmp_path / "a.tif", full_scan())
    with pytest.raises(OutputError, match="choose a folder"):
        write_scan(tmp_path / "no" / "a.npz", full_scan())


def test_what_is_written_needs_no_pickle_and_states_its_conventions(tmp_path):
    write_scan(tmp_path / "a.npz", full_scan())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive["measurement"].shape == ()
        assert str(archive["measurement"]) == "counts"
        assert str(archive["pixel_centre"]) == "(N-1)/2"
        assert all(archive[key].dtype != object for key in archive.files)
