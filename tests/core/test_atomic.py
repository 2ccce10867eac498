"""Every output is the old file or the new one, whatever happens in between."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ptycho_core.errors import OutputError
from ptycho_core.io import atomic
from ptycho_core.io.atomic import atomic_path, ensure_output_folder, sweep_temporaries, write_bytes, write_text

WRITERS = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")


@pytest.mark.spec("CONV-8")
def test_the_new_file_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "result.h5"
    target.write_text("old")
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path  # another file system could not be renamed from
        assert temporary.suffix == ".h5"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["result.h5"]


@pytest.mark.spec("CONV-8")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "result.json"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


@pytest.mark.spec("CONV-8")
def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    target.write_text("old")
    code = (
        "import os, signal, sys\nfrom ptycho_core.io.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n"
        "    path.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"


@pytest.mark.spec("CONV-8")
def test_the_content_is_flushed_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    write_bytes(tmp_path / "a", b"x")
    assert calls == ["fsync", "replace"]


def left_by_a_killed_process(folder: Path, target: str) -> Path:
    """A temporary file whose process is gone."""
    code = (
        "import os, signal, sys\nfrom ptycho_core.io.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / target)], check=False)
    (found,) = set(folder.glob(f".{target}.*.partial*"))
    return found


@pytest.mark.spec("RES-11")
@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals, and no locks, there")
def test_whoever_writes_a_file_next_removes_what_a_killed_process_left_of_it(tmp_path: Path) -> None:
    left, other = (left_by_a_killed_process(tmp_path, name) for name in ("a.h5", "b.h5"))
    write_bytes(tmp_path / "a.h5", b"x")
    assert not left.exists()
    assert other.exists()
    with atomic_path(tmp_path / "b.h5") as first:
        write_bytes(tmp_path / "b.h5", b"y")  # at the same time: what is being written is locked
        assert first.exists()
        assert not other.exists()
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "b.h5"]


@pytest.mark.spec("RES-11")
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes, and no locks, there")
def test_only_temporaries_of_ours_are_swept(tmp_path: Path) -> None:
    ours = [f".a.h5.{'0a' * 16}.partial.h5", ".a.h5.k_x8ab12.partial.h5", f".history.csv.{'0' * 32}.partial.csv"]
    theirs = [
        f"a.h5.{'0a' * 16}.partial.h5", f".a.h5.{'0a' * 16}.partial.npz", f".a.h5.{'0A' * 16}.partial.h5",
        f".a.h5.{'0a' * 15}.partial.h5", ".a.h5.partial.h5", f".a.h5.{'0a' * 16}.partial.h5.bak", ".partial",
        f".{'0a' * 16}.partial",
    ]  # fmt: skip
    for name in [*ours, *theirs]:
        (tmp_path / name).write_text("x")
    (tmp_path / "elsewhere").write_text("mine")
    special = [f".{letter}.h5.{'0b' * 16}.partial.h5" for letter in "bcd"]
    (tmp_path / special[0]).mkdir()
    (tmp_path / special[1]).symlink_to("elsewhere")
    os.mkfifo(tmp_path / special[2])
    sweep_temporaries(tmp_path)
    sweep_temporaries(tmp_path / "none")
    assert sorted(os.listdir(tmp_path)) == sorted([*theirs, *special, "elsewhere"])
    assert (tmp_path / "elsewhere").read_text() == "mine"


@pytest.mark.spec("RES-11")
@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks there")
def test_leftovers_go_also_where_a_lock_asks_for_a_file_that_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    real = fcntl.flock

    def of_a_network_drive(handle: int, how: int) -> None:
        if how & fcntl.LOCK_EX and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", of_a_network_drive)
    (tmp_path / f".a.h5.{'0a' * 16}.partial.h5").write_text("x")
    sweep_temporaries(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_long_name_has_a_temporary_too(tmp_path: Path) -> None:
    name = "ψ" * 124 + ".json"  # 253 bytes
    write_text(tmp_path / name, "x")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks there")
def test_a_temporary_that_was_swept_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, first = atomic._lock, []

    def lock(handle: int) -> bool:
        if not first:
            first.extend(tmp_path.iterdir())
            first[0].unlink()
        return real(handle)

    monkeypatch.setattr(atomic, "_lock", lock)
    write_text(tmp_path / "a.txt", "x")
    assert len(first) == 1
    assert (tmp_path / "a.txt").read_text() == "x"


@pytest.mark.spec("CONV-8")
def test_results_are_readable_like_other_files(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "µm, ψ\n")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").read_bytes() == "µm, ψ\n".encode()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "b.txt")]
    assert modes[0] == modes[1]


@pytest.mark.spec("CONV-9")
def test_an_impossible_target_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"missing.a\.txt: cannot write there .*; choose a folder that exists"):
        write_text(tmp_path / "missing" / "a.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is a folder; only a regular file is replaced"):
        write_text(tmp_path / "folder", "x")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.spec("CONV-9")
def test_an_output_folder_is_made_and_proved(tmp_path: Path) -> None:
    folder = ensure_output_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert os.listdir(folder) == []
    assert ensure_output_folder(str(folder)) == folder
    (tmp_path / "file").write_text("x")
    for bad in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="the output folder cannot be written"):
            ensure_output_folder(bad)


@WRITERS
@pytest.mark.spec("CONV-9")
def test_a_read_only_folder_is_a_typed_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            ensure_output_folder(tmp_path)
        with pytest.raises(OutputError, match="cannot write there"):
            write_text(tmp_path / "a", "x")
    finally:
        tmp_path.chmod(0o755)
