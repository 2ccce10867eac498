"""Trainings in processes that are really killed: a warm process that has imported an engine forks one child for each.

Importing a framework takes seconds, so it is imported once, by a process of its own (never by the tests' process, which
may have threads already); each training then runs in a forked child, which can be killed at a chosen point, or from
outside at a chosen time, and is gone then as a killed process is: no handler, no flush, no temporary file removed.

Run as a program it is the server: requests as lines of JSON on standard input, answers on standard output.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from preloaded import environment

__all__ = ["POINTS", "KillServer"]

_LIMIT_S = 300
"""Seconds after which a child hangs."""

_FIRST_STEP = b"!"

POINTS = ("fsync", "replace", "replaced", "step")
"""Where a child kills itself: before the k-th flush or rename, after the k-th rename, or while it tells of step k.

Another place is a function, as ``module:name`` or ``module:class.name``: before its k-th call.
"""


class KillServer:
    """The client: one warm process of an engine, for as long as the block lasts."""

    def __init__(self, engine: str) -> None:
        from ptycho_core.plugins.registry import backend_spec

        self.engine = engine
        self._process = subprocess.Popen(
            [sys.executable, __file__, engine], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**backend_spec(engine).quiet_environment, **environment()},
        )  # fmt: skip

    def __enter__(self) -> KillServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=_LIMIT_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def run(
        self,
        case: str,
        folder: Path,
        *,
        resume_from: Path | None = None,
        kill_at: tuple[str, int] | None = None,
        kill_after_s: float | None = None,
        memory: int | None = None,
    ) -> dict[str, Any]:
        """Train a case in a process of its own.

        Args:
            case: name in ``CASES`` of the engine.
            folder: of its files.
            resume_from: checkpoint to go on from.
            kill_at: one of :data:`POINTS`, or a function, and how many times it is passed, counted from 1, before it
                kills itself.
            kill_after_s: seconds after which it is killed from outside, counted from the first step that it tells of;
                negative ones are counted from its birth.
            memory: seed of blocks that it allocates first, so that arrays lie elsewhere in its memory; kernels may add
                in another order where an array begins at another remainder of 64 bytes.

        Returns:
            ``signal`` that ended it, or 0; ``error`` that it raised, or empty; ``seconds``; ``first_step`` that it told
            of, or None; ``counts``, how often each of :data:`POINTS` was passed, and ``stepping_s``, seconds from the
            first step to the last, of a child that came to its end.
        """
        request = {
            "case": case,
            "folder": str(folder),
            "resume_from": None if resume_from is None else str(resume_from),
            "kill_at": kill_at,
            "kill_after_s": kill_after_s,
            "memory": random.getrandbits(32) if memory is None else memory,
        }
        return self._ask(request)

    def command(self, argv: Sequence[str], folder: Path, *, kill_at: tuple[str, int] | None = None) -> dict[str, Any]:
        """Run ``ptycho`` with these arguments in a folder; ``kill_at`` as in :meth:`run`.

        Returns:
            ``signal`` that ended it, or 0; ``code``; ``said``, all that it wrote on the terminal.
        """
        request = {"argv": list(argv), "folder": str(folder), "kill_at": kill_at, "kill_after_s": None}
        return self._ask({**request, "memory": random.getrandbits(32)})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the server of {self.engine} ended"
        return json.loads(answer)


def _untidy(seed: int) -> list[bytearray]:
    """Blocks of memory with holes between them, for as long as they are kept."""
    rng = random.Random(seed)
    blocks = [bytearray(rng.randrange(600, 9000)) for _ in range(600)]
    rng.shuffle(blocks)
    return blocks[:300]


class _Killer:
    """Counts the points that a child passes, and kills it at the chosen one."""

    def __init__(self, kill_at: tuple[str, int] | None, report: int) -> None:
        self.report = report
        self.kind, self.at = kill_at or ("", 0)
        self.counts = dict.fromkeys(POINTS, 0)
        self.steps: list[int] = []
        self.times: list[float] = []

    def passed(self, point: str) -> None:
        self.counts[point] += 1
        if point == self.kind and self.counts[point] == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Count every flush and rename of this process from now on."""

        def before(function: Callable[..., Any], point: str, after: str | None = None) -> Callable[..., Any]:
            def called(*given: Any, **more: Any) -> Any:
                self.passed(point)
                answer = function(*given, **more)
                if after is not None:
                    self.passed(after)
                return answer

            return called

        if ":" in self.kind:
            module, _, names = self.kind.partition(":")
            *owners, name = names.split(".")
            owner = functools.reduce(getattr, owners, importlib.import_module(module))
            self.counts[self.kind] = 0
            setattr(owner, name, before(getattr(owner, name), self.kind))
        os.fsync = before(os.fsync, "fsync")
        os.replace = before(os.replace, "replace", "replaced")
        os.rename = before(os.rename, "replace", "replaced")

    def progress(self, event: Any) -> None:
        if not self.steps:
            os.write(self.report, _FIRST_STEP)
        self.steps.append(event.done)
        self.times.append(time.monotonic())
        self.passed("step")

    @property
    def seconds(self) -> float:
        """From the first step to the last."""
        return self.times[-1] - self.times[0] if self.times else 0.0


