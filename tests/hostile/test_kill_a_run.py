"""``ptycho run`` killed in each of its stages, and what the next command makes of what lies there.

What goes on from the checkpoint ends with the same image, every array of it bit for bit; nothing finished is lost; and
the next command in the folder says what a killed one could not: where the checkpoint is and how to go on.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from kill_cases import CASES, make_scan
from kill_server import KillServer

from ptycho_core.enginekit.checkpoint import checkpoints_in
from ptycho_core.io import write_scan
from ptycho_core.io.result_folder import verify_result

pytestmark = pytest.mark.hostile

EPOCH = "ptycho_core.enginekit.descent:_sweep"
REFINING = "ptycho_core.enginekit.refining:_Work._report"
STAGES = {
    "solving": (EPOCH, 4),
    "saving the model": ("ptycho_core.api.run:save_model", 1),
    "making the image": ("ptycho_core.api.run:image_of", 1),
    "refining": (REFINING, 7),
    "judging": ("ptycho_core.api.run:Judgement", 1),
    "half-data images": ("ptycho_core.api.run:half_data_frc", 1),
    "drawing": ("ptycho_core.report.write:_draw", 1),
}
RUN = (
    "run", "scan.npz", "--backend", "numpy", "--epochs", "6", "--probe_trainable", "true", "--seed", "5", "--threads",
    "1", "--refinement.epochs", "12", "--half_data_frc", "--despite_findings", "--out", "out",
)  # fmt: skip
CHECKPOINT = "solver_checkpoint.safetensors"


@pytest.fixture(scope="module")
def server() -> Iterator[KillServer]:
    with KillServer("numpy") as one:
        yield one


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scan alone."""
    folder = tmp_path_factory.mktemp("scan")
    write_scan(folder / "scan.npz", make_scan(CASES["numpy"]["solver"]))
    return folder


