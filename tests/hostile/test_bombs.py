"""Files of kilobytes that ask for gigabytes, or for hours: what they state is compared before anything is done."""

from __future__ import annotations

import bz2
import io
import json
import zipfile
from pathlib import Path

import good_scans as good
import h5py
import numpy as np
import pytest
from refusals import refused, refused_in_child

from ptycho_core.cli.main import main
from ptycho_core.cli.options import parse
from ptycho_core.cli.reading_options import COST, READING, limits_given, read_options
from ptycho_core.data.frames import ArrayFrames, Hdf5Frames, WindowedFrames
from ptycho_core.errors import ConfigError, DataError, suggest
from ptycho_core.io import read_scan
from ptycho_core.io.candidate import examine
from ptycho_core.io.claims import check_claims
from ptycho_core.io.direct_frames import direct_frames
from ptycho_core.io.probes import read_probe
from ptycho_core.limits import DEFAULT_LIMITS, Limits, limits_at_work, within
from ptycho_core.text import listed

pytestmark = pytest.mark.hostile

COUNTS = {"measurement": "counts"}


def unallocated(shape: tuple[int, ...], dtype: str, **how: object):
    """A dataset that nobody wrote."""
    return lambda h5, name: h5.create_dataset(name, shape, dtype, **how)


# --- HDF5 -----------------------------------------------------------------------------------------------------------


@pytest.mark.spec("READ-51")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"probe": unallocated((7, 8192, 8192), "c8")}, r"\(7, 8192, 8192\) complex64, 3758 MB; at most 256 MB"),
        ({"positions_px": unallocated((2**40, 2), "f8")}, r"'positions_px' is .*--max_memory"),
        ({"mask": unallocated((2**32, 2**32), "u1")}, r"'mask' is \(4294967296, 4294967296\)"),  # wraps to 0
        ({"mask": unallocated((2**31, 2**31, 4), "u1")}, r"'mask' is"),  # wraps to 0 as well
        ({"mask": unallocated((16, 16), "u1", chunks=(2**14, 2**15), maxshape=(None, None))}, "stored in pieces of"),
        ({"frames": unallocated((10**12, 16, 16), "u2")}, r"has 1000000000000 frames; 16000000 are read at most"),
        ({"frames": unallocated((10**12, 16, 16), "u2", chunks=(1, 16, 16))}, r"in 1000000000000 pieces; at most"),
        ({"frames": unallocated((20, 2**20, 2**20), "u2")}, "memory"),
        ({"frames": unallocated((20, 16, 16), "u2")}, r"20 frames of 16×16, and has 0 bytes for them"),
        ({"provenance": unallocated((2**30,), "S100")}, r"'provenance' is"),
    ],
)
def test_hdf5_that_states_more_than_it_holds(changes: good.Content, says: str, tmp_path: Path) -> None:
    path = good.write_own(tmp_path / "scan.h5", changes)
    assert path.stat().st_size < 10**6
    refused_in_child(["inspect", path, "--measurement", "counts"], tmp_path, says)


@pytest.mark.spec("READ-51")
def test_a_piece_of_frames_that_is_read_whole_is_bounded(tmp_path: Path) -> None:
    def frames(h5: h5py.File, name: str) -> None:
        dataset = h5.create_dataset(name, (20, 16, 16), "u2", chunks=(20, 16, 16), maxshape=(None, None, None))
        dataset[...] = good.counts()

    path = good.write_own(tmp_path / "scan.h5", {"frames": frames})
    assert read_scan(path, **COUNTS).n_frames == 20
    with pytest.raises(DataError, match=r"'frames' is stored in pieces of \(20, 16, 16\).*--max_memory"):
        read_scan(path, **COUNTS, limits=Limits(memory_mb=0.03, guard=False))


@pytest.mark.spec("READ-51")
def test_groups_in_groups_are_counted_and_end(tmp_path: Path) -> None:
    path = good.write_own(tmp_path / "scan.h5")
    with h5py.File(path, "r+") as h5:
        group = h5.id
        for _ in range(30_000):
            group = h5py.h5g.create(group, b"g")
    refused_in_child(["inspect", path], tmp_path, "more than 64 deep.*--max_nesting")
    few = good.write_own(tmp_path / "few.h5")
    with h5py.File(few, "r+") as h5:
        h5.create_group("/".join("g" * 12))
    assert read_scan(few, **COUNTS).n_frames == good.M
    with pytest.raises(DataError, match="more than 11 deep"):
        read_scan(few, **COUNTS, limits=Limits(nesting=11))
    assert read_scan(few, **COUNTS, limits=Limits(nesting=12)).n_frames == good.M


