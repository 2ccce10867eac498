"""Trainings that are killed, at every place where they write and at many where they compute, and gone on with.

What goes on ends as the training that nobody stopped: its model file and its history, byte for byte. The long form,
with a hundred kills at random times, is ``python tests/hostile/kill_many.py ENGINE``.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kill_cases import CASES, newest_checkpoint
from kill_many import go_on, results_of
from kill_server import KillServer

from ptycho_core.enginekit.checkpoint import read_checkpoint

pytestmark = pytest.mark.hostile

MARKS = {
    "numpy": (),
    "pytorch": (pytest.mark.torch,),
    "tensorflow": (pytest.mark.tensorflow,),
    "ptychi": (pytest.mark.ptychi,),
}
ENGINES = [pytest.param(engine, marks=marks) for engine, marks in MARKS.items()]
LONG_FORM = {
    "tensorflow": {"solver amplitude", "network", *(f"network {n}" for n in ("unrolled", "cnn", "tracked", "compiled"))}
}
"""Cases that only ``kill_many.py`` kills: each process of theirs traces for seconds what the others trace too."""
SOMEWHERE = [
    pytest.param(engine, case, id=f"{engine}, {case}", marks=marks)
    for engine, marks in MARKS.items()
    for case in CASES[engine]
    if case not in LONG_FORM.get(engine, ())
]
MOST_PLACES = {"numpy": 6, "pytorch": 4, "tensorflow": 2, "ptychi": 3}
"""Engine → places of each kind where a training is killed as it writes, the first ones."""
THOROUGH = {"numpy": "solver", "pytorch": "network average", "tensorflow": "solver", "ptychi": "lsqml"}
"""Engine → case that is killed at places where it writes."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Any]:
    """One warm process an engine; an engine that is not asked for is not imported."""
    made: dict[str, KillServer] = {}

    def server(engine: str) -> KillServer:
        if engine not in made:
            made[engine] = KillServer(engine)
        return made[engine]

    yield server
    for one in made.values():
        one.close()


