"""The command end to end with the PyTorch engine, in processes of its own, on a tiny simulated scan."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]

QUICK = ["--epochs", "2", "--group_size", "4", "--model.width", "4", "--model.depth", "2", "--seed", "1"]


def ptycho(folder, *arguments, code=0):
    """Run the command in `folder` and return what it wrote, having checked its exit code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "ptycho_core.cli", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a scan, and a run on it in ``result``."""
    folder = tmp_path_factory.mktemp("cli")
    grid = ["--N", "32", "--grid_shape", "[7,5]", "--step_px", "4.3", "--photons", "1e5", "--seed", "5"]
    ptycho(folder, "simulate", *grid, "--object", "dead_leaves", "--out", "scan.npz")
    done = ptycho(folder, "run", "scan.npz", *QUICK, "--test_fraction", "0.2", "--out", "result")
    (folder / "said.txt").write_text(done.stdout)
    (folder / "noticed.txt").write_text(done.stderr)
    return folder


def test_run(folder):
    names = {path.name for path in (folder / "result").iterdir()}
    assert names >= {"report.html", "reconstruction.h5", "summary.json", "model.ptycho", "ptycho.log", "training"}
    summary = json.loads((folder / "result" / "summary.json").read_text())
    assert summary["engine"] == "pytorch"
    assert summary["frames_heldout"] == 7
    assert 0 < summary["r_factor"] < 0.5
    assert "torch" in summary["versions"]
    assert summary["seconds"]["total"] > summary["seconds"]["train"] > 0
    with h5py.File(folder / "result" / "reconstruction.h5") as file:
        assert file["entry/object"].dtype == np.complex64
        assert len(file["entry/losses/train_loss"]) == 2
        assert len(file["entry/losses/test_loss"]) == 2
    assert f"{summary['r_factor']:.4f}" in (folder / "said.txt").read_text()


def test_terminal_is_left_clean(folder):
    """Nothing but our own notices on standard error, and no framework's chatter on standard output."""
    noticed = (folder / "noticed.txt").read_text().splitlines()
    assert [line for line in noticed if not line.startswith("note: ")] == []
    heads = {line.split()[0] for line in (folder / "said.txt").read_text().splitlines()}
    assert heads == {"scan", "R-factor", "time", "results"}


def test_two_runs_with_one_seed_agree(folder):
    ptycho(folder, "run", "scan.npz", *QUICK, "--test_fraction", "0.2", "--out", "again")
    objects = []
    for name in ("result", "again"):
        with h5py.File(folder / name / "reconstruction.h5") as file:
            objects.append(file["entry/object"][()])
    np.testing.assert_allclose(objects[0], objects[1], atol=1e-5)


def test_reconstruct_gives_the_image_of_the_run(folder):
    ptycho(folder, "reconstruct", "--model", "result/model.ptycho", "--same_scan", "scan.npz", "--out", "image")
    objects = []
    for name in ("result", "image"):
        with h5py.File(folder / name / "reconstruction.h5") as file:
            objects.append(file["entry/object"][()])
    np.testing.assert_allclose(objects[0], objects[1], atol=1e-5)


def test_compare_with_the_truth(folder):
    done = ptycho(folder, "compare", "result/reconstruction.h5", "--truth", "scan.npz", "--json")
    score = json.loads(done.stdout)["scores"]["result/reconstruction.h5"]
    assert 0 < score["correlation"] <= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_goes_on_from_what_it_says(folder, number):
    out = f"stopped-{number}"
    arguments = ["run", "scan.npz", *QUICK, "--epochs", "2000", "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-m", "ptycho_core.cli", *arguments], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    log = folder / out / "ptycho.log"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.is_file() and "train 1" in log.read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    command = shlex.split(error.partition("go on with: ")[2])
    assert command[0] == "ptycho"
    checkpoint = folder / command[-1]
    assert checkpoint.exists()
    assert not (folder / out / "summary.json").exists()
    # as many epochs as were asked for would take too long: stop again, later in the same training
    process = subprocess.Popen(
        [sys.executable, "-m", "ptycho_core.cli", *command[1:]], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    lines = len(log.read_text().splitlines())
    while time.monotonic() < deadline and "train " not in "\n".join(log.read_text().splitlines()[lines:]):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error


def test_poor_probe_refined_with_modes(folder):
    extra = ["--probe_modes", "2", "--probe_trainable", "true", "--loss", "poisson"]
    ptycho(folder, "run", "scan.npz", *QUICK, *extra, "--out", "modes")
    with h5py.File(folder / "modes" / "reconstruction.h5") as file:
        assert file["entry/probe"].shape == (2, 32, 32)


def test_engine_refuses_before_reading(folder):
    done = ptycho(folder, "run", "gone.npz", "--model.generator", "unet", code=2)
    assert "unet" in done.stderr
    assert done.stderr.count("\n") == 1
