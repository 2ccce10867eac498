"""Progress and errors across the border between the caller's process and those that train for it.

With several devices Lightning trains in processes of its own and brings back what they end with. Here a mailbox brings
the rest: the first of those processes puts messages in, a thread of the caller's process takes them out and calls the
caller's progress function, and a flag carries the wish to stop the other way.
"""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any

import torch.multiprocessing

from ptycho_core.enginekit.network_result import Learnt, NetworkResult
from ptycho_core.errors import Cancelled, PtychoError
from ptycho_core.protocol import Progress, ProgressEvent

__all__ = ["Listener", "Mailbox", "has_own_processes", "strategy_of"]


def strategy_of(strategy: str, devices: int) -> str:
    """The strategy to use, in Lightning's words.

    Lightning's own choice for several devices starts the caller's whole script again for each, which no library may do
    to its caller; ``auto`` starts processes that run the training and nothing else.

    Args:
        strategy: as in a config.
        devices: how many.
    """
    return "ddp_spawn" if strategy == "auto" and devices > 1 else strategy


def has_own_processes(strategy: str) -> bool:
    """Whether training happens in other processes than the caller's, were it only one."""
    return any(word in strategy for word in ("spawn", "fork", "notebook"))


class Mailbox:
    """The training processes' end; it survives pickling to them.

    Args:
        messages: queue to the caller's process.
        stop: set when the caller wants to stop.
    """

    def __init__(self, messages: Any, stop: Any) -> None:
        self.messages, self.stop = messages, stop

    def settle_in(self) -> None:
        """Leave Ctrl-C to the caller's process, which asks for an orderly stop."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def progress(self, event: ProgressEvent) -> None:
        """Pass an event on without its image; raise ``Cancelled`` when the caller wants to stop."""
        self.messages.put(("progress", (event.stage, event.done, event.total, dict(event.metrics), event.epoch)))
        if self.stop.is_set():
            raise Cancelled

    def error(self, error: PtychoError, learnt: Learnt | None) -> None:
        """Hand over the error that this process is about to raise, and what was learnt until it was stopped."""
        self.messages.put(("error", (type(error), str(error), getattr(error, "checkpoint_path", None), learnt)))


class Listener:
    """The caller's end, open as a context while training runs.

    Args:
        progress: the caller's.
        result: makes the model of a training that was stopped.

    Attributes:
        mailbox: to give to the training processes.
        error: the error to raise in the caller's process, or None.
    """

    def __init__(self, progress: Progress, result: NetworkResult) -> None:
        context = torch.multiprocessing.get_context("spawn")
        self.mailbox = Mailbox(context.SimpleQueue(), context.Event())
        self.error: BaseException | None = None
        self._progress, self._result = progress, result
        self._cancelled: Cancelled | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mailbox.messages.put(("end", None))
        self._thread.join()
        if self.error is not None:
            raise self.error from error

    def _report(self, event: ProgressEvent) -> None:
        if self.mailbox.stop.is_set():
            return
        try:
            self._progress(event)
        except Cancelled as error:
            self._cancelled = error
            self.mailbox.stop.set()
        except BaseException as error:  # a fault of the caller's function belongs to the caller's thread
            self.error = error
            self.mailbox.stop.set()

    def _listen(self) -> None:
        while True:
            kind, content = self.mailbox.messages.get()
            if kind == "end":
                return
            if kind == "progress":
                stage, done, total, metrics, epoch = content
                self._report(ProgressEvent(stage=stage, done=done, total=total, metrics=metrics, epoch=epoch))
            elif self.error is None:
                error_type, text, checkpoint_path, learnt = content
                if error_type is Cancelled:
                    model = None if learnt is None else self._result.model(learnt)
                    self.error = Cancelled(str(self._cancelled or text), checkpoint_path, model=model)
                else:
                    self.error = error_type(text)
