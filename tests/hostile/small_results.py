"""A small scan, its result folder and its model, made once: what a command is given beside what is hostile."""

from __future__ import annotations

import shutil
from pathlib import Path

from ptycho_core.cli.main import main
from ptycho_core.io import write_scan
from ptycho_core.simulation import SimulationConfig, simulate_scan

__all__ = ["QUICK", "make_result"]

QUICK = ["--refine", "none", "--epochs", "2", "--backend", "numpy"]
"""Options of a run of a second."""


def make_result(folder: Path) -> None:
    """Write ``scan.npz`` and ``result/``, as ``ptycho run`` makes it, into a folder."""
    config = SimulationConfig(object="dead_leaves", N=16, grid_shape=(8, 6), step_px=4.3, photons=1e5, seed=5)
    write_scan(folder / "scan.npz", simulate_scan(config).raw)
    code = main(["run", str(folder / "scan.npz"), "--out", str(folder / "result"), *QUICK])
    assert code == 0, "the sound scan is not solved"
    checkpoint = next((folder / "result").rglob("solver_checkpoint.safetensors"))
    shutil.copy(checkpoint, folder / "solver.ckpt")
    model = next((folder / "result").rglob("model.ptycho"))
    shutil.copy(model, folder / "model.ptycho")
    image = next((folder / "result").rglob("reconstruction.h5"))
    shutil.copy(image, folder / "image.h5")
