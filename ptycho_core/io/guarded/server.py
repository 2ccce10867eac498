"""The child's side: one request after another, each within its limits, until the pipe closes.

A request is a function of this program, by its name, and its arguments. What it may not exceed is kept by the operating
system, so that it holds in compiled code too: a timer of processor time that ends the process, and a limit of its data
beyond which memory is refused (files that are mapped to be read are none).
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import DataError, PtychoError
from ...limits import Limits, within
from .wire import Broken, Buffer, load, send

try:
    import fcntl
    import resource
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]
    resource = None  # type: ignore[assignment]

__all__ = ["Answer", "Request", "is_child", "main"]


@dataclass(frozen=True)
class Request:
    """What the child is to do.

    Attributes:
        function: of a module, called with `args`.
        args: its arguments.
        limits: that hold for what it reads.
        memory_bytes: that it may take beyond what the process has.
        seconds: processor time that it may take.
        folder: the parent's working directory, to which names of files are relative; empty where it is gone.
        path: the parent's ``sys.path``: what can be imported there can be imported here.
    """

    function: Any
    args: tuple[Any, ...]
    limits: Limits
    memory_bytes: int
    seconds: float
    folder: str
    path: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What came of it.

    Attributes:
        value: what the function returned, or None.
        error: an error of this package that it raised, or None.
        foreign: any other exception that it raised, in words; else empty.
        no_memory: whether memory was refused to it.
        details: the traceback.
        warned: category and text of the warnings that it issued.
        unsendable: whether it returned what cannot be sent.
    """

    value: Any = None
    error: PtychoError | None = None
    foreign: str = ""
    no_memory: bool = False
    details: str = ""
    warned: tuple[tuple[type[Warning], str], ...] = ()
    unsendable: bool = False


class _Role:
    child = False


def is_child() -> bool:
    """Whether this process is the child, where nothing is guarded again."""
    return _Role.child


def main(read_from: int, write_to: int, buffer: int) -> None:
    """Serve until the parent closes its end."""
    _Role.child = True
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides; it closes the pipe, or kills
        signal.signal(number, signal.SIG_IGN)
    if resource is not None:  # what a parent ignores or blocks is inherited, and these end what does not end
        for number in (signal.SIGPROF, signal.SIGIO):
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    shared = Buffer(buffer)

    def write(content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(write_to, view) :]

    def read(size: int) -> bytes:
        return os.read(read_from, size)

    write(b"!")
    while True:
        try:
            request = _received(read, shared)
        except Broken:
            return
        if isinstance(request, Answer):
            answer = request
        else:
            with _ended_by(read_from):
                answer = _answer(request)
        try:
            send(answer, write, shared)
            shared.forget()
        except BrokenPipeError:
            return
        except Exception as error:  # whatever a value that cannot be pickled raises
            send(Answer(details=str(error), unsendable=True, warned=answer.warned), write, shared)
        del request, answer


@contextmanager
def _ended_by(pipe: int) -> Iterator[None]:
    """Have the system end this process when the parent's end of a pipe closes while the block works, wherever it waits.

    Nothing comes through the pipe meanwhile, so the signal that tells of news there tells of that.
    """
    if fcntl is None or not hasattr(os, "O_ASYNC"):
        yield
        return
    flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, flags | os.O_ASYNC)
    try:
        if select.select([pipe], [], [], 0)[0]:  # it closed before
            os._exit(1)
        yield
    finally:
        fcntl.fcntl(pipe, fcntl.F_SETFL, flags)


def _received(read: Any, shared: Buffer) -> Request | Answer:
    """The next request; an answer where what it names cannot be imported here."""
    try:
        path: tuple[str, ...] = load(read, shared)
        if list(path) != sys.path:
            sys.path[:] = path
        request: Request = load(read, shared)
    except Broken:
        raise
    except Exception as error:
        return Answer(unsendable=True, details=f"{type(error).__name__}: {error}")
    return request


def _answer(request: Request) -> Answer:
    """Do what is asked within its limits."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _limit(request.memory_bytes, request.seconds)
        try:
            if request.folder and request.folder != _here():  # it may be one that nobody else may enter
                os.chdir(request.folder)
            with within(request.limits):
                answer = Answer(value=request.function(*request.args))
        except MemoryError:
            answer = Answer(no_memory=True, details=traceback.format_exc())
        except PtychoError as error:
            answer = Answer(error=_sendable(error), details=traceback.format_exc())
        except (Exception, SystemExit) as error:
            answer = Answer(foreign=f"{type(error).__name__}: {error}", details=traceback.format_exc())
        finally:
            _unlimit()
    warned = tuple((w.category, str(w.message)) for w in caught if issubclass(w.category, UserWarning))
    return replace(answer, warned=warned)


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _sendable(error: PtychoError) -> PtychoError:
    """An error that can be sent; one of a class that cannot keeps its text and becomes a DataError."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return DataError(str(error))
    return error


def _limit(memory_bytes: int, seconds: float) -> None:
    if resource is None:
        return
    signal.setitimer(signal.ITIMER_PROF, seconds)
    taken = _data_bytes()
    if taken:
        _set_most_data(taken + memory_bytes)


def _unlimit() -> None:
    if resource is None:
        return
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    _set_most_data(resource.RLIM_INFINITY)


def _set_most_data(size: int) -> None:
    assert resource is not None
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = size if most == resource.RLIM_INFINITY else most if size == resource.RLIM_INFINITY else min(size, most)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))


def _data_bytes() -> int:
    """Bytes of private, writable memory that this process has, or 0 where the platform does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGESIZE")
