"""The jobs that users run, timed as whole processes: seconds, peak memory, figures and scores, against what is asked.

    python benchmarks/real_scan.py [--data ../shared/data] [--runs 3] [--jobs star64 demo …] [--engines pytorch …]

Each job is one ``ptycho`` command in a fresh process and folder, so imports and the report count. Figures are medians
over the runs; the machine is named, since it decides them. With several engines each run of a job is made with one
after the other, so that a machine whose speed drifts treats them alike, and the others are held to the first: wall
time as a ratio run by run, the Fourier error as a difference. ``--busy N`` keeps N processes busy beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptycho_core.provenance import machine


@dataclass(frozen=True)
class Job:
    """A command and what it must reach; ``{data}``, ``{out}`` and ``{work}`` are filled in.

    One with `default_engine` names no engine: it is what a user gets with no option.
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    reach: dict[str, float]
    default_engine: bool = False


STAR = ("run", "{data}/siemens_star_64.npz", "--measurement", "amplitude", "--out", "{out}")
FROM_PROBE = ("--probe", "{data}/siemens_star_64_model_probe.npz")

JOBS = (
    Job("star64", STAR, 25, {"fourier_error": 0.0055, "heldout_fourier_error": 0.0062}, default_engine=True),
    Job("star64-quick", (*STAR, "--preset", "quick"), 12, {}, default_engine=True),
    Job("star64-best", (*STAR, "--preset", "best"), 120, {"fourier_error": 0.0055}, default_engine=True),
    Job("star64-solver", STAR, 40, {"fourier_error": 0.0055, "heldout_fourier_error": 0.0062}),
    Job(
        "star64-three-modes",
        (*STAR, *FROM_PROBE, "--refinement.probe_modes", "3"),
        30,
        {"fourier_error": 0.0050, "heldout_fourier_error": 0.0060, "probe_correlation": 0.9},
    ),
    Job("star64-network", (*STAR, "--method", "network", "--refine", "none"), 120, {"fourier_error": 0.0120}),
    Job(
        "star128",
        ("run", "{data}/siemens_star_128.npz", "--measurement", "amplitude", "--out", "{out}"),
        120,
        {"fourier_error": 0.0165},
        default_engine=True,
    ),
    Job(
        "near-field",
        ("run", "{data}/petra3_p25_near_field.cxi", "--half_data_frc", "--out", "{out}"),
        120,
        {"fourier_error": 0.0065},
    ),
    Job("demo", ("demo", "--out", "{out}"), 60, {"amplitude_psnr_db": 30, "phase_psnr_db": 35}, default_engine=True),
    Job(
        "demo-texture", ("demo", "--object", "texture", "--out", "{out}"), 60, {"correlation": 0.9}, default_engine=True
    ),
    Job(
        "reconstruct-1764",
        ("reconstruct", "--model", "{work}/model.ptycho", "{work}/texture.npz", "--out", "{out}"),
        20,
        {},
    ),
)

PARITY = {"wall_ratio": 1.3, "fourier_error_difference": 0.0005, "peak_memory_GB": 2.5}
"""What an engine must reach beside the first one, in the same runs."""

AT_MOST = (*PARITY, "fourier_error", "heldout_fourier_error", "seconds")


