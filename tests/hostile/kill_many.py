"""Kill trainings at random times, go on from what they left, and count how many end as if nothing had been.

    python tests/hostile/kill_many.py ENGINE --kills 100 --seed 1

Each kill is a SIGKILL from outside, nine in ten after a random part of the time from the first step to the last, the
others in the time before. What goes on is a process of its own. Its model file and its history must be those of an
uninterrupted training, byte for byte.
"""

from __future__ import annotations

import argparse
import collections
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from kill_cases import CASES, newest_checkpoint
from kill_server import KillServer

__all__ = ["go_on", "results_of"]


_OVER = "was over"
"""What becomes of a training that ended before it was killed; it counts as no kill."""


def results_of(folder: Path) -> dict[str, bytes]:
    """The bytes of a training's model and of its history."""
    return {name: (folder / name).read_bytes() for name in ("model.ptycho", "training/history.csv")}


def go_on(server: KillServer, case: str, folder: Path) -> tuple[dict[str, Any], Path | None]:
    """Go on from the newest checkpoint in a folder, or anew where there is none; what came of it, and from where."""
    checkpoint = newest_checkpoint(folder)
    return server.run(case, folder, resume_from=checkpoint), checkpoint


def _kill_one(server: KillServer, case: str, whole: Path, folder: Path, after_s: float) -> str:
    """Kill one training and go on; one word for what came of it."""
    killed = server.run(case, folder, kill_after_s=after_s)
    if killed["signal"] == 0:
        return _OVER
    done, checkpoint = go_on(server, case, folder)
    if done["signal"] or done["error"]:
        return f"could not go on: {done['signal']} {done['error']}"
    if results_of(folder) != results_of(whole):
        return "differs"
    return "equal, begun anew" if checkpoint is None else "equal, gone on"


def _moment(rng: random.Random, whole: dict[str, Any]) -> float:
    """When to kill, as ``KillServer.run`` counts it."""
    if rng.random() < 0.1:
        return -rng.uniform(0, whole["seconds"] - whole["stepping_s"])
    return rng.uniform(0, 1.02) * float(whole["stepping_s"])


def main() -> int:
    """Kill, go on, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=CASES)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", action="append", help="only this one; may be repeated")
    given = parser.parse_args()
    cases, rng = given.case or list(CASES[given.engine]), random.Random(given.seed)
    found: dict[str, collections.Counter[str]] = {case: collections.Counter() for case in cases}
    with KillServer(given.engine) as server, tempfile.TemporaryDirectory() as name:
        root, whole = Path(name), {}
        for case in cases:
            done = server.run(case, root / case)
            assert not done["error"], f"{case}: {done}"
            # a second one, so that what a first costs once does not count
            whole[case] = server.run(case, root / f"{case} again")
            assert results_of(root / case) == results_of(root / f"{case} again"), f"{case}: two trainings differ"
        number = n_killed = 0
        while n_killed < given.kills:
            case, folder = cases[number % len(cases)], root / f"kill {number}"
            outcome = _kill_one(server, case, root / case, folder, _moment(rng, whole[case]))
            found[case][outcome] += 1
            sys.stderr.write(f"{case}: {outcome}\n")  # what is known if this is stopped
            number, n_killed = number + 1, n_killed + (outcome != _OVER)
            shutil.rmtree(folder, ignore_errors=True)
    total: collections.Counter[str] = sum(found.values(), collections.Counter())
    for case, outcomes in {**found, f"{given.engine}, all": total}.items():
        sys.stdout.write(f"{case}: {', '.join(f'{n} {what}' for what, n in sorted(outcomes.items()))}\n")
    return int(any(not outcome.startswith(("equal", _OVER)) for outcome in total))


if __name__ == "__main__":
    sys.exit(main())
