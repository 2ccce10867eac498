"""Commands that send signals to themselves at chosen places: a warm process forks one child for each.

Where a signal comes is chosen and never left to luck: at the k-th safe point, or before or after the k-th call of a
function. Run as a program it is the server: requests as lines of JSON on standard input, answers on standard output.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Ended", "Sent", "SignalServer"]

_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)

_BESIDE: list[subprocess.Popen[bytes]] = []

HANG_SECONDS = 120
"""Only a hang takes so long."""


@dataclass(frozen=True)
class Sent:
    """Signals, and where they are sent.

    Attributes:
        names: of the signals, one after another.
        place: ``safe point``, or ``module:function`` or ``module:Class.method``.
        number: which of its calls, from 1.
        when: ``before`` or ``after`` the call.
        in_c: whether the call is one that never comes back by itself, as compiled code that hangs.
        ignored: signals that are ignored when the process begins, as ``nohup`` does it.
        stolen: whether a framework has put handlers of its own in place by then.
        to_all: whether they go to every process of the terminal's group, as Ctrl-C does.
        beside: whether the command has started a process by then that does not end by itself.
    """

    names: tuple[str, ...]
    place: str = "safe point"
    number: int = 1
    when: str = "before"
    in_c: bool = False
    ignored: tuple[str, ...] = ()
    stolen: bool = False
    to_all: bool = False
    beside: bool = False


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code; negative for a signal that ended it.
        out: standard output.
        err: standard error.
        passed: how often the place was passed, of a command that came to its end.
        left: processes that it started and that were still there.
    """

    code: int
    out: str
    err: str
    passed: int
    left: list[int] = field(default_factory=list)


class SignalServer:
    """The client: one warm process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> SignalServer:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=HANG_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def run(self, folder: Path, words: Sequence[str], sent: Sent | None = None, *, drawn: bool = False) -> Ended:
        """Run a command in a folder, with signals.

        Args:
            folder: to work in.
            words: the command and its arguments.
            sent: the signals.
            drawn: whether pictures are really drawn, which takes most of a small run.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"folder": str(folder), "words": list(words), "sent": asdict(sent or Sent(())), "drawn": drawn}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


def _send(sent: dict[str, Any]) -> None:
    if sent["stolen"]:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            signal.signal(getattr(signal, name), lambda number, frame: None)
    if sent["beside"]:
        _BESIDE.append(subprocess.Popen(["sleep", "100000"]))
    for name in sent["names"]:
        (os.killpg if sent["to_all"] else os.kill)(os.getpid(), getattr(signal, name))


def _hang() -> None:
    """A call that lets go of the interpreter and never comes back: no handler of Python is run."""
    import ctypes

    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    for _ in range(2):  # held by itself, it waits for ever, whatever signals come
        libc.pthread_mutex_lock(mutex)


def _arm(sent: dict[str, Any], count: Callable[[], None]) -> None:
    """Put the sending into the place."""
    passed = 0

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            nonlocal passed
            passed += 1
            count()
            here = passed == sent["number"]
            if here and sent["when"] == "before":
                if sent["in_c"]:
                    import threading

                    def later() -> None:
                        for name in sent["names"]:
                            time.sleep(0.2)
                            os.kill(os.getpid(), getattr(signal, name))

                    threading.Thread(target=later, daemon=True).start()
                    _hang()
                _send(sent)
            out = call(*given, **named)
            if here and sent["when"] == "after":
                _send(sent)
            return out

        return wrapped

    place = "ptycho_core.cli.signals:Stop.check" if sent["place"] == "safe point" else sent["place"]
    module, _, name = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    setattr(owner, last, around(getattr(owner, last)))


def _child(request: dict[str, Any], out: int, err: int, report: int) -> None:
    """Run the command as a process of its own would, and end."""
    sent, passed = request["sent"], 0

    def count() -> None:
        nonlocal passed
        passed += 1
        os.pwrite(report, f"{passed:8d}".encode(), 0)

    os.chdir(request["folder"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in sent["ignored"]:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.argv = ["ptycho", *request["words"]]
    if not request["drawn"]:
        from matplotlib.figure import Figure

        Figure.savefig = lambda self, file, **how: file.write(_PIXEL)  # type: ignore[assignment, method-assign, misc]
    _arm(sent, count)
    from ptycho_core.cli.main import main

    code = 1
    try:
        code = main()
    except BaseException:
        import traceback

        traceback.print_exc()
    import atexit

    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _in_session(session: int) -> list[int]:
    """Processes whose parent was in a session; those that start one of their own are found by their ancestry."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"PTYCHO_TEST_SESSION={session}".encode() in environment.split(b"\0") and state != "Z":
                found.append(int(entry.name))
    return found


def _done(request: dict[str, Any], number: int) -> dict[str, Any]:
    import tempfile

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as report:
        mark = os.getpid() * 100_000 + number
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.environ["PTYCHO_TEST_SESSION"] = str(mark)  # for what it starts
            _child(request, out.fileno(), err.fileno(), report.fileno())
        ends = time.monotonic() + HANG_SECONDS
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
            if time.monotonic() > ends:
                os.kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
                break
            time.sleep(0.005)
        for _ in range(1000):  # what ends when its pipe is closed takes a moment
            left = _in_session(mark)
            if not left:
                break
            time.sleep(0.01)
        texts = {}
        for name, file in (("out", out), ("err", err), ("passed", report)):
            file.seek(0)
            texts[name] = file.read().decode(errors="backslashreplace")
        for orphan in left:
            os.kill(orphan, signal.SIGKILL)
        passed = int(texts.pop("passed") or 0)
        return {"code": os.waitstatus_to_exitcode(status), "passed": passed, "left": left, **texts}


def _serve() -> None:

    import ptycho_core.api.run
    import ptycho_core.cli.run
    import ptycho_core.io
    import ptycho_core.report.write  # noqa: F401

    for number, line in enumerate(sys.stdin):
        os.write(1, f"{json.dumps(_done(json.loads(line), number))}\n".encode())


if __name__ == "__main__":
    _serve()
