"""The child that reads strangers' files: what it may take, what its death says, and that it is there again."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from preloaded import environment

from ptycho_core.data.frame_parts import bottom_sources
from ptycho_core.data.frames import ArrayFrames, CentredFrames, ConcatenatedFrames, Hdf5Frames, SubsetFrames
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.io import read_scan
from ptycho_core.io.direct_frames import direct_frames
from ptycho_core.io.guarded import client, guarded_frames, in_child, server, while_waiting
from ptycho_core.io.guarded.frames import GuardedFrames
from ptycho_core.limits import DEFAULT_LIMITS, Limits

pytestmark = pytest.mark.hostile

HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The functions of this module are found by their name in the child, as those of a plugin are."""
    monkeypatch.syspath_prepend(HERE)


def spin():
    while True:
        pass


def spin_in_compiled_code():
    np.linalg.eigvals(np.random.default_rng(1).random((1200, 1200)))


def take(n_bytes):
    return len(bytearray(n_bytes))


def die(number):
    os.kill(os.getpid(), number)


def raise_it(error):
    raise error


def leave():
    sys.exit(3)


def leave_in_a_hurry():
    os.write(2, b"first\nno way\n")
    os._exit(7)


def warn():
    warnings.warn("take care", UserWarning, stacklevel=1)
    return 1


def chatter():
    os.write(1, b"to standard output\n")
    os.write(2, b"to standard error\n")
    return "said"


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def not_sent():
    return lambda: 5


class Unwilling:
    def __reduce__(self):
        raise RuntimeError("not this one")


class OddError(DataError):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


@pytest.mark.parametrize(
    ("function", "args", "words"),
    [
        (spin, (), r"a\.h5: reading it takes more than 0\.5 s of processor time.*--max_seconds"),
        (spin_in_compiled_code, (), r"more than 0\.5 s of processor time"),
        (take, (200_000_000,), r"more than 100 MB of memory.*--max_memory"),
        (die, (signal.SIGSEGV,), r"was ended by SIGSEGV: the file is damaged"),
        (die, (signal.SIGKILL,), r"was ended by SIGKILL"),
        (leave_in_a_hurry, (), r"a\.h5: the process that read it ended with exit code 7; its last words: no way\."),
        (raise_it, (KeyError("x"),), r"cannot be read \(KeyError: 'x'\)"),
        (raise_it, (RecursionError("deep\x1b[2J"),), r"RecursionError: deep\\x1b\[2J"),
        (leave, (), r"SystemExit"),
        (raise_it, (ConfigError("own words"),), r"^own words$"),
    ],
)
def test_whatever_happens_there_is_an_error_of_the_file_and_the_next_one_is_read(function, args, words):
    limits = Limits(seconds=0.5, memory_mb=100)
    kind = ConfigError if "own" in words else DataError
    with pytest.raises(kind, match=words) as found:
        in_child(function, *args, about="a.h5", limits=limits)
    assert len(str(found.value)) < 1000
    assert in_child(take, 5, about="b.h5", limits=limits) == 5


def test_limits_are_of_one_request_and_what_is_asked_for_by_its_size_comes_on_top():
    few = Limits(memory_mb=100)
    for _ in range(5):
        assert in_child(take, 60_000_000, about="a", limits=few) == 60_000_000
    with pytest.raises(DataError, match="memory"):
        in_child(take, 300_000_000, about="a", limits=few)
    assert in_child(take, 300_000_000, about="a", limits=few, more_bytes=300_000_000) == 300_000_000
    for _ in range(4):
        in_child(sleep, 0.2, about="a", limits=Limits(seconds=0.3))  # waiting does not count


def test_arrays_come_whole_whatever_their_size_order_and_type():
    rng = np.random.default_rng(5)
    big = rng.random((50, 300, 301)) + 1j
    for array in (big, np.asfortranarray(big[:3]), big[::2, ::-1], np.zeros((0, 4)), np.array(3.0), np.array(["é"])):
        got = in_child(np.positive if array.dtype.kind in "fc" else np.array, array, about="a")
        np.testing.assert_array_equal(got, array)
        assert got.dtype == array.dtype
    first = in_child(np.full, (1000, 100), 1.0, about="a")
    in_child(np.full, (1000, 100), 2.0, about="a")
    assert (first == 1.0).all(), "the buffer of one message is not that of the next"
    first[0, 0] = 5  # and the array is one's own


