"""The default number of threads beside one and all of them, on a quiet machine and on a crowded one.

    python benchmarks/crowded.py [--engines numpy …] [--jobs solve refine train] [--busy 0 1 2] [--long] [--rounds 1]
        [--reach 1.3] [--tries 8]

For each engine that is installed, what a user waits for: solving a scan, refining the image, training a network. Each
is done with the default, with one thread and with all threads, alone and beside one and two processes that keep a
processor busy each (plain Python loops). A process for each setting imports its engine once and then makes jobs in
turns with the others, so that a machine whose speed drifts treats them alike; each job has an engine of its own, which
knows nothing of those before. Figures are medians of seconds, and the ratio of the default to the better of one and
all, of the medians; more than 1.3 is said to be missed, and then the exit code is 1.

A job beside which anything else kept a processor busy is made again, up to some times, and the least disturbed counts;
a row that no quiet moment was found for is marked with a ``*`` and says nothing.

The quick form takes about ten minutes on a quiet machine of two cores; ``--long`` makes longer jobs, three rounds, and
two columns more: a machine that fills, and one that empties, in the middle of a job.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from real_scan import kept_busy

from ptycho_core.enginekit.processors import OthersLoad
from ptycho_core.provenance import machine

REACH = 1.3
"""What the default may take beside the better of one thread and all."""

SETTINGS = ("default", "one", "all")

CHANGES = ("fills", "empties")
"""A busy process that comes, or goes, in the middle of a job."""

EPOCHS = {"numpy": 40, "pytorch": 40, "tensorflow": 20, "ptychi": 6}
"""Passes over the frames when solving and refining, so that each takes a few seconds."""

STEPS = 60
"""Of a network."""

STRANGERS = 0.15
"""Processors that others than a job and its crowd may keep busy beside it, in the mean."""


@dataclass(frozen=True)
class Size:
    """How long the jobs are; 1 is the quick form."""

    times: int

    def job(self, engine: str, name: str) -> Any:
        """A function of a number of threads (None: the default) that makes a job and gives its seconds."""
        from ptycho_core import PtychoDataContainer, RefinementConfig, TrainingConfig
        from ptycho_core.api.prepare import ensure_container
        from ptycho_core.api.refine import refine
        from ptycho_core.api.score import score
        from ptycho_core.plugins.registry import load_backend
        from ptycho_core.runtime import Runtime
        from ptycho_core.simulation import SimulationConfig, simulate_scan

        scan = simulate_scan(SimulationConfig(N=64, n_frames=441, seed=1)).raw
        epochs = EPOCHS[engine] * self.times
        if name == "train":
            whole = PtychoDataContainer.of(scan)
            how = {"epochs": 1, "n_groups": STEPS * self.times, "collapse_threshold": 0.0}
            config = TrainingConfig(backend=engine, method="network", **how)
        else:
            plan = RefinementConfig(engine=engine, epochs=epochs, probe_modes=1, positions=False, patience=10**6)
            config = TrainingConfig(backend=engine, epochs=epochs, refinement=plan)
            whole = ensure_container(scan, config)
        first = None
        if name == "refine":
            solver = load_backend("numpy")
            few = replace(config, backend="numpy", epochs=2)
            image = solver.reconstruct(solver.train([whole], few), whole, config.inference)
            first = score(image, whole, "numpy", solver)

        def made(threads: int | None) -> float:
            backend, runtime = load_backend(engine), Runtime(accelerator="cpu", threads=threads)
            time.sleep(0.5)  # what lies between the start of a command and its first step, and more
            began = time.perf_counter()
            if first is None:
                backend.train([whole], config, runtime)
            else:
                refine(first, config, runtime, backend=backend, tell=lambda text: None)
            return time.perf_counter() - began

        return made


def serve(engine: str, setting: str, jobs: list[str], size: Size) -> None:
    """Make the jobs whose names come in, one a line, and say how long each took."""
    from ptycho_core.enginekit.processors import available_cpus

    threads = {"default": None, "one": 1, "all": available_cpus()}[setting]
    made = {name: size.job(engine, name) for name in jobs}
    warm = Size(1).job(engine, "solve")
    warm(threads)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        began = time.process_time()
        seconds = made[line.strip()](threads)
        print(json.dumps({"done": [seconds, time.process_time() - began]}), flush=True)


class Worker:
    """A process with one engine and one setting."""

    def __init__(self, engine: str, setting: str, jobs: list[str], given: argparse.Namespace) -> None:
        command = [sys.executable, "-W", "ignore", __file__, "--serve", engine, setting, "--jobs", *jobs]
        command += ["--long"] * given.long
        quiet = {**os.environ, **quiet_environment(engine)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=quiet
        )
        self._answer("ready")

    def _answer(self, name: str) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
                return json.loads(line)[name]
        raise SystemExit(f"a process ended with {self._process.wait()}: {self._process.args}")

    def job(self, name: str) -> tuple[float, float]:
        """Seconds of a job, and those of processors that it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        seconds, of_processors = self._answer("done")
        return seconds, of_processors

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def quiet_environment(engine: str) -> dict[str, str]:
    """What the command would set before it imports the engine."""
    from ptycho_core.plugins.registry import backend_spec

    return dict(backend_spec(engine).quiet_environment)