@pytest.mark.spec("READ-51")
def test_links_are_counted_and_what_is_not_listed_is_an_error(tmp_path: Path) -> None:
    path = good.write_own(tmp_path / "scan.h5")
    with h5py.File(path, "r+") as h5:
        group = h5.create_group("twice")
        for depth in range(40):  # 2^40 paths to forty groups
            below = group.create_group(f"a{depth}")
            group[f"b{depth}"] = below
            group = below
    refused_in_child(["inspect", path], tmp_path, "more than 100000 links.*--max_objects")
    many = good.write_own(tmp_path / "many.h5")
    with h5py.File(many, "r+") as h5:
        for number in range(300):
            h5[f"other/{number}"] = number
    with pytest.raises(DataError, match="more than 200 links"):
        read_scan(many, **COUNTS, limits=Limits(objects=200))
    assert read_scan(many, **COUNTS, limits=Limits(objects=400)).n_frames == good.M
    with within(Limits(objects=100)), pytest.raises(DataError, match="more than 100 links"):
        examine(many)


@pytest.mark.spec("READ-51")
def test_parts_of_virtual_datasets_are_counted(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout((400, 16, 16), "u2")
    for number in range(400):
        layout[number] = h5py.VirtualSource("part.h5", "data", (16, 16))
    good.write_h5(tmp_path / "part.h5", {"data": good.counts()[0].astype("u2")})
    path = good.write_own(tmp_path / "scan.h5", {"more": lambda h5, name: h5.create_virtual_dataset(name, layout)})
    assert read_scan(path, **COUNTS).n_frames == good.M
    with pytest.raises(DataError, match=r"virtual datasets have more than 300 parts.*--max_objects"):
        read_scan(path, **COUNTS, limits=Limits(objects=30))


# --- what is compressed ---------------------------------------------------------------------------------------------


@pytest.mark.spec("READ-51")
def test_a_stream_is_unpacked_up_to_its_limit(tmp_path: Path) -> None:
    bomb = tmp_path / "scan.npz.bz2"
    bomb.write_bytes(bz2.compress(b"PK\x03\x04") + 400 * bz2.compress(bytes(10**7)))
    assert bomb.stat().st_size < 10**5
    refused_in_child(["inspect", bomb], tmp_path, "the bzip2 stream has .* MB decompressed.*--max_memory")
    sound = good.write_tike(tmp_path / "sound.npz.bz2")
    assert read_scan(sound, **COUNTS).n_frames == good.M
    sparse = io.BytesIO()
    np.savez(sparse, data=np.zeros((100, 64, 64)))
    (tmp_path / "sparse.npz.bz2").write_bytes(bz2.compress(sparse.getvalue()))
    with within(Limits(memory_mb=0.01)), pytest.raises(DataError, match="decompressed"):
        examine(tmp_path / "sparse.npz.bz2")


@pytest.mark.spec("READ-51")
def test_a_member_of_an_archive_is_unpacked_only_where_it_fits(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in good.npz_content().items():
            if value is not None and name != "diff3d":
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.asarray(value))
        with archive.open("diff3d.npy", "w", force_zip64=True) as member:
            header = {"descr": "<u2", "fortran_order": False, "shape": (1500, 512, 512)}
            np.lib.format.write_array_header_1_0(member, header)
            for _ in range(1500):
                member.write(bytes(2 * 512 * 512))
    assert path.stat().st_size < 10**6
    refused_in_child(["inspect", path, "--measurement", "counts"], tmp_path, "'diff3d' has 786.4 MB decompressed")
    content = good.npz_content() | {"diff3d": np.zeros((good.M, 128, 128))}
    packed = good.write_npz(tmp_path / "packed.npz", content, compressed=True)
    with pytest.raises(DataError, match="at most 1 MB"):
        read_scan(packed, **COUNTS, limits=Limits(memory_mb=3))


@pytest.mark.spec("READ-51")
@pytest.mark.parametrize("shape", [(2**32, 2**32), (2**62, 4), (-1, 16), (2**63,)])
def test_shapes_in_archives_do_not_wrap(shape: tuple[int, ...], tmp_path: Path) -> None:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": shape})
    path = good.write_npz(tmp_path / "scan.npz", good.npz_content())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.npy", content.getvalue())
    refused(["inspect", path], tmp_path, "the zip archive cannot be read")
    bare = tmp_path / "bare.npy"
    bare.write_bytes(content.getvalue())
    refused(["inspect", bare, "--positions", bare], tmp_path, "")


@pytest.mark.spec("READ-51")
def test_files_are_counted_ten_times_as_far_since_each_may_be_a_frame(tmp_path: Path) -> None:
    folder = tmp_path / "scan"
    folder.mkdir()
    for number in range(31):
        np.save(folder / f"frame_{number}.npy", np.ones((16, 16), np.uint16))
    with within(Limits(objects=4)):
        found = examine(folder)
    assert found is not None
    assert len(found.files) == 31
    with (
        within(Limits(objects=3)),
        pytest.raises(DataError, match=r"31 files; at most 30 are looked at.*--max_objects"),
    ):
        examine(folder)


@pytest.mark.spec("READ-51")
def test_members_are_counted(tmp_path: Path) -> None:
    path = good.write_npz(tmp_path / "scan.npz", {**good.npz_content(), **{f"x{n}": n for n in range(60)}})
    assert read_scan(path, **COUNTS).n_frames == good.M
    with pytest.raises(DataError, match=r"members; at most 50 are looked at.*--max_objects"):
        read_scan(path, **COUNTS, limits=Limits(objects=50))


# --- stores, images, positions --------------------------------------------------------------------------------------


@pytest.mark.spec("READ-51")
def test_chunks_of_a_store_are_bounded(tmp_path: Path) -> None:
    path = good.write_zarr(tmp_path / "scan.zarr")
    for name in ("frames", "positions_px"):
        header = path / name / "zarr.json"
        stated = json.loads(header.read_text())
        stated["chunk_grid"]["configuration"]["chunk_shape"] = [2**20] * len(stated["shape"])
        was = header.read_text()
        header.write_text(json.dumps(stated))
        refused(["inspect", path], tmp_path, f"'{name}' is stored in chunks of .*--max_memory")
        header.write_text(was)
    header = path / "frames" / "zarr.json"
    stated = json.loads(header.read_text())
    stated["shape"][0] = 10**9
    header.write_text(json.dumps(stated))
    refused(["inspect", path], tmp_path, "1000000000 frames")


@pytest.mark.spec("READ-50")
def test_a_store_leads_nowhere_else(tmp_path: Path) -> None:
    path = good.write_zarr(tmp_path / "scan.zarr")
    chunk = next(file for file in (path / "probe" / "c").rglob("*") if file.is_file())
    (tmp_path / "secret").write_bytes(chunk.read_bytes())
    chunk.unlink()
    chunk.symlink_to(tmp_path / "secret")
    refused(["inspect", path], tmp_path, "is a link to .*secret, outside of the store.*--allow_external")
    assert read_scan(path, allow_external=True).n_frames == good.M
    assert main(["inspect", str(path), "--allow_external"]) == 0


@pytest.mark.spec("READ-50")
def test_an_image_that_names_other_files_leads_nowhere_else(tmp_path: Path) -> None:
    import tifffile

    (tmp_path / "home").mkdir()
    frames = good.counts().astype("u2")
    tifffile.imwrite(tmp_path / "strange.ome.tif", frames[10:], metadata={"axes": "TYX"})
    named = "../strange.ome.tif"
    description = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels DimensionOrder="XYZCT" ID="Pixels:0" SizeC="1" SizeT="20" '
        f'SizeX="{good.N}" SizeY="{good.N}" SizeZ="1" Type="uint16">'
        '<TiffData FirstT="0" IFD="0" PlaneCount="10"/>'
        f'<TiffData FirstT="10" IFD="0" PlaneCount="10"><UUID FileName="{named}">urn:uuid:0</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    path = tmp_path / "home" / "scan.ome.tif"
    tifffile.imwrite(path, frames[:10], description=description, metadata=None, photometric="minisblack")
    good.positions_file(tmp_path / "home")
    said = {"positions": tmp_path / "home" / "positions.txt", "position_unit": "m", "pixel_size_m": good.PIXEL_M}
    with pytest.raises(DataError, match=r"has images in '\.\./strange\.ome\.tif', which is .*--allow_external"):
        read_scan(path, **said)


def two_fields(apart_px: float) -> np.ndarray:
    """Positions of two parts of a sample."""
    positions = good.positions_px().copy()
    positions[good.M // 2 :] += apart_px
    return positions


@pytest.mark.spec("READ-51")
def test_positions_that_ask_for_a_canvas_beyond_its_limit(tmp_path: Path) -> None:
    path = good.write_own(tmp_path / "scan.h5", {"positions_px": two_fields(40_000.0)})
    refused_in_child(["inspect", path], tmp_path, "an object of .* pixels; at most")
    wide = good.write_own(tmp_path / "wide.h5", {"positions_px": two_fields(1500.0)})
    with pytest.raises(DataError, match=r"at most 1000000 are allowed.*--max_canvas"):
        read_scan(wide, limits=Limits(canvas_px=10**6))
    assert read_scan(wide).n_frames == good.M


@pytest.mark.spec("READ-51")
def test_a_canvas_that_memory_has_not_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ptycho_core.data import raw_checks

    monkeypatch.setattr(raw_checks, "memory_left", lambda: 10**5)
    with pytest.raises(DataError, match=r"GB of memory, and 0\.0001 GB are left"):
        read_scan(good.write_own(tmp_path / "scan.h5", {"positions_px": two_fields(500.0)}))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--pad", "4096000", "--bin", "1000"), r"pad = 4096000; a window has 56\d\d pixels"),
        (("--pad", "9" * 40), "must be a whole number"),
        (("--bin", "1000000000"), "bin"),
        (("--crop", "1000000000000"), "crop = 1000000000000, but frames are 16×16"),
    ],
)
def test_windows_of_absurd_sides_are_refused(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    refused(["inspect", good.write_own(tmp_path / "scan.h5"), *words], tmp_path, says)


def test_frames_that_are_binned_are_read_some_at_a_time() -> None:
    class Watched:
        shape = (300, 1024, 1024)
        most = 0

        def read(self, numbers):
            self.most = max(self.most, len(numbers))
            return np.ones((len(numbers), 1024, 1024), np.float32) * numbers[:, None, None]

    base = Watched()
    binned = WindowedFrames(base, 0, 0, 8, 128).read(np.arange(40))
    np.testing.assert_array_equal(binned[:, 3, 5], np.arange(40) * 128.0**2)
    assert base.most <= 16


# --- what is given, said and shown ----------------------------------------------------------------------------------


def test_limits_hold_in_a_block_and_nowhere_else() -> None:
    few = Limits(objects=3)
    with within(few):
        assert limits_at_work() is few
        with pytest.raises(ZeroDivisionError), within(Limits(objects=4)):
            raise ZeroDivisionError
        assert limits_at_work() is few
    assert limits_at_work() is DEFAULT_LIMITS


def test_every_limit_has_an_option_on_every_command_that_reads() -> None:
    from ptycho_core.cli import compare, convert, export, inspect, orient, reconstruct, run, train

    given = ["--max_memory", "4000.5", "--max_seconds", "60", "--max_canvas", "300000000", "--max_objects", "5"]
    given += ["--max_nesting", "7", "--no_guard", "--allow_external"]
    wanted = Limits(
        memory_mb=4000.5, seconds=60, canvas_px=300_000_000, objects=5, nesting=7, external=True, guard=False
    )
    assert {f"--{name}" for name in ("no_guard", "allow_external")} < set(READING[COST])
    for command in (run, train, reconstruct, inspect, orient, convert, compare, export):
        names = ["a", "b"] if command in (convert, compare) else ["a"]
        names += ["--model", "m"] if command is reconstruct else []
        options = parse(command.build_parser(), [*names, *given])
        assert limits_given(options) == wanted, command
        if command not in (compare, export):
            assert read_options(options).limits == wanted, command
            assert read_options(options).allow_external
    for option, value in (("memory", "nan"), ("memory", "-1"), ("objects", "1.5"), ("objects", "0"), ("canvas", "x")):
        with pytest.raises(ConfigError, match=f"--max_{option} = {value}"):
            limits_given({f"max_{option}": value})


def test_lists_of_names_are_short_and_suggestions_quick() -> None:
    names = [f"name{number:05d}" for number in range(10_000)]
    assert listed(names, 3) == "name00000, name00001, name00002 and 9997 more"
    assert listed(["a\x1b", "b" * 10_000]).startswith("a\\x1b, bbb")
    assert len(listed(["b" * 10_000])) < 300
    assert suggest("name00002x", names).startswith(" Did you mean 'name00002' or ")
    assert suggest("x" * 10**6, ["y" * 10**6] * 10**5) == ""


# --- frames that are read without the child -------------------------------------------------------------------------


def test_frames_in_one_piece_are_mapped_and_others_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptycho_core.io import direct_frames as module

    monkeypatch.setattr(module, "_LEAST_BYTES", 1)
    frames = np.arange(5 * 6 * 8).reshape(5, 6, 8)
    numbers = np.array([4, 0, 0, 3])
    kinds = {
        "plain": {"dtype": "<u2"},
        "big": {"dtype": ">i4"},
        "float": {"dtype": "<f4"},
        "chunked": {"dtype": "<u2", "chunks": (1, 6, 8)},
        "packed": {"dtype": "<u2", "chunks": (1, 6, 8), "compression": "gzip"},
        "bool": {"dtype": bool},
    }
    for block in (0, 512):
        path = tmp_path / f"scan{block}.h5"
        with h5py.File(path, "w", userblock_size=block) as h5:
            for name, how in kinds.items():
                h5.create_dataset(name, data=frames % 2 if name == "bool" else frames, **how)
            h5["four"] = frames.reshape(1, 5, 6, 8).astype("<u2").transpose(0, 2, 3, 1)
        for name in kinds:
            source = Hdf5Frames(path, name, frames.shape, "amplitude")
            mapped = direct_frames(source)
            assert isinstance(mapped, Hdf5Frames) == (name in ("chunked", "packed", "bool")), name
            np.testing.assert_array_equal(mapped.read(numbers), source.read(numbers), err_msg=name)
        four = Hdf5Frames(path, "four", (1, 6, 8, 5), "counts", (3,), (2, 1))
        assert not isinstance(direct_frames(four), Hdf5Frames)
        np.testing.assert_array_equal(direct_frames(four).read(numbers), four.read(numbers))


def test_frames_that_the_file_is_too_short_for_are_left_to_the_library(tmp_path: Path, monkeypatch) -> None:
    from ptycho_core.io import direct_frames as module

    monkeypatch.setattr(module, "_LEAST_BYTES", 1)
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as h5:
        h5["frames"] = np.ones((50, 16, 16), "<u2")
    source = Hdf5Frames(path, "frames", (50, 16, 16))
    assert direct_frames(source) is not source
    assert direct_frames(Hdf5Frames(path, "frames", (51, 16, 16))) == Hdf5Frames(path, "frames", (51, 16, 16))


def test_what_is_in_memory_is_held_to_the_size_of_frames_too() -> None:
    from ptycho_core.data.recording import Recording

    recording = Recording(frames=ArrayFrames(np.ones((2, 64, 64))), positions=None)
    check_claims(recording, Path("scan"), DEFAULT_LIMITS)
    with pytest.raises(DataError, match="a frame may have 4000 pixels at most"):
        check_claims(recording, Path("scan"), Limits(memory_mb=0.096))


@pytest.mark.spec("READ-52")
def test_whatever_settling_raises_is_an_error_of_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptycho_core.io.settle import scan as settle

    path = good.write_own(tmp_path / "scan.h5")
    for error in (OverflowError("too large"), KeyError("x"), MemoryError(), RecursionError()):
        monkeypatch.setattr(settle, "placed_positions", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(DataError, match=r"scan\.h5: ") as found:
            read_scan(path)
        assert found.value.__cause__ is error
        refused(["inspect", path], tmp_path)


def test_a_probe_of_too_many_modes_is_refused_where_it_is_read(tmp_path: Path) -> None:
    path = good.write_h5(tmp_path / "probe.h5", {"probe": unallocated((100, 4096, 4096), "c8")})
    with pytest.raises(DataError, match="at most 256 MB"):
        read_probe(path)
