"""What is trained and killed: for each engine its scans, configs and runtimes, in seconds each.

Hard on purpose: two or three incoherent modes, a trainable probe, held-out frames, sub-pixel positions, a grid that is
no square; and for networks moving averages, early stopping, schedules, trackers, threads that read ahead, two scans.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_core.config import TrainingConfig
from ptycho_core.config_mapping import config_from_mapping, with_typed_options
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import add_modes, aperture_probe
from ptycho_core.plugins.registry import load_backend
from ptycho_core.protocol import Progress, no_progress
from ptycho_core.runtime import Runtime

__all__ = ["CASES", "Case", "newest_checkpoint", "train_case"]


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        config: fields of its ``TrainingConfig``.
        runtime: fields of its ``Runtime``.
        n_scans: how many scans are trained on.
        n_modes: of the probe.
        size: rows and columns of each scan.
        side: N.
        bad: whether pixels are masked.
    """

    config: dict[str, Any]
    runtime: dict[str, Any] = field(default_factory=dict)
    n_scans: int = 1
    n_modes: int = 2
    size: tuple[int, int] = (4, 4)
    side: int = 16
    bad: bool = False


_SOLVER: dict[str, Any] = {"method": "solver", "epochs": 24, "loss": "poisson", "probe_trainable": True}
_NETWORK: dict[str, Any] = {
    "method": "network", "epochs": 12, "batch_size": 2, "group_size": 4, "schedule": "one_cycle",
    "probe_trainable": True, "scale_trainable": True, "model": {"width": 4, "depth": 1},
}  # fmt: skip
_WIDE: dict[str, Any] = {"size": (10, 7), "side": 24}

_SOLVERS = {
    "solver": Case(_SOLVER, n_modes=3, **_WIDE),
    "solver lsq": Case({**_SOLVER, "algorithm": "lsq", "batch_size": 7}, **_WIDE),
    "solver amplitude": Case({**_SOLVER, "loss": "amplitude"}, n_modes=1, bad=True, **_WIDE),
}
_AVERAGE = {"weight_average": 0.8, "early_stopping_patience": 2, "weight_decay": 0.01}
_CNN = {
    "model": {"generator": "cnn", "width": 2},
    "epochs": 2,
    "schedule": "exponential",
    "loss": "amplitude",
    "learning_rate": 1e-4,
}
_NETWORKS = {
    "network": Case(_NETWORK),
    "network average": Case(_NETWORK | _AVERAGE),
    "network unrolled": Case(_NETWORK | {"model": {"generator": "unrolled", "width": 4}}, n_modes=1),
    "network cnn": Case(_NETWORK | _CNN, n_modes=1, side=64),
    "network scans": Case(_NETWORK | {"schedule": "cosine"}, n_scans=2, size=(4, 3)),
    "network tracked": Case(_NETWORK, {"loggers": ("tensorboard",)}, n_modes=1),
}


def _ptychi(algorithm: str, *, options: dict[str, Any] | None = None, **changes: Any) -> Case:
    given = {"algorithm": algorithm, **(options or {})}
    config = {"epochs": 14, "loss": "amplitude", "probe_trainable": True, "options": given, **changes}
    return Case(config, size=(7, 5), bad=algorithm == "rpie")


CASES: dict[str, dict[str, Case]] = {
    "numpy": {
        **_SOLVERS,
        "solver double": Case(_SOLVER, {"precision": "64"}, **_WIDE),
    },
    "pytorch": {**_SOLVERS, **_NETWORKS},
    "tensorflow": {
        **_SOLVERS,
        **_NETWORKS,
        "network ahead": Case(_NETWORK, {"num_workers": 2}),
        "network compiled": Case(_NETWORK | {"options": {"jit": "on"}}, n_modes=1),
    },
    "ptychi": {
        "lsqml": _ptychi("lsqml", loss="poisson", options={"momentum": 0.5, "batching": "compact", "batch_frames": 9}),
        "rpie": _ptychi("rpie", options={"momentum": 0.2}),
        "epie": _ptychi("epie", early_stopping_patience=4),
        "dm": _ptychi("dm"),
        "raar": _ptychi("raar", probe_trainable=False),
        "autodiff": _ptychi("autodiff", options={"probe_start": 3}),
        "opr": _ptychi("lsqml", options={"opr_modes": 2}),
    },
}
"""Engine → name → training."""


def make_scan(case: Case, seed: int = 0) -> RawData:
    """A jittered raster on an object unlike its mirror images, transpose and conjugate, with shot noise."""
    rng = np.random.default_rng(seed)
    (rows, columns), side = case.size, case.side
    grid = np.stack(np.meshgrid(np.arange(rows) * 3.3, np.arange(columns) * 2.4, indexing="ij"), axis=-1)
    positions = (side - 1) / 2 + 1.5 + grid.reshape(-1, 2) + rng.uniform(-0.9, 0.9, (rows * columns, 2))
    corners, rest = integer_corners(positions, side)
    height, width = corners.max(axis=0) + side + 1
    y, x = np.mgrid[:height, :width]
    phase = 0.9 * np.sin(0.35 * y + 0.1 * x) + 0.5 * ((x // 5) % 2) + 0.1 * rng.normal(size=(height, width))
    obj = (0.75 + 0.2 * np.cos(0.25 * x - 0.4 * y)) * np.exp(1j * phase)
    probe = aperture_probe(side, 5, defocus_px2=25.0, total=2e4) * (1 - 0.02 * np.arange(side))
    probe = add_modes(probe.astype(np.complex64), case.n_modes, fraction=0.15)
    counts = rng.poisson(expected_counts(extract(obj, corners, side), probe, rest)).astype(np.float32)
    mask = None
    if case.bad:
        mask = np.ones((side, side), bool)
        mask[2:4, 5] = mask[8, 9] = False
    return RawData.from_arrays(counts, positions, 2 * probe, mask=mask)


def train_case(
    engine: str, name: str, folder: Path, resume_from: Path | None = None, progress: Progress = no_progress
) -> None:
    """Train one case with its checkpoints in ``folder/training``, and save its model as ``folder/model.ptycho``."""
    case, backend = CASES[engine][name], load_backend(engine)
    config = config_from_mapping(TrainingConfig, {"backend": engine, "seed": 5, **case.config})
    config = with_typed_options(config, engine)
    scans = [make_scan(case, seed) for seed in range(case.n_scans)]
    containers = [PtychoDataContainer.of(raw, heldout=np.arange(1, raw.n_frames, 4)) for raw in scans]
    threads = 1 if backend.capabilities.threads else None
    runtime = Runtime(
        accelerator="auto" if engine == "numpy" else "cpu",
        threads=threads,
        output_dir=folder / "training",
        resume_from=resume_from,
        **case.runtime,
    )
    model = backend.train(containers, config, runtime, progress=progress)
    backend.save(model, folder / "model.ptycho")


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from, as a person would choose it by its date; None where there is none."""
    found = [path for pattern in ("*.ckpt", "*_checkpoint.safetensors") for path in folder.rglob(pattern)]
    found = [path for path in found if not path.name.startswith(".")]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
