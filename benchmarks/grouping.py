"""Speed and memory of drawing an epoch's groups: 100 000 positions into 20 000 groups of 16, every frame in one.

    python benchmarks/grouping.py [--positions 100000] [--runs 3]

To reach: under 2 s, and under 200 MB beyond the output. Prints the median of the runs and exits with 1 when a figure is
not reached. Every run is a process of its own, and its peak of resident memory is taken, because the tree allocates
outside Python's view.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

from ptycho_core.provenance import machine

GROUPS_PER_POSITION, SIZE, POOL = 0.2, 16, 48
LIMIT_SECONDS, LIMIT_MB = 2.0, 200.0


def peak_mb() -> float:
    """Highest resident memory of this process so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def run_once(n: int, pool: int | None) -> dict[str, float]:
    """Group once, in this process."""
    import numpy as np
    import scipy.spatial  # noqa: F401  its import is no part of the work

    from ptycho_core.enginekit.grouping import grow_groups, partition_frames

    positions = np.random.default_rng(0).uniform(0, [9000, 4000], size=(n, 2))
    rng = np.random.default_rng(1)
    grow_groups(positions[:1000], SIZE, 100, pool, rng)
    before, start = peak_mb(), time.perf_counter()
    cells, _ = partition_frames(positions, SIZE)
    groups = np.concatenate([cells, grow_groups(positions, SIZE, int(n * GROUPS_PER_POSITION) - len(cells), pool, rng)])
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "extra_mb": max(0.0, peak_mb() - before - groups.nbytes / 1e6)}


def main() -> int:
    """Print the table; 1 when a figure is not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(run_once(given.positions, None if given.once == "none" else int(given.once))))
        return 0
    facts = machine()
    print(f"{facts['processor']}, {facts['processors']} processors, Python {facts['python']}")
    groups = int(given.positions * GROUPS_PER_POSITION)
    print(f"{given.positions} positions into {groups} groups of {SIZE}; median of {given.runs} runs")
    reached = True
    for pool in (None, POOL):
        command = [sys.executable, __file__, "--positions", str(given.positions), "--once", str(pool or "none")]
        runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(given.runs)]
        seconds, extra = (statistics.median(run[key] for run in runs) for key in ("seconds", "extra_mb"))
        reached &= seconds < LIMIT_SECONDS and extra < LIMIT_MB
        name = "nearest frames" if pool is None else f"drawn among {pool}"
        print(f"  {name:16}  {seconds:6.2f} s (limit {LIMIT_SECONDS:g})   {extra:6.1f} MB (limit {LIMIT_MB:g})")
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
