"""What is done beside an image that is finished: a failure costs that, and never the image (VERDICT-1)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from ..errors import Cancelled
from .observe import Observer
from .refine import error_words

__all__ = ["extra"]

_log = logging.getLogger("ptycho_core.api")
_T = TypeVar("_T")


def extra(observer: Observer, what: str, job: Callable[[], _T]) -> _T | None:
    """Do an extra; when it fails, whatever the reason, say so and go on.

    Args:
        observer: who is told.
        what: its name, such as ``verdict``.
        job: does it.

    Returns:
        What it came to, or None.

    Raises:
        Cancelled: the caller wants to stop.
    """
    try:
        return job()
    except Cancelled:
        raise
    except Exception as error:  # a mistake in judging an image is no reason to lose it
        _log.debug("no %s", what, exc_info=True)
        observer.notice(f"no {what}: {error_words(error)}")
        return None
