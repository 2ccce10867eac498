"""Benchmarks run with the package as it is today: each says how it is called, and those of core work on tiny sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
BENCHMARKS = sorted(FOLDER.glob("*.py"))
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")

pytestmark = pytest.mark.skipif(not BENCHMARKS, reason="the benchmarks are in the checkout only, not in the package")

TINY = {
    "grouping": "--positions 2000 --runs 1",
    "stitching": "--patches 150 --runs 1",
    "refining": "--photons 1e4 --objects lines --frames 36",
    "solvers": "--scans texture:1e5 --epochs 1 --engines numpy:algorithm=lsq,batch_size=64",
    "network_then_solver": "--keep 7 --epochs 1 --network",
    "steppers": "--engines numpy --threads 1 --epochs 1 --rounds 1",
}
"""Benchmark → arguments with which it is quick and needs no framework."""

TINY_NETWORK = {
    "engines": "--engines pytorch --rounds 1 --N 16 --frames 36 --steps 5",
    "network_then_solver": "--keep 7 --epochs 1 --solvers",
}


def called(name: str, arguments: str) -> str:
    """What a benchmark prints, in a process of its own; it must end well."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(FOLDER / f"{name}.py"), *arguments.split()],
        env=os.environ | THREADS, capture_output=True, text=True, timeout=300, check=False,
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
    assert "numpy" in called(name, TINY[name]) or name in ("grouping", "stitching", "refining")


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("name", TINY_NETWORK)
def test_those_of_networks_work(name: str) -> None:
    assert "pytorch" in called(name, TINY_NETWORK[name])
