"""Benchmarks run with the package as it is today: each says how it is called, and those of core work on tiny sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptycho_core.io import write_scan
from ptycho_core.simulation import SimulationConfig, simulate_scan

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
BENCHMARKS = sorted(FOLDER.glob("*.py"))
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")

pytestmark = pytest.mark.skipif(not BENCHMARKS, reason="the benchmarks are in the checkout only, not in the package")

TINY = {
    "grouping": ("--positions 2000 --runs 1", "400 groups of 16"),
    "stitching": ("--patches 150 --runs 1", "150 patches of 128²"),
    "refining": ("--photons 1e4 --objects lines --frames 36", "kept in 1 of 1"),
    "solvers": (
        "--scans texture:1e5 --epochs 1 --engines numpy:algorithm=lsq,batch_size=64",
        '"engine": "numpy:algorithm=lsq,batch_size=64", "epochs": 1',
    ),
    "network_then_solver": ("--keep 7 --epochs 1 --network", '"way": "numpy alone", "epochs": 1'),
    "crowded": ("--engines numpy --jobs refine --busy 1 --reach 1000 --tries 1", "| numpy | refine | 1 |"),
    "steppers": ("--engines numpy --threads 1 --epochs 1 --rounds 1", "| numpy | 1 |"),
}
"""Benchmark → arguments with which it is quick and needs no framework, and what it then prints."""

TINY_NETWORK = {
    "engines": ("--engines pytorch --rounds 1 --N 16 --frames 36 --steps 5", "| training_frames_s |"),
    "network_then_solver": ("--keep 7 --epochs 1 --solvers", '"way": "pytorch probe_unet, refined"'),
    "generators": (
        "--scan {scan} --passes 2 --steps 5 --probe-unet-steps 5 --solver-sweeps 4 --width 4",
        "| probe_unet, 48 sweeps, 5 steps |",
    ),
}


def called(name: str, arguments: str) -> str:
    """What a benchmark prints, in a process of its own as a user starts it; it must end well."""
    # scripts use each other: with a safe path the folder that they lie in is no place to import from
    environment = {k: v for k, v in (os.environ | THREADS).items() if k != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(FOLDER / f"{name}.py"), *arguments.split()],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{name} {arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_each_says_how_it_is_called(path: Path) -> None:
    told = called(path.stem, "--help")
    assert told.startswith(f"usage: {path.name}")
    assert f"python benchmarks/{path.name}" in told


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_those_of_core_work(name: str) -> None:
    arguments, printed = TINY[name]
    assert printed in called(name, arguments)


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("name", TINY_NETWORK)
def test_those_of_networks_work(name: str, tmp_path: Path) -> None:
    scan = tmp_path / "scan.npz"
    write_scan(scan, simulate_scan(SimulationConfig(N=16, n_frames=36, photons=1e5, seed=1)).raw)
    arguments, printed = TINY_NETWORK[name]
    assert printed in called(name, arguments.format(scan=scan))
