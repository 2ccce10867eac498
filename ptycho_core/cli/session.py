"""What surrounds a command: messages, notices, the log file, the seconds of each stage and the peak memory.

A session lasts one command. It changes the logging and warning settings of the process and puts them back, so that
``main`` can be called from a program or a test.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ..errors import OutputError

__all__ = ["LOG_NAME", "Session", "peak_memory_bytes", "process_start"]

LOG_NAME = "ptycho.log"

_OWN_PREFIX = "ptycho"
_log = logging.getLogger("ptycho_core.cli")


def process_start() -> float:
    """Return the moment this process was started, on the clock of ``time.time``, as well as the platform tells."""
    now = time.time()
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # no /proc: the interpreter has been busy since its start
        age = time.process_time()
    return now - max(age, 0.0)


def peak_memory_bytes() -> int | None:
    """Return the largest resident memory this process has had, in bytes, or None where the platform does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the others KiB


class _OneLine(logging.Formatter):
    """Messages of the terminal: ``warning: text`` without a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return prefix + " ".join(record.getMessage().split())


class Session:
    """Messages, notices and stage times of one command.

    Attributes:
        debug: whether tracebacks are shown.
        verbose: whether the terminal gets more than results and notices.
        notices: every notice shown, in order.
        seconds: wall-clock seconds by stage.
        log_path: the log file, once there is one.
        command: the command and its arguments, as given.
        owns_process: whether this process was started for the command, and not by a program that calls ``main``.
    """

    def __init__(self, *, started: float | None = None) -> None:
        """Begin; `started` is when the process was started for the command, on the clock of ``time.time``."""
        self.command: list[str] = []
        self.owns_process = started is not None
        self.debug = False
        self.verbose = False
        self.notices: list[str] = []
        self.seconds: dict[str, float] = {}
        self.log_path: Path | None = None
        self._started = time.time() if started is None else started
        self._handlers: list[tuple[logging.Logger, logging.Handler, int]] = []

    @contextmanager
    def active(self) -> Iterator[Session]:
        """Show warnings as notices while the block runs, and put logging back in the end."""
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = self._on_warning
            try:
                yield self
            finally:
                for logger, handler, level in reversed(self._handlers):
                    logger.removeHandler(handler)
                    logger.setLevel(level)
                    handler.close()
                self._handlers.clear()

    def _on_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Show a warning that we raised as a notice; keep one of a library for the log."""
        module = category.__module__.partition(".")[0]
        ours = module in ("builtins", _OWN_PREFIX) or module.startswith("ptycho_")
        if ours and any(part.startswith("ptycho_") for part in Path(filename).parts):
            self.notice(str(message))
        else:
            _log.debug("%s:%d: %s: %s", filename, lineno, category.__name__, message)

    def configure(self, *, verbose: bool, debug: bool) -> None:
        """Take the options every command has."""
        self.verbose, self.debug = verbose, debug
        if verbose:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(_OneLine())
            self._attach(logging.getLogger("ptycho_core"), handler, logging.INFO)

    def open_log(self, folder: Path) -> None:
        """Write a log file in the output folder from here on; one of an earlier run is continued.

        Raises:
            OutputError: it cannot be written.
        """
        self.log_path = folder / LOG_NAME
        try:
            handler = logging.FileHandler(self.log_path, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.log_path}: cannot be written ({error.strerror}); choose another --out") from error
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        self._attach(logging.getLogger(), handler, logging.INFO)
        own = logging.getLogger("ptycho_core")
        self._attach(own, logging.NullHandler(), logging.DEBUG if self.verbose or self.debug else logging.INFO)
        _log.info("process %d: %s", os.getpid(), shlex.join(["ptycho", *self.command]))
        for text in self.notices:
            _log.warning("%s", text)

    def _attach(self, logger: logging.Logger, handler: logging.Handler, level: int) -> None:
        self._handlers.append((logger, handler, logger.level))
        logger.addHandler(handler)
        logger.setLevel(level)

    @contextmanager
    def quiet_start(self, engine: str) -> Iterator[None]:
        """Keep what an engine's framework says when it starts off the terminal; it goes to the log.

        Frameworks in compiled languages write past Python's logging, to the standard error of the process, so this is
        done only in a process that was started for the command.

        Raises:
            BackendError: see ``plugins.registry.backend_spec``.
        """
        from ..plugins.registry import backend_spec

        if not self.owns_process:
            yield
            return
        for variable, value in backend_spec(engine).quiet_environment.items():
            os.environ.setdefault(variable, value)
        sys.stderr.flush()
        terminal = os.dup(2)
        with tempfile.TemporaryFile() as chatter:
            os.dup2(chatter.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(terminal, 2)
                os.close(terminal)
                chatter.seek(0)
                for line in chatter.read().decode(errors="replace").splitlines():
                    self._to_log(logging.INFO, f"{engine} starts: {line}")

    def say(self, text: str = "") -> None:
        """Write a line of the result to standard output, and to the log."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
        self._to_log(logging.INFO, text)

    def notice(self, text: str) -> None:
        """Show a one-line notice on standard error once, and remember it."""
        text = " ".join(text.split())
        if text in self.notices:
            return
        self.notices.append(text)
        sys.stderr.write(f"note: {text}\n")
        self._to_log(logging.WARNING, text)

    def error(self, text: str, traceback: str) -> None:
        """Show a one-line error on standard error; its traceback goes to the log, and is shown with ``--debug``."""
        sys.stderr.write(f"ptycho: {' '.join(text.split())}\n")
        if self.debug:
            sys.stderr.write(traceback)
        self._to_log(logging.ERROR, f"{text}\n{traceback}" if traceback else text)

    def _to_log(self, level: int, text: str) -> None:
        for _, handler, _ in self._handlers:
            if isinstance(handler, logging.FileHandler) and text:
                handler.handle(logging.LogRecord(_log.name, level, __file__, 0, text, None, None))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall-clock seconds of a block to a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add_seconds(name, time.perf_counter() - begin)

    def add_seconds(self, name: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self._to_log(logging.INFO, f"stage {name}: {self.seconds[name]:.2f} s")

    def age(self) -> float:
        """Seconds since the process was started."""
        return time.time() - self._started

    def facts(self) -> dict[str, Any]:
        """Seconds by stage and in all, and the peak memory, as they stand now."""
        seconds = {name: round(value, 3) for name, value in {**self.seconds, "total": self.age()}.items()}
        return {"seconds": seconds, "peak_memory_bytes": peak_memory_bytes()}
