"""Checkpoints of engines without a format of their own: exact, atomic, and refused in words when they are foreign."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from ptycho_core.enginekit.checkpoint import CheckpointPace, checkpoint_backend, read_checkpoint, write_checkpoint
from ptycho_core.errors import ArchiveError, OutputError

ARRAYS = {
    "parameter.head.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "parameter.log_scale": np.float32(0.1),
    "optimizer.first.log_scale": np.array(-1e-30, np.float32),
    "turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "every_other": np.arange(10, dtype=np.int64)[::2],
    "flags": np.array([True, False]),
    "odd": np.array([math.nan, -math.inf, -0.0, 1e-45], np.float32),
    "empty": np.zeros((0, 3), np.float32),
}
FACTS = {
    "run": {"learning_rate": 0.1, "seed": 3, "loss": "poisson", "probe_trainable": True, "resume_from": None},
    "step": 7,
    "state": {
        "loss_sum": 0.1 + 0.2,
        "third": 1 / 3,
        "tiny": 5e-324,
        "huge": 1.7976931348623157e308,
        "best": math.inf,
        "worst": -math.inf,
        "history": {"train_loss": [2 / 3, math.nan], "é": []},
    },
}


@pytest.fixture
def path(tmp_path) -> Path:
    """A checkpoint of an engine called ``own``."""
    path = tmp_path / "checkpoints" / "last.ckpt"
    write_checkpoint(path, "own", ARRAYS, FACTS)
    return path


def test_arrays_come_back_to_the_last_bit_with_shape_and_dtype(path):
    found, _ = read_checkpoint(path, "own")
    assert found.keys() == ARRAYS.keys()
    for name, wanted in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape), name
        np.testing.assert_array_equal(found[name], wanted, err_msg=name)
        np.testing.assert_array_equal(np.signbit(found[name]), np.signbit(wanted), err_msg=name)


def test_a_number_of_its_own_stays_without_axes(path):
    found, _ = read_checkpoint(path, "own")
    assert found["parameter.log_scale"].shape == found["optimizer.first.log_scale"].shape == ()


def test_facts_come_back_as_they_were_also_what_json_has_no_number_for(path):
    _, facts = read_checkpoint(path, "own")
    history = facts["state"]["history"].pop("train_loss")
    wanted = json.loads(json.dumps(FACTS))
    del wanted["state"]["history"]["train_loss"]
    assert facts == wanted
    assert history[0] == 2 / 3
    assert math.isnan(history[1])
    assert type(facts["run"]["seed"]) is int
    assert facts["run"]["probe_trainable"] is True


def test_facts_and_arrays_may_be_empty(tmp_path):
    write_checkpoint(tmp_path / "none.ckpt", "own", {}, {})
    assert read_checkpoint(tmp_path / "none.ckpt", "own") == ({}, {})


def test_equal_content_is_equal_bytes(path, tmp_path):
    write_checkpoint(tmp_path / "again.ckpt", "own", ARRAYS, FACTS)
    assert (tmp_path / "again.ckpt").read_bytes() == path.read_bytes()


def test_what_is_read_does_not_hang_on_the_file(path):
    found, _ = read_checkpoint(path, "own")
    path.write_bytes(b"\0" * path.stat().st_size)
    np.testing.assert_array_equal(found["parameter.head.weight"], ARRAYS["parameter.head.weight"])


@pytest.mark.spec("CONV-8")
def test_a_write_that_fails_leaves_the_old_checkpoint_and_nothing_else(path, monkeypatch):
    before = path.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"last\.ckpt: writing failed \(No space left on device\)"):
        write_checkpoint(path, "own", {"a": np.ones(3)}, {})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["last.ckpt"]


@pytest.mark.spec("CONV-8")
def test_a_killed_process_leaves_the_old_checkpoint(path):
    code = (
        "import os, pathlib, signal, sys\nimport numpy as np\nfrom ptycho_core.enginekit import checkpoint\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint.write_checkpoint(pathlib.Path(sys.argv[1]), 'own', {'a': np.ones(9)}, {'step': 99})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert read_checkpoint(path, "own")[1]["step"] == 7


@pytest.mark.spec("CONV-8")
def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        write_checkpoint(tmp_path / "file" / "last.ckpt", "own", ARRAYS, FACTS)


@pytest.mark.spec("BE-8")
def test_another_engines_checkpoint_is_refused_with_both_names(path):
    with pytest.raises(ArchiveError) as caught:
        read_checkpoint(path, "other")
    text = str(caught.value)
    assert text.startswith(f"{path}: a checkpoint of engine 'own', which engine 'other' cannot go on from; ")
    assert "resume with backend = 'own'" in text


def test_a_missing_file(tmp_path):
    with pytest.raises(ArchiveError, match=r"gone\.ckpt: no such checkpoint; give resume_from a file from a training"):
        read_checkpoint(tmp_path / "gone.ckpt", "own")


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.5, -1])
def test_a_torn_file(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(ArchiveError, match=r"last\.ckpt: not a checkpoint that can be read safely by engine 'own'"):
        read_checkpoint(path, "own")
    assert checkpoint_backend(path) is None


def test_a_file_with_more_than_it_says(path):
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ArchiveError, match="not a checkpoint that can be read safely"):
        read_checkpoint(path, "own")


@pytest.mark.parametrize(
    "content", [b"hello, this is a text\n", b"\x80\x02cos\nsystem\n(S'true'\ntR.", b"PK\x03\x04" * 9]
)
def test_a_file_of_another_format(path, content):
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"last\.ckpt: not a checkpoint .* another engine made it, resume with that"):
        read_checkpoint(path, "own")
    assert checkpoint_backend(path) is None


def test_a_folder(tmp_path):
    with pytest.raises(ArchiveError, match="is a folder; a checkpoint is read from a regular file"):
        read_checkpoint(tmp_path, "own")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"ptycho_checkpoint": "{}"},
        {"ptycho_checkpoint": '{"backend": "own"}'},
        {"ptycho_checkpoint": '{"backend": "own", "facts": [1]}'},
        {"ptycho_checkpoint": "no json"},
        {"ptycho_checkpoint": '"own"'},
        {"ptycho_checkpoint": '["own"]'},
        {"ptycho_checkpoint": "null"},
    ],
)
def test_another_safetensors_file(path, metadata):
    """Weights from elsewhere, or an entry that is not what was written: one error for all, and no other."""
    path.write_bytes(save({"weight": np.ones(3, np.float32)}, metadata=metadata))
    with pytest.raises(ArchiveError, match=r"last\.ckpt: not a (training )?checkpoint"):
        read_checkpoint(path, "own")


def test_who_made_a_file_can_be_asked_of_any(path, tmp_path):
    assert checkpoint_backend(path) == "own"
    assert checkpoint_backend(tmp_path / "gone.ckpt") is None
    assert checkpoint_backend(tmp_path) is None
    for entry in ('{"backend": 3, "facts": {}}', '{"facts": {}}', "[]", "no json"):
        path.write_bytes(save({"a": np.ones(1)}, metadata={"ptycho_checkpoint": entry}))
        assert checkpoint_backend(path) is None


class Clock:
    """A clock that runs when it is told to, and while a checkpoint is written."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost = 100.0, cost
        self.written: list[float] = []

    def write(self) -> None:
        self.written.append(self.now - 100.0)
        self.now += self.cost


