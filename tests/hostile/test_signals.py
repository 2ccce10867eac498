"""INT, TERM and HUP, once and twice, at chosen places of commands: 130, one line, nothing finished lost, nothing left.

A signal is sent by the command to itself, where a test says: at the k-th safe point, or at the k-th call of a function.
"""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from signal_server import HANG_SECONDS, Ended, Sent, SignalServer

from ptycho_core.cli.main import main
from ptycho_core.io.result_folder import verify_result
from ptycho_core.simulation import SimulationConfig, simulate_scan

pytestmark = pytest.mark.hostile

ALL = ("SIGINT", "SIGTERM", "SIGHUP")
SCAN = SimulationConfig(object="dead_leaves", N=32, grid_shape=(5, 4), step_px=4.3, photons=1e5, seed=5)
RUN = ["run", "scan.npz", "--epochs", "4", "--refine", "numpy:3", "--out", "r", "--overwrite"]
STOPPING = "ptycho: stopping after this step; once more ends at once"
SAFE_POINTS = 20
"""More than a run has: each is tried."""


@pytest.fixture(scope="module")
def server() -> Iterator[SignalServer]:
    with SignalServer() as running:
        yield running


@pytest.fixture(scope="module")
def finished(server: SignalServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scan and the finished result of a run in ``r``."""
    from ptycho_core.io import write_scan

    folder = tmp_path_factory.mktemp("finished")
    write_scan(folder / "scan.npz", simulate_scan(SCAN).raw)
    assert server.run(folder, RUN).code == 0
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(finished, tmp_path / "work")
    return tmp_path / "work"


def run_id(folder: Path) -> str:
    return str(json.loads((folder / "summary.json").read_text())["run_id"])


def told(ended: Ended) -> str:
    """The last line, of a command that ended as it should after one signal."""
    assert ended.code == 130, ended
    assert not ended.left
    assert "Traceback" not in ended.err
    lines = [line for line in ended.err.splitlines() if line and not line.startswith("note: ")]
    assert lines[0] == STOPPING
    assert len(lines) == 2, ended.err
    assert lines[1].startswith("ptycho: stopped"), ended.err
    return lines[1]


def check_result(folder: Path, old: str, line: str) -> None:
    """What lies in the folder is whole: the old result, or the new one where the line says so."""
    assert verify_result(folder) == []
    assert not [p.name for p in folder.iterdir() if p.name.startswith((".partial", ".commit", ".ptycho"))]
    new = "the image so far is in" in line or "is whole" in line
    assert (run_id(folder) != old) == new, line


# ---- one signal


@pytest.mark.parametrize("number", range(1, SAFE_POINTS + 1))
@pytest.mark.spec("CMD-1", "CMD-2")
def test_at_each_safe_point_of_a_run(server: SignalServer, folder: Path, number: int) -> None:
    old = run_id(folder / "r")
    ended = server.run(folder, RUN, Sent((ALL[number % 3],), number=number))
    if ended.code == 0:  # there are fewer
        assert 12 < ended.passed < number
        return
    check_result(folder / "r", old, told(ended))


PLACES = {
    "the command's import": Sent((), "importlib:import_module"),
    "parsing": Sent((), "argparse:ArgumentParser.parse_args", when="after"),
    "import of the engine": Sent((), "ptycho_core.api.stages:load_described"),
    "reading": Sent((), "ptycho_core.data.raw:RawData.from_arrays"),
    "the checks": Sent((), "ptycho_core.api.accept:examine"),
    "a step of training": Sent((), "ptycho_backend_numpy.stepper:NumpyStepper.step", 2),
    "the last step of training": Sent((), "ptycho_core.api.stages:check_model"),
    "saving the model": Sent((), "ptycho_core.api.run:save_model"),
    "the image": Sent((), "ptycho_core.api.stages:check_image"),
    "refining": Sent((), "ptycho_core.api.refine:refined_by"),
    "the score of what was refined": Sent((), "ptycho_core.api.refine:score"),
    "the verdict": Sent((), "ptycho_core.api.run:Judgement"),
    "a flush": Sent((), "os:fsync", 6),
    "drawing": Sent((), "matplotlib.figure:Figure.savefig", 3),
    "the summary": Sent((), "ptycho_core.report.write:run_summary"),
    "the end": Sent((), "ptycho_core.cli.run:say_run"),
}


def sent_at(place: str, names: tuple[str, ...]) -> Sent:
    return replace(PLACES[place], names=names)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.spec("CMD-1", "CMD-2")
def test_in_the_middle_of_anything(server: SignalServer, folder: Path, place: str) -> None:
    name = ALL[list(PLACES).index(place) % 3]
    old = run_id(folder / "r")
    ended = server.run(folder, RUN, sent_at(place, (name,)))
    assert ended.passed, f"a run never comes to {place}"
    line = told(ended)
    check_result(folder / "r", old, line)
    kept = {
        "a step of training": "go on with: ",
        "the last step of training": "get the image with: ",
        "the image": "the image so far is in r",
        "the score of what was refined": "is whole",
        "drawing": "is whole",
        "the end": "is whole",
    }
    assert kept.get(place, "") in line


@pytest.mark.parametrize("name", ALL)
@pytest.mark.spec("CMD-1")
def test_every_signal_leaves_a_checkpoint(server: SignalServer, folder: Path, name: str) -> None:
    shutil.rmtree(folder / "r")
    line = told(server.run(folder, RUN, sent_at("a step of training", (name,))))
    assert "while solving" in line
    again = shlex.split(line.partition("go on with: ")[2])
    assert Path(folder / again[-1]).is_file()
    assert not (folder / "r" / "summary.json").exists()
    if name == "SIGHUP":
        assert again[0] == "ptycho"
        assert server.run(folder, again[1:]).code == 0
        assert verify_result(folder / "r") == []


@pytest.mark.spec("CMD-1")
def test_a_framework_with_handlers_of_its_own_does_not_win(server: SignalServer, folder: Path) -> None:
    told(server.run(folder, RUN, replace(sent_at("a step of training", ("SIGTERM",)), stolen=True)))


@pytest.mark.spec("CMD-3")
def test_what_was_ignored_from_the_beginning_stays_ignored(server: SignalServer, folder: Path) -> None:
    """As ``nohup`` has it."""
    sent = replace(sent_at("a step of training", ("SIGHUP",)), ignored=("SIGHUP",))
    ended = server.run(folder, RUN, sent)
    assert (ended.code, STOPPING in ended.err) == (0, False)
    told(server.run(folder, RUN, replace(sent, names=("SIGTERM",))))


# ---- two signals


@pytest.mark.parametrize(
    "place", ["import of the engine", "reading", "a step of training", "refining", "a flush", "drawing", "the summary"]
)
@pytest.mark.spec("CMD-4")
def test_the_second_ends_at_once(server: SignalServer, folder: Path, place: str) -> None:
    old = run_id(folder / "r")
    number = list(PLACES).index(place)
    ended = server.run(folder, RUN, sent_at(place, (ALL[number % 3], ALL[(number + 1) % 3])))
    assert ended.code == 130
    assert ended.passed <= PLACES[place].number
    assert [line for line in ended.err.splitlines() if line] == [STOPPING, "ptycho: ended at once"]
    assert not ended.left
    assert server.run(folder, RUN).code == 0, "what was left is swept, and the folder is free"
    assert verify_result(folder / "r") == []
    assert run_id(folder / "r") != old


@pytest.mark.spec("CMD-4")
def test_the_second_ends_what_the_command_has_started(server: SignalServer, folder: Path) -> None:
    ended = server.run(folder, RUN, replace(sent_at("refining", ("SIGTERM", "SIGHUP")), beside=True))
    assert ended.code == 130
    assert not ended.left


@pytest.mark.spec("CMD-4")
def test_the_second_ends_what_never_comes_back(server: SignalServer, folder: Path) -> None:
    ended = server.run(folder, RUN, replace(sent_at("refining", ("SIGTERM", "SIGTERM")), in_c=True))
    assert ended.code == 130
    assert "ended at once" in ended.err
    assert not ended.left


# ---- other commands


OTHERS = {
    "train": ["train", "scan.npz", "--method", "solver", "--epochs", "3", "--out", "m"],
    "reconstruct": ["reconstruct", "--model", "r/model.ptycho", "scan.npz", "--out", "i"],
    "demo": ["demo", "--epochs", "2", "--refine", "none", "--out", "d"],
    "simulate": ["simulate", "--n_frames", "30", "--N", "32", "--out", "new.npz"],
    "convert": ["convert", "scan.npz", "new.h5"],
    "export": ["export", "r", "--format", "tiff", "--out", "new.tiff"],
    "inspect": ["inspect", "scan.npz"],
    "orient": ["orient", "scan.npz", "--sweeps", "1"],
    "compare": ["compare", "r/reconstruction.h5", "scan.npz"],
    "backends": ["backends"],
    "readers": ["readers"],
    "conform": ["conform", "numpy", "--only", "signatures"],
}


@pytest.mark.parametrize("command", OTHERS)
@pytest.mark.spec("CMD-1")
def test_every_command_stops(server: SignalServer, folder: Path, command: str) -> None:
    before = {path.name for path in folder.iterdir()}
    number = list(OTHERS).index(command)
    for at in (1, 3):
        line = told(server.run(folder, OTHERS[command], Sent((ALL[number % 3],), number=at)))
        if "is whole" not in line:
            assert {path.name for path in folder.iterdir()} == before


@pytest.mark.spec("CMD-1")
def test_a_file_that_was_being_written_is_not_there(server: SignalServer, folder: Path) -> None:
    before = {path.name for path in folder.iterdir()}
    for words in (OTHERS["convert"], OTHERS["simulate"]):
        sent = Sent(("SIGHUP",), "ptycho_core.cli.progress:Reporter.__call__")
        assert "while writing" in told(server.run(folder, words, sent))
        assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("inspect", "ptycho_core.inspection.examine:examine"),
        ("compare", "ptycho_core.evaluation.metrics:compare_objects"),
    ],
)
@pytest.mark.spec("CMD-5")
def test_a_command_that_only_looks_ends_wherever_it_is(
    server: SignalServer, folder: Path, command: str, place: str
) -> None:
    """Also in compiled code that does not come back: it has nothing to lose."""
    ended = server.run(folder, OTHERS[command], Sent(("SIGINT",), place, in_c=True))
    assert ended.code == 130
    assert not ended.left
    assert "Traceback" not in ended.err


# ---- the beginning, programs, and processes of its own


@pytest.mark.parametrize("name", ALL)
@pytest.mark.spec("CMD-1")
def test_from_the_first_import_on(tmp_path: Path, name: str) -> None:
    """What takes long in starting is imported with the signals heard."""
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, module, path=None, target=None):\n"
        "        if module == 'numpy':\n"
        f"            os.kill(os.getpid(), signal.{name})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['ptycho', 'readers']\n"
        "from ptycho_core.cli.main import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done
    assert [line for line in done.stderr.splitlines() if line] == [STOPPING, "ptycho: stopped at the start"]


def seen(terminal: int, until: bytes = b"") -> bytes:
    """What is written to a terminal until some words, or to its end."""
    text, most = b"", time.monotonic() + HANG_SECONDS  # a bar is drawn for ever
    while not until or until not in text:
        if not select.select([terminal], [], [], max(most - time.monotonic(), 0.0))[0] or time.monotonic() > most:
            pytest.fail(f"what was waited for was not written: {text[-500:]!r}")
        try:
            more = os.read(terminal, 4096)
        except OSError:  # nobody has its other end
            return text
        if not more:
            return text
        text += more
    return text


@pytest.mark.parametrize("how", ["Ctrl-C", "hung up"])
@pytest.mark.spec("CMD-1", "CMD-2")
def test_on_a_terminal_with_a_bar(folder: Path, how: str) -> None:
    """What is said stands above the bar, the last line on the terminal; one that is hung up costs no checkpoint."""
    shutil.rmtree(folder / "r")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-m", "ptycho_core.cli", *RUN[:3], "1000000", *RUN[4:]]
        os.execve(sys.executable, words, environment)
    before = seen(terminal, b" loss ")
    assert "frames of 32×32" in before.decode(errors="replace")
    after = b""
    if how == "Ctrl-C":
        os.write(terminal, b"\x03")
        after = seen(terminal)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    log = (folder / "r" / "ptycho.log").read_text(encoding="utf-8")
    for text in (log, after.decode(errors="replace")) if how == "Ctrl-C" else (log,):
        assert "go on with: ptycho run" in text
    assert list((folder / "r" / "training").glob("*checkpoint*"))


@pytest.mark.spec("CMD-6")
def test_a_program_that_calls_a_command_keeps_its_handlers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def own(number: int, frame: object) -> None: ...

    before = {name: signal.signal(getattr(signal, name), own) for name in ALL}
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    wakes = signal.set_wakeup_fd(write_end)
    try:
        assert main(["readers"]) == 0
        assert {signal.getsignal(getattr(signal, name)) for name in ALL} == {own}
        assert signal.set_wakeup_fd(wakes) == write_end
        assert "ptycho signals" not in {thread.name for thread in threading.enumerate()}
    finally:
        signal.set_wakeup_fd(wakes)
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
        os.close(read_end)
        os.close(write_end)


@pytest.mark.spec("CMD-6")
def test_a_command_may_run_in_a_thread(capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: codes.append(main(["readers"])))
    thread.start()
    thread.join()
    assert codes == [0]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(find_spec("torch") is None or find_spec("lightning") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("names", [("SIGINT",), ("SIGINT", "SIGTERM")], ids=["once", "twice"])
@pytest.mark.spec("CMD-4")
def test_workers_that_load_frames_end_too(server: SignalServer, folder: Path, names: tuple[str, ...]) -> None:
    """Ctrl-C goes to every process of the terminal; the workers leave it to the command, and none is left behind."""
    words = ["train", "scan.npz", "--backend", "pytorch", "--model.width", "4", "--model.depth", "1", "--epochs", "40"]
    words += ["--group_size", "4", "--batch_size", "2", "--num_workers", "2", "--accelerator", "cpu", "--out", "m"]
    sent = Sent(names, "ptycho_core.cli.progress:Reporter.__call__", 3, to_all=True)
    ended = server.run(folder, words, sent)
    assert ended.code == 130, ended
    assert not ended.left
    assert "Traceback" not in ended.err
    if len(names) == 1:
        assert "go on with: ptycho train" in ended.err
