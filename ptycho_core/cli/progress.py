"""Progress on a terminal, and the two signals that stop a long job: one asks it to finish its step, two end it now."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from ..errors import BackendFaultError, Cancelled
from ..protocol import ProgressEvent

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = ["Reporter", "long_job"]

_log = logging.getLogger("ptycho_core.cli")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LABELS = {
    "train": "training",
    "reconstruct": "reconstructing",
    "refine": "refining",
    "simulate": "simulating",
    "write": "writing",
    "probe": "searching for the probe",
    "orient": "trying orientations",
    "centre": "trying centres of the beam",
    "diagnosis": "looking for the cause",
}


class _Stop:
    """Whether a signal has asked for the end."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        sys.stderr.write("\nstopping after this step; once more stops at once and keeps nothing of it\n")


def _handle(stop: _Stop) -> None:
    """Let `stop` answer the signals; only the main thread may change handlers."""
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is not stop:
                signal.signal(number, stop)


@contextmanager
def _signals_to(stop: _Stop) -> Iterator[None]:
    """Let the signals ask for the end politely while the block runs."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    _handle(stop)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def long_job() -> Iterator[Reporter]:
    """Yield a progress callback for an engine.

    On a terminal it draws a bar with the time left; elsewhere it is quiet but for the log. After SIGINT or SIGTERM it
    raises ``Cancelled`` at the next step, so that the engine leaves a loadable checkpoint; a second signal raises
    ``KeyboardInterrupt`` at once.
    """
    stop = _Stop()
    with _signals_to(stop):
        try:
            if sys.stderr.isatty():
                with _bar() as bar:
                    yield Reporter(stop, bar)
            else:
                yield Reporter(stop, None)
        except (SystemExit, BackendFaultError) as error:
            left = isinstance(error, SystemExit) or isinstance(error.__cause__, SystemExit)
            if stop.asked and left:  # a framework that answers an interruption by leaving the process
                raise KeyboardInterrupt from error
            raise


@contextmanager
def _bar() -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bar:
        yield bar


class Reporter:
    """The progress callback."""

    def __init__(self, stop: _Stop, bar: Bar | None) -> None:
        self._stop = stop
        self._bar = bar
        self._tasks: dict[str, int] = {}
        self._begun: dict[str, float] = {}
        self._tenth: dict[str, int] = {}

    @property
    def stopped(self) -> bool:
        """Whether a signal has asked for the end; it may come after the last step, when no more call is made."""
        return self._stop.asked

    def __call__(self, event: ProgressEvent) -> None:
        """Show a step; raise ``Cancelled`` when the end was asked for."""
        # a framework may have put handlers of its own in place when it began; those of the command stand
        _handle(self._stop)
        if self._stop.asked:
            raise Cancelled(f"stopped while {_LABELS.get(event.stage, event.stage)}, {event.done} of {event.total}")
        figures = "  ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
        self._to_log(event, figures)
        if self._bar is not None:
            if event.stage not in self._tasks:
                label = _LABELS.get(event.stage, event.stage)
                self._tasks[event.stage] = self._bar.add_task(label, total=event.total, figures="")
            task = self._tasks[event.stage]
            self._bar.update(task, completed=event.done, total=event.total, figures=figures)  # type: ignore[arg-type]

    def _to_log(self, event: ProgressEvent, figures: str) -> None:
        """Log a line at the start, at each tenth and at the end of a stage."""
        begun = self._begun.setdefault(event.stage, time.monotonic())
        tenth = 10 * event.done // max(event.total, 1)
        if self._tenth.get(event.stage) != tenth:
            self._tenth[event.stage] = tenth
            _log.info("%s %d/%d %.1f s %s", event.stage, event.done, event.total, time.monotonic() - begun, figures)
