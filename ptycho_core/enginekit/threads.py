"""How many threads compute, chosen by measuring steps of the job itself, once for all engines.

Threads that wait for each other by spinning, as those of OpenMP do in PyTorch and pty-chi, lose more than they gain as
soon as something else wants one of their processors: a step was seven to sixteen times slower with two threads than
with one. On a quiet machine they gain up to the number of processors, or nothing, as the arrays are. Neither is known
before, and the machine may fill or empty while a job runs. So a job begins with what the machine seems to have free,
tries other numbers on a few of its own steps, and keeps what is clearly faster:

* *Blocks.* Steps of one kind are timed in blocks of some hundredths of a second. The first step of a kind with a number
  of threads starts threads and builds kernels, and is left out.
* *Trials* go in turns, challenger and incumbent, so that a machine whose speed drifts treats both alike. A challenger
  wins if it is faster in every pair and by a tenth in sum; one that is far slower is dropped after its first step.
* *When.* Fewer threads are tried once steps get slower or others keep more processors busy, more threads once others
  keep fewer: both are cheap where they are right. Besides, everything is tried again whenever what it cost last time is
  a small share of the time gone by since.

How many processors others keep busy is what the system says of all, less what this process took.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .processors import OthersLoad, affinity, available_cpus

__all__ = ["SLEEPING", "SPINNING", "ThreadChooser"]

SPINNING = 16.0
"""How many times slower a step may get by a thread too many where threads spin: pty-chi's beside one busy process."""

SLEEPING = 2.0
"""The same where threads sleep while they wait, and share a processor fairly."""

_BLOCK_S = 0.05
"""Seconds of one measurement: long enough that a processor lent for a moment does not decide, as far as steps allow."""

_LOOK_S = 0.5
"""Seconds from one look at what others do to the next."""

_SHARE = 0.02
"""Part of all time that trials out of turn may cost."""

_LEAST_COST_S = 0.2
"""What a trial is reckoned at where it cost less, so that equal numbers are not tried without end."""

_AWAY_S = 2.0
"""Seconds of other steps after which a trial is given up: the job has gone over to them."""

_PAIRS = 3
"""Times that challenger and incumbent take turns."""

_MARGIN = 0.9
"""Part of the incumbent's time that a challenger may take at most to win: noise of equal ones stays above it."""

_OBVIOUS = 2.0
"""How many times faster a challenger is with which nothing more is measured; one twice as slow is dropped at once."""

_SLOWER = 1.3
"""How many times slower than they were steps are when fewer threads are tried."""

_CHANGED = 0.5
"""Processors that others keep busy, more or fewer than at the last decision, at which the other number is tried."""

_log = logging.getLogger("ptycho_core.threads")


@dataclass
class _Block:
    """Steps that are timed together."""

    seconds: float = 0.0
    size: float = 0.0

    def add(self, seconds: float, size: float) -> float | None:
        """Take a step; the seconds for each unit of size once the block is long enough."""
        self.seconds, self.size = self.seconds + seconds, self.size + size
        return self.seconds / self.size if self.seconds >= _BLOCK_S else None


@dataclass
class _Kind:
    """What is known of one kind of steps with the number of threads that is chosen.

    Attributes:
        warm: numbers of threads with which such a step was made.
        block: that is being filled.
        recent: paces of the last blocks.
        usual: lowest median of three blocks, which later ones are held against.
    """

    warm: set[int] = field(default_factory=set)
    block: _Block = field(default_factory=_Block)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=3))
    usual: float | None = None

    def add(self, seconds: float, size: float) -> None:
        """Take a step with the number that is chosen."""
        pace = self.block.add(seconds, size)
        if pace is not None:
            self.recent.append(pace)
            self.block = _Block()
        if len(self.recent) == 3:
            middle = statistics.median(self.recent)
            self.usual = middle if self.usual is None else min(self.usual, middle)

    def slower(self) -> bool:
        """Whether steps take longer than they did."""
        full = len(self.recent) == 3 and self.usual is not None
        return full and statistics.median(self.recent) > _SLOWER * (self.usual or 0.0)

    def forget(self) -> None:
        """Another number of threads is chosen, or the machine has become another."""
        self.block, self.usual = _Block(), None
        self.recent.clear()


