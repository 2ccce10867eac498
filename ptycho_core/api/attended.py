"""A run that somebody waits for, at a notebook or a console: it shows a bar, and Ctrl-C keeps what is finished.

Python answers Ctrl-C with an exception wherever it happens to be, and all that a cell had made is gone. Here the first
one is a wish: it is noted, the step that is being made is finished, a checkpoint is written where there is a folder for
it, and the caller gets what there is. The second one is Python's own, at once.

Nothing of this is done in a script, nor where a caller brings an observer or a progress of its own, nor twice when one
such function calls another.
"""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

from ..errors import Cancelled
from ..notebook.bar import LABELS, ProgressBar, is_interactive
from ..protocol import Progress, ProgressEvent, TrainedModel, no_progress
from .observe import Observer

__all__ = ["Attended", "attended", "kept_model"]

_WATCHED: ContextVar[bool] = ContextVar("ptycho_core.api.attended", default=False)
"""Whether a function that watches is under way already."""


class Attended(Observer):
    """Watches for whoever waits: shows a bar, and hears Ctrl-C."""

    returns_partial = True

    def __init__(self, bar: ProgressBar) -> None:
        """Begin, with a bar to show steps on."""
        super().__init__()
        self.bar = bar
        self.asked = self.met = False

    def check(self, doing: str = "") -> None:
        """Raise ``Cancelled`` where Ctrl-C was pressed; a wish is met once, so that what is left of it is finished."""
        if self.asked and not self.met:
            self.met = True
            raise Cancelled(f"interrupted {doing}".rstrip())

    def ended_early(self, text: str) -> None:
        """Remember it, and warn of it, so that it stands below the cell that was stopped."""
        self.notice(text)
        warnings.warn(self.notices[-1], UserWarning, stacklevel=_callers_level())

    def step(self, event: ProgressEvent) -> None:
        """Show a step, after which a wish to stop is met."""
        self.bar(event)
        self.check(f"while {LABELS.get(event.stage, event.stage)}, after {event.done} of {event.total}")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear Ctrl-C while the block runs, where Python's own answer to it would be an exception."""
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            yield
            if self.asked and not self.met:
                self.ended_early("Ctrl-C came when there was nothing left to stop; the result is whole")
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        # nothing may be drawn from here: the handler runs in whatever code was at work
        if self.asked:
            signal.default_int_handler(number, frame)
        self.asked = True


def _callers_level() -> int:
    """Frames between a warning and the line of the caller that this package was called from."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("ptycho_core"):
        frame, level = frame.f_back, level + 1
    return level


@contextmanager
def attended(
    observer: Observer | None, progress: Progress, *, told: bool = False
) -> Iterator[tuple[Observer, Progress]]:
    """Who watches a function of this package while the block runs, and its progress.

    Args:
        observer: the caller's, or None.
        progress: the caller's, or ``no_progress``.
        told: whether the caller hears of notices in another way, and so watches itself.

    Yields:
        The caller's own where there is one; one with a bar where somebody waits; else one that only keeps notices.
    """
    alone = observer is None and progress is no_progress and not told and not _WATCHED.get()
    token = _WATCHED.set(True)
    try:
        if not (alone and is_interactive()):
            yield observer or Observer(), progress
            return
        with ProgressBar() as bar:
            watcher = Attended(bar)
            with watcher.listening():
                yield watcher, watcher.step
    finally:
        _WATCHED.reset(token)


def kept_model(error: Cancelled, watcher: Observer, what: str) -> TrainedModel:
    """The model of a training that was stopped, as far as it came, where whoever watches wants what there is.

    Args:
        error: what stopped it.
        watcher: is told what there is, and how to go on.
        what: is of it: ``the model`` or ``the image``.

    Raises:
        Cancelled: `error`, where nothing is wanted or there is nothing.
    """
    if not watcher.returns_partial:
        raise error
    go_on = (
        "no folder was given, so there is no checkpoint to go on from (out)"
        if error.checkpoint_path is None
        else f"to go on, give the same call with Runtime(resume_from=Path({error.checkpoint_path!r}))"
    )
    if error.model is None:
        what = "there is no model of it yet"
        raise Cancelled(f"training was stopped ({error}); {what}; {go_on}", error.checkpoint_path) from error
    model: TrainedModel = error.model
    solved = model.config.method == "solver"
    of = "the epochs that were made" if solved else "the network's best epoch so far"
    text = f"training was stopped ({error}); {what} is that of {of}; {go_on}"
    watcher.ended_early(text)
    return model