@pytest.fixture(scope="module")
def whole(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trainings that nobody stopped, each made once: what the server says of one, and its folder."""
    made: dict[tuple[str, str], tuple[dict[str, Any], Path]] = {}

    def train(engine: str, case: str) -> tuple[dict[str, Any], Path]:
        if (engine, case) not in made:
            folder = tmp_path_factory.mktemp("whole")
            done = servers(engine).run(case, folder)
            assert (done["signal"], done["error"]) == (0, "")
            made[engine, case] = done, folder
        return made[engine, case]

    return train


def assert_goes_on(server: KillServer, case: str, folder: Path, whole: Path) -> dict[str, Any]:
    """Go on as a person would, and compare; what the server says of it."""
    (folder / "model.ptycho").unlink(missing_ok=True)  # it may have been killed after its last write
    done, _ = go_on(server, case, folder)
    assert (done["signal"], done["error"]) == (0, "")
    assert results_of(folder) == results_of(whole)
    return done


@pytest.mark.spec("BE-8", "BE-23")
@pytest.mark.parametrize(("engine", "case"), SOMEWHERE)
def test_killed_somewhere_it_goes_on_to_the_same_bytes(
    servers: Any, whole: Any, tmp_path: Path, engine: str, case: str
) -> None:
    """Killed twice: somewhere in the middle of its steps, and anywhere; drawn from the case's name."""
    rng, (first, folder) = random.Random(case), whole(engine, case)
    for number in range(2):
        point = "step" if number == 0 else rng.choice(["step", "fsync", "replace", "replaced"])
        n = first["counts"][point]
        at = rng.randrange(n // 3, 3 * n // 4) if number == 0 else rng.randrange(1, n + 1)
        killed = servers(engine).run(case, tmp_path / str(number), kill_at=(point, at))
        assert killed["signal"] in (signal.SIGKILL, 0)  # writes may be fewer where a machine is slow: they are paced
        if killed["signal"]:
            assert_goes_on(servers(engine), case, tmp_path / str(number), folder)


@pytest.mark.spec("BE-23", "CONV-8")
@pytest.mark.parametrize("engine", ENGINES)
def test_killed_at_any_place_where_it_writes_the_checkpoint_before_is_whole(
    servers: Any, whole: Any, tmp_path: Path, engine: str
) -> None:
    case = THOROUGH[engine]
    server, (first, folder) = servers(engine), whole(engine, case)
    n_killed, went_on_from = 0, set()
    for point in ("fsync", "replace", "replaced"):
        for at in range(1, min(first["counts"][point], MOST_PLACES[engine]) + 1):
            place = tmp_path / f"{point} {at}"
            if not server.run(case, place, kill_at=(point, at))["signal"]:
                continue
            n_killed += 1
            for path in place.rglob("*"):
                if path.suffix in (".ckpt", ".safetensors") and not path.name.startswith("."):
                    read_checkpoint(path, engine)
            done = assert_goes_on(server, case, place, folder)
            went_on_from.add(done["first_step"])
    assert n_killed > 5
    assert len(went_on_from) > 1


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_again_and_again(servers: Any, whole: Any, tmp_path: Path, engine: str) -> None:
    """Each process makes a few steps only, and is killed: in the end it is all the same."""
    case = next(iter(CASES[engine]))
    server, (first, folder) = servers(engine), whole(engine, case)
    for _ in range(6):
        server.run(case, tmp_path, resume_from=newest_checkpoint(tmp_path), kill_at=("step", 5))
    done = assert_goes_on(server, case, tmp_path, folder)
    assert done["first_step"] is None or done["first_step"] > 1
    assert first["counts"]["step"] > 5


@pytest.mark.parametrize("engine", ENGINES[1:3])
def test_the_checkpoint_of_the_best_epoch_goes_on_as_well(
    servers: Any, whole: Any, tmp_path: Path, engine: str
) -> None:
    case = "network average"
    _, folder = whole(engine, case)
    assert servers(engine).run(case, tmp_path, kill_at=("step", 8))["signal"] == signal.SIGKILL
    best = tmp_path / "training" / "checkpoints" / "best.ckpt"
    (tmp_path / "training" / "checkpoints" / "last.ckpt").unlink()
    done = servers(engine).run(case, tmp_path, resume_from=best)
    assert done["error"] == ""
    assert results_of(tmp_path) == results_of(folder)


@pytest.mark.parametrize("engine", ENGINES)
def test_history_and_checkpoint_need_not_be_of_one_epoch(servers: Any, whole: Any, tmp_path: Path, engine: str) -> None:
    """A history that is older than its checkpoint, newer, cut, or gone: what is gone on with writes it anew."""
    case = THOROUGH[engine]
    first, folder = whole(engine, case)
    at = first["counts"]["step"] * 2 // 3
    assert servers(engine).run(case, tmp_path / "killed", kill_at=("step", at))["signal"] == signal.SIGKILL
    rows = (folder / "training" / "history.csv").read_bytes().splitlines(keepends=True)
    for name, content in {"older": rows[:2], "newer": rows, "cut": [rows[0], rows[1][:9]], "empty": []}.items():
        shutil.copytree(tmp_path / "killed", tmp_path / name)
        (tmp_path / name / "training" / "history.csv").write_bytes(b"".join(content))
        assert_goes_on(servers(engine), case, tmp_path / name, folder)


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_before_its_first_checkpoint(servers: Any, whole: Any, tmp_path: Path, engine: str) -> None:
    """There is none to go on from, which is said so, and what is begun anew ends the same."""
    case = THOROUGH[engine]
    _, folder = whole(engine, case)
    assert servers(engine).run(case, tmp_path, kill_at=("fsync", 1))["signal"] == signal.SIGKILL
    assert newest_checkpoint(tmp_path) is None
    wanted = newest_checkpoint(folder)
    assert wanted is not None
    missing = tmp_path / wanted.relative_to(folder)
    done = servers(engine).run(case, tmp_path, resume_from=missing)
    assert done["error"].startswith(f"ArchiveError: {missing}: no such checkpoint")
    assert "begin anew" in done["error"]
    assert_goes_on(servers(engine), case, tmp_path, folder)


def test_the_comparison_sees_another_seed(servers: Any, whole: Any, tmp_path: Path) -> None:
    """What is compared differs where the training does: the cases are no two of them alike."""
    folders = [whole("numpy", case)[1] for case in CASES["numpy"]]
    models = [results_of(folder)["model.ptycho"] for folder in folders]
    assert len(set(models)) == len(models)
    state, _ = read_checkpoint(folders[0] / "training" / "solver_checkpoint.safetensors", "numpy")
    assert np.isfinite(state["object"]).all()
    assert state["probe"].shape[0] == 3
