"""Commands in processes that are quick to start: each is a copy (fork) of one that has imported the program.

A process of its own for every malformed file, with limits of its own, at a hundredth of the cost of a new interpreter.
Run as a program, this module is the process that is copied: it takes jobs as lines of JSON, and answers in kind.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ended", "WarmCommands", "warm_commands"]

HANG_SECONDS = 60
"""Only a hang takes so long."""

ADDRESS_SPACE = 12 * 10**9
"""So that the machine outlives a test that fails."""

MOST_OUTPUT = 10**6


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; negative where a signal ended the process; None where it was still at it.
        stdout: what it wrote.
        stderr: what it wrote, what libraries wrote included.
        megabytes: most memory that it held, and most that a child of it held, added; 10⁶ bytes.
        seconds: of processor time, its children's included.
    """

    code: int | None
    stdout: str
    stderr: str
    megabytes: float
    seconds: float


class WarmCommands:
    """A process that has imported the program, and is copied for every command."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, argv: Sequence[str | os.PathLike[str]], folder: Path) -> Ended:
        """Run ``ptycho`` with these arguments in a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {"argv": [os.fspath(word) for word in argv], "folder": str(folder)}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=HANG_SECONDS)


@contextlib.contextmanager
def warm_commands() -> Iterator[WarmCommands]:
    """The process, as long as the block runs."""
    commands = WarmCommands()
    try:
        yield commands
    finally:
        commands.close()


# --- in the process that is copied ---------------------------------------------------------------------------------


def _import_what_commands_import() -> None:
    from ptycho_core.plugins.readers import readers_by_priority

    readers_by_priority()


def _command(argv: list[str], folder: str, out: int, err: int, report: int) -> None:
    """In the copy: run the command, say what it took, and end."""
    os.setsid()
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, theirs in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(ours, theirs)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    from ptycho_core.cli.main import main

    before = time.process_time()
    try:
        code = main(argv)
    except BaseException:  # what the program let through: the test is told with its traceback
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = {
        "code": code,
        "megabytes": (_most_kilobytes() + children.ru_maxrss) / 1000,
        "seconds": time.process_time() - before + children.ru_utime + children.ru_stime,
    }
    os.write(report, json.dumps(said).encode())
    os._exit(0)


def _most_kilobytes() -> int:
    """Most memory that this process held; what ``getrusage`` says begins with what its parent had."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def _wait(pid: int, seconds: float) -> int | None:
    """Status of a process when it has ended; None where it has not after so long."""
    ended = os.pidfd_open(pid)
    try:
        if not select.select([ended], [], [], seconds)[0]:
            return None
        return os.waitpid(pid, 0)[1]
    finally:
        os.close(ended)


def _done(job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        report, ours = os.pipe()
        pid = os.fork()
        if pid == 0:
            _command(job["argv"], job["folder"], out.fileno(), err.fileno(), ours)
        os.close(ours)
        status = _wait(pid, HANG_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # a hang, or a child that was left behind
        if status is None:
            os.waitpid(pid, 0)
        with open(report, "rb") as stream:
            said = json.loads(stream.read() or b"{}")
        code = None if status is None else -os.WTERMSIG(status) if os.WIFSIGNALED(status) else said.get("code", 1)
        texts = {}
        for name, file in (("stdout", out), ("stderr", err)):
            file.seek(0)
            texts[name] = file.read(MOST_OUTPUT).decode(errors="backslashreplace")
        return {"code": code, "megabytes": said.get("megabytes", 0.0), "seconds": said.get("seconds", 0.0), **texts}


def _serve() -> None:
    _import_what_commands_import()
    for line in sys.stdin:
        answer = json.dumps(_done(json.loads(line)))
        os.write(1, f"{answer}\n".encode())


if __name__ == "__main__":
    _serve()