def _warm_up() -> None:
    """Import what a command imports, once; and draw no pictures, which nobody here looks at and which take seconds."""
    names = ("api.run", "cli.main", "cli.run", "io.guarded", "report.write", "report.figures")
    for name in (*(f"ptycho_core.{name}" for name in names), "h5py", "hdf5plugin", "skimage.metrics", "scipy.ndimage"):
        importlib.import_module(name)
    header, pixel = struct.pack(">2I5B", 1, 1, 8, 0, 0, 0, 0), zlib.compress(b"\0\0")
    chunks = ((b"IHDR", header), (b"IDAT", pixel), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    drawn = ("object_amplitude", "object_phase", "probe", "coverage", "losses", "r_map", "patterns")
    importlib.import_module("ptycho_core.report.write")._draw = lambda run, view: {f"{name}.png": png for name in drawn}


def _command(argv: list[str], folder: Path, report: int) -> NoReturn:
    from ptycho_core.cli.main import main

    os.chdir(folder)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        code = main(argv)
        sys.stdout.flush()
        sys.stderr.flush()
        said.seek(0)
        text = said.read().decode()
    os.write(report, json.dumps({"code": code, "said": text[:30_000]}).encode())
    os._exit(0)


def _child(engine: str, request: dict[str, Any], report: int) -> None:
    """Train, say how it went, and end without tidying up."""
    killer, error, _kept = _Killer(request["kill_at"], report), "", _untidy(request["memory"])
    killer.watch()
    if "argv" in request:
        _command(request["argv"], Path(request["folder"]), report)
    from kill_cases import train_case

    resume_from = None if request["resume_from"] is None else Path(request["resume_from"])
    try:
        train_case(engine, request["case"], Path(request["folder"]), resume_from, killer.progress)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    first_step = killer.steps[0] if killer.steps else None
    answer = {"error": error, "first_step": first_step, "counts": killer.counts, "stepping_s": killer.seconds}
    os.write(report, json.dumps(answer).encode())
    os._exit(0)


def _serve_one(engine: str, request: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _child(engine, request, writing)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(70)
    os.close(writing)
    limit_s = request["kill_after_s"]
    if limit_s is not None:
        if limit_s >= 0:
            os.read(reading, len(_FIRST_STEP))
        time.sleep(abs(limit_s))
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:  # ends with the child
        told = pipe.read().removeprefix(_FIRST_STEP)
    _, status = os.waitpid(child, 0)
    ended = {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, "seconds": time.monotonic() - began}
    lost = "" if told or ended["signal"] else f"it ended with exit code {os.waitstatus_to_exitcode(status)}, see above"
    return {"error": lost, "first_step": None, "counts": {}} | (json.loads(told) if told else {}) | ended


def _serve(engine: str) -> None:
    """Import the engine, and nothing that starts threads; then answer until the input ends."""
    from ptycho_core.plugins.registry import load_backend

    answers = os.dup(1)
    os.dup2(2, 1)  # what a framework prints is no answer
    load_backend(engine)
    warm = False
    for line in sys.stdin:
        request = json.loads(line)
        if "argv" in request and not warm:
            _warm_up()
            warm = True
        answer = _serve_one(engine, request)
        os.write(answers, (json.dumps(answer) + "\n").encode())


if __name__ == "__main__":
    _serve(sys.argv[1])
