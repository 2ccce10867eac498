"""What is Lightning's own in training: its checkpoint files, and what it leaves of its own in the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from engines.engine_scans import interrupted
from torch_scans import ENGINE, assert_same_model, make_scan, train, vary

from ptycho_backend_torch import callbacks
from ptycho_backend_torch.training import AtomicCheckpointIO, read_checkpoint
from ptycho_core.errors import ArchiveError, OutputError

pytestmark = pytest.mark.torch

CONFIG = vary(epochs=2, batch_size=6, probe_trainable=True)


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4)


@pytest.fixture(scope="module")
def checkpoint(scan, tmp_path_factory):
    """A training stopped after its first epoch and one step."""
    return interrupted(ENGINE, scan, vary(CONFIG, output_dir=tmp_path_factory.mktemp("stopped")), 3)


def test_checkpoints_are_written_beside_their_target_and_renamed(tmp_path, monkeypatch):
    """A failure while one is written leaves the old one whole, and nothing else."""
    io = AtomicCheckpointIO()
    io.save_checkpoint({"step": torch.tensor(1)}, tmp_path / "new" / "last.ckpt")

    def torn(content, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OutputError, match="No space left"):
        io.save_checkpoint({"step": torch.tensor(2)}, tmp_path / "new" / "last.ckpt")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "new" / "last.ckpt", weights_only=True)["step"] == 1


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(scan, checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    armed, mark = tmp_path / "armed.ckpt", tmp_path / "mark"
    torch.save({**content, "callbacks": {"x": Bomb(mark)}}, armed)
    with pytest.raises(ArchiveError, match=r"armed\.ckpt: not a checkpoint that can be read safely \(UnpicklingError"):
        train(scan, vary(CONFIG, resume_from=armed))
    assert not mark.exists()
    torch.load(armed, weights_only=False)  # the bomb would have gone off
    assert mark.is_dir()


def test_a_long_epoch_leaves_a_checkpoint_too(scan, tmp_path, monkeypatch):
    """A process that is killed in its first epoch goes on where it was a while ago, to the last bit."""
    config = vary(CONFIG, batch_size=1, weight_average=0.5)
    whole = train(scan, config)
    monkeypatch.setattr(callbacks, "CHECKPOINT_SECONDS", 0.0)

    def killed(event):
        if event.done == 8:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(scan, vary(config, output_dir=tmp_path), progress=killed)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    steps = []
    again = vary(config, resume_from=tmp_path / "checkpoints" / "last.ckpt")
    model = train(scan, again, progress=lambda event: steps.append(event.done))
    assert steps[0] == 8
    assert_same_model(model, whole)
    monkeypatch.setattr(callbacks, "CHECKPOINT_SECONDS", 1e9)
    with pytest.raises(RuntimeError, match="power cut"):
        train(scan, vary(config, output_dir=tmp_path / "quick"), progress=killed)
    assert not list((tmp_path / "quick").rglob("*.ckpt"))


def test_what_the_end_of_an_epoch_has_kept_is_not_kept_again(scan, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "CHECKPOINT_SECONDS", 0.0)
    written = []
    real = AtomicCheckpointIO.save_checkpoint

    def save(self, checkpoint, path, storage_options=None):
        written.append((Path(path).name, checkpoint["global_step"]))
        real(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save)
    train(scan, vary(CONFIG, output_dir=tmp_path))  # two epochs of two steps
    assert [step for name, step in written if name == "last.ckpt"] == [1, 2, 3, 4]


@pytest.mark.slow
def test_reading_processes_go_on_in_the_right_epoch(scan, checkpoint):
    """They are asked for their first batches before Lightning says which epoch it is."""
    whole = train(scan, CONFIG)
    assert_same_model(train(scan, vary(CONFIG, num_workers=1, resume_from=checkpoint)), whole)


def test_a_file_of_tensors_that_is_no_checkpoint(scan, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ArchiveError, match=r"other\.ckpt: not a training checkpoint"):
        train(scan, vary(CONFIG, resume_from=tmp_path / "other.ckpt"))


def test_checkpoints_hold_tensors_and_plain_values(checkpoint):
    content = read_checkpoint(checkpoint)

    def plain(value):
        if isinstance(value, dict):
            return all(plain(v) for pair in value.items() for v in pair)
        if isinstance(value, (list, tuple, set)):
            return all(map(plain, value))
        return value is None or isinstance(value, (str, int, float, bool, torch.Tensor))

    assert plain({name: value for name, value in content.items() if name != "callbacks"})
    assert content["ptycho_history"]["train_loss"]
