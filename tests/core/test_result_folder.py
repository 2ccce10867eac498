"""A result folder holds the old result or the new one, and nothing that is not ours is ever lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ptycho_core.errors import OutputError
from ptycho_core.io import folder_lock, result_folder
from ptycho_core.io.folder_lock import LOCK_NAME
from ptycho_core.io.result_folder import (
    LOG_NAME,
    RESULT_NAMES,
    ResultFolder,
    default_folder,
    read_result_summary,
    verify_result,
)
from ptycho_core.text import plain_name

OLD = {"reconstruction.h5": "old image", "model.ptycho": "old model", "frc.png": "old curve", "report.html": "old"}
NEW = {"reconstruction.h5": "new image", "model.ptycho": "new model", "probe.png": "new probe", "report.html": "new"}
MADE_IN_0_1 = {"schema_version": 1, "files": ["frc.png", "reconstruction.h5", "summary.json", "../scan.npz"]}


def put(folder: Path, files: dict[str, str], *, overwrite: bool = False, inputs: Sequence[Path] = ()) -> ResultFolder:
    with ResultFolder.open(folder, overwrite=overwrite, inputs=inputs) as result, result.staged() as partial:
        for name, text in files.items():
            (partial / name).write_text(text)
        (partial / "summary.json").write_text(json.dumps({"title": files["report.html"]}))
    return result


def content(folder: Path) -> dict[str, str]:
    """Name → text of everything in a folder, but of the summary; folders by their name."""
    paths = [path for path in folder.iterdir() if path.name != "summary.json"]
    return {path.name: path.read_text() if path.is_file() else "a folder" for path in paths}


def is_whole(folder: Path, files: dict[str, str]) -> bool:
    summary = read_result_summary(folder)
    return (
        summary is not None
        and content(folder) == files
        and summary["title"] == files["report.html"]
        and summary["files"].keys() == files.keys()
        and verify_result(folder) == []
    )


CHANGES = ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync", "link", "symlink")


class Killed(BaseException):
    pass


@contextmanager
def killed_at(step: int) -> Iterator[list[int]]:
    """End the process, as far as files can tell, at one of the calls that change a folder: none works from there on."""
    count, real = [0], {name: getattr(os, name) for name in CHANGES}

    def wrapped(name: str):
        def call(*args, **options):
            count[0] += 1
            if count[0] > step:
                raise Killed(name)
            return real[name](*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in real:
            patch.setattr(os, name, wrapped(name))
        yield count


@pytest.mark.spec("RES-2")
def test_the_summary_lists_every_file_with_its_hash(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "result"
    result = put(folder, OLD)
    summary = read_result_summary(folder)
    assert summary is not None
    assert summary["format"] == "ptycho-result"
    assert summary["run_id"] == result.run_id
    assert summary["title"] == "old"
    # by sha256sum
    sha256 = "fbb22b3adc86344581b73d26175b48c603b57d3ffeec1a01515c9f274f468bff"
    assert summary["files"]["reconstruction.h5"] == {"bytes": 9, "sha256": sha256}
    assert is_whole(folder, OLD)
    assert result.kept == []


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    put(tmp_path, OLD)
    (tmp_path / "reconstruction.h5").write_text("xld image")
    (tmp_path / "frc.png").unlink()
    (tmp_path / "model.ptycho").rename(tmp_path / "elsewhere")
    (tmp_path / "model.ptycho").symlink_to("elsewhere")
    assert verify_result(tmp_path) == ["frc.png", "model.ptycho", "reconstruction.h5"]


@pytest.mark.spec("RES-1", "RES-2")
def test_killed_at_any_step_the_folder_becomes_the_old_or_the_new_result(tmp_path: Path) -> None:
    outcomes = []
    for step in range(200):
        folder = tmp_path / str(step)
        put(folder, OLD)
        with suppress(Killed), killed_at(step) as count:
            put(folder, NEW, overwrite=True)
        ended = count[0] <= step
        # Whatever summary is there now is true, before anything is completed.
        assert verify_result(folder) == []
        # The one that completes may be killed too, once.
        with suppress(Killed), killed_at(step % 5), ResultFolder.open(folder, overwrite=True):
            pass
        assert verify_result(folder) == []
        with ResultFolder.open(folder, overwrite=True):
            pass
        outcomes.append("new" if is_whole(folder, NEW) else "old" if is_whole(folder, OLD) else "a mixture")
        if ended:
            break
    assert ended
    assert outcomes == sorted(outcomes, reverse=True)  # old up to one step, new from there on
    assert set(outcomes) == {"old", "new"}
    assert outcomes.count("new") > 8  # the moves are many, so the sweep did kill between them


@pytest.mark.spec("RES-1", "RES-6")
@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals there")
@pytest.mark.parametrize(("moment", "expected"), [("staging", OLD), ("moving", NEW)])
def test_what_a_killed_process_left_is_cleared_or_completed(tmp_path: Path, moment: str, expected: dict) -> None:
    put(tmp_path, OLD)
    code = (
        "import json, os, signal, sys\nfrom pathlib import Path\n"
        "from ptycho_core.io.result_folder import ResultFolder\n"
        "folder, moment, new = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])\n"
        "replace = os.replace\n"
        "def die(*args):\n    replace(*args)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "with ResultFolder.open(folder, overwrite=True) as result, result.staged() as partial:\n"
        "    for name, text in new.items():\n        (partial / name).write_text(text)\n"
        "    (partial / 'summary.json').write_text(json.dumps({'title': 'new'}))\n"
        "    if moment == 'staging':\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    os.replace = die\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), moment, json.dumps(NEW)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / LOCK_NAME).exists()
    with pytest.raises(OutputError, match="--overwrite"), ResultFolder.open(tmp_path, overwrite=False):
        pass
    assert is_whole(tmp_path, expected)


def test_leftovers_of_others_stay(tmp_path: Path) -> None:
    for name in (".partial-notes", ".commit-notes", f".commit-{'a' * 32}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").write_text("mine")
    (tmp_path / f".partial-{'b' * 32}").symlink_to(tmp_path / ".partial-notes")
    (tmp_path / "empty").mkdir()
    (tmp_path / f".commit-{'b' * 32}").symlink_to(tmp_path / "empty")
    (tmp_path / ".partial-abc12_x8").mkdir()  # of version 0.1
    with ResultFolder.open(tmp_path, overwrite=True):
        assert sorted(os.listdir(tmp_path)) == [
            f".commit-{'a' * 32}",
            f".commit-{'b' * 32}",
            ".commit-notes",
            f".partial-{'b' * 32}",
            ".partial-notes",
            LOCK_NAME,
            "empty",
        ]
    assert len(list(tmp_path.glob("*/report.html"))) == 4


@pytest.mark.spec("RES-11")
def test_whoever_holds_the_folder_sweeps_it(tmp_path: Path) -> None:
    deep = tmp_path / "training" / "checkpoints"
    deep.mkdir(parents=True)
    id_, mine = "0a" * 16, [f".ptycho.lock-{'0' * 31}", ".report.html.partial.html", "training/notes.partial"]
    for name in [*mine, f".report.html.{id_}.partial.html", f"training/.history.csv.{id_}.partial.csv",
                 f"training/checkpoints/.last.ckpt.{id_}.partial.ckpt", ".ptycho.lock-" + id_]:  # fmt: skip
        (tmp_path / name).write_text("x")
    with ResultFolder.open(tmp_path, overwrite=True):
        (tmp_path / f".probe.png.{id_}.partial.png").write_text("x")
        second = ResultFolder.open(tmp_path, overwrite=True)
        with pytest.raises(OutputError, match="in use"), second:  # a folder that is in use is left alone
            pass
        assert (tmp_path / f".probe.png.{id_}.partial.png").exists()
    with ResultFolder.open(tmp_path, overwrite=True):
        found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert found == {*mine, LOCK_NAME}


@pytest.mark.spec("RES-5")
def test_a_finished_result_is_replaced_only_when_told(tmp_path: Path) -> None:
    put(tmp_path, OLD)
    with pytest.raises(OutputError, match="finished result; pass --overwrite"):
        put(tmp_path, NEW)
    assert is_whole(tmp_path, OLD)
    result = put(tmp_path, NEW, overwrite=True)
    assert is_whole(tmp_path, NEW)
    assert result.kept == []


@pytest.mark.spec("RES-5")
def test_a_file_in_the_way_is_no_result_and_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "probe.png").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds probe\.png"):
        put(tmp_path, NEW)
    assert content(tmp_path) == {"probe.png": "mine", "notes.txt": "mine"}
    writes = {"summary.json", "model.ptycho"}
    with ResultFolder.open(tmp_path, overwrite=False, writes=writes) as result, result.staged() as partial:
        (partial / "model.ptycho").write_text("new")
    assert content(tmp_path) == {"probe.png": "mine", "notes.txt": "mine", "model.ptycho": "new"}
    assert result.kept == ["probe.png"]


@pytest.mark.spec("RES-3")
def test_what_the_user_changed_or_put_there_is_kept_and_said(tmp_path: Path) -> None:
    put(tmp_path, OLD)
    (tmp_path / "frc.png").write_text("annotated, and no longer written")
    (tmp_path / "report.html").write_text("annotated, and written again")
    (tmp_path / "reconstruction.h5").unlink()
    (tmp_path / "reconstruction.h5").mkdir()
    (tmp_path / "own.png").write_text("mine")
    result = put(tmp_path, NEW, overwrite=True)
    mark = result.run_id[-8:]
    assert content(tmp_path) == NEW | {
        "own.png": "mine",
        "frc.png": "annotated, and no longer written",
        f"report.kept-{mark}-1.html": "annotated, and written again",
        f"reconstruction.kept-{mark}-1.h5": "a folder",
    }
    assert sorted(result.kept) == sorted(["frc.png", f"report.kept-{mark}-1.html", f"reconstruction.kept-{mark}-1.h5"])
    assert verify_result(tmp_path) == []


@pytest.mark.spec("RES-3")
@pytest.mark.parametrize("ours", [True, False])
def test_a_summary_of_a_stranger_removes_nothing(tmp_path: Path, ours: bool) -> None:
    folder, scan = tmp_path / "result", tmp_path / "scan.npz"
    folder.mkdir()
    for path in (scan, folder / "scan.npz", folder / "losses.png"):
        path.write_text("scan")
    sha256 = "9f5ac7b6f6dd8cd5cd0a2b1c1a35ecbdd0a8a4ec0d0d2bb8b9a4d0a0f5e2d3c1"
    entry = {"sha256": result_folder._sha256(scan), "bytes": 4}
    files = {"../scan.npz": entry, str(scan): entry, "losses.png": {"sha256": sha256}, "frc.png": 3}
    files["scan.npz"] = {"sha256": sha256}
    summary = {"format": "ptycho-result" if ours else "another", "files": files}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert verify_result(folder) == (["frc.png", "losses.png"] if ours else [])
    result = put(folder, NEW, overwrite=True)
    kept = {} if ours else {f"summary.kept-{result.run_id[-8:]}-1.json": json.dumps(summary)}
    assert content(folder) == NEW | {"scan.npz": "scan", "losses.png": "scan"} | kept
    assert scan.read_text() == "scan"
    assert sorted(result.kept) == sorted(["losses.png", *kept])


@pytest.mark.spec("RES-3", "RES-5")
def test_a_result_of_version_0_1(tmp_path: Path) -> None:
    folder, scan = tmp_path / "result", tmp_path / "scan.npz"
    folder.mkdir()
    for path in (scan, folder / "frc.png", folder / "reconstruction.h5", folder / "report.html"):
        path.write_text("0.1")
    (folder / "summary.json").write_text(json.dumps(MADE_IN_0_1))
    assert read_result_summary(folder) == MADE_IN_0_1
    with pytest.raises(OutputError, match="finished result; pass --overwrite"):
        put(folder, NEW)
    result = put(folder, NEW, overwrite=True)
    aside = f"report.kept-{result.run_id[-8:]}-1.html"  # its summary did not list it
    assert content(folder) == NEW | {"frc.png": "0.1", aside: "0.1"}
    assert sorted(result.kept) == ["frc.png", aside]
    assert scan.read_text() == "0.1"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": []}', '{"schema_version": 1}', "[" * 100_000, "\udc80"])
def test_what_is_no_summary_of_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_bytes(text.encode(errors="surrogateescape"))
    assert read_result_summary(tmp_path) is None
    assert verify_result(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes there")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "summary.json")
    assert read_result_summary(tmp_path) is None


@pytest.mark.spec("RES-4")
@pytest.mark.parametrize("name", ["reconstruction.h5", "report.html", "model.ptycho", "summary.json", LOG_NAME])
@pytest.mark.parametrize("how", ["itself", "through a link", "behind a link", "under two names", "by another way"])
def test_an_input_that_would_be_replaced_is_refused_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    folder = tmp_path / "result"
    folder.mkdir()
    (folder / name).write_text("scan")
    (folder / f".partial-{'a' * 32}").mkdir()
    source = folder / name
    if how == "through a link":
        source = tmp_path / "scan.npz"
        source.symlink_to(folder / name)
    elif how == "behind a link":
        source = tmp_path / "scan.npz"
        (folder / name).rename(source)
        (folder / name).symlink_to(source)
    elif how == "under two names":
        source = tmp_path / "scan.npz"
        os.link(folder / name, source)
    elif how == "by another way":
        monkeypatch.chdir(folder)
        source = Path(f"../result/{name}")
    before = sorted(os.listdir(folder))
    with pytest.raises(OutputError, match=f"would be replaced by {name}"):
        put(folder, NEW, overwrite=True, inputs=[tmp_path / "other.npz", source])
    assert sorted(os.listdir(folder)) == before
    assert source.read_text() == "scan"


@pytest.mark.spec("RES-4")
def test_an_input_in_leftovers_is_refused_untouched(tmp_path: Path) -> None:
    source = tmp_path / f".partial-{'a' * 32}" / "deep" / "scan.npz"
    source.parent.mkdir(parents=True)
    source.write_text("scan")
    with pytest.raises(OutputError, match="the input lies in"):
        put(tmp_path, NEW, inputs=[source])
    assert source.read_text() == "scan"


@pytest.mark.spec("RES-4")
@pytest.mark.parametrize("step", [None, 17])
def test_the_model_that_an_image_is_made_with_stays_beside_it(tmp_path: Path, step: int | None) -> None:
    """Also when the command is killed and another, which does not read the model, completes its result."""
    put(tmp_path, OLD)
    model = tmp_path / "model.ptycho"
    new = {name: text for name, text in NEW.items() if name != "model.ptycho"}
    opened = ResultFolder.open(tmp_path, overwrite=True, inputs=[model], writes=RESULT_NAMES - {"model.ptycho"})
    with suppress(Killed), killed_at(10**6 if step is None else step), opened as result, result.staged() as partial:
        for name, text in new.items():
            (partial / name).write_text(text)
    assert bool(list(tmp_path.glob(".commit-*"))) == (step is not None)
    with ResultFolder.open(tmp_path, overwrite=True):
        pass
    assert content(tmp_path) == new | {"model.ptycho": "old model"}


@pytest.mark.spec("RES-4")
def test_an_input_that_an_unfinished_switch_would_replace_is_refused_untouched(tmp_path: Path) -> None:
    put(tmp_path, OLD)
    with suppress(Killed), pytest.MonkeyPatch.context() as patch:
        patch.setattr(result_folder.os, "replace", lambda *_: (_ for _ in ()).throw(Killed))
        put(tmp_path, NEW, overwrite=True)
    model = tmp_path / "model.ptycho"
    opened = ResultFolder.open(tmp_path, overwrite=True, inputs=[model], writes={"report.html"})
    with pytest.raises(OutputError, match=r"would be replaced by model\.ptycho"), opened:
        pass
    assert model.read_text() == "old model"


@pytest.mark.spec("RES-6")
def test_a_second_command_is_refused_with_the_process_of_the_first(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom ptycho_core.io.result_folder import ResultFolder\n"
        "from ptycho_core.errors import OutputError\n"
        "try:\n    with ResultFolder.open(sys.argv[1], overwrite=True):\n        pass\n"
        "except OutputError as error:\n    print(error)\n"
    )
    with ResultFolder.open(tmp_path / "result", overwrite=False) as result:
        leftover = result.path / f".partial-{'a' * 32}"  # of the first, perhaps
        leftover.mkdir()
        owner = json.loads((result.path / LOCK_NAME).read_text())
        assert owner.keys() == {"pid", "host", "started"}
        second = subprocess.run(
            [sys.executable, "-c", code, str(result.path)], capture_output=True, text=True, check=True
        )
        assert f"in use by process {os.getpid()} on host {socket.gethostname()} since 2" in second.stdout
        with pytest.raises(OutputError, match=f"in use by process {os.getpid()}"):  # nor another thread of this one
            put(result.path, NEW, overwrite=True)
        assert leftover.is_dir()
        assert (result.path / LOCK_NAME).is_file()
    assert not (tmp_path / "result" / LOCK_NAME).exists()


@pytest.mark.spec("RES-6")
def test_the_lock_is_gone_after_an_exception(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), ResultFolder.open(tmp_path, overwrite=False):
            raise KeyboardInterrupt
        assert os.listdir(tmp_path) == []


def test_the_link_of_a_stranger_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / LOCK_NAME).symlink_to("precious")
    with pytest.raises(OutputError, match="cannot be written"), ResultFolder.open(tmp_path, overwrite=False):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last owner may remove the file after we opened it: locking what has no name excludes nobody."""
    path, real = tmp_path / LOCK_NAME, folder_lock.fcntl.flock
    path.write_text("")
    calls = []

    def flock(handle: int, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            path.unlink()
        real(handle, how)

    monkeypatch.setattr(folder_lock.fcntl, "flock", flock)
    with ResultFolder.open(tmp_path, overwrite=False):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        with pytest.raises(OutputError, match="in use"), ResultFolder.open(tmp_path, overwrite=False):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked there")
def test_a_forked_worker_that_is_still_ending_holds_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom ptycho_core.io.result_folder import ResultFolder\n"
        "with ResultFolder.open(sys.argv[1], overwrite=False) as result:\n"
        "    reading, writing = os.pipe()\n"
        "    worker = os.fork()\n"
        "    if not worker:\n        os.close(writing)\n        os.read(reading, 1)\n        os._exit(0)\n"
        "    path = result.path / '.ptycho.lock'\n    os.link(path, path.with_suffix('.same'))\n"
        "os.rename(path.with_suffix('.same'), path)\n"  # as if it could not be removed
        "with ResultFolder.open(sys.argv[1], overwrite=False):\n    pass\n"
        "os.close(writing)\nos.waitpid(worker, 0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


def test_a_stale_lock_that_another_has_just_taken_over_stays_its(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / LOCK_NAME, json.dumps({"pid": 1, "host": socket.gethostname()})
    path.write_text(json.dumps({"pid": 2**22 + 1, "host": socket.gethostname()}))
    monkeypatch.setattr(folder_lock, "fcntl", None)
    monkeypatch.setattr(folder_lock, "_is_running", lambda pid: path.write_text(other) == 0)
    with pytest.raises(OutputError, match="in use by process 1 on"), ResultFolder.open(tmp_path, overwrite=False):
        pass
    assert path.read_text() == other
    assert os.listdir(tmp_path) == [LOCK_NAME]


@pytest.mark.spec("RES-6")
@pytest.mark.parametrize("lacking", ["the module", "the file system"])
def test_where_there_are_no_locks_the_file_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if lacking == "the module":
        monkeypatch.setattr(folder_lock, "fcntl", None)
    else:
        monkeypatch.setattr(folder_lock.fcntl, "flock", flock)
    path = tmp_path / LOCK_NAME
    by_us = pytest.raises(OutputError, match=f"in use by process {os.getpid()}")
    with ResultFolder.open(tmp_path, overwrite=False), by_us:
        put(tmp_path, NEW)
    assert not path.exists()
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    for owner in ({"pid": 1, "host": socket.gethostname()}, {"pid": int(ended.stdout), "host": "another"}, {}):
        path.write_text(json.dumps(owner))
        with pytest.raises(OutputError, match=r"in use by (process|another).*delete \.ptycho\.lock"):
            put(tmp_path, NEW)
        assert json.loads(path.read_text()) == owner
    path.write_text(json.dumps({"pid": int(ended.stdout), "host": socket.gethostname()}))
    put(tmp_path, NEW)
    assert is_whole(tmp_path, NEW)


def fail_in(folder: Path, *files: str) -> None:
    with suppress(ZeroDivisionError), ResultFolder.open(folder, overwrite=False) as result:
        (folder / LOG_NAME).write_text("words")
        (folder / "training" / "empty").mkdir(parents=True)
        for name in files:
            (folder / name).write_text("x")
        with result.staged() as partial:
            (partial / "report.html").write_text("half")
            raise ZeroDivisionError


@pytest.mark.spec("RES-7")
def test_a_failed_command_leaves_no_folder_that_it_made(tmp_path: Path) -> None:
    fail_in(tmp_path / "deep" / "result")
    assert os.listdir(tmp_path) == []


@pytest.mark.spec("RES-7")
def test_a_folder_with_a_checkpoint_or_of_the_user_stays(tmp_path: Path) -> None:
    fail_in(tmp_path / "made", "training/last.ckpt")
    assert sorted(os.listdir(tmp_path / "made")) == [LOG_NAME, "training"]
    (tmp_path / "users").mkdir()
    fail_in(tmp_path / "users")
    assert sorted(os.listdir(tmp_path / "users")) == [LOG_NAME, "training"]


@pytest.mark.spec("RES-1")
@pytest.mark.parametrize("wrong", ["a name", "a folder", "a link", "a summary"])
def test_what_is_no_file_of_a_result_replaces_nothing(tmp_path: Path, wrong: str) -> None:
    put(tmp_path, OLD)
    make = {
        "a name": lambda partial: (partial / "holiday.png").write_text("new"),
        "a folder": lambda partial: (partial / "probe.png").mkdir(),
        "a link": lambda partial: (partial / "probe.png").symlink_to("report.html"),
        "a summary": lambda partial: (partial / "summary.json").write_text("["),
    }[wrong]
    refused = pytest.raises(OutputError, match=r"no file of a result|no JSON")
    with refused, ResultFolder.open(tmp_path, overwrite=True) as result, result.staged() as partial:
        (partial / "report.html").write_text("new")
        make(partial)
    assert is_whole(tmp_path, OLD)


def test_an_error_after_the_one_step_says_that_the_result_is_safe(tmp_path: Path) -> None:
    put(tmp_path, OLD)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result_folder.os, "replace", refuse)
        with pytest.raises(OutputError, match=r"not permitted.*the next command puts it in place"):
            put(tmp_path, NEW, overwrite=True)
    with ResultFolder.open(tmp_path, overwrite=True):
        pass
    assert is_whole(tmp_path, NEW)


@pytest.mark.parametrize("target", ["file", "file/below"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="--out"), ResultFolder.open(tmp_path / target, overwrite=True):
        pass
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.spec("RES-8")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scan.0001.npz", "scan.0001-ptycho"),
        ("scan.0002.NPZ", "scan.0002-ptycho"),
        ("a/b/scan.v1.h5", "scan.v1-ptycho"),
        ("scan.npz.bz2", "scan-ptycho"),
        ("scan.cxi.h5", "scan.cxi-ptycho"),
        ("scan.0001", "scan.0001-ptycho"),
        ("scan.gz", "scan.gz-ptycho"),
        (".npz", ".npz-ptycho"),
        ("scan.npz/", "scan-ptycho"),
        ("/", "scan-ptycho"),
    ],
)
def test_default_name(name: str, expected: str) -> None:
    assert default_folder(name) == expected


@pytest.mark.spec("RES-8")
def test_default_name_of_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "night.2" / "raw"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert default_folder(".") == "raw-ptycho"
    assert default_folder("..") == "night.2-ptycho"
    assert default_folder("../..") == f"{tmp_path.name}-ptycho"


@pytest.mark.spec("RES-8")
@given(
    stem=st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1),
    ending=st.sampled_from([".npz", ".H5", ".cxi", ".nxs", ".hdf5", ".npz.gz", ".h5.bz2"]),
)
@example(stem="..", ending=".npz")
@example(stem="\n", ending=".npz")
def test_only_the_last_known_ending_goes(stem: str, ending: str) -> None:
    assert default_folder(Path("/data") / (stem + ending)) == f"{plain_name(stem)}-ptycho"
