"""A line of what a command is at, every half a minute and whatever it is at (CMD-18)."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest

from ptycho_core.cli import beat
from ptycho_core.cli import main as cli
from ptycho_core.cli.beat import AtWork, Step, beating, line_of
from ptycho_core.cli.progress import Reporter, long_job
from ptycho_core.cli.session import Session
from ptycho_core.cli.signals import Stop
from ptycho_core.errors import ConfigError
from ptycho_core.protocol import ProgressEvent


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(seconds: float, n: int, total: int, *, first: int = 1, stage: str = "train", later: float = 0.0) -> str:
    """The line after n steps of so many seconds each, and some more."""
    clock = Clock()
    report = Reporter(Stop(), None, clock=clock)
    began = clock.now
    for done in range(first, first + n):
        clock.now += seconds
        metrics = {"train_loss": 1 / done, "test_loss": 2.0, "other": 7.0}
        report(ProgressEvent(stage=stage, done=done, total=total, metrics=metrics))
    return line_of(AtWork(stage=stage, since=began, step=report.last, labels=report.labels), clock.now + later)


# ---- what a line says


@pytest.mark.spec("CMD-18")
def test_a_line_says_what_is_done_and_what_is_left():
    assert told(10.0, 3, 40) == "training: 3 of 40 (7 %), loss 0.3333, validation loss 2, 0:30 elapsed, about 6:10 left"
    assert told(10.0, 3, 3) == "training: 3 of 3 (100 %), loss 0.3333, validation loss 2, 0:30 elapsed", "none is left"
    assert told(4000.0, 1, 2, stage="refine") == "refining: 1 of 2 (50 %), loss 1, validation loss 2, 1:06:40 elapsed"


@pytest.mark.spec("CMD-18")
def test_epochs_of_an_earlier_run_are_not_counted_as_made():
    assert told(30.0, 3, 100, first=51).endswith("1:30 elapsed, about 23:30 left")  # two in a minute, and 47 to go


@pytest.mark.spec("CMD-18")
def test_a_step_that_takes_long_says_how_long():
    line = told(60.0, 3, 10, later=45.0)
    assert line.endswith("3:45 elapsed, 0:45 since that step, about 6:15 left")
    assert told(60.0, 3, 10, later=900.0).endswith("about 0:00 left"), "time never runs backwards"


@pytest.mark.spec("CMD-18")
def test_a_stage_of_which_no_step_is_told_says_itself_and_for_how_long():
    assert line_of(AtWork(stage="read", since=70.0), 100.0) == "reading the scan: 0:30 so far"
    assert line_of(AtWork(stage="own_stage", since=70.0), 100.0) == "own_stage: 0:30 so far"
    assert line_of(AtWork(stage="", since=70.0), 100.0) == "starting: 0:30 so far"
    assert line_of(AtWork(stage="", since=70.0, before="refine"), 100.0) == "at work after refining: 0:30 so far"


@pytest.mark.spec("CMD-18")
def test_a_step_of_a_stage_that_is_over_is_not_told_again():
    step = Step(stage="train", label="training", done=40, total=40, at=60.0, begun=10.0, first=1)
    assert line_of(AtWork(stage="report", since=70.0, step=step), 100.0) == "writing the results: 0:30 so far"
    assert line_of(AtWork(stage="", since=70.0, before="train", step=step), 100.0).startswith("at work after training")


@pytest.mark.spec("CMD-18")
def test_a_stage_within_another_is_told_with_it():
    step = Step(stage="train", label="solving", done=4, total=8, at=80.0, begun=72.0, first=2)
    line = line_of(AtWork(stage="half_data", since=70.0, step=step), 82.0)
    assert line == "making an image of each half of the frames, solving: 4 of 8 (50 %), 0:12 elapsed, about 0:14 left"


@pytest.mark.spec("CMD-18")
def test_a_wish_to_stop_is_in_the_line_and_a_total_that_nobody_knows_is_not():
    step = Step(stage="write", label="writing", done=7, total=0, at=80.0, begun=72.0, first=1)
    assert line_of(AtWork(stage="write", since=70.0, step=step), 82.0) == "writing: 7, 0:12 elapsed"
    assert line_of(AtWork(stage="read", since=70.0, stopping=True), 100.0).endswith("so far, stopping after this step")


def test_a_stage_that_counts_anew_begins_anew():
    clock, report = Clock(), None
    report = Reporter(Stop(), None, clock=clock)
    for done in (1, 2, 3, 1, 2):
        clock.now += 10.0
        report(ProgressEvent(stage="train", done=done, total=3))
    assert (report.last.begun, report.last.first, report.last.at) == (1040.0, 1, 1050.0)


def test_what_a_session_is_at():
    session = Session()
    assert (session.at_work().stage, session.at_work().before) == ("", "")
    with long_job(session, "solver") as report:
        with session.stage("train"):
            report(ProgressEvent(stage="train", done=1, total=3))
            with session.stage("save", finishes=True):
                assert session.at_work().stage == "save"
            work = session.at_work()
            assert (work.stage, work.step.label) == ("train", "solving")
            assert work.since <= work.step.at
        assert (session.at_work().stage, session.at_work().before) == ("", "train")
        assert session.at_work().since >= work.since


# ---- who says it


class Ticks:
    """In place of the half minutes: each is given by the test, and says when its line is written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: Queue[bool] = Queue()
        self.written: Queue[str] = Queue()
        ticks, real = self, beat._say

        class Over(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                assert timeout == beat.LINE_SECONDS == 30
                return ticks.given.get()

            def set(self) -> None:
                ticks.given.put(True)

        def say(text: str, handle: int | None) -> None:
            real(text, handle)
            self.written.put(text)

        monkeypatch.setattr(beat, "_Over", Over)
        monkeypatch.setattr(beat, "_say", say)

    def tick(self) -> str:
        self.given.put(False)
        return self.written.get(timeout=60)


@pytest.fixture
def ticks(monkeypatch):
    return Ticks(monkeypatch)


def beats() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ptycho lines"]


@pytest.mark.spec("CMD-18")
def test_a_line_comes_whatever_the_command_is_at_and_none_when_it_is_over(ticks, capsys):
    session = Session()
    with beating(session.at_work, session.stop):
        assert ticks.tick().startswith("starting: ")
        with session.stage("read"):
            assert ticks.tick().startswith("reading the scan: ")
            assert beats()[0].daemon
    assert beats() == []
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["starting", "reading the scan"]


@pytest.mark.spec("CMD-18")
def test_it_ends_with_a_block_that_fails(ticks):
    with pytest.raises(OSError, match="full"), beating(Session().at_work, Stop()):
        raise OSError("full")
    assert beats() == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.spec("CMD-18")
@pytest.mark.parametrize("stream", [Terminal(), None])
def test_on_a_terminal_there_is_none(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    with beating(Session().at_work, Stop()):
        assert beats() == []


@pytest.mark.spec("CMD-18")
def test_a_process_of_the_command_writes_past_its_streams_whatever_becomes_of_them(ticks, monkeypatch):
    """A framework has standard error, and the handle that the session wrote to is closed and used by a file."""
    read_end, write_end = os.pipe()
    session = Session(started=0.0, stop=Stop(owns_process=True))
    session.stop.terminal = write_end
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with beating(session.at_work, session.stop):
        os.close(write_end)
        ticks.tick()
        assert sys.stderr.getvalue() == ""
        assert os.read(read_end, 1000).startswith(b"starting: ")
    assert os.read(read_end, 1000) == b"", "the handle is closed, else this waits without end"
    os.close(read_end)


@pytest.mark.spec("CMD-18")
def test_nobody_who_reads_is_no_error(ticks):
    read_end, write_end = os.pipe()
    session = Session(started=0.0, stop=Stop(owns_process=True))
    session.stop.terminal = write_end
    with beating(session.at_work, session.stop):
        os.close(read_end)
        ticks.tick()
        ticks.tick()
    os.close(write_end)


@pytest.mark.spec("CMD-18")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_process_has_none(ticks):
    with beating(Session().at_work, Stop()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that a fork does not take along
        ticks.tick()
        child = os.fork()
        if child == 0:
            os._exit(len(beats()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(beats()) == 1


# ---- in a command


@pytest.mark.spec("CMD-18")
def test_a_step_a_reading_and_a_writing_that_take_minutes_are_told_of(stub, scan, ticks, monkeypatch, capsys):
    from ptycho_core.io import registry
    from ptycho_core.report import settings_file

    real, lines = (stub.train, registry.read_scan, settings_file.write_settings), []

    def train(self, *arguments: Any, **more: Any) -> Any:
        lines.append(ticks.tick())
        return real[0](self, *arguments, **more)

    def read(*arguments: Any, **more: Any) -> Any:
        lines.append(ticks.tick())
        return real[1](*arguments, **more)

    def write(*arguments: Any) -> None:
        lines.append(ticks.tick())
        real[2](*arguments)

    monkeypatch.setattr(stub, "train", train)
    monkeypatch.setattr("ptycho_core.io.read_scan", read)
    monkeypatch.setattr(settings_file, "write_settings", write)
    words = ["run", str(scan), "--method", "network", "--group_size", "4", "--epochs", "3", "--refine", "none"]
    assert cli.main([*words, "--out", "r"]) == 0
    assert [line.partition(":")[0] for line in lines] == ["reading the scan", "training", "writing the results"]
    assert capsys.readouterr().err.splitlines()[:2] == [line.rstrip("\n") for line in lines[:2]]
    assert beats() == []


@pytest.mark.spec("CMD-18")
@pytest.mark.parametrize(
    ("words", "works", "said"),
    [
        (["inspect", "gone.npz"], "ptycho_core.inspection.examine.inspect_scan", "inspecting the scan"),
        (["compare", "a", "b"], "ptycho_core.api.compare.compare_images", "comparing the images"),
        (["export", "gone", "--format", "npz"], "ptycho_core.io.export.read_result", "exporting the image"),
        (["conform", "pytorch"], "ptycho_core.testing.run_conformance", "asking the engine"),
    ],
)
def test_a_command_that_only_looks_says_what_it_is_at_too(stub, ticks, monkeypatch, words, works, said):
    lines = []

    def work(*arguments: Any, **more: Any) -> Any:
        lines.append(ticks.tick())
        raise ConfigError("enough")

    monkeypatch.setattr(works, work)
    assert cli.main(words) == 2
    assert lines[0].startswith(f"{said}: 0:0")


@pytest.mark.spec("CMD-18")
def test_a_job_that_is_done_before_says_none(stub, scan, capsys):
    assert cli.main(["run", str(scan), "--epochs", "1", "--out", "r"]) == 0
    assert capsys.readouterr().err == ""


class Mute(io.StringIO):
    """A stream of a program, which cannot tell what it is."""

    isatty = None


@pytest.mark.parametrize("closed", [False, True])
def test_a_standard_error_that_cannot_tell_what_it_is_stops_no_command(stub, monkeypatch, capsys, closed):
    stream = io.StringIO() if closed else Mute()
    if closed:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main(["readers"]) == 0
    assert "cxi" in capsys.readouterr().out


SCRIPT = """
import sys
from ptycho_core.cli import beat
beat.LINE_SECONDS = 0.001
from ptycho_core.cli.main import main
sys.argv = ["ptycho", *sys.argv[1:]]
sys.exit(main())
"""


@pytest.mark.spec("CMD-18")
def test_the_command_itself_says_lines_and_ends(scan, tmp_path):
    """With a line every millisecond: the frames are read in a child, the image is made and written, and all ends."""
    words = ["run", str(scan), "--backend", "numpy", "--epochs", "4", "--refine", "none", "--out", "lines"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert {"reading the scan", "writing the results"} <= set(said)
    assert "Traceback" not in done.stderr
    assert cli.main([*words[:-1], "none"]) == 0
    import h5py

    objects = []
    for name in ("lines", "none"):
        with h5py.File(Path(tmp_path) / name / "reconstruction.h5") as file:
            objects.append(file["entry/object"][()])
    assert np.array_equal(*objects), "lines change no bit"
