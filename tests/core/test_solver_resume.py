"""Resuming a solver: bit for bit, by the rule of every engine, also after the process was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refinement_scan import make_scan, with_roles

from ptycho_backend_numpy.backend import NumpyBackend
from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.checkpoint import read_checkpoint, write_checkpoint
from ptycho_core.enginekit.solver_model import SolverModel
from ptycho_core.errors import ArchiveError, Cancelled
from ptycho_core.physics.probe import add_modes
from ptycho_core.protocol import no_progress
from ptycho_core.runtime import Runtime

CONFIG = TrainingConfig(backend="numpy", test_fraction=0.1, epochs=5, loss="poisson", seed=2)
VARIANTS: dict[str, dict[str, Any]] = {
    "probe": {"probe_trainable": True},
    "double": {"probe_trainable": True, "precision": "64"},
    "least squares": {"algorithm": "lsq"},
    "amplitude": {"loss": "amplitude"},
}


def two_modes() -> PtychoDataContainer:
    """Two modes on the scale of photons, not calibrated: the scale that the probe is multiplied with is not 1."""
    raw = make_scan(calibrated=False)
    assert raw.probe is not None
    scan = with_roles(raw.with_probe(add_modes(3.0 * raw.probe, 2)), CONFIG)
    assert abs(scan.statistics.scale - 1) > 0.5
    return scan


@pytest.fixture(scope="module")
def scan() -> PtychoDataContainer:
    return two_modes()


def train(scan: PtychoDataContainer, progress: Any = no_progress, **changes: Any) -> SolverModel:
    runtime = {name: changes.pop(name) for name in ("precision", "output_dir", "resume_from") if name in changes}
    runtime = Runtime(threads=1, **runtime)
    return NumpyBackend().train([scan], replace(CONFIG, **changes), runtime, progress=progress)


def interrupted(scan: PtychoDataContainer, folder: Path, after: int, **changes: Any) -> Path:
    def stop(event: Any) -> None:
        if event.done == after:
            raise Cancelled

    with pytest.raises(Cancelled) as caught:
        train(scan, stop, output_dir=folder, **changes)
    return Path(str(caught.value.checkpoint_path))


def assert_the_same(one: SolverModel, other: SolverModel) -> None:
    for name in ("object", "probe", "origin_px"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.history == other.history


@pytest.mark.spec("BE-8")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_cancelled_run_resumes_to_the_same_bits(scan: PtychoDataContainer, tmp_path: Path, variant: str) -> None:
    path = interrupted(scan, tmp_path, 2, **VARIANTS[variant])
    assert path.parent == tmp_path
    assert (tmp_path / "history.csv").read_text().count("\n") == 3
    done: list[int] = []
    again = train(scan, lambda event: done.append(event.done), resume_from=path, **VARIANTS[variant])
    assert done == [3, 4, 5]
    assert again.checkpoint_path is None
    assert_the_same(again, train(scan, **VARIANTS[variant]))


@pytest.mark.spec("BE-8")
def test_a_killed_run_resumes_to_the_same_bits(scan: PtychoDataContainer, tmp_path: Path) -> None:
    """Killed after its first epoch, while the caller is told of it: by then the checkpoint is there."""
    code = (
        "import os, pathlib, signal, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from dataclasses import replace\n"
        "from ptycho_backend_numpy.backend import NumpyBackend\n"
        "import test_solver_resume as own\n"
        "kill = lambda event: os.kill(os.getpid(), signal.SIGKILL)\n"
        "config = replace(own.CONFIG, probe_trainable=True)\n"
        "runtime = own.Runtime(threads=1, output_dir=pathlib.Path(sys.argv[1]))\n"
        "NumpyBackend().train([own.two_modes()], config, runtime, progress=kill)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)], check=False, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    (path,) = tmp_path.glob("*.safetensors")
    assert read_checkpoint(path, "numpy")[1]["history"].keys() == {"train_loss", "test_loss"}
    again = train(scan, resume_from=path, probe_trainable=True)
    assert_the_same(again, train(scan, probe_trainable=True))


@pytest.mark.spec("BE-8")
def test_a_finished_run_resumes_to_its_end_and_to_more_epochs(scan: PtychoDataContainer, tmp_path: Path) -> None:
    whole = train(scan, output_dir=tmp_path / "one", probe_trainable=True)
    path = whole.checkpoint_path
    assert path is not None

    def never(event: Any) -> None:
        raise AssertionError("a step was done")

    again = train(scan, never, resume_from=path, output_dir=tmp_path / "two", probe_trainable=True)
    assert_the_same(again, whole)
    assert again.checkpoint_path == tmp_path / "two" / path.name
    assert again.checkpoint_path.read_bytes() == path.read_bytes()
    more = train(scan, resume_from=path, epochs=6, probe_trainable=True)
    assert more.history["train_loss"][:5] == whole.history["train_loss"]
    assert len(more.history["train_loss"]) == 6
    with pytest.raises(ArchiveError, match="it has done 5 steps, more than the 4 that are asked for"):
        train(scan, resume_from=path, epochs=4, probe_trainable=True)


@pytest.mark.spec("BE-8")
def test_a_checkpoint_of_another_run_is_refused(scan: PtychoDataContainer, tmp_path: Path) -> None:
    path = interrupted(scan, tmp_path, 2)
    for changes, words in [
        ({"loss": "amplitude"}, "made with loss = poisson, now it is amplitude"),
        ({"seed": 3}, "made with seed = 2, now it is 3"),
        ({"probe_trainable": True}, "made with probe_trainable = False, now it is True"),
        ({"precision": "64"}, "made with precision = auto, now it is 64"),
        ({"algorithm": "lsq"}, "made with algorithm = rpie, now it is lsq"),
        ({"batch_size": 9}, "made with batch_size = None, now it is 9"),
    ]:
        with pytest.raises(ArchiveError, match=words):
            train(scan, resume_from=path, **changes)
    counts = scan.raw.read_counts(np.arange(scan.raw.n_frames)).copy()
    counts[4] = counts[4].T  # the total is what it was
    other_frames = RawData.from_arrays(counts, scan.raw.positions_px, scan.raw.probe).frames
    others = [
        replace(scan, raw=replace(scan.raw, frames=other_frames)),
        PtychoDataContainer.of(scan.raw.subset(range(40)), heldout=[1]),
        PtychoDataContainer.of(scan.raw, heldout=scan.heldout_frames[1:]),
        PtychoDataContainer.of(scan.raw, heldout=scan.heldout_frames, unused={"shaken": [1]}),
        PtychoDataContainer.of(scan.raw),
        scan.with_probe(scan.probe * np.complex64(1j)),
    ]
    for other in others:
        with pytest.raises(ArchiveError, match=r"made with scans = .*resume with the scan and the settings"):
            train(other, resume_from=path)
    assert len(train(scan, resume_from=path).history["train_loss"]) == 5


@pytest.mark.spec("BE-15")
def test_what_is_no_checkpoint_of_a_solver_is_refused(scan: PtychoDataContainer, tmp_path: Path) -> None:
    path = interrupted(scan, tmp_path, 2)
    arrays, facts = read_checkpoint(path, "numpy")
    assert arrays["object"].dtype == np.float32
    history = facts["history"]
    broken: list[tuple[Any, Any, str]] = [
        (arrays, {"history": history}, "does not say which run it is of"),
        (arrays, {**facts, "history": {"train_loss": history["train_loss"]}}, "its history must hold as many losses"),
        (arrays, {**facts, "history": {**history, "test_loss": history["test_loss"][:1]}}, "its history must hold"),
        (arrays, {**facts, "history": {name: [] for name in history}}, "and at least one"),
        (arrays, {**facts, "history": {name: ["1.0"] for name in history}}, "its history must hold"),
        (arrays, {**facts, "history": {name: [float("nan")] for name in history}}, "its history must hold"),
        (
            {**arrays, "probe": arrays["probe"][:1]},
            facts,
            r"its probe is float32 \(1, 32, 32, 2\); .* \(2, 32, 32, 2\)",
        ),
        ({**arrays, "object": arrays["object"].astype(np.float64)}, facts, "its object is float64"),
        ({name: a for name, a in arrays.items() if name != "positions_px"}, facts, "its positions_px is missing"),
    ]
    other = tmp_path / "other.safetensors"
    for its_arrays, its_facts, words in broken:
        write_checkpoint(other, "numpy", its_arrays, its_facts)
        with pytest.raises(ArchiveError, match=words):
            train(scan, resume_from=other)
    write_checkpoint(other, "ptychi", arrays, facts)
    with pytest.raises(ArchiveError, match="a checkpoint of engine 'ptychi', which engine 'numpy' cannot go on from"):
        train(scan, resume_from=other)
    NumpyBackend().save(train(scan, epochs=1), tmp_path / "model.ptycho")
    with pytest.raises(ArchiveError, match="not a checkpoint that can be read safely"):
        train(scan, resume_from=tmp_path / "model.ptycho")


def test_a_checkpoint_is_there_before_the_first_epoch_is_told_of_and_at_the_end(
    scan: PtychoDataContainer, tmp_path: Path
) -> None:
    path, kept = tmp_path / "solver_checkpoint.safetensors", []

    def look(event: Any) -> None:
        kept.append(len(read_checkpoint(path, "numpy")[1]["history"]["train_loss"]))

    train(scan, look, output_dir=tmp_path)
    assert kept[0] == 1
    assert len(kept) == len(read_checkpoint(path, "numpy")[1]["history"]["train_loss"]) == 5
    assert {file.name for file in tmp_path.iterdir()} == {"history.csv", path.name}
