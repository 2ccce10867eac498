"""Messages, notices, progress and the figures of a session."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
import warnings

import pytest

from ptycho_core.cli.progress import long_job
from ptycho_core.cli.results import staged
from ptycho_core.cli.session import Session, peak_memory_bytes, process_start
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
    with long_job() as progress:
        for done in range(1, 6):
            progress(event(done))
    text = terminal.getvalue()
    assert "training" in text
    assert "50%" in text
    assert "left" in text
    assert "train_loss 0.125" in text


def test_progress_is_quiet_elsewhere(capsys):
    with long_job() as progress:
        progress(event(5))
    assert capsys.readouterr() == ("", "")


def test_signal_cancels_at_the_next_step_only(capsys):
    with long_job() as progress:
        progress(event(1))
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        with pytest.raises(Cancelled, match="2 of 10"):
            progress(event(2))
    assert "once more" in capsys.readouterr().err


def test_a_frameworks_own_handlers_do_not_stay(capsys):
    before = signal.getsignal(signal.SIGTERM)
    heard = []
    with long_job() as progress:
        signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
        progress(event(1))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
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


def fail_half_way(folder):
    with staged(folder) as partial:
        (partial / "a").write_text("new")
        raise ZeroDivisionError


def test_staged_files_move_together_or_not_at_all(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError):
        fail_half_way(tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]
    with staged(tmp_path) as partial:
        (partial / "a").write_text("new")
        (partial / "summary.json").write_text("{}")
        assert (tmp_path / "a").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "summary.json"]
    assert (tmp_path / "a").read_text() == "new"


def test_summary_is_moved_last(tmp_path, monkeypatch):
    moved, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append(b.name), replace(a, b)))
    with staged(tmp_path) as partial:
        for name in ("z.png", "summary.json", "a.png"):
            (partial / name).write_text("")
    assert moved == ["a.png", "z.png", "summary.json"]


def test_process_start_and_memory():
    before = time.time()
    started = process_start()
    assert started <= before + 1
    assert started == pytest.approx(process_start(), abs=1), "it does not move"
    held = bytearray(64 * 2**20)
    assert len(held) < peak_memory_bytes() < 64 * 2**30


def test_stages_add_up():
    session = Session()
    for _ in range(2):
        with session.stage("read"):
            time.sleep(0.01)
    assert 0.02 <= session.facts()["seconds"]["read"] <= session.facts()["seconds"]["total"]


def test_table_and_json():
    assert table([("a", "long"), ("wide", "b")]) == "a     long\n----  ----\nwide  b"
    assert '"x": null' in json_text({"x": float("nan")})