def test_arrays_come_also_where_files_may_not_grow():
    script = (
        "import resource, numpy as np; from ptycho_core.io.guarded import in_child\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "print(in_child(np.ones, (300, 300), about='a').sum(), in_child(np.ones, 5, about='a').sum())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("90000.0 5.0\n", "")


def test_warnings_are_issued_here_and_words_of_libraries_reach_nobody(capfd):
    with pytest.warns(UserWarning, match="take care"):
        assert in_child(warn, about="a") == 1
    assert in_child(chatter, about="a") == "said"
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_sent_is_read_here_after_it_was_read_there(caplog):
    with caplog.at_level(logging.INFO):
        assert in_child(not_sent, about="a.h5")() == 5
    assert "read here" in caplog.text
    with pytest.raises(DataError, match="1 and 2"):
        in_child(raise_it, OddError(1, 2), about="a.h5")


def test_what_refuses_to_be_sent_in_words_of_its_own_is_read_here_too():
    assert isinstance(in_child(Unwilling, about="a.h5"), Unwilling)


def test_without_a_guard_it_is_done_here():
    assert in_child(os.getpid, about="a", limits=Limits(guard=False)) == os.getpid()
    assert in_child(os.getpid, about="a") != os.getpid()
    with pytest.raises(DataError, match="ZeroDivisionError"):
        in_child(divmod, 1, 0, about="a", limits=Limits(guard=False))


def test_a_wish_to_stop_ends_the_wait_at_once():
    class Stop(Exception):
        pass

    def look():
        raise Stop

    with while_waiting(look), pytest.raises(Stop):
        in_child(sleep, 600, about="a")
    assert in_child(take, 5, about="a") == 5


def test_threads_wait_for_each_other():
    found, go = {}, threading.Barrier(4)

    def work(number):
        go.wait()
        found[number] = [in_child(np.full, (100, 100), float(number), about="a").mean() for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [float(number)] * 20 for number in range(4)}


def test_threads_that_wait_while_it_dies_get_another_one():
    found = []

    def work():
        try:
            found.append(in_child(take, 5, about="b"))
        except BaseException as error:
            found.append(error)

    with client.child() as at_work:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not all(waits_for(thread, "child") for thread in threads):
            time.sleep(0.01)
        with pytest.raises(client.Died):
            at_work.ask(server.Request(die, (signal.SIGKILL,), DEFAULT_LIMITS, 0, 9.0, "", tuple(sys.path)), None)
        client._give_up(at_work)
    for thread in threads:
        thread.join()
    assert found == [5, 5, 5]


def waits_for(thread, function):
    """Whether a thread has come as far as to a function."""
    frame = sys._current_frames().get(thread.ident)
    while frame is not None and frame.f_code.co_name != function:
        frame = frame.f_back
    return frame is not None


@pytest.mark.parametrize(
    "before",
    ["signal.signal(signal.SIGPROF, signal.SIG_IGN)", "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})"],
)
def test_the_timer_ends_it_whatever_the_program_ignores_or_blocks(before):
    script = (
        f"import signal; {before}\n"
        "from ptycho_core.io.guarded import in_child; from ptycho_core.limits import Limits\n"
        "import test_guarded_child as here\n"
        "in_child(here.spin, about='a', limits=Limits(seconds=0.5))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60, env=environment()
    )
    assert "more than 0.5 s of processor time" in done.stderr


@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2)])
def test_a_program_without_standard_handles_reads_too(closed, tmp_path):
    script = (
        "import os, sys\n"
        f"for handle in {closed}: os.close(handle)\n"
        "from ptycho_core.io.guarded import in_child\n"
        f"open({str(tmp_path / 'out')!r}, 'w').write(str(in_child(abs, -3, about='a')))"
    )
    subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert (tmp_path / "out").read_text() == "3"


def test_a_folder_that_nobody_else_may_enter_is_no_obstacle_where_it_works_already(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "no entry", path)

    monkeypatch.setattr(server.os, "chdir", refuse)
    monkeypatch.setattr(server, "_limit", lambda memory_bytes, seconds: None)
    monkeypatch.setattr(server, "_unlimit", lambda: None)
    for folder, value in ((str(Path.cwd()), 3), ("/nowhere", None)):
        assert server._answer(server.Request(abs, (-3,), DEFAULT_LIMITS, 0, 9.0, folder, ())).value == value


def test_a_frozen_program_is_not_started_again(monkeypatch):
    client._close()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(DataError, match=r"this program is frozen.*--no_guard"):
        in_child(take, 5, about="a.h5")


def _forked(pipe):
    pipe.send((os.getpid(), in_child(os.getppid, about="a")))


def test_a_forked_process_starts_its_own_and_leaves_its_parents_alone():
    before = in_child(os.getpid, about="a")
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking with threads: nothing else is done there
        process = context.Process(target=_forked, args=(there,))
        process.start()
    pid, parent = here.recv()
    process.join()
    assert pid == parent == process.pid
    assert in_child(os.getpid, about="a") == before


