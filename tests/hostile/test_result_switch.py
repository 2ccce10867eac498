"""Killed at every place where it changes its folder, a command leaves the old result or the new one, whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from preloaded import built, environment, started
from result_judge import judged, leftovers

from ptycho_core.cli.main import main
from ptycho_core.errors import OutputError
from ptycho_core.io import result_switch
from ptycho_core.io.reconstruction_file import read_reconstruction
from ptycho_core.io.result_folder import ResultFolder, read_result_summary, verify_result

pytestmark = pytest.mark.hostile

OLD = {"reconstruction.h5": "old image", "model.ptycho": "old model", "frc.png": "old curve", "report.html": "old"}
NEW = {"reconstruction.h5": "new image", "model.ptycho": "new model", "probe.png": "new probe", "report.html": "new"}

EVERY = 1 if os.environ.get("PTYCHO_HOSTILE") == "long" else 7
"""How many places there are from one that is tried to the next, where all would take minutes."""


def put(folder: Path, files: dict[str, str]) -> str:
    with ResultFolder.open(folder, overwrite=True) as result, result.staged() as partial:
        for name, text in files.items():
            (partial / name).write_text(text)
        (partial / "summary.json").write_text('{"title": "x"}')
    return result.run_id


@pytest.mark.spec("RES-1", "RES-2")
@pytest.mark.parametrize("start", ["old", "none"])
def test_killed_at_every_place_of_writing_results_the_folder_reads_as_one_of_them(tmp_path: Path, start: str) -> None:
    """At once, by plain reading; and the next command makes the same of it and leaves nothing over."""
    lines = started("switch_points.py", str(tmp_path), start, str(EVERY), library=built(tmp_path)).splitlines()
    places, *rows = map(json.loads, lines)
    assert places["places"] > 100
    kinds = Counter((row["at once"], row["after"]) for row in rows)
    assert set(kinds) == {(start, start), (start, "new"), ("new", "new")}
    assert all(row["killed"] for row in rows)
    assert [row for row in rows if row["left"]] == []
    # the pointer turns once: old before it, new from there on
    for mode in (1, 2):
        seen = [row["at once"] for row in rows if row["mode"] == mode]
        assert seen == sorted(seen, key="new".__eq__)
        assert seen.count("new") > (5 if mode == 1 else 0)


@pytest.mark.spec("RES-1")
def test_a_whole_command_killed_on_its_way_leaves_one_result(tmp_path: Path) -> None:
    library, scan, out = built(tmp_path), tmp_path / "scan.npz", tmp_path / "out" / "result"
    assert main(["simulate", "--out", str(scan), "--N", "16", "--n_frames", "20", "--seed", "3"]) == 0
    command = ["run", str(scan), "--backend", "numpy", "--epochs", "1", "--despite_findings", "--out", str(out)]
    assert main(command) == 0
    known = {json.loads((out / "summary.json").read_text())["run_id"]: "old"}
    kept, states = shutil.copytree(out, tmp_path / "kept"), set()
    for place in (1, 2, 9, 40, 77, 140, 300, 390, 400, 410, 420)[:: 1 if EVERY == 1 else 2]:
        shutil.rmtree(out)
        shutil.copytree(kept, out)
        arm = {"FAULT_ROOT": str(out), "FAULT_MODE": "1", "FAULT_N": str(place)}
        done = subprocess.run(
            [sys.executable, "-m", "ptycho_core.cli", *command, "--overwrite"],
            env=environment(library, **arm), capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL
        state = judged(out, known).replace("an unknown run", "new")
        assert state in ("old", "new"), (place, state)
        states.add(state)
    assert "old" in states


CHANGES = ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync", "link", "symlink")


@pytest.mark.spec("RES-1", "RES-2")
@pytest.mark.parametrize("links", ["links", "no hard links", "no links"])
def test_whoever_looks_between_two_steps_sees_one_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: str
) -> None:
    """Before every call that changes the folder; where links are missing, a summary is true of what lies beside it."""
    folder, seen = tmp_path / "result", []
    known = {put(folder, OLD): "old"}

    def looking(name: str):
        real = getattr(os, name)

        def call(*given, **how):
            seen.append(judged(folder, known).replace("an unknown run", "new"))
            if (name == "link" and links != "links") or (name == "symlink" and links == "no links"):
                raise OSError(errno.EOPNOTSUPP, "Operation not supported")
            return real(*given, **how)

        return call

    with monkeypatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, looking(name))
        put(folder, NEW)
    states = {"none" if state.startswith("no summary") else state for state in seen if not state.startswith("listed")}
    missing = [state for state in seen if state.startswith(("no summary", "listed"))]
    assert states == ({"old", "new"} if links == "links" else {"old", "none", "new"})
    if links == "links":
        assert missing == []
    if links == "no links":
        assert not [state for state in missing if state.startswith("listed")]
    assert len(seen) > 40
    assert {name: (folder / name).read_text() for name in NEW} == NEW


def interrupted_switch(folder: Path, monkeypatch: pytest.MonkeyPatch, *, after: bool, links: bool = True) -> None:
    """Leave a switch from OLD to NEW that ends just before, or just after, the pointer turns."""

    class Killed(BaseException):
        pass

    def end(self: object, where: str) -> None:
        if where == result_switch._AFTER:
            if after:
                point(self, where)
            raise Killed
        point(self, where)

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    put(folder, OLD)
    point = result_switch.Switch._point
    with monkeypatch.context() as patch:
        patch.setattr(result_switch.Switch, "_point", end)
        if not links:
            patch.setattr(os, "symlink", no_links)
            patch.setattr(os, "link", no_links)
        with pytest.raises(Killed):
            put(folder, NEW)


@pytest.mark.spec("RES-1")
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("links", [True, False])
def test_a_switch_that_was_cut_off_reads_as_one_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool, links: bool
) -> None:
    """With links for whoever reads; without them for this program, and nobody sees files of both."""
    folder, files = tmp_path / "result", NEW if after else OLD
    interrupted_switch(folder, monkeypatch, after=after, links=links)
    assert len(list(folder.glob(".commit-*"))) == 1
    assert verify_result(folder) == []
    summary = read_result_summary(folder)
    assert summary is not None
    assert summary["files"].keys() == files.keys()
    seen = {name: (folder / name).read_text() for name in {*OLD, *NEW} if (folder / name).exists()}
    assert seen == (files if links else {})
    for name, text in files.items():
        assert result_switch.where_it_lies(folder / name).read_text() == text
    gone = ({*OLD, *NEW} - files.keys()).pop()
    assert not result_switch.where_it_lies(folder / gone).exists()
    moved = tmp_path / "elsewhere"  # links lead within the folder
    folder.rename(moved)
    assert verify_result(moved) == []
    with ResultFolder.open(moved, overwrite=True) as opened:
        assert opened.kept == []
    assert {name: (moved / name).read_text() for name in NEW} == NEW
    assert leftovers(moved) == []
    assert not (moved / "frc.png").exists()


@pytest.mark.spec("RES-1")
def test_a_reader_finds_an_image_whose_name_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted_switch(tmp_path / "result", monkeypatch, after=False, links=False)
    with pytest.raises(Exception, match=r"\.commit-[0-9a-f]{32}/\.old/reconstruction\.h5"):  # that it is no HDF5
        read_reconstruction(tmp_path / "result" / "reconstruction.h5")


@pytest.mark.spec("RES-3")
def test_links_of_a_stranger_are_no_switch(tmp_path: Path) -> None:
    put(tmp_path, OLD)
    (tmp_path / "report.html").unlink()
    target = tmp_path / f".commit-{'a' * 32}" / ".now"
    target.mkdir(parents=True)
    (target / "report.html").write_text("old, but theirs")
    (tmp_path / "report.html").symlink_to(f".commit-{'a' * 32}/.now/report.html")
    assert verify_result(tmp_path) == ["report.html"]
    put(tmp_path, NEW)
    assert (target / "report.html").read_text() == "old, but theirs"
    assert (tmp_path / "report.html").read_text() == "new"


@pytest.mark.spec("RES-1", "RES-3")
@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "pipe", "read-only", "annotated"])
@pytest.mark.parametrize("name", ["report.html", "reconstruction.h5", "summary.json"])
def test_what_lies_in_the_way_is_kept_and_nothing_is_half_replaced(tmp_path: Path, kind: str, name: str) -> None:
    folder, path = tmp_path / "result", tmp_path / "result" / name
    put(folder, OLD)
    path.unlink()
    if kind == "folder":
        (path / "deep").mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind.endswith("link"):
        path.symlink_to(tmp_path / "mine")
        if kind == "link":
            (tmp_path / "mine").write_text("mine")
    else:
        path.write_text("mine")
        path.chmod(0o400 if kind == "read-only" else 0o644)
    was = path.lstat()
    put(folder, NEW)
    if name == "summary.json":  # nothing says any more whose this is, so it is left
        assert (folder / "frc.png").read_text() == "old curve"
        (folder / "frc.png").unlink()
    assert judged(folder, {}) == "an unknown run"
    (aside,) = folder.glob(f"{path.stem}.kept-*{path.suffix}")
    assert stat.S_IFMT(aside.lstat().st_mode) == stat.S_IFMT(was.st_mode)
    assert aside.lstat().st_ino == was.st_ino
    if kind == "link":
        assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.spec("RES-3")
def test_what_lay_in_the_way_is_back_when_the_switch_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "result"
    put(folder, OLD)
    (folder / "probe.png").mkdir()
    (folder / "probe.png" / "mine").write_text("mine")
    point = result_switch.Switch._point

    def full(self: object, where: str) -> None:
        if where == result_switch._AFTER:
            raise OSError(errno.ENOSPC, "No space left on device")
        point(self, where)

    with monkeypatch.context() as patch:
        patch.setattr(result_switch.Switch, "_point", full)
        assert "No space left" in str(refused(folder))
    assert (folder / "probe.png" / "mine").read_text() == "mine"
    assert not (folder / "probe.png").is_symlink()
    assert {name: (folder / name).read_text() for name in OLD} == OLD
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == leftovers(folder)
    assert len(leftovers(folder)) == 1


def test_a_link_to_another_name_of_a_switch_is_none_of_its_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "result"
    interrupted_switch(folder, monkeypatch, after=False)
    text = os.readlink(folder / "report.html")
    (folder / "losses.png").symlink_to(text)
    assert result_switch.is_switch_link(folder / "report.html")
    assert not result_switch.is_switch_link(folder / "losses.png")


def refused(folder: Path) -> str | None:
    """What is said where NEW cannot be put in place."""
    try:
        put(folder, NEW)
    except OutputError as error:
        return str(error)
    return None


@pytest.mark.spec("RES-1")
@pytest.mark.parametrize("name", ["reconstruction.h5", "summary.json", "frc.png", "probe.png"])
@pytest.mark.parametrize("call", ["link", "rename", "symlink", "replace"])
def test_a_name_that_cannot_be_moved_leaves_the_old_result_and_keeps_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: str
) -> None:
    """As with an immutable file: every call that has to do with the one name is refused."""
    folder = tmp_path / "result"
    old = put(folder, OLD)
    real = {which: getattr(os, which) for which in ("link", "rename", "symlink", "replace")}

    def refusing(which: str):
        def refuse(source, target, **how):
            hit = {Path(source), Path(target)} & {folder / name} or (which == "symlink" and name in str(source))
            if hit and (call == which or call == "rename"):
                raise PermissionError(errno.EPERM, "Operation not permitted")
            return real[which](source, target, **how)

        return refuse

    with monkeypatch.context() as patch:
        for which in real:
            patch.setattr(os, which, refusing(which))
        said = refused(folder)
        if said is not None:
            assert "the earlier result is as it was and the new one is whole in .commit-" in said
            assert judged(folder, {old: "old"}) == "old"
            assert not any((folder / other).is_symlink() for other in {*OLD, *NEW})
    with ResultFolder.open(folder, overwrite=True):
        pass
    assert {other: (folder / other).read_text() for other in NEW} == NEW
    assert leftovers(folder) == []


@pytest.mark.skipif(not shutil.which("chattr") or os.geteuid() != 0, reason="only root can make a file immutable")
def test_an_immutable_file(tmp_path: Path) -> None:
    folder = tmp_path / "result"
    old = put(folder, OLD)
    path = folder / "reconstruction.h5"
    if subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        with pytest.raises(OutputError, match=r"Operation not permitted.*earlier result is as it was"):
            put(folder, NEW)
        assert judged(folder, {old: "old"}) == "old"
        assert len(leftovers(folder)) == 1
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)
    with ResultFolder.open(folder, overwrite=True):
        pass
    assert {name: (folder / name).read_text() for name in NEW} == NEW
