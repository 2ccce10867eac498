"""Speed and memory of stitching: 20 000 patches of 128².

    python benchmarks/stitching.py [--patches 20000] [--runs 3]

To reach: under 500 MB beyond the canvas. Prints the median of the runs and exits with 1 when the figure is not reached.
Patches are made and added in batches, as an engine does; the limit holds for both together. Every run is a process of
its own.
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

N, STEP_PX, BATCH = 128, 9.0, 64
LIMIT_MB = 500.0


def peak_mb() -> float:
    """Highest resident memory of this process so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def run_once(n: int) -> dict[str, float]:
    """Stitch once, in this process."""
    import numpy as np

    from ptycho_core.data.container import integer_corners
    from ptycho_core.enginekit.stitching import Stitcher, probe_weights
    from ptycho_core.physics.probe import aperture_probe

    rng = np.random.default_rng(0)
    rows = 100
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(-(-n // rows)), indexing="ij"), axis=-1)
    positions = grid.reshape(-1, 2)[:n] * STEP_PX + rng.uniform(-2, 2, size=(n, 2))
    corners, rest = integer_corners(positions, N)
    origin = corners.min(axis=0)
    probe = aperture_probe(N, 20, defocus_px2=300.0)
    before = peak_mb()
    shape = tuple(int(v) for v in corners.max(axis=0) - origin + N)
    stitcher = Stitcher(origin, np.zeros(shape, np.complex64), np.zeros(shape, np.float32), N)
    spent = {"weights": 0.0, "add": 0.0}
    for start in range(0, n, BATCH):
        chosen = slice(start, start + BATCH)
        patches = np.full((len(corners[chosen]), N, N), 0.9 + 0.1j, np.complex64)
        began = time.perf_counter()
        weights = probe_weights(probe, rest[chosen])
        between = time.perf_counter()
        stitcher.add(patches, weights, corners[chosen])
        spent["weights"] += between - began
        spent["add"] += time.perf_counter() - between
    began = time.perf_counter()
    obj, coverage = stitcher.finish(float(np.max(np.abs(probe) ** 2)))
    canvas_mb = (stitcher.numerator.nbytes + stitcher.denominator.nbytes + obj.nbytes + coverage.nbytes) / 1e6
    return {
        **spent,
        "finish": time.perf_counter() - began,
        "extra_mb": max(0.0, peak_mb() - before - canvas_mb),
        "canvas_mb": canvas_mb,
    }


def main() -> int:
    """Print the table; 1 when the figure is not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(run_once(given.patches)))
        return 0
    facts = machine()
    print(f"{facts['processor']}, {facts['processors']} processors, Python {facts['python']}")
    command = [sys.executable, __file__, "--patches", str(given.patches), "--once"]
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(given.runs)]
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    print(f"{given.patches} patches of {N}² in batches of {BATCH}; median of {given.runs} runs")
    print(f"  weights {median['weights']:.2f} s, adding {median['add']:.2f} s, dividing {median['finish']:.2f} s")
    canvas = f"canvas and result of {median['canvas_mb']:.1f} MB"
    print(f"  {median['extra_mb']:.1f} MB (limit {LIMIT_MB:g}) beyond the {canvas}")
    return 0 if median["extra_mb"] < LIMIT_MB else 1


if __name__ == "__main__":
    raise SystemExit(main())