@contextlib.contextmanager
def crowd(kind: str, middle: float) -> Iterator[None]:
    """Others at work: a number of processes, or one that comes or goes after some seconds."""
    if kind not in CHANGES:
        with kept_busy(int(kind)):
            yield
        return
    over = threading.Event()

    def change() -> None:
        if kind == "empties":
            with kept_busy(1):
                over.wait(middle)
        elif not over.wait(middle):
            with kept_busy(1):
                over.wait()

    changing = threading.Thread(target=change)
    changing.start()
    try:
        yield
    finally:
        over.set()
        changing.join()


def ready(names: list[str]) -> list[str]:
    """Those of some engines that are installed."""
    from ptycho_core.plugins.registry import available_backends

    there = {status.name for status in available_backends() if status.state == "ready"}
    return [name for name in names if name in there]


def crowded(worker: Worker, job: str, kind: str, middle: float) -> tuple[float, float]:
    """Seconds of a job beside a crowd, and the processors that strangers kept busy meanwhile.

    The busy processes of the crowd are waited for at its end, which is when their time counts as that of children.
    """
    own = 0.0

    def ours() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return own + time.process_time() + children.ru_utime + children.ru_stime

    others = OthersLoad(own=ours)
    with crowd(kind, middle):
        seconds, own = worker.job(job)
    return seconds, others() or 0.0


def undisturbed(worker: Worker, job: str, kind: str, middle: float, tries: int) -> tuple[float, bool]:
    """Seconds of a job beside its crowd and nothing else, and whether there was such a moment."""
    least = (float("inf"), 0.0)
    for number in range(tries):
        seconds, strangers = crowded(worker, job, kind, middle)
        least = min(least, (strangers, seconds))
        if strangers <= STRANGERS:
            return seconds, True
        time.sleep(number if number + 1 < tries else 0)
    return least[1], False


def measured(
    engine: str, jobs: list[str], given: argparse.Namespace
) -> Iterator[tuple[str, str, dict[str, float], bool]]:
    """Job, crowd, median seconds by setting and whether nothing disturbed them, of one engine."""
    workers = {setting: Worker(engine, setting, jobs, given) for setting in SETTINGS}
    try:
        for job in jobs:
            # what a job takes alone says when its middle is
            alone = {setting: worker.job(job)[0] for setting, worker in workers.items()} if given.long else {}
            for kind in given.busy:
                found: dict[str, list[tuple[float, bool]]] = {setting: [] for setting in SETTINGS}
                for number in range(given.rounds):
                    turn = number % len(SETTINGS)
                    for setting in SETTINGS[turn:] + SETTINGS[:turn]:
                        middle = 0.5 + alone.get(setting, 0.0) / 2
                        found[setting].append(undisturbed(workers[setting], job, kind, middle, given.tries))
                medians = {
                    setting: statistics.median(seconds for seconds, _ in runs) for setting, runs in found.items()
                }
                yield job, kind, medians, all(quiet for runs in found.values() for _, quiet in runs)
    finally:
        for worker in workers.values():
            worker.end()


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--jobs", nargs="+", default=["solve", "refine", "train"])
    parser.add_argument("--busy", nargs="+", help="0, 1, 2 …, fills, empties (default: 0 1 2; --long: all of them)")
    parser.add_argument("--rounds", type=int, help="of each job (default: 1; --long: 3)")
    parser.add_argument("--long", action="store_true", help="longer jobs, and a machine that changes meanwhile")
    parser.add_argument("--reach", type=float, default=REACH, help="ratio that is not missed")
    parser.add_argument("--tries", type=int, default=8, help="times that a job is made, at most, where it is disturbed")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(*given.serve, given.jobs, Size(4 if given.long else 1))
        return 0
    given.busy = given.busy or ["0", "1", "2", *(CHANGES if given.long else ())]
    given.rounds = given.rounds or (3 if given.long else 1)
    print(f"machine: {json.dumps(machine())}; medians of {given.rounds} rounds\n")
    print("| engine | job | beside | default s | one s | all s | default to the better |")
    print("|---|---|---|---|---|---|---|")
    missed = 0
    for engine in ready(given.engines):
        jobs = [job for job in given.jobs if job != "train" or engine in ("pytorch", "tensorflow")]
        for job, kind, seconds, quiet in measured(engine, jobs, given):
            ratio = seconds["default"] / min(seconds["one"], seconds["all"])
            missed += quiet and ratio > given.reach
            cells = [engine, job, kind, *(f"{seconds[setting]:.2f}" for setting in SETTINGS)]
            words = (
                f"{ratio:.2f}{f' (≤ {given.reach:g}, MISSED)' if ratio > given.reach else ''}{'' if quiet else ' *'}"
            )
            print("| " + " | ".join([*cells, words]) + " |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
