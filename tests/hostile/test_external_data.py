"""HDF5 files that lead to other files: inside of the scan's folder they are read, outside of it they are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from refusals import refused

from ptycho_core.errors import DataError
from ptycho_core.io import read_scan
from ptycho_core.io.candidate import examine
from ptycho_core.io.h5_beside import places
from ptycho_core.io.planes import read_mask
from ptycho_core.io.probes import read_probe
from ptycho_core.io.settle.beside import read_beside
from ptycho_core.io.stored_reconstruction import read_reconstruction
from ptycho_core.limits import Limits, within

pytestmark = pytest.mark.hostile

M, N = 12, 16
RNG = np.random.default_rng(5)
FRAMES = RNG.poisson(40 * np.exp(-((np.mgrid[:N, :N] - 7.5) ** 2).sum(axis=0) / 12) + 0.2, (M, N, N)).astype("u2")
POSITIONS = np.stack(np.divmod(np.arange(M), 4), axis=-1) * 2.5 + RNG.uniform(0, 0.4, (M, 2))


def scan(path: Path, **links: object) -> Path:
    """A scan in the project's own HDF5; of `links` each is what takes the place of a dataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as h5:
        for name, value in {"frames": FRAMES, "positions_px": POSITIONS, **links}.items():
            if value is not None:
                h5[name] = value
        if "frames" in h5 and isinstance(h5.get("frames", getlink=True), h5py.HardLink):
            h5["frames"].attrs["measurement"] = "counts"
    return path


def frames_file(path: Path, name: str = "data") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as h5:
        h5[name] = FRAMES
        h5[name].attrs["measurement"] = "counts"
    return path


def virtual(path: Path, source: str, inside: str = "data", shape: tuple[int, ...] = FRAMES.shape) -> Path:
    """A scan whose frames are a virtual dataset of another file."""
    layout = h5py.VirtualLayout(shape, "u2")
    layout[:] = h5py.VirtualSource(source, inside, shape)
    with h5py.File(path, "w") as h5:
        h5.create_virtual_dataset("frames", layout)
        h5["frames"].attrs["measurement"] = "counts"
        h5["positions_px"] = POSITIONS
    return path


def stored_in(path: Path, file: str, offset: int = 0) -> Path:
    """A scan whose probe is raw bytes of another file."""
    with h5py.File(scan(path), "r+") as h5:
        h5.create_dataset("probe", (N, N), "f4", external=[(file, offset, N * N * 4)])
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of the scan; what lies beside it is somebody else's."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A file that the scan has no business with."""
    return frames_file(tmp_path / "elsewhere" / "strange.h5")


def said_by(act: Callable[[], object]) -> str:
    """What an error says that an act may raise for another reason."""
    try:
        act()
    except DataError as error:
        return str(error)
    return ""


def refusal_of(path: Path, *words: str) -> None:
    """It is refused by examination, with the way out; allowed, it is not refused for this."""
    with pytest.raises(DataError) as found:
        read_scan(path)
    text = str(found.value)
    for word in (*words, "outside of the scan's folder", str(path.parent), "--allow_external"):
        assert word in text, text
    assert "outside" not in said_by(lambda: read_scan(path, allow_external=True))


@pytest.mark.spec("READ-50")
def test_an_external_link_is_followed_inside_and_refused_outside(home: Path, strange: Path) -> None:
    frames_file(home / "deep" / "inside.h5")
    raw = read_scan(scan(home / "inside.h5", frames=h5py.ExternalLink("deep/inside.h5", "/data")))
    np.testing.assert_array_equal(raw.read_counts(range(M)), FRAMES)
    assert any("deep/inside.h5 was read as if it lay in inside.h5" in text for text in raw.source.assumptions)
    for named in ("../elsewhere/strange.h5", str(strange)):
        path = scan(home / "outside.h5", frames=h5py.ExternalLink(named, "/data"))
        refusal_of(path, "'/frames' is a link to", repr(named), str(strange))
        raw = read_scan(path, allow_external=True)
        np.testing.assert_array_equal(raw.read_counts(range(M)), FRAMES)
    refused(["inspect", path], home.parent, "outside of the scan's folder")
    refused(["convert", path, home / "out.npz"], home.parent, "outside of the scan's folder")


@pytest.mark.spec("READ-50")
def test_a_link_is_refused_by_presence_and_one_that_leads_nowhere_is_not_there(home: Path, strange: Path) -> None:
    refusal_of(scan(home / "unused.h5", **{"some/where/else": h5py.ExternalLink("../elsewhere/strange.h5", "/data")}))
    path = scan(home / "gone.h5", other=h5py.ExternalLink("../elsewhere/gone.h5", "/data"))
    assert read_scan(path).n_frames == M
    assert examine(path).shapes["other"] == "link to /data of ../elsewhere/gone.h5, not there"


