"""The command end to end with each engine, in processes of its own, on a tiny simulated scan.

Every process is told to let TensorFlow announce itself, which it does past Python, on the process's standard error.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.slow

ENGINES = [pytest.param("pytorch", marks=pytest.mark.torch), pytest.param("tensorflow", marks=pytest.mark.tensorflow)]
BOTH = ("pytorch", "tensorflow")
PACKAGES = {"pytorch": {"torch", "lightning"}, "tensorflow": {"tensorflow"}}

SMALL = ["--group_size", "4", "--model.width", "4", "--seed", "1"]
QUICK = ["--epochs", "2", "--model.depth", "2", *SMALL]
REFINED = ["--refinement.epochs", "4"]

COMMANDS = {
    "run": ["run", "scan.npz", *QUICK, "--test_fraction", "0.2", *REFINED, "--half_data_frc", "--out", "result"],
    "train": ["train", "scan.npz", *QUICK, "--loss", "poisson", "--out", "trained"],
    "reconstruct": ["reconstruct", "--model", "result/model.ptycho", "--same_scan", "scan.npz", "--out", "image"],
    "demo": ["demo", "--epochs", "1", "--n_subsample", "60", "--model.sweeps", "4", *SMALL, *REFINED, "--out", "demo"],
}
"""The commands that need an engine, in an order in which each finds what it reads."""


OURS = re.compile(r"note: |[a-z ]+: \d+ of \d+ \(\d+ %\), ")
"""How our own lines on standard error begin: notices, and progress of what takes long."""


@dataclass(frozen=True)
class Said:
    """What a process wrote."""

    out: str
    err: str


def environment() -> dict[str, str]:
    """A process's surroundings, in which nobody has quietened TensorFlow."""
    free = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return {**free, "OMP_NUM_THREADS": "1", "TF_ENABLE_ONEDNN_OPTS": "1"}


def ptycho(folder: Path, *arguments: Any, code: int = 0) -> Said:
    """Run the command in `folder` and return what it wrote, having checked its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "ptycho_core.cli", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return Said(done.stdout, done.stderr)


def with_engine(arguments: list[str], engine: str) -> list[str]:
    return [*arguments, "--backend", engine]


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """A simulated scan file."""
    folder = tmp_path_factory.mktemp("scan")
    grid = ["--N", "32", "--grid_shape", "[7,5]", "--step_px", "4.3", "--photons", "1e5", "--seed", "5"]
    ptycho(folder, "simulate", *grid, "--object", "dead_leaves", "--out", "scan.npz")
    return folder / "scan.npz"


Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(scan, tmp_path_factory) -> Folders:
    """Engine → a folder with the scan, in which one command after another is run once."""
    made: dict[str, Path] = {}

    def get(engine: str) -> Path:
        if engine not in made:
            made[engine] = tmp_path_factory.mktemp("cli")
            (made[engine] / "scan.npz").write_bytes(scan.read_bytes())
        return made[engine]

    return get


@pytest.fixture(scope="module")
def said(folders) -> Callable[[str, str], Said]:
    """Engine and command → what it wrote; those before it were run too."""
    done: dict[tuple[str, str], Said] = {}

    def get(engine: str, command: str) -> Said:
        for name, arguments in COMMANDS.items():
            if (engine, name) not in done:
                done[engine, name] = ptycho(folders(engine), *with_engine(arguments, engine))
            if name == command:
                break
        return done[engine, command]

    return get


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def object_of(folder: Path) -> np.ndarray:
    with h5py.File(folder / "reconstruction.h5") as file:
        return file["entry/object"][()]


# ---- each engine


@pytest.mark.parametrize("engine", ENGINES)
def test_run_writes_everything(said, folders, engine):
    out, folder = said(engine, "run").out, folders(engine) / "result"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"report.html", "reconstruction.h5", "summary.json", "model.ptycho", "ptycho.log", "training"}
    summary = summary_of(folder)
    assert summary["engine"] == engine
    assert summary["frames"]["heldout"] == 7
    assert 0 < summary["figures"]["train"]["fourier_error"] < 0.5
    assert any(name in summary["versions"] for name in PACKAGES[engine] | {"tensorflow_cpu"})
    assert summary["seconds"]["total"] > summary["seconds"]["train"] > 0
    with h5py.File(folder / "reconstruction.h5") as file:
        assert file["entry/object"].dtype == np.complex64
        assert len(file["entry/losses/train_loss"]) == 2
        assert len(file["entry/losses/test_loss"]) == 2
    assert f"R-factor {summary['figures']['heldout']['r_factor']:.4f}" in out


@pytest.mark.spec("PLUG-8")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_terminal_is_left_clean(said, engine, command):
    """Nothing but our own notices and progress on standard error, and no framework's chatter on standard output."""
    wrote = said(engine, command)
    assert [line for line in wrote.err.splitlines() if not OURS.match(line)] == []
    heads = {line.split()[0] for line in wrote.out.splitlines()}
    assert heads <= {
        "engine",
        "device",
        "scan",
        "network",
        "trained",
        "added",
        "held",
        "refined",
        "left",
        "truth",
        "half",
        "time",
        "results",
        "model",
        "verdict",
    }
    assert "time" in heads


