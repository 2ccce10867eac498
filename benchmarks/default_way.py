"""The default way beside pty-chi: what ``run`` gives with no option, against LSQML with 40 epochs, on the same scan.

    python benchmarks/default_way.py [--photons 1e5] [--runs 3] [--threads 1] [--busy 0] [--lsqml-epochs 40]

The texture scan, 1 764 simulated frames of 64², probe and object known. Both go the same way through ``run``, from the
scan in memory to a scored image, with the same frames held out, in a process of its own each and in turns; seconds are
those of training, reconstructing and refining, without the imports of either. pty-chi's loss is tried both ways.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from typing import Any

from real_scan import kept_busy

from ptycho_core.provenance import machine

SHARE_OF_TIME = 0.25
"""What the default may take of pty-chi's time."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def contender(name: str, epochs: int) -> dict[str, Any]:
    """Settings of a contender, as plain data."""
    if name == "default":
        return {"backend": "numpy"}
    return {
        "backend": "ptychi",
        "epochs": epochs,
        "loss": name.partition("-")[2],
        "refinement": {"engine": "none"},
        "options": {"ptychi": {"algorithm": "lsqml"}},
    }


def alone(name: str, photons: float, epochs: int, threads: int) -> dict[str, float]:
    """One run, in this process."""
    from ptycho_core import run
    from ptycho_core.config import TrainingConfig
    from ptycho_core.config_mapping import config_from_mapping
    from ptycho_core.plugins.registry import load_backend
    from ptycho_core.runtime import Runtime
    from ptycho_core.simulation import simulate_scan, texture_config

    config = config_from_mapping(TrainingConfig, contender(name, epochs))
    can = load_backend(config.backend).capabilities.threads
    scan = simulate_scan(replace(texture_config(), photons=photons))
    done = run(scan.raw, config, Runtime(accelerator="cpu", threads=threads if can else None), truth=scan.truth)
    score, held = done.result.comparison, done.scored.heldout
    assert score is not None
    assert held is not None
    seconds = sum(done.seconds.get(stage, 0.0) for stage in ("train", "reconstruct", "refine"))
    return {
        "seconds": seconds,
        "amplitude_psnr_db": score.amplitude_psnr_db,
        "phase_psnr_db": score.phase_psnr_db,
        "heldout_deviance": held.deviance,
    }


def main() -> int:
    """Run the contenders in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photons", type=float, default=1e5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lsqml-epochs", type=int, default=40)
    parser.add_argument("--busy", type=int, default=0, help="processes to keep busy meanwhile")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(alone(given.alone, given.photons, given.lsqml_epochs, given.threads)))
        return 0
    beside = f", beside {given.busy} busy processes" if given.busy else ""
    print(f"machine: {json.dumps(machine())}; medians of {given.runs} runs, {given.threads} threads{beside}\n")
    names = ["default", "ptychi-amplitude", "ptychi-poisson"]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    environment = os.environ | dict.fromkeys(_THREADS, str(given.threads))
    with kept_busy(given.busy):
        for _ in range(given.runs):
            for name in names:
                command = [sys.executable, __file__, "--alone", name, "--photons", str(given.photons)]
                command += ["--threads", str(given.threads), "--lsqml-epochs", str(given.lsqml_epochs)]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    median = {n: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for n, runs in found.items()}
    own, missed = median["default"], 0
    print("| way | " + " | ".join(own) + " | default's share of its time |\n|" + "---|" * (len(own) + 2))
    for name, figures in median.items():
        pairs = zip(found["default"], found[name], strict=True)
        share = statistics.median(one["seconds"] / other["seconds"] for one, other in pairs)
        worse = [key for key in ("amplitude_psnr_db", "phase_psnr_db") if own[key] < figures[key]]
        late = name != "default" and (worse or share > SHARE_OF_TIME)
        missed += bool(late)
        words = f"{share:.2f}" + (f" (≤ {SHARE_OF_TIME} and better in both PSNR: MISSED)" if late else "")
        print("| " + " | ".join([name, *(f"{value:.4g}" for value in figures.values()), words]) + " |")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