def test_one_that_cannot_be_started_says_so(monkeypatch):
    client._close()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DataError, match=r"a\.h5: the process that reads files cannot be started.*--no_guard"):
        in_child(take, 5, about="a.h5")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(HERE)
    assert in_child(take, 5, about="a.h5") == 5


@pytest.mark.parametrize("work", ["os.getpid", "open", "time.sleep"])
def test_it_ends_with_its_parent_also_when_that_is_killed(tmp_path, work):
    """Idle, waiting for a pipe that nobody writes to, and asleep."""
    os.mkfifo(tmp_path / "pipe")
    args = {"os.getpid": (), "open": (str(tmp_path / "pipe"),), "time.sleep": (3600,)}[work]
    script = (
        "import os, time; from ptycho_core.io.guarded import in_child\n"
        "print(in_child(os.getpid, about='a'), flush=True)\n"
        f"in_child({work}, *{args!r}, about='a'); time.sleep(3600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.5)  # that it has begun, as far as a test can know; it must end either way
    os.kill(pid, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return  # nobody here reaps it, and it is over
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child outlives its parent")


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    values = np.random.default_rng(2).poisson(30, (9, 16, 20)).astype(np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5.create_dataset("d", data=values, chunks=(2, 16, 20), compression="gzip")
    return Hdf5Frames(tmp_path / "a.h5", "d", values.shape), values


def test_frames_are_those_of_the_source_in_any_composition(stored):
    source, values = stored
    numbers = np.array([7, 0, 3, 3, 8])
    memory = ArrayFrames(values.astype(float))
    for whole in (
        source,
        CentredFrames(source),
        ConcatenatedFrames((source, memory)),
        SubsetFrames(CentredFrames(source), np.arange(9)[::-1].copy()),
    ):
        guarded = guarded_frames(whole, source.path, DEFAULT_LIMITS)
        assert guarded.shape == whole.shape
        np.testing.assert_array_equal(guarded.read(numbers), whole.read(numbers))
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(guarded)).read(numbers), whole.read(numbers))
        assert guarded.read(numbers[:0]).shape == (0, *whole.shape[1:])
    assert isinstance(guarded_frames(source, source.path, DEFAULT_LIMITS), GuardedFrames)
    assert guarded_frames(memory, source.path, DEFAULT_LIMITS) is memory
    assert guarded_frames(source, source.path, Limits(guard=False)) is source


@dataclass(frozen=True)
class PluginFrames:
    """A source of somebody else, whose fields have names that ours have too."""

    base: Path
    parts: list[str]

    @property
    def shape(self):
        return 3, 8, 8

    def read(self, numbers):
        return np.full((len(numbers), 8, 8), len(self.parts), np.float32)


class HoldingFrames(PluginFrames):
    """One that cannot be sent: it holds a lock."""

    def __reduce__(self):
        raise RuntimeError("a lock")


def test_frames_of_a_plugin_are_taken_as_they_are_whatever_their_fields_are_called(tmp_path, caplog):
    own, holding = PluginFrames(tmp_path, ["a.raw", "b.raw"]), HoldingFrames(tmp_path, ["a.raw"])
    assert list(bottom_sources(own)) == [own]
    assert direct_frames(own) is own
    guarded = guarded_frames(SubsetFrames(own, np.array([2])), tmp_path, DEFAULT_LIMITS)
    assert isinstance(guarded.base, GuardedFrames)
    np.testing.assert_array_equal(guarded.read(np.array([0])), np.full((1, 8, 8), 2.0))
    with caplog.at_level(logging.INFO):
        assert guarded_frames(holding, tmp_path, DEFAULT_LIMITS) is holding
    assert "its frames are read here" in caplog.text


def test_a_reader_and_its_frames_work_in_the_child_and_a_damaged_piece_is_named(stored, tmp_path):
    values = np.repeat(stored[1][:, :, :16], 2, axis=0)
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as h5:
        h5.create_dataset("frames", data=values, chunks=(1, 16, 16), compression="gzip")
        h5["frames"].attrs["measurement"] = "counts"
        h5["positions_px"] = np.random.default_rng(1).uniform(0, 40, (18, 2))
        where = h5["frames"].id.get_chunk_info(17)
    assert read_scan(path).n_frames == 18
    with path.open("r+b") as file:
        file.seek(where.byte_offset)
        file.write(bytes(where.size))
    with pytest.raises(DataError, match=r"scan\.h5: "):
        read_scan(path)
