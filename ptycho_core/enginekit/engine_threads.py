"""The threads of an engine's jobs: as many as a caller says, else chosen; and the number that belongs to a process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from .processors import OthersLoad, available_cpus
from .threads import ThreadChooser

__all__ = ["EngineThreads", "FixedThreads", "ProcessThreads", "Threads"]

_log = logging.getLogger("ptycho_core.threads")


class FixedThreads:
    """As many threads as a caller said.

    Attributes:
        most: the number.
        chosen: the same.
    """

    def __init__(self, threads: int) -> None:
        self.most = self.chosen = threads

    def told(self) -> str:
        """In words: ``1, as given``."""
        return f"{self.most}, as given"

    @contextmanager
    def step(self, kind: Hashable, size: float = 1.0) -> Iterator[int]:
        """See :meth:`ThreadChooser.step`."""
        yield self.most


Threads = ThreadChooser | FixedThreads


class EngineThreads:
    """The threads of an engine's jobs: as many as a caller says, else chosen, with what was found before.

    Args:
        most: threads that the engine's libraries would take, asked when the first job begins; None takes all there are.
    """

    def __init__(self, most: Callable[[], int] | None = None) -> None:
        self._most = most
        # looked at from here on, so that the first job knows what others do
        self._others = OthersLoad()
        self._choosers: dict[float, ThreadChooser] = {}
        self._last: Threads | None = None
        self._lock = threading.Lock()

    def of(self, given: int | None, slower: float) -> Threads:
        """Those of a job.

        Args:
            given: ``Runtime.threads``.
            slower: how its threads wait; see :class:`ThreadChooser`.
        """
        with self._lock:
            if given is not None:
                self._last = FixedThreads(given)
                _log.info("threads: %s", self._last.told())
                return self._last
            if slower not in self._choosers:
                most = available_cpus() if self._most is None else min(available_cpus(), self._most())
                self._choosers[slower] = ThreadChooser(most, slower=slower, others=self._others)
            self._last = self._choosers[slower]
            return self._last

    def again(self, slower: float) -> Threads:
        """Those of the last job, for questions that come without a runtime."""
        last = self._last
        return last if isinstance(last, FixedThreads) else self.of(None, slower)

    def told(self) -> str:
        """How many threads the last job computed with, in words; nothing before the first."""
        return "" if self._last is None else self._last.told()


class ProcessThreads:
    """How many threads an operation takes, which belongs to the process: jobs that overlap put back what was first.

    If each of two that overlap put back what it found, the one that ends last would put back what the other had set.

    Args:
        read: tells the number.
        write: sets it.
    """

    def __init__(self, read: Callable[[], int], write: Callable[[int], None]) -> None:
        self._read, self._write = read, write
        self._lock = threading.Lock()
        self._users, self._before = 0, 0

    @contextmanager
    def set_to(self, threads: int) -> Iterator[None]:
        """So many from here on, and as many as before the first once the last is done."""
        with self._lock:
            now = self._read()
            self._before = now if self._users == 0 else self._before
            self._users += 1
            if threads != now:
                self._write(threads)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                back = self._before if self._users == 0 else now
                if self._read() != back:
                    self._write(back)
