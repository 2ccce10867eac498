"""Commands in a process that has imported the program: each in a copy (fork) of it, or one after another in itself.

A copy for every malformed file is apart from all others, and starts the child that reads strangers' files anew; one
after another takes a tenth of that, and the child serves them all, as it serves an application. What ends or stops the
process is told, and the next command gets a new one. Run as a program, this module is that process: it takes jobs as
lines of JSON, and answers in kind.
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
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ended", "WarmCommands", "seconds_of_children", "warm_commands"]

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
    """A process that has imported the program.

    Args:
        copied: whether it is copied for every command.
    """

    def __init__(self, copied: bool) -> None:
        self._copied = copied
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        words = [sys.executable, __file__, "copied" if self._copied else "kept"]
        return subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment, start_new_session=True
        )

    def run(self, argv: Sequence[str | os.PathLike[str]], folder: Path) -> Ended:
        """Run ``ptycho`` with these arguments in a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            job = {"argv": [os.fspath(word) for word in argv], "folder": str(folder), "out": out.name, "err": err.name}
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            patient = HANG_SECONDS + 30 if self._copied else HANG_SECONDS  # which looks for hangs itself
            if select.select([self._process.stdout], [], [], patient)[0]:
                answer = self._process.stdout.readline()
            else:
                answer = b'{"code": null}'
            if not answer.endswith(b"\n"):
                code = self._ended()
                self.close()
                answer = answer or json.dumps({"code": code}).encode()
                self._process = self._started()
            texts = [file.read(MOST_OUTPUT).decode(errors="backslashreplace") for file in (out, err)]
        said = {"megabytes": 0.0, "seconds": 0.0} | json.loads(answer)
        return Ended(stdout=texts[0], stderr=texts[1], **said)

    def _ended(self) -> int:
        """End what is left of a process that failed, and say how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def close(self) -> None:
        """End the process."""
        with self._process as process:  # which closes both pipes and waits
            assert process.stdin is not None
            process.stdin.close()


@contextlib.contextmanager
def warm_commands(*, copied: bool) -> Iterator[WarmCommands]:
    """The process, as long as the block runs."""
    commands = WarmCommands(copied)
    try:
        yield commands
    finally:
        commands.close()


# --- in that process ---------------------------------------------------------------------------------------------


def _import_what_commands_import() -> None:
    from ptycho_core.plugins.readers import readers_by_priority

    readers_by_priority()


def _streams(job: dict[str, Any]) -> None:
    """Have both outputs of this process, and of its libraries, go where the job says."""
    sys.stdout.flush()
    sys.stderr.flush()
    for name, number in (("out", 1), ("err", 2)):
        file = os.open(job[name], os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)


def _run(argv: list[str]) -> int:
    from ptycho_core.cli.main import main

    try:
        return main(argv)
    except BaseException:  # what the program let through: the test is told with its traceback
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _most_kilobytes(pid: int | str = "self") -> int:
    """Most memory that a process held; what ``getrusage`` says begins with what its parent had."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0)
    except OSError:
        return 0


def _copy(job: dict[str, Any], report: int) -> None:
    """In the copy: run the command, say what it took, and end."""
    os.setsid()
    os.chdir(job["folder"])
    _streams(job)
    before = time.process_time()
    code = _run(job["argv"])
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = {
        "code": code,
        "megabytes": (_most_kilobytes() + max(children.ru_maxrss, *map(_most_kilobytes, _children()), 0)) / 1000,
        "seconds": time.process_time() - before + seconds_of_children(),
    }
    os.write(report, json.dumps(said).encode())
    os._exit(0)


def _wait(pid: int, seconds: float) -> int | None:
    """Status of a process when it has ended; None where it has not after so long."""
    ended = os.pidfd_open(pid)
    try:
        if not select.select([ended], [], [], seconds)[0]:
            return None
        return os.waitpid(pid, 0)[1]
    finally:
        os.close(ended)


def _in_a_copy(job: dict[str, Any]) -> dict[str, Any]:
    report, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        _copy(job, ours)
    os.close(ours)
    status = _wait(pid, HANG_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if status is None:
        os.waitpid(pid, 0)
    with open(report, "rb") as stream:
        said = json.loads(stream.read() or b"{}")
    code = None if status is None else -os.WTERMSIG(status) if os.WIFSIGNALED(status) else said.get("code", 1)
    return {**said, "code": code}


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as listed:
        return [int(pid) for pid in listed.read().split()]


def seconds_of_children() -> float:
    """Processor time of the children that ended and of those at work."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ended.ru_utime + ended.ru_stime
    for pid in _children():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def _here(job: dict[str, Any]) -> dict[str, Any]:
    """Run the command in this process. A child that ended is counted where it held more than any before it."""
    for pid in ("self", *_children()):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/clear_refs", "w") as file:
            file.write("5")  # the most that it held is counted anew
    most_before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    before = time.process_time() + seconds_of_children()
    os.chdir(job["folder"])
    _streams(job)
    code = _run(job["argv"])
    os.chdir("/")
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    children = max([*map(_most_kilobytes, _children()), most if most > most_before else 0])
    return {
        "code": code,
        "megabytes": (_most_kilobytes() + children) / 1000,
        "seconds": time.process_time() + seconds_of_children() - before,
    }


def _serve(copied: bool) -> None:
    answers = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    jobs = os.fdopen(os.dup(0), "rb")
    for number in (0, 1):
        os.dup2(nothing, number)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _import_what_commands_import()
    for line in iter(jobs.readline, b""):
        job = json.loads(line)
        answer = json.dumps(_in_a_copy(job) if copied else _here(job))
        os.write(answers, f"{answer}\n".encode())


if __name__ == "__main__":
    _serve(sys.argv[1] == "copied")
