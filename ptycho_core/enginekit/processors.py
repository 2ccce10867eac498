"""How many processors this process may use, and how many of them others keep busy; once for all engines.

A batch system and a container give a job fewer processors than the machine has. Threads beyond those wait for each
other, or are held back for the rest of a period, so what was given is read where the system states it: the affinity
mask, the quota of the control groups, and what Slurm told the job. That is obeying the machine, not configuration: the
number decides how long a run takes and not what comes out of it, and ``Runtime.threads`` is what a caller sets.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

__all__ = ["OthersLoad", "affinity", "available_cpus"]

_SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
"""Where Slurm says how many processors a task, and a job on this node, was given."""

_ALMOST = 0.01
"""What a quota may lack of a whole processor and still be rounded up to it."""

_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)
"""Of a processor's line in ``/proc/stat``: user, nice, system, irq, softirq, steal; others are waiting, or in these."""

_LEAST_SECONDS = 0.2
"""Shortest time that busy processors are told of: the system counts in hundredths of a second."""


def affinity() -> tuple[int, ...]:
    """Numbers of the processors that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def available_cpus(
    root: Path = Path("/"),
    environment: Mapping[str, str] | None = None,
    allowed: Collection[int] | None = None,
) -> int:
    """Processors that this process may use: the least of what affinity, control groups and Slurm allow, at least 1.

    A share of a processor is left out: a thread that is held back each period lets all others wait.

    Args:
        root: of the file system, whose ``proc`` and ``sys`` are read; files that are not there limit nothing.
        environment: variables of the process, of which only Slurm's are read; None takes those there are.
        allowed: processors of the affinity mask; None asks the system.
    """
    limits: list[float] = [len(affinity() if allowed is None else allowed)]
    limits += _quotas(root)
    variables = os.environ if environment is None else environment
    limits += [int(text) for name in _SLURM if (text := variables.get(name, "").strip()).isdecimal() and int(text) > 0]
    return max(1, int(min(limits) + _ALMOST))


def _text(path: Path) -> str:
    """What a small file of the system says; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _quotas(root: Path) -> Iterator[float]:
    """Processors that each control group above this process allows, of both versions of control groups."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if number == "0" and not controllers:
            for at in _groups(root, place, "cgroup2"):
                yield from _quota(_text(at / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for at in _groups(root, place, "cgroup", "cpu"):
                yield from _quota(f"{_text(at / 'cpu.cfs_quota_us').strip()} {_text(at / 'cpu.cfs_period_us').strip()}")


def _groups(root: Path, place: str, kind: str, controller: str = "") -> Iterator[Path]:
    """The folder of a control group and those above it, up to where groups of its kind are mounted.

    Args:
        root: of the file system.
        place: the group, as ``/proc/self/cgroup`` has it.
        kind: of the mount, ``cgroup`` or ``cgroup2``.
        controller: that the mount must have, where one is named.
    """
    for line in _text(root / "proc/self/mountinfo").splitlines():
        # 29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup rw
        where, _, what = line.partition(" - ")
        words, mount = where.split(), what.split()
        if len(words) < 5 or len(mount) < 3 or mount[0] != kind:
            continue
        if controller and controller not in mount[2].split(","):
            continue
        folder, own, top = root / words[4].lstrip("/"), PurePosixPath(place), PurePosixPath(words[3])
        # in a container the mount may begin at its group, or the path lead beyond what is mounted
        parts = own.relative_to(top).parts if own.is_relative_to(top) and ".." not in own.parts else ()
        for n in range(len(parts), -1, -1):
            yield folder.joinpath(*parts[:n])


def _quota(text: str) -> Iterator[float]:
    """Processors of a text such as ``150000 100000``; nothing where it says ``max``, -1 or nothing."""
    words = text.split()
    try:
        quota, period = float(words[0]), float(words[1])
    except (IndexError, ValueError):
        return
    if quota > 0 and period > 0:
        yield quota / period


class OthersLoad:
    """How many of some processors others than this process keep busy, from one look to the next.

    Args:
        cpus: their numbers; None takes those that this process may use.
        root: of the file system, whose ``/proc/stat`` is read.
        clock: seconds.
        own: processor seconds of this process.
        ticks: of the system in a second.
    """

    def __init__(
        self,
        cpus: Collection[int] | None = None,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.perf_counter,
        own: Callable[[], float] = time.process_time,
        ticks: int | None = None,
    ) -> None:
        self.cpus = frozenset(affinity() if cpus is None else cpus)
        self._path, self._clock, self._own = root / "proc/stat", clock, own
        self._ticks = (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100) if ticks is None else ticks
        self._last = self._now()

    def _now(self) -> tuple[float, float, float] | None:
        """The clock, seconds that all the processors were busy, and those of this process."""
        total, found = 0, False
        for line in _text(self._path).splitlines():
            name, *numbers = line.split()
            if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in self.cpus:
                found = True
                total += sum(int(numbers[field]) for field in _BUSY_FIELDS if field < len(numbers))
        return (self._clock(), total / self._ticks, self._own()) if found else None

    def __call__(self) -> float | None:
        """Processors kept busy by others since the last look; None where the system does not tell, or not yet."""
        last, now = self._last, self._now()
        if last is None or now is None:
            self._last = now
            return None
        seconds, busy, own = (after - before for after, before in zip(now, last, strict=True))
        if seconds < _LEAST_SECONDS:
            return None
        self._last = now
        return min(float(len(self.cpus)), max(0.0, (busy - own) / seconds))
