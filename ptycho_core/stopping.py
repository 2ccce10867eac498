"""Safe points: places in long work at which nothing is half done, and where a wish to stop is met.

A signal handler that raises does so in whatever code runs just then: in an import, in ``__del__``, in a callback of a
drawing library, which swallows it or is left in pieces. So a wish to stop is only noted when it comes, and work that
may be long looks for it where it can be left: :func:`safe_point`. Who looks is said for a block (:func:`stoppable`), by
a command or by whoever calls ``run`` with an observer; without that a safe point does nothing.
What is finished but not yet put away is not to be lost: it is brought :func:`to_its_end`.

The look belongs to a context (``contextvars``), so that threads of one program do not stop each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["safe_point", "stoppable", "to_its_end"]

_LOOK: ContextVar[Callable[[], None] | None] = ContextVar("ptycho_core.stopping", default=None)


def safe_point() -> None:
    """Let a wish to stop be met here.

    Raises:
        Cancelled: there is one.
    """
    look = _LOOK.get()
    if look is not None:
        look()


@contextmanager
def stoppable(look: Callable[[], None]) -> Iterator[None]:
    """Have `look` called at each safe point of the block; it raises ``Cancelled`` to stop it."""
    token = _LOOK.set(look)
    try:
        yield
    finally:
        _LOOK.reset(token)


@contextmanager
def to_its_end() -> Iterator[None]:
    """Let safe points of the block pass: what it does is short, or loses what is finished when it is left.

    An engine at work stops by its progress alone, since only there it leaves a checkpoint.
    """
    token = _LOOK.set(None)
    try:
        yield
    finally:
        _LOOK.reset(token)
