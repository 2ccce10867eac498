"""What every refusal looks like: exit 2, one line that only shows, nothing written; in this process or in a child."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ptycho_core.cli.main import EXIT_INPUT, main
from ptycho_core.text import MOST_CHARACTERS

__all__ = [
    "LONGEST_LINE",
    "Refusal",
    "check_refusal",
    "ran_in_child",
    "refusal_of",
    "refused",
    "refused_in_child",
    "seen_on_disk",
]

LONGEST_LINE = MOST_CHARACTERS + 200
"""Characters: a message of bounded length, and what says how much was left out of it."""

HANG_SECONDS = 60
"""Only a hang takes so long; no test here knows how quick the machine is."""

_CHILD = """
import json, os, resource, sys
report, most = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
sys.argv = ["ptycho", *sys.argv[3:]]
from ptycho_core.cli.main import main
code = main()
sys.stderr.flush()
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    # what getrusage says of itself begins with what the parent had when this process was made
    with open("/proc/self/status") as status:
        kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
except OSError:
    pass
of_children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
os.write(report, json.dumps({"code": code, "megabytes": max(kilobytes, of_children) / 1000}).encode())
sys.exit(code)
"""


@dataclass(frozen=True)
class Refusal:
    """How a command ended.

    Attributes:
        code: its exit code; negative where a signal ended the process.
        line: the line that says why, without ``ptycho: ``, or the report of ``inspect``; else empty.
        notes: ``note:`` and ``warning:`` lines before it.
        stderr: all of it.
        stdout: all of it.
        megabytes: most memory (10⁶ bytes) that the process or the largest of its children held; 0 of this process.
        seconds: from start to end.
    """

    code: int
    line: str
    notes: tuple[str, ...]
    stderr: str
    stdout: str
    megabytes: float = 0.0
    seconds: float = 0.0


def seen_on_disk(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What lies in a folder: path → type and rights, size, time of the last change; nothing is opened or followed."""
    found: dict[str, tuple[int, int, int]] = {}
    for root, folders, files in os.walk(os.fsencode(folder)):
        for name in (*folders, *files):
            path = os.path.join(root, name)
            state = os.lstat(path)
            size = 0 if os.path.isdir(path) else state.st_size
            found[repr(path)] = (state.st_mode, size, state.st_mtime_ns)
    return found


@contextlib.contextmanager
def _not_for_ever() -> Iterator[None]:
    """Fail the test that waits for something that never comes, such as the other end of a pipe."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        pytest.fail(f"still at it after {HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(argv: Sequence[str | os.PathLike[str]], tmp_path: Path, says: str = "", *, notes: bool = False) -> Refusal:
    """Run a command in this process, and assert that it is refused as it should be.

    Args:
        argv: the command and its arguments.
        tmp_path: the folder with all that the command may touch; it must be the same afterwards.
        says: a regular expression that the line must match somewhere.
        notes: whether ``note:`` lines may stand before it.
    """
    before = seen_on_disk(tmp_path)
    out, err = io.StringIO(), io.StringIO()
    started = time.monotonic()
    with _not_for_ever(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([os.fspath(word) for word in argv])
    taken = time.monotonic() - started
    refusal = refusal_of(code, out.getvalue(), err.getvalue(), 0.0, taken)
    check_refusal(refusal, tmp_path, before, says, notes)
    return refusal


def refused_in_child(
    argv: Sequence[str | os.PathLike[str]],
    tmp_path: Path,
    says: str = "",
    *,
    notes: bool = False,
    most_megabytes: float = 1000.0,
    address_space_gb: float = 8.0,
    environment: Mapping[str, str] | None = None,
) -> Refusal:
    """The same in a process of its own, for what may end or fill this one.

    Args:
        argv: the command and its arguments.
        tmp_path: as of :func:`refused`; the process runs in it.
        says: as of :func:`refused`.
        notes: as of :func:`refused`.
        most_megabytes: that the process, and each of its children, may ever hold; 10⁶ bytes.
        address_space_gb: limit of its address space, so that the machine outlives a failing test; 10⁹ bytes.
        environment: variables beside those of this process.
    """
    before = seen_on_disk(tmp_path)
    refusal = ran_in_child(argv, tmp_path, address_space_gb=address_space_gb, environment=environment)
    check_refusal(refusal, tmp_path, before, says, notes)
    assert refusal.megabytes <= most_megabytes, f"held {refusal.megabytes:.0f} MB: {refusal.line}"
    return refusal


def ran_in_child(
    argv: Sequence[str | os.PathLike[str]],
    folder: Path,
    *,
    address_space_gb: float = 8.0,
    environment: Mapping[str, str] | None = None,
) -> Refusal:
    """Run a command in a process of its own and say how it ended, whatever that is; a hang fails the test."""
    report, ours = os.pipe()
    words = [os.fspath(word) for word in argv]
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(ours), str(int(address_space_gb * 1e9)), *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(ours,),
        start_new_session=True,
    )
    os.close(ours)
    try:
        out, err = process.communicate(timeout=HANG_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        os.close(report)
        pytest.fail(f"still at it after {HANG_SECONDS} s: ptycho {' '.join(words)}")
    taken = time.monotonic() - started
    with open(report, "rb") as stream:
        said = json.loads(stream.read() or b"{}")
    megabytes = float(said.get("megabytes", 0.0))
    return refusal_of(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"), megabytes, taken)


def refusal_of(code: int, stdout: str, stderr: str, megabytes: float = 0.0, seconds: float = 0.0) -> Refusal:
    """Take apart what a command wrote."""
    lines = stderr.splitlines()
    notes = tuple(line for line in lines if re.match(r"(note|warning): ", line))
    said = [line.removeprefix("ptycho: ") for line in lines if line.startswith("ptycho: ")]
    if not said and "not usable: " in stdout:  # ``inspect`` reports what is wrong with a scan: that it was asked
        said = [stdout]
    return Refusal(code, said[0] if said else "", notes, stderr, stdout, megabytes, seconds)


def check_refusal(
    refusal: Refusal, folder: Path, before: Mapping[str, object], says: str = "", notes: bool = False
) -> None:
    """Assert that a command refused as it should, and left the folder as it was `before`; see :func:`refused`."""
    tail = (refusal.stderr + refusal.stdout)[-3000:]
    assert refusal.code == EXIT_INPUT, f"exit {refusal.code}: {tail}"
    assert "Traceback" not in refusal.stderr + refusal.stdout, tail
    lines = refusal.stderr.split("\n")
    assert lines.pop() == "", f"the last line does not end: {tail}"
    others = [line for line in lines if line not in refusal.notes]
    inspected = "not usable: " in refusal.stdout
    assert len(others) == (0 if inspected else 1), f"not one line: {tail}"
    assert all(line.startswith("ptycho: ") for line in others), tail
    assert notes or not refusal.notes, f"notes before it: {tail}"
    assert inspected or lines[-1:] == others, f"said after it: {tail}"
    for line in [*lines, *refusal.stdout.split("\n")]:
        assert len(line) <= LONGEST_LINE, f"{len(line)} characters: {line[:300]}"
        # by the categories of the standard, not by what the program takes for them
        acting = [c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
        assert not acting, f"characters that act: {line[:300]!r}"
    assert re.search(says, refusal.line), f"{says!r} is not in: {refusal.line}"
    after = seen_on_disk(folder)
    changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    assert not changed, f"written: {changed}"