@dataclass
class _Trial:
    """A challenger beside the number that is chosen, on steps of one kind.

    Attributes:
        kind: of the steps.
        challenger: number of threads.
        recent: paces of the incumbent just before.
        asked: whether it can be taken without more ado where it is obviously faster.
        own: paces of its blocks.
        other: paces of the incumbent's, in turns with these.
        block: that is being filled.
        cost: seconds that its steps took more than the incumbent's would have.
        away: seconds of steps of other kinds since it began.
    """

    kind: Hashable
    challenger: int
    recent: tuple[float, ...]
    asked: bool
    own: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)
    block: _Block = field(default_factory=_Block)
    cost: float = 0.0
    away: float = 0.0

    @property
    def known(self) -> float:
        """Pace of the incumbent before the trial."""
        return statistics.median(self.recent)

    @property
    def is_challengers_turn(self) -> bool:
        return len(self.own) <= len(self.other)

    def warm_up(self, seconds: float, size: float) -> bool | None:
        """The challenger's first step; False where that says enough."""
        self.cost += seconds - self.known * size
        # building kernels takes longer than a step does
        return False if seconds / size > 2 * _OBVIOUS * self.known else None

    def add(self, seconds: float, size: float) -> bool | None:
        """Take a step; whether the challenger has won, or None where more is to be measured."""
        if self.is_challengers_turn:
            self.cost += seconds - self.known * size
        block = self.block
        pace = block.add(seconds, size)
        if self.is_challengers_turn and pace is None and block.seconds / block.size > 2 * _OBVIOUS * self.known:
            return False
        if pace is None:
            return None
        self.block = _Block()
        (self.own if self.is_challengers_turn else self.other).append(pace)
        # one block that was held up makes nothing obvious, two do
        before = [*self.recent, *self.other][:2] if self.asked else []
        if len(before) == 2 and _OBVIOUS * max(self.own) < min(before):
            return True
        if len(self.own) != len(self.other):
            return None
        if self.own[-1] >= self.other[-1]:
            return False
        return sum(self.own) < _MARGIN * sum(self.other) if len(self.own) == _PAIRS else None


