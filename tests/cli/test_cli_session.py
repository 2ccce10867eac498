"""Messages, notices, progress and the figures of a session."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest

from ptycho_core.api.observe import peak_memory_bytes
from ptycho_core.cli.progress import long_job
from ptycho_core.cli.session import Session, is_own_warning
from ptycho_core.cli.signals import Stop
from ptycho_core.cli.tables import json_text, table
from ptycho_core.errors import Cancelled
from ptycho_core.protocol import ProgressEvent


class Terminal(io.StringIO):
    def isatty(self):
        return True


def event(done, total=10):
    return ProgressEvent(stage="train", done=done, total=total, metrics={"train_loss": 0.125})


def test_progress_draws_a_bar_with_time_left_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with long_job(Session()) as progress:
        for done in range(1, 6):
            progress(event(done))
    text = terminal.getvalue()
    assert "training" in text
    assert "50%" in text
    assert "left" in text
    assert "loss 0.125" in text


def test_progress_is_quiet_elsewhere(capsys):
    with long_job(Session()) as progress:
        progress(event(5))
    assert capsys.readouterr() == ("", "")


def test_signal_cancels_at_the_next_step_only(capsys):
    with Stop().listening() as stop, long_job(Session(stop=stop)) as progress:
        progress(event(1))
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Cancelled, match="2 of 10"):
            progress(event(2))
    assert "once more" in capsys.readouterr().err


def test_a_frameworks_own_handlers_do_not_stay(capsys):
    before = signal.getsignal(signal.SIGTERM)
    heard = []
    with Stop().listening() as stop, long_job(Session(stop=stop)) as progress:
        signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
        progress(event(1))
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Cancelled):
            progress(event(2))
    assert not heard
    assert signal.getsignal(signal.SIGTERM) is before


def test_notices_are_shown_once_in_one_line_and_ours_only(capsys):
    session = Session()
    with session.active():
        for _ in range(2):
            warnings.warn_explicit("two\n lines", UserWarning, "/site/ptycho_core/x.py", 3)
        warnings.warn_explicit("theirs", UserWarning, "/site/scipy/x.py", 3)
    assert session.notices == ["two lines"]
    assert capsys.readouterr().err == "note: two lines\n"


@pytest.mark.parametrize(
    ("filename", "own"),
    [
        ("/work/ptycho_core/api/refine.py", True),
        ("/venv/lib/python3.12/site-packages/ptycho_core/api/refine.py", True),
        ("/venv/lib/python3.12/site-packages/ptycho_backend_torch/backend.py", True),
        ("/venv/lib/python3.12/site-packages/torch/nn/module.py", False),
        ("/home/me/ptycho_work/.venv/lib/python3.12/site-packages/torch/nn/module.py", False),
        ("/home/me/scan.py", False),
    ],
)
def test_a_warning_is_ours_by_the_package_that_raised_it(filename: str, own: bool) -> None:
    assert is_own_warning(UserWarning, filename) is own


def test_a_library_s_own_category_is_never_ours() -> None:
    class TorchWarning(UserWarning):
        __module__ = "torch"

    assert not is_own_warning(TorchWarning, "/work/ptycho_core/api/refine.py")


def test_log_holds_what_was_said_before_it_was_opened(tmp_path, capsys):
    session = Session()
    with session.active():
        session.notice("early")
        session.open_log(tmp_path)
        session.say("late")
        session.error("wrong", "Traceback here")
    text = (tmp_path / "ptycho.log").read_text()
    assert all(word in text for word in ("early", "late", "wrong", "Traceback here"))
    out, err = capsys.readouterr()
    assert out == "late\n"
    assert "Traceback" not in err


def test_a_log_is_continued(tmp_path):
    for text in ("first", "second"):
        session = Session()
        with session.active():
            session.open_log(tmp_path)
            session.say(text)
    log = (tmp_path / "ptycho.log").read_text()
    assert "first" in log
    assert "second" in log


def test_the_log_has_what_was_said_before_its_folder_was_there(tmp_path, capsys):
    """The folder is made when the input has been accepted; by then the engine has started and the scan is read."""
    session = Session()
    with session.active():
        session.say("scan      9 frames")
        session.detail("an assumption")
        with session.stage("read"):
            pass
        session.opened(tmp_path)
    log = (tmp_path / "ptycho.log").read_text()
    places = [log.index(text) for text in ("scan      9 frames", "an assumption", "stage read")]
    assert places == sorted(places)
    assert capsys.readouterr() == ("scan      9 frames\n", "")


def test_time_counts_from_when_this_program_began(tmp_path):
    """A shell that is replaced by the command hands over its process, and with it the time of its birth."""
    code = (
        "import time; began = time.monotonic()\n"
        "from ptycho_core.cli import main\n"
        "assert began <= main._BEGAN <= time.monotonic()\n"
        "from ptycho_core.cli.session import Session\n"
        "session = Session(started=main._BEGAN)\n"
        "print(session.age())"
    )
    shell = f"sleep 2; exec {sys.executable} -c '{code}'"
    done = subprocess.run(["sh", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert 0 <= float(done.stdout) < 1.9


def test_memory():
    held = bytearray(64 * 2**20)
    assert len(held) < peak_memory_bytes() < 64 * 2**30


def test_stages_add_up():
    session = Session()
    for _ in range(2):
        with session.stage("read"):
            time.sleep(0.01)
    assert 0.02 <= session.facts()["read"] <= session.facts()["total"]


def test_table_and_json():
    assert table([("a", "long"), ("wide", "b")]) == "a     long\n----  ----\nwide  b"
    assert '"x": null' in json_text({"x": float("nan")})
