"""Parts of one step shared out among threads, and taken together in the order of the parts.

Threads take the next part as they come free, so one that is held up holds up one part and not a fixed share. What they
find is added up by the caller in the order of the parts, so sums are the same to the last bit whatever the number of
threads, one among them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["Team"]

_Part = TypeVar("_Part")
_Found = TypeVar("_Found")


class Team:
    """Threads that wait for work asleep.

    Args:
        most: how many there may be.
        name: of the threads.
    """

    def __init__(self, most: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(most, name) if most > 1 else None

    def each(
        self,
        parts: Sequence[_Part],
        work: Callable[[_Part], _Found],
        take: Callable[[_Part, _Found], None],
        n_threads: int,
    ) -> None:
        """Work on each part in one of some threads, and take what was found in the order of the parts.

        Args:
            parts: what there is to do.
            work: called in any thread, several at once; changes nothing that another part reads.
            take: called in the caller's thread.
            n_threads: how many work at most.

        Raises:
            BaseException: what `work` raised first in the order of the parts; no thread works on by then.
        """
        n_threads = min(n_threads, len(parts))
        if n_threads <= 1 or self._pool is None:
            for part in parts:
                take(part, work(part))
            return
        found: list[Future[_Found]] = [Future() for _ in parts]
        waiting = deque(zip(parts, found, strict=True))

        def worker() -> None:
            while True:
                try:
                    part, result = waiting.popleft()
                except IndexError:
                    return
                try:
                    result.set_result(work(part))
                except BaseException as error:  # it is raised where it is taken
                    result.set_exception(error)

        workers = [self._pool.submit(worker) for _ in range(n_threads)]
        try:
            for part, result in zip(parts, found, strict=True):
                take(part, result.result())
        finally:
            waiting.clear()
            for one in workers:
                one.result()
