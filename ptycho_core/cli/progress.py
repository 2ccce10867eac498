"""Progress of a long job: a bar on a terminal, what ``beat`` says elsewhere, lines in the log, and the wish to stop."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import BackendFaultError, Cancelled
from ..notebook.bar import FIGURES, LABELS
from ..protocol import ProgressEvent
from ..text import printable
from .beat import Step, of_total
from .signals import Stop
from .terminal import is_terminal, put

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from .session import Session

__all__ = ["Reporter", "long_job"]

_log = logging.getLogger("ptycho_core.cli")


@contextmanager
def long_job(session: Session, method: str | None = None) -> Iterator[Reporter]:
    """Yield a progress callback for an engine.

    On a terminal it draws a bar with the time left; elsewhere it remembers the last step, of which ``beat`` says a line
    now and then. When the end was asked for it raises ``Cancelled`` at the next step, so that the engine leaves a
    loadable checkpoint.

    Args:
        session: of the command; it hears whether the end was asked for, and what it says stands above the bar.
        method: of the config: a solver solves, and trains nothing.
    """
    stop = session.stop
    try:
        if is_terminal(sys.stderr):
            with _bar() as bar:
                session.above_bar = partial(
                    bar.console.print, markup=False, highlight=False, emoji=False, soft_wrap=True, end=""
                )
                try:
                    yield Reporter(stop, bar, method=method)
                finally:
                    session.above_bar = None
        else:
            session.reporter = Reporter(stop, None, method=method)
            yield session.reporter
    except (SystemExit, BackendFaultError) as error:
        left = isinstance(error, SystemExit) or isinstance(error.__cause__, SystemExit)
        if stop.asked and left:  # a framework that answers an interruption by leaving the process
            raise Cancelled("interrupted") from error
        raise


@contextmanager
def _bar() -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    console = Console(file=_Patient())  # type: ignore[arg-type]
    # the streams are the session's, which changes them while a bar is drawn; it says itself what stands above the bar
    how = {"transient": True, "refresh_per_second": 4, "redirect_stdout": False, "redirect_stderr": False}
    with Bar(*columns, console=console, **how) as bar:  # type: ignore[arg-type]
        yield bar


class _Patient:
    """Standard error, whichever it is by now, on which a bar is drawn; that it is hung up is no error of the job."""

    encoding = property(lambda self: getattr(sys.stderr, "encoding", None) or "ascii")

    def write(self, text: str) -> int:
        """Write, if that can be done."""
        put(sys.stderr, text)
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return sys.stderr is not None and sys.stderr.isatty()

    def fileno(self) -> int:
        """Its handle, by which its size is asked."""
        return sys.stderr.fileno()


class Reporter:
    """The progress callback.

    Args:
        stop: whether the end was asked for.
        bar: that is drawn on a terminal, or None.
        clock: seconds, of any beginning.
        method: see :func:`long_job`.

    Attributes:
        labels: stage of an event → what it is in words.
        last: the last step, or None; it is replaced as a whole, so that another thread may look at it.
    """

    def __init__(
        self,
        stop: Stop,
        bar: Bar | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        method: str | None = None,
    ) -> None:
        self.labels = {**LABELS, **({"train": "solving"} if method == "solver" else {})}
        self.last: Step | None = None
        self._stop = stop
        self._bar = bar
        self._clock = clock
        self._tasks: dict[str, int] = {}
        self._tenth: dict[str, int] = {}

    def __call__(self, event: ProgressEvent) -> None:
        """Show a step; raise ``Cancelled`` when the end was asked for."""
        label = self.labels.get(event.stage, printable(event.stage))
        self._stop.check(f"while {label}, {of_total(event.done, event.total)}")
        step = self.last = self._step(event, label)
        figures = "  ".join(f"{printable(name)} {value:.4g}" for name, value in event.metrics.items())
        self._to_log(event, figures, step.at - step.begun)
        if self._bar is not None:
            if event.stage not in self._tasks:
                self._tasks[event.stage] = self._bar.add_task(label, total=event.total, figures="")
            task = self._tasks[event.stage]
            how: dict[str, Any] = {"completed": event.done, "total": event.total, "figures": _judged(event)}
            self._bar.update(task, **how)  # type: ignore[arg-type]

    def _step(self, event: ProgressEvent, label: str) -> Step:
        """An event without its image, which may hold much, and when its stage began.

        A stage that counts from its beginning again, as images of halves do, has begun anew.
        """
        now, last = self._clock(), self.last
        again = last is None or last.stage != event.stage or event.done <= last.done
        begun, first = (now, event.done) if last is None or again else (last.begun, last.first)
        return Step(
            stage=event.stage, label=label, done=event.done, total=event.total, at=now, begun=begun, first=first,
            figures=dict(event.metrics),
        )  # fmt: skip

    def _to_log(self, event: ProgressEvent, figures: str, seconds: float) -> None:
        """Log a line at the start, at each tenth and at the end of a stage."""
        tenth = 10 * event.done // max(event.total, 1)
        if self._tenth.get(event.stage) != tenth:
            self._tenth[event.stage] = tenth
            _log.info("%s %d/%d %.1f s %s", event.stage, event.done, event.total, seconds, figures)


def _judged(event: ProgressEvent) -> str:
    """The figure that judges a step, short enough for a bar: the validation loss, or else the loss."""
    name = next((name for name in ("test_loss", "train_loss") if name in event.metrics), None)
    return "" if name is None else f"{FIGURES[name]} {event.metrics[name]:.4g}"
