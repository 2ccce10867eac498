"""The wish to stop: one flag that SIGINT, SIGTERM and SIGHUP set alike, from the first line of a command to its last.

The first signal is only noted; the command looks at it where nothing is half done (``ptycho_core.stopping``). The
second ends the process at once. What stays then is what a killed process leaves, and the next command sweeps it.

A signal is heard in two ways: by a handler of Python, which waits until the interpreter is back from compiled code and
which a framework may replace by its own; and by a thread that reads what the interpreter writes into a pipe the moment
the signal comes (``signal.set_wakeup_fd``), which another library may take away. Each counts; the larger count holds.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import Cancelled

__all__ = ["EXIT_INTERRUPTED", "Stop"]

EXIT_INTERRUPTED = 130

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_FIRST = "\nptycho: stopping after this step; once more ends at once\n"
_SECOND = "\nptycho: ended at once\n"
_SHOW_CURSOR = "\x1b[?25h"  # a bar hides it
_GRACE_SECONDS = 2.0
"""How long a command that leaves nothing behind may take to come to a safe point."""

_LISTENING: list[Stop] = []
"""Signals belong to the process, and so does who listens to them: commands called within each other, the last last."""


class Stop:
    """Whether a signal has asked for the end.

    Args:
        owns_process: whether this process was started for the command. Where a program calls it, a second signal
            raises ``KeyboardInterrupt`` instead of ending the program.

    Attributes:
        terminal: handle to write to, whatever has become of standard error.
        leaves_nothing: whether the command has nothing to lose, so that it ends soon after the first signal wherever
            it is.
    """

    def __init__(self, *, owns_process: bool = False) -> None:
        self.owns_process = owns_process
        self.terminal = 2
        self.leaves_nothing = False
        self._heard_by_handler = self._heard_by_thread = 0
        self._said = threading.Lock()
        self._ending = threading.RLock()
        self._took: dict[int, Any] = {}
        self._over = False
        self._pid = os.getpid()

    @property
    def asked(self) -> bool:
        """Whether the end was asked for."""
        return max(self._heard_by_handler, self._heard_by_thread) > 0

    def check(self, doing: str = "") -> None:
        """Meet the wish to stop, and take the signals back from a framework that has put handlers of its own in place.

        Args:
            doing: what was or would be done, in words, such as ``before training``.

        Raises:
            Cancelled: the end was asked for.
        """
        self._take()
        if self.asked:
            raise Cancelled(f"stopped {doing}".rstrip())

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Hear a signal, as a handler."""
        if os.getpid() != self._pid:
            return
        self._heard_by_handler += 1
        self._act()
        if self._heard_by_handler > 1:  # within a program, since the process would have ended
            raise KeyboardInterrupt

    def _act(self) -> None:
        heard = max(self._heard_by_handler, self._heard_by_thread)
        if self._over:
            os._exit(EXIT_INTERRUPTED)
        if heard > 1 and self.owns_process:
            self._end()
        if self._said.acquire(blocking=False):  # never given back: it is said once
            self._tell(_FIRST)

    def _tell(self, text: str) -> None:
        """Write to the terminal past any stream, which the signal may have found in the middle of a line."""
        with suppress(OSError, ValueError, RuntimeError):
            if self.owns_process:
                os.write(self.terminal, text.encode("ascii"))
            elif sys.stderr is not None:
                sys.stderr.write(text)

    def _end(self) -> None:
        """End the process and what it started."""
        self._ending.acquire()  # the handler and the thread may both have come here
        with suppress(OSError):
            self._tell((_SHOW_CURSOR if os.isatty(self.terminal) else "") + _SECOND)
        for child in _children():
            with suppress(OSError):
                os.kill(child, signal.SIGTERM)
        os._exit(EXIT_INTERRUPTED)

    def _take(self) -> None:
        """Let this object answer the signals; only the main thread may say so."""
        if self._took and threading.current_thread() is threading.main_thread():
            for number in self._took:
                if signal.getsignal(number) is not self:
                    signal.signal(number, self)

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Hear the signals while the block runs, and put back afterwards who heard them before.

        One that was ignored when the process began stays so, as ``nohup`` wants it. In a process of its own the command
        goes on listening: what is left is the end of the interpreter, and a signal ends that at once.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self._took = {n: handler for n, handler in before.items() if handler not in (signal.SIG_IGN, None)}
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        self._take()
        wakes_before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._hear, args=(read_end,), name="ptycho signals", daemon=True)
        thread.start()
        _LISTENING.append(self)
        _know_of_forks()
        try:
            yield self
        finally:
            if self.owns_process:
                self._over = True
            else:
                _LISTENING.remove(self)
                signal.set_wakeup_fd(wakes_before)
                for number, handler in self._took.items():
                    signal.signal(number, handler)
                self._took = {}
                os.write(write_end, b"\0")
                thread.join()
                os.close(read_end)
                os.close(write_end)

    def _hear(self, read_end: int) -> None:
        """The thread: count what comes, and end a command with nothing to lose that does not come to a safe point."""
        while True:
            waits = _GRACE_SECONDS if self.asked and self.leaves_nothing and self.owns_process else None
            if not select.select([read_end], [], [], waits)[0]:
                self._end()
            content = os.read(read_end, 64)
            for number in content:
                if number in self._took:
                    self._heard_by_thread += 1
                    self._act()
            if not content or 0 in content:
                return

    def _leave(self) -> None:
        """In a forked process: its parent decides. It ends by SIGTERM, and not by what a terminal sends to all."""
        signal.set_wakeup_fd(-1)
        for number in self._took:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
        self._took = {}


def _children() -> list[int]:
    """Processes that this one has started, where the system tells."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError, ValueError):
            found += map(int, path.read_text().split())
    return found


def _in_child() -> None:
    while _LISTENING:
        with suppress(ValueError, OSError):  # forked by a thread of a kind that may not
            _LISTENING.pop()._leave()


_FORKS: list[bool] = []


def _know_of_forks() -> None:
    """Have forked processes told of, once: it cannot be taken back."""
    if not _FORKS and hasattr(os, "register_at_fork"):
        _FORKS.append(True)
        os.register_at_fork(after_in_child=_in_child)
