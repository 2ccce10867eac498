"""An epoch of each engine that steps, side by side: seconds, processor seconds, and what a second thread gains.

    python benchmarks/steppers.py [--engines numpy pytorch tensorflow] [--threads 1 2] [--epochs 7] [--busy 0]
        [--photons 1e5] [--wanted object] [--rounds 2]

The texture scan, 1 764 simulated frames of 64², the probe known; an epoch is one pass of the descent over all frames
in its own batches, without held-out frames. Each engine runs in a process of its own with as many threads as said,
after an epoch that compiles and reads; engines take turns, so that a machine whose speed drifts treats them alike. The
first engine is what the others are held to. Figures are medians; the machine is named.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

from real_scan import kept_busy

from ptycho_core.provenance import machine

RATIO = 1.3
"""What an epoch of a framework may cost beside NumPy's, one thread each."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


def alone(engine: str, threads: int, epochs: int, photons: float, wanted: tuple[Any, ...]) -> dict[str, Any]:
    """Epochs of one engine, in this process."""
    from ptycho_core import PtychoDataContainer, load_backend
    from ptycho_core.enginekit.descent import Descent, batch_size_for, descend
    from ptycho_core.enginekit.state import flat_image
    from ptycho_core.runtime import Runtime
    from ptycho_core.simulation import simulate_scan, texture_config

    scan = PtychoDataContainer.of(simulate_scan(replace(texture_config(), photons=photons)).raw)
    backend, start = load_backend(engine), time.perf_counter()
    runtime = Runtime(accelerator="cpu", threads=threads if backend.capabilities.threads else None)
    stepper = backend.stepper(flat_image(scan), scan, "poisson", runtime)  # type: ignore[attr-defined]
    clock: list[tuple[float, float]] = []
    plan = Descent(epochs=epochs + 1, batch_size=batch_size_for(len(scan.train_frames)), wanted=wanted)
    descend(
        stepper,
        plan,
        frames=scan.train_frames,
        heldout=scan.heldout_frames,
        after_epoch=lambda epoch, loss, heldout: clock.append((time.perf_counter(), time.process_time())),
    )
    pairs = list(itertools.pairwise(clock))
    return {
        "first_s": clock[0][0] - start,
        "epoch_s": [after[0] - before[0] for before, after in pairs],
        "processor_s": [after[1] - before[1] for before, after in pairs],
    }


def main() -> int:
    """Time the engines in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["numpy", "pytorch", "tensorflow"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--photons", type=float, default=1e5)
    parser.add_argument("--wanted", nargs="+", default=["object"])
    parser.add_argument("--busy", type=int, default=0, help="processes to keep busy meanwhile")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        found = alone(given.engines[0], given.threads[0], given.epochs, given.photons, tuple(given.wanted))
        print(json.dumps(found))
        return 0
    beside = f", beside {given.busy} busy processes" if given.busy else ""
    print(f"machine: {json.dumps(machine())}; medians of {given.rounds} × {given.epochs} epochs{beside}\n")
    times: dict[tuple[str, int], dict[str, list[float]]] = {}
    with kept_busy(given.busy):
        for _ in range(given.rounds):
            for threads in given.threads:
                for engine in given.engines:
                    command = [sys.executable, __file__, "--alone", "--engines", engine, "--threads", str(threads)]
                    command += ["--epochs", str(given.epochs), "--photons", str(given.photons)]
                    command += ["--wanted", *given.wanted]
                    environment = os.environ | dict.fromkeys(_THREADS, str(threads)) | {"TF_NUM_INTEROP_THREADS": "1"}
                    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                    found = json.loads(done.stdout.splitlines()[-1])
                    kept = times.setdefault((engine, threads), {"epoch_s": [], "processor_s": [], "first_s": []})
                    kept["epoch_s"] += found["epoch_s"]
                    kept["processor_s"] += found["processor_s"]
                    kept["first_s"].append(found["first_s"])
    median = {key: {name: statistics.median(values) for name, values in kept.items()} for key, kept in times.items()}
    missed = 0
    print("| engine | threads | epoch s | processor s | first epoch s | beside the first engine | gained by threads |")
    print("|---|---|---|---|---|---|---|")
    for (engine, threads), own in median.items():
        ratio = own["epoch_s"] / median[given.engines[0], threads]["epoch_s"]
        gain = median[engine, given.threads[0]]["epoch_s"] / own["epoch_s"]
        late = threads == 1 and ratio > RATIO
        missed += late
        words = f"{ratio:.2f}{f' (≤ {RATIO}, MISSED)' if late else ''}"
        cells = [engine, threads, *(f"{own[name]:.3f}" for name in ("epoch_s", "processor_s", "first_s")), words]
        print("| " + " | ".join(map(str, [*cells, f"{gain:.2f}"])) + " |")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