@pytest.mark.spec("READ-50")
def test_a_link_through_a_symbolic_link_is_judged_by_what_it_leads_to(home: Path, strange: Path) -> None:
    (home / "near.h5").symlink_to(strange)
    refusal_of(scan(home / "a.h5", frames=h5py.ExternalLink("near.h5", "/data")), str(strange))
    (home / "near").symlink_to(strange.parent)
    refusal_of(scan(home / "b.h5", frames=h5py.ExternalLink("near/strange.h5", "/data")), str(strange))
    # and a scan that is itself a symbolic link is at home where it lies, too
    frames_file(strange.parent / "beside.h5")
    scan(strange.parent / "real.h5", frames=h5py.ExternalLink("beside.h5", "/data"))
    (home / "named.h5").symlink_to(strange.parent / "real.h5")
    assert read_scan(home / "named.h5").n_frames == M


@pytest.mark.spec("READ-50")
def test_what_a_file_inside_leads_to_is_judged_as_well(home: Path, strange: Path) -> None:
    with h5py.File(home / "between.h5", "w") as h5:
        h5["data"] = h5py.ExternalLink("../elsewhere/strange.h5", "/data")
    refusal_of(scan(home / "a.h5", frames=h5py.ExternalLink("between.h5", "/data")), "between.h5")
    refusal_of(virtual(home / "b.h5", "between.h5"), "between.h5")
    with h5py.File(home / "c.h5", "w") as h5:  # by a soft link across the link
        h5["a"] = h5py.SoftLink("/z/data")
        h5["z"] = h5py.ExternalLink("../elsewhere/strange.h5", "/")
    refusal_of(home / "c.h5", "strange.h5")
    virtual(home / "d.h5", "b.h5", "frames")
    refusal_of(home / "d.h5", "between.h5")


@pytest.mark.spec("READ-50")
def test_virtual_sources_are_followed_inside_and_refused_outside(home: Path, strange: Path) -> None:
    frames_file(home / "inside.h5")
    raw = read_scan(virtual(home / "a.h5", "inside.h5"))
    np.testing.assert_array_equal(raw.read_counts(range(M)), FRAMES)
    assert any("inside.h5 was read as if" in text for text in raw.source.assumptions)
    for named in ("../elsewhere/strange.h5", str(strange)):
        refusal_of(virtual(home / "b.h5", named), "'/frames' is a virtual dataset of", repr(named))
    with pytest.raises(DataError, match="virtual dataset of itself"):
        read_scan(virtual(home / "c.h5", ".", "frames"))
    with pytest.raises(DataError, match=r"c2\.h5.*(virtual|ended|read)"):
        read_scan(virtual(home / "c2.h5", "c2.h5", "frames"))


def of_blocks(path: Path, pattern: str) -> Path:
    """A scan whose frames come from files numbered from 0, as HDF5 counts them (``%b``)."""
    block = (4, N, N)
    with h5py.File(scan(path, frames=None), "r+") as h5:
        space = h5py.h5s.create_simple((M, N, N), (h5py.h5s.UNLIMITED, N, N))
        space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), stride=(4, 1, 1), block=block)
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_virtual(space, pattern.encode(), b"data", h5py.h5s.create_simple(block))
        whole = h5py.h5s.create_simple((M, N, N), (h5py.h5s.UNLIMITED, N, N))
        h5py.h5d.create(h5.id, b"frames", h5py.h5t.STD_U16LE, whole, made)
        h5["frames"].attrs["measurement"] = "counts"
    return path


@pytest.mark.spec("READ-50")
def test_virtual_sources_by_a_pattern_are_judged_block_by_block(home: Path, strange: Path) -> None:
    for number in range(3):
        with h5py.File(home / f"part%{number}.h5", "w") as h5:
            h5["data"] = FRAMES[4 * number : 4 * number + 4]
    path = of_blocks(home / "a.h5", "part%%%b.h5")
    np.testing.assert_array_equal(read_scan(path).read_counts(range(M)), FRAMES)
    (home / "part%2.h5").unlink()
    (home / "part%2.h5").symlink_to(strange)
    refusal_of(path, "part%2.h5")
    for number in range(3):
        frames_file(strange.parent / f"block{number}.h5")
    refusal_of(of_blocks(home / "b.h5", "../elsewhere/block%b.h5"), "block0.h5")


@pytest.mark.spec("READ-50")
@pytest.mark.parametrize("named", ["/etc/passwd", "secret.txt"])
def test_external_storage_outside_is_refused_wherever_it_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (tmp_path / "secret.txt").write_bytes(b"password" * 200)
    monkeypatch.chdir(tmp_path)  # HDF5 takes the names of storage from the working directory
    path = stored_in(home / "a.h5", named)
    refusal_of(path, "'/probe' is stored in", repr(named))
    refused(["run", path, "--out", tmp_path / "out"], tmp_path, "is stored in")


