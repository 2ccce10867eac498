"""An engine is someone else's code: whatever it does, the host goes on, and says whose fault it was.

Three things may come out of an engine. Errors of this package (``PtychoError``), ``Cancelled`` among them, and
``KeyboardInterrupt`` are meant for the caller and pass unchanged; so do a machine at its end (no memory, no space on
the disk) and whatever the caller's own progress callback raised. Anything else is a fault of the engine: it becomes a
``BackendFaultError`` that names the engine, the distribution it comes from and what it was doing, with the engine's own
exception, and its traceback, as the cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any

from ..errors import BackendFaultError, BackendImportError, BackendProtocolError, PtychoError
from ..machine_faults import MACHINE_FAULTS
from ..protocol import Progress, ProgressEvent
from ..stopping import to_its_end
from .discovery import ENGINES, origin

__all__ = ["engine_at_work", "origin_of"]


def origin_of(name: str) -> str:
    """An engine in words, with the distribution it comes from: ``engine 'mine' (my-package 1.2)``."""
    return origin(ENGINES, name)


def _is_metric(item: tuple[Any, Any]) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, Real) and not isinstance(value, bool)


class _Relay:
    """Hands progress on to the caller, and remembers what the caller's callback raised."""

    def __init__(self, name: str, progress: Progress):
        self._name = name
        self._progress = progress
        self.raised: BaseException | None = None

    def __call__(self, event: ProgressEvent) -> None:
        """Hand one event on.

        Raises:
            BackendProtocolError: it is no ProgressEvent, or its metrics are no numbers by name.
        """
        if not isinstance(event, ProgressEvent):
            raise BackendProtocolError(
                f"{origin_of(self._name)} called progress with a {type(event).__name__}; it must be a ProgressEvent."
            )
        metrics = event.metrics
        if not isinstance(metrics, Mapping) or not all(map(_is_metric, metrics.items())):
            raise BackendProtocolError(
                f"{origin_of(self._name)} called progress with metrics = {metrics!r:.200}; they must "
                "map names to numbers."
            )
        try:
            self._progress(event)
        except BaseException as error:
            self.raised = error
            raise


@contextmanager
def engine_at_work(name: str, doing: str, progress: Progress | None = None) -> Iterator[Progress]:
    """Run a block in which an engine works, and turn its faults into errors that say so.

    Args:
        name: engine name.
        doing: the method that is called (``train``, ``reconstruct``, …), for the message.
        progress: the caller's callback, if the method takes one.

    Yields:
        The callback to give to the engine.

    Raises:
        BackendFaultError: the engine raised what is no error of this package; that is the cause.
        PtychoError: the engine's own, as it is.
    """
    relay = _Relay(name, progress or (lambda event: None))
    try:
        with to_its_end():  # but for progress
            yield relay
    except (PtychoError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        full = isinstance(error, OSError) and error.errno in MACHINE_FAULTS
        if error is relay.raised or full:
            raise
        kind = BackendImportError if isinstance(error, ImportError) else BackendFaultError
        raise kind(
            f"{origin_of(name)} failed in {doing}: {type(error).__name__}: {error}. That is a fault of the engine: "
            "take another engine, or report it to its authors with the traceback that --debug shows."
        ) from error