@pytest.mark.spec("BE-8")
def test_a_checkpoint_is_due_after_the_first_epoch_then_after_half_a_minute_or_while_it_is_cheap():
    dear = Clock(cost=8.0)
    pace = CheckpointPace(dear.write, lambda: dear.now)
    for _ in range(9):
        dear.now += 10.0
        pace.after_epoch()
    # after the first epoch, whatever it costs; then each time that three epochs have gone by since the last one
    assert dear.written == [10.0, 48.0, 86.0]
    cheap = Clock(cost=0.25)
    pace = CheckpointPace(cheap.write, lambda: cheap.now)
    for _ in range(40):
        cheap.now += 1.0
        pace.after_epoch()
    # an epoch of a second each: after five, ten, … seconds, so that a twentieth of the time goes into writing
    assert cheap.written[:2] == [1.0, 5.25]
    assert 6 <= len(cheap.written) <= 9


def test_a_checkpoint_is_written_once_for_an_epoch():
    clock = Clock(cost=8.0)
    pace = CheckpointPace(clock.write, lambda: clock.now)
    clock.now += 1.0
    pace.after_epoch()
    pace.now()  # interrupted right after: it is there already
    assert clock.written == [1.0]
    clock.now += 1.0
    pace.after_epoch()
    assert clock.written == [1.0]  # not due
    pace.now()
    pace.now()
    assert clock.written == [1.0, 10.0]


def test_what_nothing_was_written_of_is_written_at_the_end():
    clock = Clock(cost=0.0)
    CheckpointPace(clock.write, lambda: clock.now).now()
    assert clock.written == [0.0]
