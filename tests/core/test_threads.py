"""Threads chosen by measuring, on a made-up machine with a clock of its own: idle, busy, filling and emptying."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from ptycho_core.enginekit.engine_threads import EngineThreads
from ptycho_core.enginekit.processors import available_cpus
from ptycho_core.enginekit.team import Team
from ptycho_core.enginekit.threads import SLEEPING, SPINNING, ThreadChooser

PROCESSORS = 2


@dataclass
class Machine:
    """Two processors, others that keep some of them busy, and a job whose steps take their time.

    Attributes:
        base: seconds of a step with one thread and nobody else.
        gain: how much faster it is with a thread for each processor.
        crowded: how many times slower threads are of which not each has a processor.
        busy: time → processes that others keep busy.
        tells: whether the system tells how busy the processors are.
        noise: of a step, relative; three in a hundred are held up besides.
        first: how many times longer the first step with a number of threads takes.
    """

    base: float = 0.1
    gain: float = 1.5
    crowded: float = 8.0
    busy: Callable[[float], int] = lambda now: 0
    tells: bool = True
    noise: float = 0.1
    seed: int = 0
    first: float = 1.0
    now: float = 1.0
    begun: set[int] = field(default_factory=set)
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def others(self) -> float | None:
        busy = self.busy(self.now)
        return PROCESSORS * busy / (busy + 1) if self.tells else None  # what this job leaves them

    def step(self, n_threads: int) -> None:
        seconds = self.base if n_threads == 1 else self.base / self.gain
        if n_threads not in self.begun:
            self.begun.add(n_threads)
            seconds *= self.first
        if n_threads > 1 and self.busy(self.now):
            seconds *= self.crowded
        held_up = 3 if self.noise and self.rng.random() < 0.03 else 1
        self.now += seconds * float(np.exp(self.noise * self.rng.normal())) * held_up

    def chooser(self, slower: float = SPINNING, most: int = PROCESSORS) -> ThreadChooser:
        return ThreadChooser(most, slower=slower, clock=lambda: self.now, others=self.others, processors=PROCESSORS)

    def made(self, steps: int, chooser: ThreadChooser, kind: str = "solve") -> list[int]:
        """The threads of each of some steps of a job."""
        used = []
        for _ in range(steps):
            with chooser.step(kind, 16) as n_threads:
                self.step(n_threads)
            used.append(n_threads)
        return used

    def fixed(self, steps: int, n_threads: int) -> float:
        """Seconds of as many steps on the same machine with a fixed number of threads."""
        other = Machine(**{k: v for k, v in vars(self).items() if k not in ("rng", "now", "begun")})
        for _ in range(steps):
            other.step(n_threads)
        return other.now - 1.0


def ratio(machine: Machine, steps: int, slower: float = SPINNING) -> float:
    """Seconds of a job with the default beside those of the better of one and all threads."""
    best = min(machine.fixed(steps, n) for n in (1, PROCESSORS))
    machine.made(steps, machine.chooser(slower))
    return (machine.now - 1.0) / best


@pytest.mark.spec("BE-37")
@pytest.mark.parametrize("busy", [0, 1, 2])
@pytest.mark.parametrize(("crowded", "slower"), [(8.0, SPINNING), (16.0, SPINNING), (1.2, SLEEPING)])
@pytest.mark.parametrize("gain", [0.6, 1.0, 1.9])
@pytest.mark.parametrize(("base", "steps"), [(0.01, 100), (0.01, 3000), (0.1, 60), (0.1, 1000), (1.0, 60)])
def test_the_default_is_near_the_better_of_one_and_all(
    busy: int, crowded: float, slower: float, gain: float, base: float, steps: int
) -> None:
    limit = 1.05 if steps >= 1000 else 1.3
    for seed in range(3):
        machine = Machine(base=base, gain=gain, crowded=crowded, busy=lambda now: busy, seed=seed)
        assert ratio(machine, steps, slower) <= limit


@pytest.mark.spec("BE-37")
@pytest.mark.parametrize("tells", [True, False])
def test_a_machine_that_fills_is_left_to_others_and_taken_back(tells: bool) -> None:
    machine = Machine(busy=lambda now: int(10 < now < 40), tells=tells, gain=1.8)
    chooser = machine.chooser()
    machine.made(100, chooser)
    assert (machine.now < 10, chooser.chosen) == (True, 2)
    while machine.now < 10:
        machine.made(1, chooser)
    used = machine.made(200, chooser)
    assert machine.now < 40
    # the few that it takes to see it, and one where nobody tells and it has to be tried once more
    assert (used.count(2) <= 8, chooser.told()) == (True, "1 of 2, measured")
    while machine.now < 40:
        machine.made(1, chooser)
    machine.made(60 if tells else 1500, chooser)
    assert chooser.told() == "2 of 2, measured"


@pytest.mark.spec("BE-37")
@pytest.mark.parametrize("gain", [0.95, 1.0, 1.05])
def test_noise_does_not_send_it_back_and_forth(gain: float) -> None:
    for seed in range(5):
        machine, changes = Machine(base=0.02, gain=gain, noise=0.2, seed=seed), 0
        chooser = machine.chooser()
        for _ in range(3000):
            before = chooser.chosen
            machine.made(1, chooser)
            changes += chooser.chosen != before
        assert changes <= 1  # either is as good


@pytest.mark.spec("BE-37")
@pytest.mark.parametrize("busy", [0, 1])
def test_measuring_costs_little(busy: int) -> None:
    machine = Machine(base=0.05, gain=1.9, crowded=12.0, busy=lambda now: busy, noise=0.0)
    used = machine.made(6000, machine.chooser())
    best = machine.fixed(6000, 1 if busy else 2)
    assert machine.now - 1.0 <= 1.03 * best
    assert used[3000:].count(2 if busy else 1) > 0  # it went on looking


def test_a_machine_that_seems_busy_is_begun_on_with_what_is_free() -> None:
    machine = Machine(busy=lambda now: 1)
    chooser = machine.chooser()
    assert machine.made(20, chooser) == [1] * 20
    assert chooser.told() == "1 of 2, as many as are free"
    assert Machine().made(1, Machine().chooser()) == [2]
    silent = Machine(tells=False)
    assert silent.made(1, silent.chooser()) == [1]  # nobody knows, and one too many would cost much
    assert silent.made(1, silent.chooser(SLEEPING)) == [2]


def test_threads_between_one_and_all_are_tried_where_as_many_are_free() -> None:
    now, busy = [1.0], [0.0]
    chooser = ThreadChooser(16, clock=lambda: now[0], others=lambda: busy[0], processors=16)

    def made(steps: int) -> int:
        for _ in range(steps):
            with chooser.step("train") as n:
                now[0] += 1.6 / n * (10 if n + busy[0] > 16 else 1)
        return chooser.chosen

    assert made(30) == 16
    busy[0] = 5.0
    assert made(30) == 11
    busy[0] = 0.0
    assert made(30) == 16


def test_one_processor_is_not_measured() -> None:
    machine = Machine()
    chooser = machine.chooser(most=1)
    assert set(machine.made(50, chooser)) == {1}
    assert chooser.told() == "1 of 1, all there is"


@pytest.mark.parametrize(("crowded", "steps"), [(16.0, 1), (5.0, 2)])
def test_a_number_that_is_far_slower_is_dropped_at_once(crowded: float, steps: int) -> None:
    machine = Machine(busy=lambda now: 1, tells=False, noise=0.0, crowded=crowded)
    assert machine.made(100, machine.chooser()).count(2) == steps


def test_what_the_first_step_with_a_number_takes_is_not_held_against_it() -> None:
    machine = Machine(tells=False, noise=0.0, first=5.0)  # so it begins with one, and tries two
    chooser = machine.chooser()
    machine.made(20, chooser)
    assert chooser.told() == "2 of 2, measured"


def test_steps_of_another_kind_take_no_part_in_a_trial() -> None:
    machine = Machine(tells=False, noise=0.0)
    chooser = machine.chooser()
    assert machine.made(3, chooser, "object") == [1, 1, 2]  # a trial of two has begun
    assert machine.made(1, chooser, "probe") == [1]
    assert machine.made(1, chooser, "object") == [2]
    assert set(machine.made(19, chooser, "probe")) == {1}
    assert 2 in machine.made(9, chooser, "probe")  # the job has gone over to them, and the trial as well


def test_a_step_with_nothing_to_do_is_a_step() -> None:
    machine = Machine(noise=0.0)
    chooser = machine.chooser()
    for _ in range(40):
        with chooser.step("nothing", 0) as n_threads:
            machine.step(n_threads)
    assert chooser.told() == "2 of 2, measured"


def test_kinds_of_steps_are_held_against_their_own() -> None:
    machine = Machine(noise=0.0)
    chooser = machine.chooser()
    machine.made(40, chooser, "object")
    assert chooser.chosen == 2
    machine.base = 1.0  # a step of another kind takes ten times as long, and nothing is wrong
    assert set(machine.made(2, chooser, "positions")) == {2}
    machine.base = 0.1
    machine.made(40, chooser, "object")
    assert chooser.chosen == 2


def test_a_step_that_fails_or_overlaps_with_another_is_not_timed() -> None:
    machine = Machine(noise=0.0)
    chooser = machine.chooser()
    machine.made(40, chooser)
    before = vars(chooser)["_credit"]

    def fails() -> None:
        with chooser.step("solve"):
            machine.now += 100
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert vars(chooser)["_credit"] == before
    inside: list[int] = []

    def another() -> None:
        with chooser.step("solve") as n_threads:
            inside.append(n_threads)

    with chooser.step("solve") as n_threads:
        thread = threading.Thread(target=another)
        thread.start()
        thread.join(60)
    assert inside == [n_threads]
    machine.made(5, chooser)  # the lock is free again
    assert vars(chooser)["_credit"] > before


def test_an_engine_takes_what_a_caller_says_and_else_chooses_with_what_it_found() -> None:
    threads = EngineThreads(lambda: 1)
    assert threads.told() == ""
    with threads.of(3, SPINNING).step("solve", 8) as n_threads:
        assert n_threads == 3
    assert threads.told() == "3, as given"
    assert threads.of(None, SPINNING).most == 1
    assert threads.told() == "1 of 1, all there is"
    assert threads.of(None, SPINNING) is threads.of(None, SPINNING) is not threads.of(None, SLEEPING)


@pytest.mark.spec("BE-36")
def test_an_engine_never_takes_more_than_this_process_may_use() -> None:
    assert EngineThreads(lambda: 4096).of(None, SLEEPING).most == available_cpus()
    assert EngineThreads().of(None, SLEEPING).most == available_cpus()


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_a_team_takes_what_it_found_in_the_order_of_the_parts(n_threads: int) -> None:
    team, order, parts = Team(3, "test"), list[int](), list(range(7))
    first_may_end = threading.Event()

    def work(part: int) -> int:
        if part == 0 and min(n_threads, 3) > 1:
            assert first_may_end.wait(60)  # others are done before
        if part == 1:
            first_may_end.set()
        return part * part

    team.each(parts, work, lambda part, found: order.extend((part, found)), n_threads)
    assert order == [value for part in parts for value in (part, part * part)]


def test_a_team_stops_where_its_caller_does() -> None:
    done, stopped = list[int](), threading.Event()

    def work(part: int) -> None:
        if part:
            assert stopped.wait(60)
            time.sleep(0.01)
        done.append(part)

    def take(part: int, found: None) -> None:
        stopped.set()
        raise FloatingPointError

    with pytest.raises(FloatingPointError):
        Team(2, "test").each(range(2000), work, take, 2)
    assert len(done) < 1500


@pytest.mark.parametrize("n_threads", [1, 3])
def test_what_fails_in_a_team_is_raised_once_no_thread_works_on(n_threads: int) -> None:
    team, done = Team(3, "test"), list[int]()

    def work(part: int) -> int:
        if part == 2:
            raise FloatingPointError(part)
        done.append(part)
        return part

    for _ in range(2):  # and the team is as good as new
        with pytest.raises(FloatingPointError):
            team.each(range(50), work, lambda part, found: None, n_threads)
    assert done.count(0) == done.count(1) == 2
    team.each(range(2), work, lambda part, found: None, n_threads)
    assert done.count(1) == 3