class ThreadChooser:
    """The number of threads of an engine's steps.

    It belongs to an engine, which makes every step inside :meth:`step` and computes with the number that it gives.
    What it finds is taken along from one job to the next; steps that overlap with another one are not timed.

    Args:
        most: threads at most; None takes the processors that this process may use.
        slower: times that a step may be slower with too many threads; :data:`SPINNING` or :data:`SLEEPING`.
        clock: seconds.
        others: processors that others kept busy since it was asked last, or None where nobody knows.
        processors: among how many these are; None takes those of the affinity mask.

    Attributes:
        most: threads at most.
        chosen: threads at present.
        how: where that comes from, in words.
    """

    def __init__(
        self,
        most: int | None = None,
        *,
        slower: float = SPINNING,
        clock: Callable[[], float] = time.perf_counter,
        others: Callable[[], float | None] | None = None,
        processors: int | None = None,
    ) -> None:
        self.most = available_cpus() if most is None else most
        self.chosen, self.how = self.most, "all there is"
        self._worst, self._clock = slower, clock
        self._others = OthersLoad() if others is None else others
        self._processors = len(affinity()) if processors is None else processors
        self._busy: float | None = None
        self._decided = 0.0
        self._looked = clock()
        self._kinds: dict[Hashable, _Kind] = {}
        self._trial: _Trial | None = None
        self._queue: list[int] = []
        self._credit, self._estimate, self._spent, self._began = 0.0, 0.0, 0.0, False
        self._lock = threading.Lock()

    def told(self) -> str:
        """What is chosen, in words: ``1 of 2, measured``."""
        return f"{self.chosen} of {self.most}, {self.how}"

    @contextmanager
    def step(self, kind: Hashable, size: float = 1.0) -> Iterator[int]:
        """Make a step, with as many threads as are given.

        Args:
            kind: of the step; those of one kind and size take as long as each other on a quiet machine.
            size: how much there is to do, such as its frames.
        """
        if self.most == 1 or not self._lock.acquire(blocking=False):
            yield self.chosen
            return
        try:
            if not self._began:
                self._start()
            trial = self._trial
            mine = trial is not None and trial.kind == kind
            n_threads = trial.challenger if trial is not None and mine and trial.is_challengers_turn else self.chosen
            began = self._clock()
            yield n_threads
            self._note(kind, max(size, 1.0), n_threads, self._clock() - began)
        finally:
            self._lock.release()

    def _start(self) -> None:
        """Begin with what seems to be free; with one where nobody knows and a thread too many would cost much."""
        self._began = True
        self._look()
        self._decided = self._busy or 0.0
        if self._worst > SLEEPING and self._busy is None:
            self.chosen, self.how = 1, "to begin with"
        elif self._worst > SLEEPING and self._free() < self.most:
            self.chosen, self.how = self._free(), "as many as are free"
        _log.info("threads: %s", self.told())

    def _look(self) -> None:
        """See what others do, where that is some time ago."""
        found = self._others()
        self._busy = self._busy if found is None else found
        self._looked = self._clock()

    def _free(self) -> int:
        """Threads that find a processor of their own."""
        return self.most if self._busy is None else max(1, min(self.most, int(self._processors - self._busy + 0.5)))

    def _note(self, name: Hashable, size: float, n_threads: int, seconds: float) -> None:
        """Take the time of a step, and decide what the next ones are made with."""
        kind, trial = self._kinds.setdefault(name, _Kind()), self._trial
        self._credit += _SHARE * seconds
        first = n_threads not in kind.warm
        kind.warm.add(n_threads)
        if trial is not None and trial.kind == name:
            judged = trial.warm_up(seconds, size) if first else trial.add(seconds, size)
            if judged is not None:
                self._end(trial, judged)
            return
        if trial is not None:  # a job went over to other steps
            trial.away += seconds
            if trial.away > _AWAY_S:
                self._trial, self._queue = None, []
        if first:
            return
        kind.add(seconds, size)
        if self._trial is None:
            self._consider(name, kind, size)

    def _consider(self, name: Hashable, kind: _Kind, size: float) -> None:
        """Begin a trial where there is reason to."""
        if self._clock() - self._looked >= _LOOK_S:
            self._look()
        if not kind.recent:
            return
        if not self._queue:
            self._queue, self._spent = self._wished(kind, size), 0.0
        if self._queue:
            challenger = self._queue.pop(0)
            asked = challenger < self.chosen or self._free() > self.chosen
            self._trial = _Trial(name, challenger, tuple(kind.recent), asked)

    def _wished(self, kind: _Kind, size: float) -> list[int]:
        """Numbers of threads to try now, in order; none where there is no reason."""
        free = self._free()
        fewer = sorted({1, free} - set(range(self.chosen, self.most + 1)), reverse=True)
        more = sorted({free, self.most} - set(range(self.chosen + 1)))
        change = 0.0 if self._busy is None else self._busy - self._decided
        if abs(change) >= _CHANGED and self._worst > SLEEPING:
            self._decided += change
            asked = fewer if change > 0 else [n for n in more if n <= free]
            if asked:
                return asked
        if kind.slower():
            kind.usual = statistics.median(kind.recent)  # it is slower by so much: that is tried once
            if fewer:
                return fewer
        if not self._estimate:
            careful = self.chosen < self.most and free < self.most
            self._estimate = (self._worst - 1) * max(_BLOCK_S, kind.recent[-1] * size) if careful else 1e-9
        return fewer + more if self._credit >= self._estimate else []

    def _end(self, trial: _Trial, won: bool) -> None:
        """Take the winner."""
        self._trial = None
        self._spent += max(trial.cost, _LEAST_COST_S)
        self._estimate = self._spent
        self._credit = min(self._credit, self._estimate) - max(trial.cost, _LEAST_COST_S)
        self.how = "measured"
        if won:
            self.chosen = trial.challenger
            for kind in self._kinds.values():
                kind.forget()
        _log.info(
            "threads: %s (%d took %.2f of the time)", self.told(), trial.challenger,
            (trial.own[-1] / trial.known) if trial.own else float("inf"),
        )  # fmt: skip