@pytest.mark.spec("READ-50")
def test_external_storage_inside_is_read_as_hdf5_finds_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = RNG.uniform(1, 2, (N, N)).astype("f4")
    (home / "probe.bin").write_bytes(probe.tobytes())
    monkeypatch.chdir(home)
    raw = read_scan(stored_in(home / "a.h5", "probe.bin"))
    np.testing.assert_array_equal(raw.probe, probe[None])
    assert any("probe.bin was read as if" in text for text in raw.source.assumptions)


@pytest.mark.spec("READ-50")
def test_variables_of_hdf5_lead_nowhere_else(home: Path, strange: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would have it take another file than was judged; a new child is asked, which would obey them."""
    from ptycho_core.io.guarded import client

    frames_file(home / "strange.h5")
    with h5py.File(strange, "r+") as h5:
        h5["data"][...] = 7
    for name in ("HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX"):
        monkeypatch.setenv(name, str(strange.parent))
    client._close()
    linked = scan(home / "b.h5", frames=h5py.ExternalLink("strange.h5", "data"))
    for path in (virtual(home / "a.h5", "strange.h5"), linked):
        np.testing.assert_array_equal(read_scan(path).read_counts(range(M)), FRAMES)
    client._close()


@pytest.mark.spec("READ-50")
@pytest.mark.parametrize("how", ["link", "virtual", "storage"])
def test_what_is_no_regular_file_is_refused_also_where_others_are_allowed(
    home: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(home / "pipe")
    monkeypatch.chdir(home)
    path = {
        "link": lambda: scan(home / "a.h5", frames=h5py.ExternalLink("pipe", "/data")),
        "virtual": lambda: virtual(home / "a.h5", "pipe"),
        "storage": lambda: stored_in(home / "a.h5", "pipe"),
    }[how]()
    for allowed in (False, True):
        with pytest.raises(DataError, match="a named pipe"):
            read_scan(path, allow_external=allowed)
    with pytest.raises(DataError, match="a character device"):
        read_scan(stored_in(home / "b.h5", "/dev/zero"), allow_external=True)


@pytest.mark.spec("READ-50")
def test_every_door_judges_alike(home: Path, strange: Path) -> None:
    outside = h5py.ExternalLink("../elsewhere/strange.h5", "/data")
    good = scan(home / "scan.h5", other=None)
    doors = {
        "mask.h5": lambda path: read_mask(Path(f"{path}:/mask"), None),
        "probe.h5": read_probe,
        "positions.h5": read_beside,
        "reconstruction.h5": read_reconstruction,
    }
    for name, read in doors.items():
        with h5py.File(home / name, "w") as h5:
            h5["mask"] = np.ones((N, N), bool)
            h5["y"], h5["x"] = POSITIONS.T
            h5["probe"] = np.ones((N, N), "c8")
            h5["elsewhere"] = outside
        with pytest.raises(DataError, match="outside of the scan's folder"):
            read(home / name)
        with within(Limits(external=True)):
            assert "outside" not in said_by(lambda read=read, name=name: read(home / name))
    refused(["inspect", good, "--mask", f"{home}/mask.h5:/mask"], home.parent, "outside of the scan's folder")
    refused(["inspect", good, "--positions", home / "positions.h5"], home.parent, "outside of the scan's folder")


@pytest.mark.spec("READ-50")
def test_every_file_of_a_series_is_judged(home: Path, strange: Path) -> None:
    for number in range(M):
        with h5py.File(home / f"frame_{number}.h5", "w") as h5:
            h5["data"] = FRAMES[number]
            if number == 7:
                h5["more"] = h5py.ExternalLink("../elsewhere/strange.h5", "/data")
    (home / "positions.txt").write_text("\n".join(f"{y} {x}" for y, x in POSITIONS))
    said = {"positions": home / "positions.txt", "position_unit": "px"}
    with pytest.raises(DataError, match=r"frame_7\.h5.*outside"):
        read_scan(home / "frame_*.h5", **said)
    assert read_scan(home / "frame_*.h5", allow_external=True, **said).n_frames == M


def test_files_are_looked_for_where_hdf5_does(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of places is held to the library: in each place alone, and with all later ones there too."""
    work, real = tmp_path / "work", tmp_path / "real"
    for folder in (work, real):
        folder.mkdir()
    monkeypatch.chdir(work)
    for named in ("other.h5", "deep/other.h5", "../x/other.h5", str(tmp_path / "gone" / "other.h5")):
        scan(real / "main.h5", frames=h5py.ExternalLink(named, "/n"))
        (home / "main.h5").unlink(missing_ok=True)
        (home / "main.h5").symlink_to(real / "main.h5")
        candidates = places(named, home / "main.h5")
        for number in reversed(range(len(candidates))):
            place = candidates[number]
            place.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(place, "w") as h5:
                h5["n"] = number
            with h5py.File(home / "main.h5", "r") as h5:
                assert h5["frames"][()] == number, (named, candidates)
        for place in candidates:
            place.unlink(missing_ok=True)  # two names may lead to one