@pytest.mark.spec("PLUG-8")
@pytest.mark.tensorflow
@pytest.mark.parametrize(("command", "folder"), [("run", "result"), ("train", "trained"), ("reconstruct", "image")])
def test_what_tensorflow_says_when_it_starts_is_in_the_log(said, folders, command, folder):
    """Were there nothing to keep off the terminal, the test before this one would prove little."""
    said("tensorflow", command)
    log = (folders("tensorflow") / folder / "ptycho.log").read_text().splitlines()
    announced = [line for line in log if "tensorflow starts: " in line]
    assert any("oneDNN custom operations are on" in line for line in announced)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_runs_with_one_seed_agree(said, folders, engine):
    said(engine, "run")
    again = [word for word in COMMANDS["run"][:-2] if word != "--half_data_frc"]
    ptycho(folders(engine), *with_engine(again, engine), "--out", "again")
    np.testing.assert_allclose(object_of(folders(engine) / "result"), object_of(folders(engine) / "again"), atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_reconstruct_gives_the_network_image_of_all_frames(said, folders, engine):
    """What ``run`` holds out is no matter for ``reconstruct``: with nothing held out the two are one image."""
    folder = folders(engine)
    said(engine, "run")
    alone = ["run", "scan.npz", *QUICK, "--test_fraction", "0", "--refine", "none", "--out", "network"]
    ptycho(folder, *with_engine(alone, engine))
    again = ["reconstruct", "--model", "network/model.ptycho", "--same_scan", "scan.npz", "--out", "network-image"]
    ptycho(folder, *with_engine(again, engine))
    np.testing.assert_allclose(object_of(folder / "network"), object_of(folder / "network-image"), atol=1e-5)


@pytest.mark.torch
def test_compare_with_the_truth(said, folders):
    said("pytorch", "run")
    done = ptycho(folders("pytorch"), "compare", "result/reconstruction.h5", "--truth", "scan.npz", "--json")
    score = json.loads(done.out)["scores"]["result/reconstruction.h5"]
    assert 0 < score["correlation"] <= 1


@pytest.mark.parametrize("engine", ENGINES)
def test_poor_probe_refined_with_modes(folders, engine):
    extra = ["--probe_modes", "2", "--probe_trainable", "true", "--loss", "poisson"]
    ptycho(folders(engine), *with_engine(["run", "scan.npz", *QUICK, *extra], engine), "--out", "modes")
    with h5py.File(folders(engine) / "modes" / "reconstruction.h5") as file:
        assert file["entry/probe"].shape == (2, 32, 32)


def stop_while_training(folder: Path, arguments: list[str], out: str, number: int) -> str:
    """Start a command, interrupt it while it trains, check its exit code, and return its standard error."""
    log = folder / out / "ptycho.log"
    before = len(log.read_text().splitlines()) if log.is_file() else 0
    process = subprocess.Popen(
        [sys.executable, "-m", "ptycho_core.cli", *arguments], cwd=folder, stderr=subprocess.PIPE, text=True,
        env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if log.is_file() and re.search(r": train \d", "\n".join(log.read_text().splitlines()[before:])):
            break
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    return error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("engine", ENGINES)
def test_interrupted_training_goes_on_from_what_it_says(folders, engine, number):
    folder, out = folders(engine), f"stopped-{number}"
    arguments = with_engine(["run", "scan.npz", *QUICK, "--epochs", "2000", "--out", out], engine)
    error = stop_while_training(folder, arguments, out, number)
    *others, last = error.splitlines()
    assert last.startswith("ptycho: stopped while training")
    assert all(not line or "once more" in line or OURS.match(line) for line in others), error
    command = shlex.split(last.partition("go on with: ")[2])
    assert command[0] == "ptycho"
    checkpoint = folder / command[-1]
    assert checkpoint.exists()
    assert not (folder / out / "summary.json").exists()
    # as many epochs as were asked for would take too long: stop again, later in the same training
    stop_while_training(folder, command[1:], out, number)


# ---- two engines, one command


def unnamed(text: str) -> str:
    """A text without numbers and without the names of engines and frameworks."""
    text = re.sub("pytorch|tensorflow|PyTorch|TensorFlow", "ENGINE", text)
    return re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?", "#", text)


def keys_of(value: Any, at: str = "") -> list[str]:
    """Dotted names of everything in plain data, with types; lists count as their length."""
    if isinstance(value, dict):
        return [name for key, below in value.items() for name in keys_of(below, f"{at}.{key}")]
    return [f"{at}: {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list) else "")]


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.both
@pytest.mark.spec("BE-14")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_user_sees_the_same_lines_of_both_engines(said, command):
    one, other = (said(engine, command) for engine in BOTH)
    assert unnamed(one.out) == unnamed(other.out)
    assert unnamed(one.err) == unnamed(other.err)
    assert len(one.out.splitlines()) >= 2


@pytest.mark.both
@pytest.mark.spec("BE-14")
@pytest.mark.parametrize(
    ("command", "folder"), [("run", "result"), ("train", "trained"), ("reconstruct", "image"), ("demo", "demo")]
)
def test_both_engines_write_the_same_files(said, folders, command, folder):
    for engine in BOTH:
        said(engine, command)
    one, other = (files_of(folders(engine) / folder) for engine in BOTH)
    assert one == other
    assert "ptycho.log" in one


@pytest.mark.both
@pytest.mark.spec("BE-14")
@pytest.mark.parametrize(("command", "folder"), [("run", "result"), ("reconstruct", "image"), ("demo", "demo")])
def test_summaries_have_the_same_keys_and_close_figures(said, folders, command, folder):
    for engine in BOTH:
        said(engine, command)
    one, other = (summary_of(folders(engine) / folder) for engine in BOTH)
    versions = [set(summary.pop("versions")) for summary in (one, other)]
    assert "numpy" in versions[0] & versions[1]
    assert versions[0] - versions[1] == PACKAGES["pytorch"]
    for summary in (one, other):
        summary["provenance"].pop("versions", None)
    assert keys_of(one) == keys_of(other)
    assert one["config"].pop("backend") != other["config"].pop("backend")
    assert one["config"] == other["config"]
    errors = [summary["figures"]["train"]["fourier_error"] for summary in (one, other)]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


@pytest.mark.both
@pytest.mark.spec("BE-14")
def test_reconstruction_files_have_the_same_datasets(said, folders):
    found = []
    for engine in BOTH:
        said(engine, "run")
        names: dict[str, tuple] = {}
        with h5py.File(folders(engine) / "result" / "reconstruction.h5") as file:
            file.visititems(
                lambda name, item, names=names: names.update({name: (getattr(item, "shape", None), sorted(item.attrs))})
            )
        found.append(names)
    assert found[0] == found[1]
    assert len(found[0]) > 8


WRONG = {
    "generator": (["run", "gone.npz", "--model.generator", "unet"], "unet"),
    "file": (["run", "gone.npz"], "gone.npz"),
    "field": (["train", "scan.npz", "--epoch", "3"], "epochs"),
    "value": (["demo", "--epochs", "0"], "epochs"),
    "checkpoint": (["run", "scan.npz", *QUICK, "--resume_from", "gone.ckpt"], "gone.ckpt"),
    "crop": (["run", "scan.npz", *QUICK, "--inference.central_crop_px", "33"], "33"),
    "side": (["train", "scan.npz", "--model.generator", "cnn", "--test_fraction", "0", *SMALL], "32×32"),
    "diverged": (["run", "scan.npz", *QUICK, "--learning_rate", "1e30"], "learning_rate"),
    "model": (["reconstruct", "--model", "gone.ptycho", "scan.npz"], "gone.ptycho"),
}
"""Name → arguments that are refused, and a word that the message must have."""


@pytest.mark.both
@pytest.mark.spec("BE-14")
@pytest.mark.parametrize("name", WRONG)
def test_the_same_mistake_gets_the_same_line_and_code(folders, name):
    arguments, word = WRONG[name]
    lines = []
    for engine in BOTH:
        done = ptycho(folders(engine), *with_engine(arguments, engine), "--out", f"wrong-{name}", code=2)
        *notes, line = done.err.splitlines()
        assert all(note.startswith("note: ") for note in notes)
        assert line.startswith("ptycho: ")
        assert word in line
        lines.append(unnamed(done.out + done.err))
    assert lines[0] == lines[1]


@pytest.mark.both
@pytest.mark.spec("BE-13")
@pytest.mark.parametrize(("trainer", "reader"), [BOTH, BOTH[::-1]])
def test_a_model_of_one_engine_is_reconstructed_by_the_other(said, folders, trainer, reader):
    said(trainer, "reconstruct")
    folder = folders(trainer)
    arguments = ["reconstruct", "--model", "result/model.ptycho", "--same_scan", "scan.npz", "--out", "other"]
    done = ptycho(folder, *with_engine(arguments, reader))
    assert [line for line in done.err.splitlines() if not line.startswith("note: ")] == []
    own, other = summary_of(folder / "image"), summary_of(folder / "other")
    assert (own["engine"], other["engine"]) == (trainer, reader)
    # this scan has no background, and its dark pixels multiply rounding from sweep to sweep
    errors = [summary["figures"]["train"]["fourier_error"] for summary in (own, other)]
    assert errors[1] == pytest.approx(errors[0], rel=1e-3)
    assert PACKAGES[reader] & set(other["versions"]) or "tensorflow_cpu" in other["versions"]
    assert not PACKAGES[trainer] & set(other["versions"])


@pytest.mark.both
def test_an_engines_checkpoint_is_refused_by_the_other_in_one_line(said, folders):
    said("tensorflow", "train")
    path = folders("tensorflow") / "trained" / "training" / "checkpoints" / "last.ckpt"
    arguments = ["train", "scan.npz", *QUICK, "--epochs", "3", "--resume_from", str(path), "--out", "refused"]
    done = ptycho(folders("pytorch"), *with_engine(arguments, "pytorch"), code=2)
    assert "last.ckpt" in done.err.splitlines()[-1]
    assert done.err.count("\n") == 1
