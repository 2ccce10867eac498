"""What surrounds a command: messages, notices, the log file, the seconds of each stage and the peak memory.

A session lasts one command. It changes the logging and warning settings of the process and puts them back, so that
``main`` can be called from a program or a test.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..api.observe import Observer
from ..errors import OutputError
from ..io.result_folder import LOG_NAME
from ..text import one_line, printable, shell_words, shortened
from .beat import AtWork, Listener
from .help import terminal_width, wrapped
from .log_file import LogFile
from .option_words import in_option_words
from .signals import Stop
from .terminal import PLAIN, give_up, is_loss, put

if TYPE_CHECKING:
    from ..protocol import BackendSpec

__all__ = ["Session", "is_own_warning"]

_log = logging.getLogger("ptycho_core.cli")

_LINES = "\n\t"
"""What parts the lines and columns of our own texts."""

_MOST_DETAILS = 100_000
"""Characters of a traceback that are kept."""


class _Printable(logging.Formatter):
    """Lines of the log: whatever a message or a traceback holds, it only shows."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return shortened(printable(super().format(record), keep=_LINES), _MOST_DETAILS)


class _OneLine(logging.Formatter):
    """Messages of the terminal: ``warning: text`` without a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return prefix + one_line(record.getMessage())


def is_own_warning(category: type[Warning], filename: str) -> bool:
    """Whether a warning was raised by this project, for people, and not by a library for its programmers.

    NumPy blames the line that asked for a sum when it overflows; what came of it is judged by its value.
    """
    if issubclass(category, RuntimeWarning):
        return False
    module = category.__module__.partition(".")[0]
    ours = module == "builtins" or module.startswith("ptycho_")
    parts = Path(filename).parts
    if "site-packages" in parts:  # a folder that packages are installed below may have any name
        parts = parts[len(parts) - parts[::-1].index("site-packages") :]
    return ours and any(part.startswith("ptycho_") for part in parts)


_LABELLED = re.compile(r"[a-z][a-z ]{0,8} {1,9}(?<=^.{10})\S")
"""How a line of the result begins: a word, padded to ten characters."""


def _fitted(text: str) -> str:
    """Lines of the result as a terminal shows them whole: the rest of a long one stands below its beginning.

    In a pipe each line stays one; so do tables and documents everywhere.
    """
    if sys.stdout is None or not sys.stdout.isatty():
        return text
    width = terminal_width()
    lines = []
    for line in text.split("\n"):
        labelled = len(line) > width and _LABELLED.match(line) is not None
        lines += wrapped(line[10:], width, line[:10], " " * 10) if labelled else [line]
    return "\n".join(lines)


class Session(Observer):
    """Messages, notices and stage times of one command.

    Attributes:
        debug: whether tracebacks are shown.
        verbose: whether the terminal gets more than results and notices.
        log_path: the log file, once there is one.
        model_path: the trained model, from when it is saved until its results are.
        command: the command and its arguments, as given.
        owns_process: whether this process was started for the command, and not by a program that calls ``main``.
        stop: whether a signal has asked for the end.
        above_bar: writes above the bar that is drawn on the terminal, while there is one.
        reporter: hears of the steps of a long job, where no bar is drawn; None before there is one.
        folder: of the results, from when it is held.
        reading: how the scan is read, by options and files of settings together.
        lost: why standard output did not take what was said, where somebody misses it; else None.
    """

    def __init__(self, *, started: float | None = None, stop: Stop | None = None) -> None:
        """Begin.

        Args:
            started: when this program began for the command, on the clock of ``time.monotonic``.
            stop: who listens to the signals.
        """
        super().__init__()
        self.command: list[str] = []
        self.owns_process = started is not None
        self.stop = stop or Stop()
        self.lost: OSError | None = None
        self.above_bar: Callable[[str], None] | None = None
        self.debug = False
        self.verbose = False
        self.reporter: Listener | None = None
        self.folder: Path | None = None
        self.reading: dict[str, Any] = {}
        self.log_path: Path | None = None
        self.model_path: Path | None = None
        self._started = time.monotonic() if started is None else started
        self._doing = ("", self._started, "")
        self._handlers: list[tuple[logging.Logger, logging.Handler, int]] = []
        self._has_engine = False
        self._terminal: tuple[TextIO, TextIO] | None = None
        self._early: list[tuple[int, str]] = []

    @contextmanager
    def active(self) -> Iterator[Session]:
        """Show warnings as notices while the block runs, and put logging back in the end."""
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = self._on_warning
            try:
                yield self
            finally:
                self._give_terminal_back()
                for logger, handler, level in reversed(self._handlers):
                    logger.removeHandler(handler)
                    logger.setLevel(level)
                    handler.close()
                self._handlers.clear()

    @contextmanager
    def stage(self, name: str, *, finishes: bool = False) -> Iterator[None]:
        """As an observer has it; ``doing`` names the stage while the block runs."""
        before, self._doing = self._doing, (name, time.monotonic(), "")
        try:
            with super().stage(name, finishes=finishes):
                yield
        finally:
            self._doing = before if before[0] else ("", time.monotonic(), name)

    @property
    def doing(self) -> str:
        """The stage that the command is in; empty between two."""
        return self._doing[0]

    def at_work(self) -> AtWork:
        """What the command is at, for whoever says so from another thread."""
        (stage, since, before), reporter = self._doing, self.reporter
        return AtWork(
            stage=stage,
            since=since,
            before=before,
            step=None if reporter is None else reporter.last,
            labels={} if reporter is None else reporter.labels,
            stopping=self.stop.asked,
        )

    def check(self, doing: str = "") -> None:
        """Raise ``Cancelled`` where a signal has asked for the end."""
        self.stop.check(doing)

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
        if is_own_warning(category, filename):
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
            handler = LogFile(self.log_path)
        except OSError as error:
            raise OutputError(f"{self.log_path}: cannot be written ({error.strerror}); choose another --out") from error
        handler.setFormatter(_Printable("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        self._attach(logging.getLogger(), handler, logging.INFO)
        own = logging.getLogger("ptycho_core")
        self._attach(own, logging.NullHandler(), logging.DEBUG if self.verbose or self.debug else logging.INFO)
        _log.info("process %d: %s", os.getpid(), shell_words(["ptycho", *self.command]))
        early, self._early = self._early, []
        for level, text in early:
            self._to_log(level, text)
        self._take_terminal()

    def _attach(self, logger: logging.Logger, handler: logging.Handler, level: int) -> None:
        self._handlers.append((logger, handler, logger.level))
        logger.addHandler(handler)
        logger.setLevel(level)

    def working(self, on: str) -> None:
        """Say which engines do the work, and on what."""
        self.say(f"device    {on}")

    def opened(self, folder: Path) -> None:
        """Begin the log in the folder of the results."""
        self.folder = folder
        self.open_log(folder)

    def saved(self, model: Path) -> None:
        """Remember where the model is, for advice to whoever interrupts."""
        self.model_path = model

    @contextmanager
    def importing(self, spec: BackendSpec) -> Iterator[None]:
        """Keep what an engine's framework says when it starts, and later, off the terminal; it goes to the log.

        Frameworks in compiled languages write past Python's logging, to the standard error of the process, so this is
        done only in a process that was started for the command.
        """
        if not self.owns_process:
            yield
            return
        for variable, value in spec.quiet_environment.items():
            os.environ.setdefault(variable, value)
        sys.stderr.flush()
        terminal = self.stop.terminal = os.dup(2)
        with tempfile.TemporaryFile() as chatter:
            os.dup2(chatter.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(terminal, 2)
                self.stop.terminal = 2
                os.close(terminal)
                chatter.seek(0)
                for line in chatter.read().decode(errors="replace").splitlines():
                    self._to_log(logging.INFO, f"{spec.name} starts: {line}")
                self._has_engine = True
                self._take_terminal()

    def _take_terminal(self) -> None:
        """Once there are an engine and a log: keep the terminal for this program's own words, until the command ends.

        A framework says more at its first operation, long after its import; its words go straight to the log, so that
        also those are kept with which a library ends the process.
        """
        log = next((h.stream for _, h, _ in self._handlers if isinstance(h, logging.FileHandler)), None)
        if log is None or not self._has_engine or self._terminal is not None:
            return
        before = sys.stderr
        before.flush()
        own = open(os.dup(2), "w", encoding=before.encoding, errors=PLAIN, buffering=1)  # noqa: SIM115
        os.dup2(log.fileno(), 2)
        self._set_stderr(before, own)
        self._terminal = before, own
        self.stop.terminal = own.fileno()

    def _give_terminal_back(self) -> None:
        if self._terminal is not None:
            before, own = self._terminal
            self._terminal = None
            with suppress(OSError):
                own.flush()
            self.stop.terminal = 2
            os.dup2(own.fileno(), 2)
            self._set_stderr(own, before)
            with suppress(OSError):
                own.close()

    def _set_stderr(self, before: TextIO, after: TextIO) -> None:
        """Have everything of ours that writes to the one stream write to the other."""
        sys.stderr = after
        for _, handler, _ in self._handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                handler.setStream(after)

    @contextmanager
    def quiet_start(self, engine: str) -> Iterator[None]:
        """The same for an engine of which only the name is at hand.

        Raises:
            BackendError: see ``plugins.registry.backend_spec``.
        """
        from ..plugins.registry import backend_spec

        with self.importing(backend_spec(engine)):
            yield

    def say(self, text: str = "") -> None:
        """Write lines of the result to standard output, and to the log."""
        text = printable(text, keep=_LINES)
        self._put(sys.stdout, f"{_fitted(text)}\n")
        self._to_log(logging.INFO, text)

    def detail(self, text: str) -> None:
        """Write a line to the log, and to the terminal where more is to be said there."""
        text = printable(text, keep=_LINES)
        if self.verbose:
            self._put(sys.stderr, f"{text}\n")
        self._to_log(logging.INFO, text)

    def notice(self, text: str) -> None:
        """Show a one-line notice on standard error once, and remember it."""
        text = one_line(in_option_words(text))
        if text in self.notices:
            return
        self.notices.append(text)
        self._put(sys.stderr, f"note: {text}\n")
        self._to_log(logging.WARNING, text)

    def error(self, text: str, traceback: str) -> None:
        """Show a one-line error on standard error; its traceback goes to the log, and is shown with ``--debug``."""
        text = one_line(in_option_words(text))
        self._put(sys.stderr, f"ptycho: {text}\n")
        if self.debug:
            self._put(sys.stderr, shortened(printable(traceback, keep=_LINES), _MOST_DETAILS))
        self._to_log(logging.ERROR, f"{text}\n{traceback}" if traceback else text)

    def _put(self, stream: TextIO | None, text: str) -> None:
        """Write to the terminal; where that cannot be done the command goes on without it."""
        if self.above_bar is not None and stream is not None and stream.isatty():
            self.above_bar(text)
            return
        error = put(stream, text)
        if error is None or stream is None:
            return
        if is_loss(error) and stream is sys.stdout:
            self.lost = self.lost or error
        if self.owns_process:
            give_up(stream)

    def _to_log(self, level: int, text: str) -> None:
        """Write a line to the log; what is said before there is one is kept until then."""
        files = [handler for _, handler, _ in self._handlers if isinstance(handler, logging.FileHandler)]
        if not files:
            self._early.append((level, text))
        for handler in files:
            if text:
                handler.handle(logging.LogRecord(_log.name, level, __file__, 0, text, None, None))

    def add_seconds(self, name: str, seconds: float) -> None:
        """Add seconds to a stage, and log it."""
        super().add_seconds(name, seconds)
        self._to_log(logging.INFO, f"stage {name}: {self.seconds[name]:.2f} s")

    def age(self) -> float:
        """Seconds since this program began."""
        return time.monotonic() - self._started