@pytest.fixture(scope="module")
def whole(server: KillServer, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(place / "scan.npz", folder)
    done = server.command(RUN, folder)
    assert done["code"] == 0, done["said"]
    return folder / "out"


@pytest.fixture
def here(place: Path, tmp_path: Path) -> Path:
    shutil.copy(place / "scan.npz", tmp_path)
    return tmp_path


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """Every array of numbers in a result but the seconds that it took."""
    found = {}
    with h5py.File(path) as file:

        def note(name: str, one: Any) -> None:
            if isinstance(one, h5py.Dataset) and one.dtype.kind in "iufcb" and not name.endswith("duration"):
                found[name] = one[()]

        file.visititems(note)
    return found


def assert_same_image(one: Path, other: Path) -> None:
    a, b = arrays_of(one), arrays_of(other)
    assert a.keys() == b.keys()
    assert len(a) > 10
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def resume_words(said: str) -> list[str]:
    """The options that a notice says to go on with."""
    (found,) = re.findall(r"--resume_from \S+", said)
    return shlex.split(found)


@pytest.mark.spec("BE-23")
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_was_killed_goes_on_to_the_same_image(
    server: KillServer, whole: Path, here: Path, stage: str
) -> None:
    assert server.command(RUN, here, kill_at=STAGES[stage])["signal"] == signal.SIGKILL
    training = here / "out" / "training"
    assert not (here / "out" / "summary.json").exists()
    (left,) = checkpoints_in(training)
    assert left.epochs > 0
    done = server.command([*RUN, "--resume_from", str(left.path)], here)
    assert done["code"] == 0, done["said"]
    assert_same_image(here / "out" / "reconstruction.h5", whole / "reconstruction.h5")
    assert verify_result(here / "out") == []
    names = {path.name for path in training.iterdir() if not path.name.startswith("reconstruction-")}
    assert names == {CHECKPOINT, "history.csv", "model.ptycho"}


@pytest.mark.spec("RES-12")
def test_the_next_command_says_how_to_go_on_and_begins_anew(server: KillServer, whole: Path, here: Path) -> None:
    server.command(RUN, here, kill_at=(EPOCH, 4))
    training = here / "out" / "training"
    before = (training / CHECKPOINT).read_bytes()
    done = server.command(RUN, here)
    assert done["code"] == 0
    told = rf"left the checkpoint out/training/{re.escape(CHECKPOINT)} \(engine 'numpy', after [123] epochs?\)"
    assert re.search(told, done["said"])
    assert "this one begins anew" in done["said"]
    assert (training / "earlier" / CHECKPOINT).read_bytes() == before
    assert_same_image(here / "out" / "reconstruction.h5", whole / "reconstruction.h5")
    words = resume_words(done["said"])
    assert words[1] == f"out/training/earlier/{CHECKPOINT}"
    again = server.command([*RUN, *words, "--overwrite"], here)
    assert again["code"] == 0, again["said"]
    assert_same_image(here / "out" / "reconstruction.h5", whole / "reconstruction.h5")
    third = server.command([*RUN, "--overwrite"], here)
    assert "an interrupted run left" not in third["said"]


@pytest.mark.spec("RES-12")
def test_auto_goes_on_where_there_is_something_and_else_begins(server: KillServer, whole: Path, here: Path) -> None:
    """One command for a queue that starts it again whenever its machine was taken away."""
    command = [*RUN, "--resume_from", "auto"]
    assert server.command(command, here, kill_at=(EPOCH, 3))["signal"] == signal.SIGKILL
    assert server.command(command, here, kill_at=(EPOCH, 3))["signal"] == signal.SIGKILL
    assert server.command(command, here, kill_at=(REFINING, 5))["signal"] == signal.SIGKILL
    done = server.command(command, here)
    assert done["code"] == 0, done["said"]
    assert "going on from the checkpoint" in done["said"]
    assert "after 6 epochs" in done["said"]
    assert_same_image(here / "out" / "reconstruction.h5", whole / "reconstruction.h5")
    fresh = server.command([*RUN[:-1], "fresh", "--resume_from", "auto"], here)
    assert fresh["code"] == 0
    assert "no interrupted run left a checkpoint" in fresh["said"]


@pytest.mark.spec("RES-12")
def test_a_folder_to_go_on_from_means_its_newest_checkpoint(server: KillServer, whole: Path, here: Path) -> None:
    server.command(RUN, here, kill_at=(EPOCH, 4))
    done = server.command([*RUN, "--resume_from", "out"], here)
    assert done["code"] == 0, done["said"]
    assert "begins anew" not in done["said"]
    assert_same_image(here / "out" / "reconstruction.h5", whole / "reconstruction.h5")
    (here / "empty").mkdir()
    none = server.command([*RUN, "--overwrite", "--resume_from", "empty"], here)
    assert none["code"] == 2
    assert "empty: there is no checkpoint in this folder" in none["said"]


def test_killed_before_there_was_a_checkpoint(server: KillServer, whole: Path, here: Path) -> None:
    """Nothing was finished; the same command begins anew, and asks for no --overwrite."""
    server.command(RUN, here, kill_at=(EPOCH, 1))
    assert checkpoints_in(here / "out" / "training") == []
    asked = server.command([*RUN, "--resume_from", f"out/training/{CHECKPOINT}"], here)
    assert asked["code"] == 2
    assert "no such checkpoint" in asked["said"]
    assert "begin anew" in asked["said"]
    assert server.command(RUN, here)["code"] == 0
    assert_same_image(here / "out" / "reconstruction.h5", whole / "reconstruction.h5")


@pytest.mark.spec("RES-10")
@pytest.mark.parametrize("stage", ["half-data images", "drawing"])
def test_an_image_that_was_whole_is_not_lost(server: KillServer, whole: Path, here: Path, stage: str) -> None:
    server.command(RUN, here, kill_at=STAGES[stage])
    done = server.command(RUN, here)
    assert done["code"] == 0
    found = re.findall(r"(\S+\.h5): the image of a run that ended before its results were written", done["said"])
    assert found
    kept, wanted = arrays_of(here / found[0]), arrays_of(whole / "reconstruction.h5")
    for name in kept:
        np.testing.assert_array_equal(kept[name], wanted[name], err_msg=name)
    assert not (here / "out" / "training" / "image.h5").exists()


def test_what_is_not_of_this_run_is_refused_by_name(server: KillServer, here: Path) -> None:
    server.command(RUN, here, kill_at=(EPOCH, 4))
    done = server.command([*RUN, "--seed", "6", "--resume_from", "auto"], here)
    assert done["code"] == 2
    assert "made with" in done["said"]
    assert len(checkpoints_in(here / "out" / "training")) == 1
