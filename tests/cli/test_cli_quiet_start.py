"""What a framework says when it starts is kept off the terminal and goes to the log, in the command's own process."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from pathlib import Path

import pytest

from ptycho_core.cli.session import Session
from ptycho_core.errors import UnknownBackendError
from ptycho_core.plugins import registry
from ptycho_core.protocol import BackendSpec

pytestmark = pytest.mark.spec("PLUG-8")


@pytest.fixture
def stub(monkeypatch):
    """An engine of which only the description is asked for, and an environment in which nobody has quietened it."""
    for name in ("STUB_LOG_LEVEL", "STUB_BANNER"):
        monkeypatch.setenv(name, "")  # so that it is taken away again
        monkeypatch.delenv(name)
    spec = BackendSpec(
        name="stub", factory="nowhere:Engine", quiet_environment={"STUB_LOG_LEVEL": "2", "STUB_BANNER": "off"}
    )
    asked = []
    monkeypatch.setattr(registry, "backend_spec", lambda name: (asked.append(name), spec)[1])
    return asked


@pytest.fixture
def own():
    """A session of a process that was started for the command."""
    with Session(started=time.monotonic()).active() as session:
        yield session


def terminal(capfd, monkeypatch):
    """Give standard error a buffer of Python's before descriptor 2, as in a process; return what tells what arrived.

    It is called in a test and is no fixture, since capturing puts its own stream back between the two.
    """
    stream = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (it lasts as long as the test)
    monkeypatch.setattr(sys, "stderr", stream)

    def arrived() -> str:
        stream.flush()
        return capfd.readouterr().err

    return arrived


def shout(text: str) -> None:
    """Write past Python, as a compiled library does."""
    os.write(2, text.encode())


def logged(folder: Path) -> list[str]:
    lines = (folder / "ptycho.log").read_text(encoding="utf-8").splitlines()
    return [line.partition("stub starts: ")[2] for line in lines if "stub starts: " in line]


def test_what_is_said_past_python_goes_to_the_log(own, stub, tmp_path, capfd, monkeypatch):
    arrived = terminal(capfd, monkeypatch)
    own.open_log(tmp_path)
    with own.quiet_start("stub"):
        shout("I0000 oneDNN is on\nW0000 café\n")
        print("and through Python", file=sys.stderr)
    assert arrived() == ""
    assert sorted(logged(tmp_path)) == ["I0000 oneDNN is on", "W0000 café", "and through Python"]
    assert stub == ["stub"]


def test_what_is_said_after_the_start_goes_to_the_log_too(stub, tmp_path, capfd, monkeypatch):
    """A framework says more at its first operation; the terminal is the command's, and is given back in the end."""
    arrived = terminal(capfd, monkeypatch)
    before = sys.stderr
    print("before", file=sys.stderr)
    with Session(started=time.monotonic()).active() as session:
        session.configure(verbose=True, debug=False)
        session.open_log(tmp_path)
        assert re.fullmatch("before\nprocess .*\n", arrived())
        with session.quiet_start("stub"):
            shout("during\n")
        shout("E0000 cuInit: café\n")
        session.notice("and a notice: ψ")
        print("through Python", file=sys.stderr)
        logging.getLogger("ptycho_core.cli").info("told with --verbose")
    shout("after\n")
    assert sys.stderr is before
    assert arrived() == "note: and a notice: ψ\nthrough Python\ntold with --verbose\nafter\n"
    assert logged(tmp_path) == ["during"]
    assert "E0000 cuInit: café" in (tmp_path / "ptycho.log").read_text(encoding="utf-8").splitlines()


def test_a_log_that_is_opened_later_takes_it_from_there_on(own, stub, tmp_path, capfd, monkeypatch):
    arrived = terminal(capfd, monkeypatch)
    with own.quiet_start("stub"):
        pass
    own.open_log(tmp_path)
    shout("E0000 cuInit\n")
    assert arrived() == ""
    assert "E0000 cuInit" in (tmp_path / "ptycho.log").read_text(encoding="utf-8").splitlines()


def test_a_log_without_an_engine_takes_nothing(own, tmp_path, capfd, monkeypatch):
    arrived = terminal(capfd, monkeypatch)
    own.open_log(tmp_path)
    shout("E0000 of a file's library\n")
    assert arrived() == "E0000 of a file's library\n"


def test_results_on_standard_output_are_not_kept_back(own, stub, tmp_path, capfd):
    own.open_log(tmp_path)
    with own.quiet_start("stub"):
        own.say("scan      9 frames")
    assert capfd.readouterr().out == "scan      9 frames\n"


def test_a_start_that_fails_leaves_its_words_in_the_log_and_the_terminal_free(stub, tmp_path, capfd):
    def start():
        with Session(started=time.monotonic()).active() as session:
            session.open_log(tmp_path)
            with session.quiet_start("stub"):
                shout("E0000 no driver\n")
                raise ImportError("libcudart.so: cannot open")

    with pytest.raises(ImportError, match="libcudart"):
        start()
    shout("after\n")
    assert capfd.readouterr().err == "after\n"
    assert logged(tmp_path) == ["E0000 no driver"]


def test_no_descriptor_is_left_open(stub, tmp_path, capfd):
    probe = os.dup(0)
    os.close(probe)
    for _ in range(3):
        with Session(started=time.monotonic()).active() as session:
            session.open_log(tmp_path)
            for _ in range(2):
                with session.quiet_start("stub"):
                    shout("x\n")
    again = os.dup(0)
    os.close(again)
    assert again == probe


def test_a_great_deal_of_it_blocks_nothing(own, stub, tmp_path, capfd):
    """More than a pipe holds, and bytes that are no text."""
    own.open_log(tmp_path)
    with own.quiet_start("stub"):
        for _ in range(2000):
            shout("x" * 99 + "\n")
        os.write(2, b"\xff\xfe\n")
    assert capfd.readouterr().err == ""
    assert len(logged(tmp_path)) == 2001


def test_without_a_log_it_is_quiet_all_the_same(own, stub, capfd):
    with own.quiet_start("stub"):
        shout("I0000\n")
    assert capfd.readouterr().err == ""


def test_variables_are_set_where_nobody_has_set_them(own, stub, monkeypatch):
    """A user who wants to see everything has the last word."""
    monkeypatch.setenv("STUB_LOG_LEVEL", "0")
    with own.quiet_start("stub"):
        assert (os.environ["STUB_LOG_LEVEL"], os.environ["STUB_BANNER"]) == ("0", "off")


def test_a_program_that_calls_the_command_is_left_alone(stub, capfd):
    """Its environment and its standard error are its own."""
    before = dict(os.environ)
    with Session().active() as session, session.quiet_start("stub"):
        shout("I0000 oneDNN is on\n")
        assert dict(os.environ) == before
    assert capfd.readouterr().err == "I0000 oneDNN is on\n"


def test_an_engine_that_nobody_has(own, capfd):
    def start():
        with own.quiet_start("pytorhc"):
            raise AssertionError("never reached")

    with pytest.raises(UnknownBackendError, match="pytorhc"):
        start()
    shout("after\n")
    assert capfd.readouterr().err == "after\n"
