"""A line every half a minute of what a command is at, where no bar is drawn: also amid a step that takes minutes.

A step is told of when it is done, and reading, importing, judging and writing tell of none. So the lines come from a
thread of their own. It asks for nothing and changes nothing: it waits, looks at what the session says that the command
is at, and writes. It is a daemon, it ends with the block, and a forked process has none.

Of a process that belongs to the command it writes past Python's streams, through a handle of its own that was taken
before anything else: a framework may have standard error by then, and a lock of a stream that this thread held at the
moment of a fork would never be free again in the child.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from ..notebook.bar import FIGURES, LABELS
from .signals import Stop
from .terminal import PLAIN, is_terminal, put

__all__ = ["LINE_SECONDS", "AtWork", "Listener", "Step", "beating", "line_of", "of_total", "span"]

LINE_SECONDS = 30.0
"""Seconds between two lines."""

_STAGES = {
    "start_up": "starting the engine",
    "read": "reading the scan",
    "check": "looking at the scan",
    "save": "saving the model",
    "half_data": "making an image of each half of the frames",
    "verdict": "judging the image",
    "report": "writing the results",
    "inspect": "inspecting the scan",
    "compare": "comparing the images",
    "export": "exporting the image",
    "conform": "asking the engine",
}
"""Stage of a command that no step is told of under the same name → what it is in words."""

_Over = threading.Event

_LEAVE_SECONDS = 2.0
"""How long the end of a command waits for a line that somebody does not read."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The last step that was told of.

    Attributes:
        stage: that it belongs to, in the words of an engine.
        label: the same for people.
        done: units of the stage that are done.
        total: units that there are; 0 where nobody knows.
        at: when it was told of, seconds.
        begun: when the first step of the stage was.
        first: units that were done by then, also those of an earlier run.
        figures: of it, by name.
    """

    stage: str
    label: str
    done: int
    total: int
    at: float
    begun: float
    first: int
    figures: Mapping[str, float] = field(default_factory=dict)


class Listener(Protocol):
    """Who hears of the steps of a job.

    Attributes:
        last: the last step, or None; it is replaced as a whole, so that another thread may look at it.
        labels: stage of a step → what it is in words.
    """

    last: Step | None
    labels: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class AtWork:
    """What a command is at.

    Attributes:
        stage: by its name; empty between two.
        since: when it came there, seconds.
        before: the stage before, where it is between two; empty at the start.
        step: the last step that was told of, in whichever stage, or None.
        labels: stage → words, where they are others than usual.
        stopping: whether a signal has asked for the end.
    """

    stage: str
    since: float
    before: str = ""
    step: Step | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    stopping: bool = False


def span(seconds: float) -> str:
    """Seconds as minutes and hours: ``1:05``, ``2:00:07``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def of_total(done: int, total: int) -> str:
    """``12 of 40``, or ``12`` where nobody knows of how many."""
    return f"{done} of {total}" if total > 0 else str(done)


def line_of(work: AtWork, now: float) -> str:
    """What a command is at in a line: the stage, what is done, its figures, the time it took and the time left."""
    words = {**LABELS, **_STAGES, **work.labels}
    step = work.step
    if step is None or step.at < work.since:  # a step of a stage that is over
        name = words.get(work.stage, work.stage)
        if not name:
            name = f"at work after {words.get(work.before, work.before)}" if work.before else "starting"
        parts = [f"{name}: {span(now - work.since)} so far"]
    else:
        outer = "" if work.stage in ("", step.stage) else f"{words.get(work.stage, work.stage)}, "
        parts = [f"{outer}{step.label}: {of_total(step.done, step.total)}"]
        if step.total > 0:
            parts[0] += f" ({100 * step.done // step.total} %)"
        parts += [f"{FIGURES[name]} {value:.4g}" for name, value in step.figures.items() if name in FIGURES]
        parts.append(f"{span(now - (work.since if work.stage else step.begun))} elapsed")
        if now - step.at >= LINE_SECONDS:
            parts.append(f"{span(now - step.at)} since that step")
        made = step.done - step.first
        if made > 0 and step.total > step.done:
            left = (step.at - step.begun) / made * (step.total - step.done) - (now - step.at)
            parts.append(f"about {span(max(left, 0.0))} left")
    if work.stopping:
        parts.append("stopping after this step")
    return ", ".join(parts)


@contextmanager
def beating(at_work: Callable[[], AtWork], stop: Stop) -> Iterator[None]:
    """Say a line of what the command is at every :data:`LINE_SECONDS` while the block runs; on a terminal none.

    Args:
        at_work: tells what the command is at, on the clock of ``time.monotonic``; it is called in another thread.
        stop: of the command, which knows where to write.
    """
    if sys.stderr is None or is_terminal(sys.stderr):
        yield
        return
    handle = None
    if stop.owns_process:
        with suppress(OSError):
            handle = os.dup(stop.terminal)
    over = _Over()

    def beat() -> None:
        while not over.wait(LINE_SECONDS):
            _say(f"{line_of(at_work(), time.monotonic())}\n", handle)

    thread = threading.Thread(target=beat, name="ptycho lines", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LEAVE_SECONDS)
        if handle is not None and not thread.is_alive():
            os.close(handle)


def _say(text: str, handle: int | None) -> None:
    if handle is None:
        put(sys.stderr, text)
        return
    with suppress(OSError):  # nobody reads
        os.write(handle, text.encode(getattr(sys.stderr, "encoding", None) or "ascii", errors=PLAIN))