def ptycho(arguments: list[str]) -> float:
    """Run the command in a fresh process; return its seconds."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "ptycho_core.cli", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"ptycho {' '.join(arguments)} failed with {done.returncode}:\n{done.stderr}")
    return time.perf_counter() - start


def probe_correlation(out: Path, data: Path) -> float:
    """|correlation| of the main mode with the probe that came with the scan, best over shifts by whole pixels."""
    from ptycho_core.io import read_probe
    from ptycho_core.physics.probe import orthogonalise

    main = orthogonalise(read_probe(out / "reconstruction.h5"))[0]
    known = read_probe(data / "siemens_star_64.npz")[0]
    overlap = np.abs(np.fft.ifft2(np.fft.fft2(main).conj() * np.fft.fft2(known))).max()
    return float(overlap / np.linalg.norm(main) / np.linalg.norm(known))


def figures(job: Job, out: Path, data: Path, seconds: float) -> dict[str, float]:
    """What one run reached."""
    summary = json.loads((out / "summary.json").read_text())
    train, held = summary["figures"]["train"], summary["figures"]["heldout"]
    found = {
        "seconds": seconds,
        "fourier_error": train["fourier_error"],
        "deviance": train["deviance"],
        "peak_memory_GB": summary["peak_memory_bytes"] / 1e9,
    }
    if held is not None:
        found |= {"heldout_fourier_error": held["fourier_error"], "heldout_deviance": held["deviance"]}
    frc = summary.get("half_data_frc")
    if frc is not None:
        found |= {name: value for name, value in frc.items() if isinstance(value, float)}
    for stage in summary["stages"]:
        found[f"{stage['name']}_fourier_error"] = stage["figures"]["train"]["fourier_error"]
        found[f"{stage['name']}_seconds"] = stage["seconds"]
    comparison = summary.get("comparison") or {}
    for name in ("amplitude_psnr_db", "phase_psnr_db", "correlation"):
        if name in comparison:
            found[name] = comparison[name]
    if "probe_correlation" in job.reach:
        found["probe_correlation"] = probe_correlation(out, data)
    return found


def prepare(work: Path, engine: str) -> None:
    """A texture scan of 1 764 frames on disk and a bundle trained on some of its frames."""
    from ptycho_core.io import write_scan
    from ptycho_core.simulation import simulate_scan, texture_config

    write_scan(work / "texture.npz", simulate_scan(texture_config(seed=1)).raw)
    command = ["train", str(work / "texture.npz"), "--method", "network", "--out", str(work / "t"), "--epochs", "1"]
    command += ["--n_subsample", "320", "--n_groups", "20"]
    ptycho([*command, "--backend", engine])
    (work / "t" / "model.ptycho").rename(work / "model.ptycho")


@contextlib.contextmanager
def kept_busy(n: int) -> Iterator[None]:
    """Keep some processes busy while the block runs, or until this one dies: what else a shared machine has to do."""
    spin = f"import os\nwhile os.getppid() == {os.getpid()}: sum(range(10**6))"
    others = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(n)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def verdict(name: str, value: float, limit: float) -> str:
    """The value, its limit, and whether it holds."""
    holds = value <= limit if name in AT_MOST else value >= limit
    return f"{value:.4g} ({'≤' if name in AT_MOST else '≥'} {limit:g}{'' if holds else ', MISSED'})"


def run_job(job: Job, engines: list[str], runs: int, work: Path, data: Path) -> dict[str, list[dict[str, float]]]:
    """What every run of a job reached, by engine; the engines take turns."""
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    for number in range(runs):
        for engine in engines:
            out = work / f"{job.name}-{engine}-{number}"
            command = [word.format(data=data, out=out, work=work) for word in job.command]
            command += [] if job.default_engine else ["--backend", engine]
            found[engine].append(figures(job, out, data, ptycho(command)))
    return found


def beside(runs: list[dict[str, float]], first: list[dict[str, float]]) -> dict[str, float]:
    """Figures of an engine beside those of the first one, run by run."""
    pairs = list(zip(runs, first, strict=True))
    return {
        "wall_ratio": statistics.median(own["seconds"] / other["seconds"] for own, other in pairs),
        "fourier_error_difference": max(abs(own["fourier_error"] - other["fourier_error"]) for own, other in pairs),
    }


def main() -> int:
    """Run the jobs and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", nargs="+", default=[job.name for job in JOBS], choices=[job.name for job in JOBS])
    parser.add_argument("--engines", nargs="+", default=["numpy", "pytorch", "tensorflow"])
    parser.add_argument("--busy", type=int, default=0, help="processes to keep busy meanwhile")
    arguments = parser.parse_args()
    beside_it = f", beside {arguments.busy} busy processes" if arguments.busy else ""
    print(f"machine: {json.dumps(machine())}; medians of {arguments.runs} runs{beside_it}\n")
    missed = 0
    with tempfile.TemporaryDirectory() as folder, kept_busy(arguments.busy):
        work = Path(folder)
        if "reconstruct-1764" in arguments.jobs:
            prepare(work, next(engine for engine in arguments.engines if engine != "numpy"))
        for job in (job for job in JOBS if job.name in arguments.jobs):
            engines = ["default"] if job.default_engine else arguments.engines
            found = run_job(job, engines, arguments.runs, work, arguments.data)
            for engine, runs in found.items():
                median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
                limits: dict[str, float] = {"seconds": job.seconds, **job.reach}
                if engine != engines[0]:
                    median |= beside(runs, found[engines[0]])
                    limits = {**job.reach, **PARITY}
                cells = [verdict(n, v, limits[n]) if n in limits else f"{v:.4g}" for n, v in median.items()]
                missed += sum("MISSED" in cell for cell in cells)
                row = ", ".join(f"{n} {c}" for n, c in zip(median, cells, strict=True))
                print(f"| {job.name} | {engine} | {row} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
