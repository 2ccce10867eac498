"""``in_child``: do something with a stranger's file where it can do no harm, and say what it did."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from ...errors import DataError, PtychoError
from ...limits import MEGABYTE, Limits, limits_at_work, within
from ...text import printable, shortened
from .client import Died, NotStarted, child
from .server import Answer, Request, is_child

__all__ = ["as_data_error", "in_child", "settling", "warm_up"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")

_WORDS = 300
"""Characters of a foreign exception's text that are repeated."""

_SLOWEST = 2e7
"""Bytes a second of processor time that the slowest of the usual compressions gives."""


def in_child(
    function: Callable[..., T],
    *args: Any,
    about: Path | str,
    limits: Limits | None = None,
    more_bytes: int = 0,
    use: Callable[[T], U] | None = None,
) -> Any:
    """Call a function that reads a file in the child, or here where `limits` ask for no guard.

    Args:
        function: of a module, by whose name the child finds it; it gets `args`, and what it returns is sent back.
        args: values that can be pickled.
        about: the file, for messages.
        limits: memory, processor time and what else holds for reading; None takes those of the block (``within``).
        more_bytes: memory that it may take beyond them: what is asked for by its size.
        use: called with the value while its arrays lie in shared memory, instead of copying them; it must keep none.

    Returns:
        What the function returned, or `use` of it.

    Raises:
        PtychoError: the function's own.
        DataError: it raised any other exception, or the child died or took more than it may: the file is to blame.
    """
    limits = limits_at_work() if limits is None else limits
    if is_child() or not limits.guard:
        with as_data_error(about), within(limits):
            value = function(*args)
        return value if use is None else use(value)
    request = Request(
        function,
        args,
        limits,
        int(limits.memory_mb * MEGABYTE) + more_bytes,
        limits.seconds + more_bytes / _SLOWEST,
        _folder(),
        tuple(sys.path),
    )
    try:
        with child() as at_work:
            answer, used = at_work.ask(request, use)
    except NotStarted as error:
        raise DataError(
            f"{about}: the process that reads files cannot be started ({error}). Free what it needs, or read without "
            "it with --no_guard (Limits(guard=False)), if you trust the file."
        ) from error
    except Died as error:
        raise _of_death(about, error, limits) from _Details(error.said)
    for category, text in answer.warned:
        warnings.warn(text, category, stacklevel=2)
    if answer.unsendable:  # it was read well there, so it can be read here
        _log.info("%s: read here, since what was read cannot be sent (%s)", about, answer.details)
        with as_data_error(about), within(limits):
            value = function(*args)
        return value if use is None else use(value)
    _raise(answer, about, limits)
    return answer.value if use is None else used


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def warm_up() -> None:
    """Start the child, so that it imports what it needs while this process does something else."""
    with suppress(NotStarted), child():
        pass


class _Details(Exception):  # noqa: N818  # it carries a text of the child into a traceback
    """What the child said."""


def _raise(answer: Answer, about: Path | str, limits: Limits) -> None:
    """Raise what the child raised, with its traceback as the cause."""
    if answer.error is not None:
        raise answer.error from _Details(f"\n{answer.details}")
    if answer.no_memory:
        raise DataError(
            f"{about}: reading it takes more than {limits.memory_mb:g} MB of memory beyond its own size; it is "
            "damaged, or asks for more than it holds. If it does hold that much, allow more with --max_memory "
            "(Limits.memory_mb)."
        ) from _Details(f"\n{answer.details}")
    if answer.foreign:
        raise _foreign(about, answer.foreign) from _Details(f"\n{answer.details}")


def _of_death(about: Path | str, error: Died, limits: Limits) -> DataError:
    if error.out_of_time:
        return DataError(
            f"{about}: reading it takes more than {limits.seconds:g} s of processor time; it is damaged, or made so "
            "that reading does not end. If it is only large, allow more with --max_seconds (Limits.seconds)."
        )
    if error.code >= 0:  # nothing that a library does by itself
        said = shortened(printable(error.said.rpartition("\n")[2]), _WORDS) or "nothing"
        return DataError(f"{about}: the process that read it {error.how}; its last words: {said}. Read it again.")
    return DataError(
        f"{about}: the process that read it {error.how}: the file is damaged so that the library that reads it fails. "
        "Copy or export it again."
    )


def _foreign(about: Path | str, words: str) -> DataError:
    return DataError(
        f"{about}: cannot be read ({shortened(printable(words), _WORDS)}); it is damaged, or not what it says it is. "
        "Copy or export it again."
    )


@contextmanager
def settling(about: Path | str) -> Iterator[None]:
    """The boundary of what is made of a file in this process: of numbers that are anybody's.

    Exceptions become a DataError, and so does memory that there is not.

    Raises:
        DataError: with the exception as its cause.
    """
    try:
        with as_data_error(about):
            yield
    except MemoryError as error:
        raise DataError(
            f"{about}: what it asks for does not fit into memory ({str(error) or 'no room'}). If it does hold so much, "
            "use fewer frames (--frames) or a smaller window (--crop)."
        ) from error


@contextmanager
def as_data_error(about: Path | str) -> Iterator[None]:
    """The boundary of a file: any exception in the block that is no error of this package becomes a DataError.

    Raises:
        DataError: with the exception as its cause.
    """
    try:
        yield
    except (PtychoError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise _foreign(about, f"{type(error).__name__}: {error}") from error
