"""The parent's side: one child a process, started when it is first wanted, and anew when it has died.

A process that was forked has no child of its parent's; it starts its own. Requests of several threads wait for each
other, as they would for the lock of the library.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from .server import Answer, Request
from .wire import Broken, Buffer, load, new_buffer_file, send

try:
    import fcntl
except ImportError:  # no POSIX, and no guard
    fcntl = None  # type: ignore[assignment]

__all__ = ["Died", "NotStarted", "child", "while_waiting"]

_LOOK_SECONDS = 0.1
"""How often a wish to stop is looked for while the child works."""

_STANDARD = 2
"""The last number of a standard handle."""

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

_MISLEADING = {"HDF5_EXT_PREFIX", "HDF5_EXTFILE_PREFIX", "HDF5_VDS_PREFIX"}
"""Variables that make HDF5 look elsewhere for the files that a file names, than where they were looked for before."""

_START = "import sys; sys.path[:] = {path!r}; from ptycho_core.io.guarded.server import main; main({ends})"


class NotStarted(Exception):  # noqa: N818  # its caller makes an error of it
    """The child cannot be started; the text says why."""


class Died(Exception):  # noqa: N818  # its caller makes an error of it
    """The child ended at work.

    Attributes:
        code: exit code, negative for a signal.
        said: the end of what it wrote to its standard error.
    """

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"exit code {code}")
        self.code, self.said = code, said

    @property
    def out_of_time(self) -> bool:
        """Whether the timer of processor time ended it."""
        return self.code == -getattr(signal, "SIGPROF", 0)

    @property
    def how(self) -> str:
        """In words."""
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-self.code).name}"
        return f"was ended by signal {-self.code}"


def _past_standard(handle: int) -> int:
    """The same handle under a number that is none of a standard handle, where one of these is closed."""
    if handle > _STANDARD:
        return handle
    moved: int = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, _STANDARD + 1)
    os.close(handle)
    return moved


class _Child:
    """One child and the ends of its pipes."""

    def __init__(self) -> None:
        self.pid, self.lock, self.ready = os.getpid(), threading.RLock(), False
        ends_here: list[int] = []
        try:
            for make in (os.pipe, os.pipe, lambda: (new_buffer_file(), new_buffer_file())):
                ends_here += map(_past_standard, make())
            down, up, (handle, words) = ends_here[:2], ends_here[2:4], ends_here[4:]
            ends = f"{down[0]}, {up[1]}, {handle}"
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START.format(path=list(sys.path), ends=ends)],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                pass_fds=(down[0], up[1], handle),
                env={name: value for name, value in os.environ.items() if name not in _MISLEADING} | _ONE_THREAD,
                start_new_session=True,  # a terminal's Ctrl-C is for the parent
            )
        except BaseException:
            for end in ends_here:
                os.close(end)
            raise
        self.said: IO[bytes] = os.fdopen(words, "w+b")
        os.close(down[0])
        os.close(up[1])
        self._to, self._from, self.buffer = down[1], up[0], Buffer(handle)

    def ask(self, request: Request, use: Callable[[Any], Any] | None) -> tuple[Answer, Any]:
        """Send a request and wait for its answer; `use` sees the value while its arrays are still in the buffer."""
        try:
            if not self.ready:
                self._read(1)
                self.ready = True
            send(request.path, self._write, self.buffer)
            send(request, self._write, self.buffer)
            answer: Answer = load(self._read, self.buffer, copy=use is None)
            used = None if use is None or answer.value is None else use(answer.value)
        except (Broken, BrokenPipeError):
            raise self._death() from None
        self.buffer.forget(shrink=True)
        return answer, used

    def _write(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(self._to, view) :]

    def _read(self, size: int) -> bytes:
        while not select.select([self._from], [], [], _LOOK_SECONDS)[0]:
            for look in tuple(_Process.waiting):
                look()
        return os.read(self._from, size)

    def _death(self) -> Died:
        code = self.process.wait()
        with suppress(OSError, ValueError):
            self.said.seek(max(0, self.said.seek(0, os.SEEK_END) - 4000))
            return Died(code, self.said.read().decode(errors="replace").strip())
        return Died(code, "")

    def close(self, *, wait: bool = True) -> None:
        """End it: at once where it belongs to this process, else only the ends here."""
        for end in (self._to, self._from, self.buffer.handle):
            with suppress(OSError):
                os.close(end)
        self.said.close()
        if self.pid == os.getpid():
            self.process.kill()
            if wait:
                self.process.wait()
        else:  # of the process that this one was forked from
            self.process.returncode = 0


class _Process:
    """What this process has: there is one child, whoever asks, as there is one library."""

    child: _Child | None = None
    lock = threading.Lock()
    waiting: list[Callable[[], None]] = []  # noqa: RUF012  # of the process


@contextmanager
def while_waiting(look: Callable[[], None]) -> Iterator[None]:
    """Have a function called every tenth of a second while the child is waited for in the block; it may raise."""
    _Process.waiting.append(look)
    try:
        yield
    finally:
        _Process.waiting.remove(look)


def _close() -> None:
    with _Process.lock:
        found, _Process.child = _Process.child, None
    if found is not None:
        found.close()


@contextmanager
def child() -> Iterator[_Child]:
    """The child of this process, started if need be, for one request; one that fails in any way is not used again.

    Raises:
        NotStarted: it cannot be.
    """
    while True:
        found = _running()
        with found.lock:
            if _Process.child is not found:  # it was given up while another thread's request was waited for
                continue
            if found.process.poll() is not None:
                _give_up(found)
                continue
            try:
                yield found
            except BaseException:
                _give_up(found)
                raise
            return


def _give_up(found: _Child) -> None:
    """Let go of a child that is held, which no thread uses then."""
    with _Process.lock:
        if _Process.child is found:
            _Process.child = None
    found.close()


def _running() -> _Child:
    """The child of this process, or a new one."""
    with _Process.lock:
        found = _Process.child
        if found is not None and found.pid != os.getpid():
            found.close()
            found = None
        if found is None:
            if getattr(sys, "frozen", False):  # its executable is the program, which would begin anew
                raise NotStarted("this program is frozen, so that there is no interpreter to start")
            try:
                found = _Child()
            except (OSError, TypeError, ValueError) as error:  # no room for a process, no name of the interpreter
                raise NotStarted(str(error)) from error
            atexit.unregister(_close)
            atexit.register(_close)
            _Process.child = found
        return found
