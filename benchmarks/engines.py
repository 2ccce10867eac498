"""What the parts of a job cost in each engine: start-up, training, inference and memory, side by side.

    python benchmarks/engines.py [--engines pytorch tensorflow] [--rounds 5] [--N 64] [--frames 256] [--steps 30]

Each engine trains a network and makes an image with it, in fresh processes that take turns, on the same simulated scan,
so that a machine whose speed drifts treats them alike. Medians over the rounds, and the ratio to the first engine round
by round. Throughput leaves out the first step and the first reconstruction, in which frameworks trace and compile;
these are stated by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from ptycho_core.provenance import machine

GROUP_SIZE = 16


def measure(engine_name: str, N: int, frames: int, steps: int, precision: str) -> dict[str, float]:
    """Figures of one engine in this process."""
    import numpy as np

    from ptycho_core import InferenceConfig, PtychoDataContainer, TrainingConfig
    from ptycho_core.api.observe import peak_memory_bytes
    from ptycho_core.plugins.registry import load_backend
    from ptycho_core.runtime import Runtime
    from ptycho_core.simulation import SimulationConfig, simulate_scan

    raw = simulate_scan(SimulationConfig(N=N, n_frames=frames, seed=1)).raw
    scan = PtychoDataContainer.of(raw)
    settings = {"collapse_threshold": 0.0, "group_size": GROUP_SIZE, "n_groups": steps}
    config = TrainingConfig(backend=engine_name, method="network", epochs=1, **settings)
    runtime = Runtime(precision=precision)
    start = time.perf_counter()
    engine = load_backend(engine_name)
    begin = time.perf_counter()
    ticks = [begin]
    model = engine.train([scan], config, runtime, progress=lambda event: ticks.append(time.perf_counter()))
    inference = []
    for _ in range(3):
        before = time.perf_counter()
        engine.reconstruct(model, scan, InferenceConfig(), runtime)
        inference.append(time.perf_counter() - before)
    return {
        "import_s": begin - start,
        "first_step_s": ticks[1] - ticks[0],
        "training_frames_s": GROUP_SIZE / float(np.median(np.diff(ticks[1:]))),
        "first_image_s": inference[0],
        "inference_frames_s": raw.n_frames / min(inference[1:]),
        "peak_memory_GB": (peak_memory_bytes() or 0) / 1e9,
    }


def main() -> None:
    """Measure the engines in turn, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["pytorch", "tensorflow"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--N", type=int, default=64)
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--steps", type=int, default=30, help="groups of 16 frames, so many that they hold every frame")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = (arguments.N, arguments.frames, arguments.steps)
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, *sizes, arguments.precision)))
        return
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in arguments.engines}
    for _ in range(arguments.rounds):
        for engine in arguments.engines:
            command = [sys.executable, __file__, "--measure", engine, "--precision", arguments.precision]
            for name, size in zip(("--N", "--frames", "--steps"), sizes, strict=True):
                command += [name, str(size)]
            quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
            done = subprocess.run(command, capture_output=True, text=True, env=quiet)
            if done.returncode:
                sys.exit(done.stderr)
            found[engine].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"machine: {json.dumps(machine())}; N = {arguments.N}, medians of {arguments.rounds} rounds\n")
    first = arguments.engines[0]
    print("| figure | " + " | ".join(arguments.engines) + f" | ratio to {first} |")
    print("|---|" + "---|" * (len(arguments.engines) + 1))
    for name in found[first][0]:
        medians = [statistics.median(run[name] for run in found[engine]) for engine in arguments.engines]
        ratios = [
            statistics.median(own[name] / base[name] for own, base in zip(found[engine], found[first], strict=True))
            for engine in arguments.engines[1:]
        ]
        cells = [f"{value:.3g}" for value in medians] + [", ".join(f"{ratio:.2f}" for ratio in ratios)]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
