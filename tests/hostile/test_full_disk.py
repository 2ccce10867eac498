"""On a disk of any size a command ends with one line and exit code 2, the older result whole; or it is done."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from preloaded import built, started

from ptycho_core.cli.log_file import LogFile
from ptycho_core.cli.main import main
from ptycho_core.errors import OutputError
from ptycho_core.io import h5_output, room
from ptycho_core.machine_faults import MACHINE_FAULTS

pytestmark = pytest.mark.hostile

LONG = os.environ.get("PTYCHO_HOSTILE") == "long"
FILES = [
    "convert-npz", "convert-h5", "convert-cxi", "convert-nxs", "export-tiff", "export-cxi", "export-ptyr",
    "export-npz", "export-product", "simulate", "train", "reconstruct",
]  # fmt: skip


def check(printed: str, *, at_least: int) -> list[dict]:
    """Hold every size to the rule; the rows."""
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert len(rows) >= at_least
    assert rows[-1]["code"] == 0
    for row in rows:
        said, where = row["said"], (row["n"], row["said"][-600:])
        assert (row["code"], row["state"]) in ((2, "old"), (0, "new")), (row["code"], row["state"], where)
        assert row["left"] == [], (row["left"], where)
        for word in ("Traceback", "Logging error", "Exception ignored", "unexpected"):
            assert word not in said, where
        errors = [line for line in said.splitlines() if line.startswith("ptycho: ")]
        # what a file may be no longer than 0 bytes for holds for what is said, too
        assert len(errors) == (row["code"] == 2 and said != ""), where
    return rows


@pytest.mark.spec("RES-9")
def test_a_run_on_a_disk_that_fills_up_after_every_50_kB(tmp_path: Path) -> None:
    rows = check(
        started("disk_points.py", str(tmp_path), "fault", "run", "50000", library=built(tmp_path)), at_least=15
    )
    rescued = [row for row in rows if "The image is whole in" in row["said"]]
    assert rescued
    assert all(row["code"] == 2 for row in rescued)


@pytest.mark.spec("RES-9")
def test_every_command_that_writes(tmp_path: Path) -> None:
    printed = started("disk_points.py", str(tmp_path), "fault", ",".join(FILES), "100000", library=built(tmp_path))
    for command in FILES:
        check("\n".join(line for line in printed.splitlines() if f'"command": "{command}"' in line), at_least=3)


@pytest.mark.spec("RES-9")
def test_a_small_disk_that_is_real(tmp_path: Path) -> None:
    """A tmpfs of every size; where none may be mounted, the same is tried by injection above."""
    apart = ("unshare", "-rm")
    may = (
        shutil.which("unshare")
        and not subprocess.run(
            [*apart, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, check=False
        ).returncode
    )
    if not may:
        pytest.skip("no file system may be mounted here")
    step = "50000" if LONG else "150000"
    check(started("disk_points.py", str(tmp_path), "tmpfs", "run", step, before=apart), at_least=5)


@pytest.mark.spec("RES-9")
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits there")
@pytest.mark.parametrize(
    ("how", "command", "step"), [("fsize", "run", 100_000), ("fsize", "convert-h5", 90_000), ("nofile", "run", 2)]
)
def test_limits_of_the_process(tmp_path: Path, how: str, command: str, step: int) -> None:
    """No compiler and no rights are needed: files that may not be longer, and handles that run out."""
    check(started("disk_points.py", str(tmp_path), how, command, str(step)), at_least=4)


class SmallFile:
    """A file that takes so many bytes and no more."""

    def __init__(self, file, most: int) -> None:
        self.file, self.most = file, most

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def write(self, view: memoryview) -> int:
        some = view[: max(self.most - self.file.tell(), 0)]
        if not some:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(some)


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch):
    """Set how many bytes each HDF5 file may take from here on."""
    begin, most = h5_output._Disk.__init__, [0]

    def begin_small(self, path: Path) -> None:
        begin(self, path)
        self._file = SmallFile(self._file, most[0])

    monkeypatch.setattr(h5_output._Disk, "__init__", begin_small)
    return lambda n: most.__setitem__(0, n)


def is_written(write, path: Path) -> bool:
    """Whether the disk took all of it; the only other end is that it was full."""
    try:
        write(path)
    except OSError as error:
        return error.errno != errno.ENOSPC
    return True


def test_hdf5_closes_in_peace_whenever_the_disk_is_full(tmp_path: Path, room_for) -> None:
    """The error comes at the next look, or at the end; what HDF5 reads back meanwhile is what it wrote."""
    frames = np.random.default_rng(1).normal(size=(30, 24, 20)).astype(np.float32)

    def write(path: Path) -> None:
        with h5_output.h5_output(path) as (file, look):
            stack = file.create_dataset("frames", frames.shape, "f4", chunks=(1, 24, 20), compression="gzip")
            for number, frame in enumerate(frames):
                stack[number] = frame
                np.testing.assert_array_equal(stack[number], frame)
                file.create_group(f"group {number}")["more"] = frame
                if number % 7 == 6:
                    look()

    ended = []
    for n in [*range(0, 150_000, 9_000), 10**7]:
        room_for(n)
        ended.append(is_written(write, tmp_path / "file.h5"))
    assert ended == sorted(ended)
    assert set(ended) == {False, True}
    with h5py.File(tmp_path / "file.h5") as file:
        np.testing.assert_array_equal(file["frames"][()], frames)


def test_what_fails_only_when_hdf5_closes_is_told(tmp_path: Path, room_for) -> None:
    def write(path: Path) -> None:
        with h5_output.h5_output(path) as (file, _):
            file["values"] = np.arange(50.0)
            file.attrs["more"] = "words"

    path = tmp_path / "file.h5"
    room_for(10**6)
    write(path)
    for n in range(0, path.stat().st_size, 97):
        room_for(n)
        assert not is_written(write, path), n


def test_what_the_disk_does_not_take_is_read_back(tmp_path: Path, room_for) -> None:
    room_for(10)
    disk = h5_output._Disk(tmp_path / "file")
    content = bytes(range(40))
    for at in (0, 4, 20, 15):  # the later write counts
        disk.seek(at)
        assert disk.write(content[: 40 - at]) == 40 - at
    with pytest.raises(OSError, match="No space left"):
        disk.check()
    disk.seek(0)
    expected = content[:4] + content[:11] + content[:25]
    assert disk.read(45) == expected + bytes(5)
    assert disk.seek(0, 2) == 40
    disk.close()
    assert (tmp_path / "file").read_bytes() == content[:10]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_log_on_a_full_disk_says_nothing_and_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    def record(text: str) -> logging.LogRecord:
        return logging.LogRecord("a", logging.INFO, "", 0, text, None, None)

    full = LogFile(Path("/dev/full"))
    for _ in range(3):
        full.handle(record("lost"))
    assert full.lost == 3
    full.close()
    log = LogFile(tmp_path / "log")
    log.lost = 3
    log.handle(record("kept \udc80"))
    log.close()
    assert (tmp_path / "log").read_text() == "3 line(s) of this log could not be written\nkept \\udc80\n"
    assert capfd.readouterr() == ("", "")


def test_room_is_asked_for_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    scan, out = tmp_path / "scan.npz", tmp_path / "new" / "result"
    assert main(["simulate", "--out", str(scan), "--N", "16", "--n_frames", "20"]) == 0
    monkeypatch.setattr(room, "_free", lambda folder: 4096)
    assert main(["run", str(scan), "--backend", "numpy", "--despite_findings", "--out", str(out)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ptycho: ")]
    assert "the result takes at least 0.0 MB and 0.0 MB are free" in line
    assert not out.parent.exists()


def test_room_is_not_asked_for_where_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room.check_room(tmp_path, 1000)
    with pytest.raises(OutputError, match="are free on its disk; make room there"):
        room.check_room(tmp_path, 10**18)
    monkeypatch.setattr(os, "statvfs", lambda path: (_ for _ in ()).throw(OSError(errno.ENOSYS, "no")))
    room.check_room(tmp_path, 10**18)


@pytest.mark.parametrize(
    "number", sorted({errno.EMFILE, errno.ENFILE, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE})
)
def test_errors_of_the_machine_are_no_fault_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    assert number in MACHINE_FAULTS
    monkeypatch.setattr("ptycho_core.simulation.simulate_scan", lambda config: os_error(number))
    assert main(["simulate", "--out", str(tmp_path / "scan.npz")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert os.strerror(number) in line


def os_error(number: int) -> None:
    raise OSError(number, os.strerror(number))
