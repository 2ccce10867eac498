"""Checkpoints of the pty-chi engine: a run that ended early, however it did, goes on as if nothing had been."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ptychi_scans import CONFIG, CPU, config_of, container, make_scan, train

from ptycho_backend_ptychi import backend
from ptycho_backend_ptychi.options import ALGORITHMS
from ptycho_core.config import RefinementConfig
from ptycho_core.enginekit.checkpoint import read_checkpoint, write_checkpoint
from ptycho_core.errors import ArchiveError, Cancelled
from ptycho_core.plugins.registry import load_backend

pytestmark = pytest.mark.ptychi

CHECKPOINT = "ptychi_checkpoint.safetensors"
HELD_OUT = [3, 14]


class Killed(BaseException):
    """Ends a training where it stands."""


def ending(after: int, error: type[BaseException]):
    def progress(event):
        if event.done == after:
            raise error

    return progress


def same(one, other):
    np.testing.assert_array_equal(one.object, other.object)
    np.testing.assert_array_equal(one.probe, other.probe)
    assert one.history == other.history


@pytest.mark.spec("BE-8")
@pytest.mark.parametrize("error", [Cancelled, Killed])
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        *((algorithm, {}) for algorithm in ALGORITHMS),
        ("autodiff", {"probe_start": 4}),
        ("rpie", {"momentum": 0.2, "alpha": 0.5}),
        ("lsqml", {"batching": "compact", "momentum": 0.5, "batch_frames": 12}),
        ("lsqml", {"batching": "uniform", "batch_frames": 12}),
    ],
)
def test_a_run_that_ended_early_goes_on_bit_for_bit(algorithm, options, error, tmp_path, monkeypatch):
    # the pace is core's: here a killed run has a checkpoint of each epoch, a cancelled one of the first and its last
    monkeypatch.setattr("ptycho_core.enginekit.checkpoint._SHARE", 1e9 if error is Killed else 0.0)
    raw = make_scan(2, step=4.5, noise=True)
    loss = "poisson" if algorithm == "lsqml" else "amplitude"
    config = config_of(algorithm, options, epochs=6, probe_trainable=algorithm != "raar", loss=loss)
    whole = train(raw, config, HELD_OUT)
    with pytest.raises(error) as caught:
        train(raw, config, HELD_OUT, progress=ending(4, error), output_dir=tmp_path)
    checkpoint = tmp_path / CHECKPOINT
    if error is Cancelled:
        assert caught.value.checkpoint_path == str(checkpoint)
    rows = (tmp_path / "history.csv").read_text().splitlines()
    assert (rows[0], len(rows)) == ("epoch,train_loss,test_loss", 5)
    epochs = []
    again = train(raw, config, HELD_OUT, progress=lambda e: epochs.append(e.done), resume_from=checkpoint)
    assert epochs == [5, 6]
    same(again, whole)


def test_a_process_that_is_killed_goes_on(tmp_path):
    """By SIGKILL, which nothing can see coming."""
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from ptychi_scans import config_of, make_scan, train\n"
        "stop = lambda event: event.done == 2 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "train(make_scan(2, step=4.5), config_of(epochs=4), [3, 14], progress=stop, output_dir=Path(sys.argv[1]))"
    )
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), here], timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL
    raw, config, epochs = make_scan(2, step=4.5), config_of(epochs=4), []
    checkpoint = tmp_path / CHECKPOINT
    again = train(raw, config, HELD_OUT, progress=lambda event: epochs.append(event.done), resume_from=checkpoint)
    assert epochs in ([2, 3, 4], [3, 4])  # the second checkpoint is written where it is cheap
    np.testing.assert_allclose(again.object, train(raw, config, HELD_OUT).object, atol=1e-5)


def test_a_run_that_was_over_gives_its_model_again(tmp_path):
    raw = make_scan(1, step=4.5, noise=True)
    config = config_of(epochs=3, probe_trainable=True)
    whole = train(raw, config, HELD_OUT, output_dir=tmp_path / "one")
    assert whole.checkpoint_path == tmp_path / "one" / CHECKPOINT
    events = []
    folders = {"resume_from": whole.checkpoint_path, "output_dir": tmp_path / "two"}
    again = train(raw, config, HELD_OUT, progress=events.append, **folders)
    assert events == []
    same(again, whole)
    assert again.checkpoint_path == tmp_path / "two" / CHECKPOINT
    # and its checkpoint is as good as the first
    more = replace(config, epochs=5)
    longer = [train(raw, more, HELD_OUT, resume_from=m.checkpoint_path) for m in (whole, again)]
    same(longer[1], train(raw, more, HELD_OUT))
    same(longer[0], longer[1])


def test_a_run_that_its_held_out_frames_ended_is_over(tmp_path):
    raw = make_scan(1, noise=True, total=2e3)
    config = config_of(epochs=60, early_stopping_patience=3)
    held_out = np.arange(3, raw.n_frames, 5)
    whole = train(raw, config, held_out, output_dir=tmp_path)
    assert len(whole.history["train_loss"]) < 60
    events = []
    again = train(raw, config, held_out, progress=events.append, resume_from=whole.checkpoint_path)
    assert events == []
    same(again, whole)


@pytest.mark.spec("BE-15")
def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    raw = make_scan(2, bad=True)
    base = config_of(epochs=2)
    engine, checkpoint = load_backend("ptychi"), tmp_path / CHECKPOINT
    train(raw, base, HELD_OUT, output_dir=tmp_path)
    further = replace(CPU, resume_from=checkpoint)
    for changes, name in [
        ({"options": config_of("rpie").options}, "options"),
        ({"options": config_of("lsqml", {"object_step": 0.5}).options}, "options"),
        ({"loss": "poisson"}, "loss"),
        ({"seed": 8}, "seed"),
        ({"probe_trainable": True}, "probe_trainable"),
    ]:
        with pytest.raises(ArchiveError, match=f"made with {name} = .*, now it is"):
            engine.train([container(raw, HELD_OUT)], replace(base, **changes), further)
    for scan in (
        container(raw),
        container(raw, [3, 15]),
        container(raw, HELD_OUT, sick=[20]),
        container(raw.subset(range(30)), HELD_OUT),
        container(replace(raw, positions_px=raw.positions_px + 0.01), HELD_OUT),
        container(raw, HELD_OUT).with_probe(raw.probe * 1.01),
    ):
        with pytest.raises(ArchiveError, match=r"made with scans = .* resume with the scan"):
            engine.train([scan], base, further)
    with pytest.raises(ArchiveError, match="it has done 2 steps, more than the 1 that are asked for"):
        engine.train([container(raw, HELD_OUT)], replace(base, epochs=1), further)
    (tmp_path / "other").write_bytes(b"nothing")
    engine.save(train(raw, base), tmp_path / "model.ptycho")
    for name in ("other", "model.ptycho", "missing"):
        with pytest.raises(ArchiveError, match=name):
            engine.train([container(raw, HELD_OUT)], base, replace(CPU, resume_from=tmp_path / name))


def test_what_decides_nothing_may_change(tmp_path):
    """More epochs, settings of refining, and defaults that are written out."""
    raw = make_scan(1, step=4.5)
    train(raw, replace(CONFIG, options=(), epochs=1), output_dir=tmp_path)
    changed = config_of(epochs=2, refinement=RefinementConfig(epochs=7))
    same(train(raw, changed, resume_from=tmp_path / CHECKPOINT), train(raw, config_of(epochs=2)))


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("lsqml", {"batching": "compact", "momentum": 0.5, "batch_frames": 12}),
        ("rpie", {"momentum": 0.2}),
        ("dm", {}),
        ("autodiff", {}),
    ],
)
def test_a_checkpoint_without_a_part_of_its_state_is_refused(algorithm, options, tmp_path):
    raw, config = make_scan(1, step=4.5), config_of(algorithm, options, epochs=1, probe_trainable=True)
    train(raw, config, output_dir=tmp_path)
    state, facts = read_checkpoint(tmp_path / CHECKPOINT, "ptychi")
    part = tmp_path / "part"
    further = replace(config, epochs=2)
    assert {"object", "probe", "preconditioner"} < set(state)
    for name in state:
        rest = {other: values for other, values in state.items() if other != name}
        write_checkpoint(part, "ptychi", rest, facts)
        with pytest.raises(ArchiveError, match=f"lacks '{name}', which algorithm '{algorithm}' goes on with"):
            train(raw, further, resume_from=part)
    write_checkpoint(part, "ptychi", state | {"probe": state["probe"][:, :, :1]}, facts)
    with pytest.raises(ArchiveError, match=r"does not fit this algorithm: probe is \(1, 1, 1, 16, 2\), it must be"):
        train(raw, further, resume_from=part)
    for history in ({}, {"train_loss": []}, {"train_loss": [0.1], "test_loss": [0.2]}):
        write_checkpoint(part, "ptychi", state, facts | {"history": history})
        with pytest.raises(ArchiveError, match="its history must hold as many losses of train_loss"):
            train(raw, further, resume_from=part)


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = []
    monkeypatch.setattr(backend, "leave_checkpoint", lambda *args: written.append(args))
    model = train(make_scan(1, step=4.5), config_of())
    assert model.checkpoint_path is None
    assert written == []
    assert list(tmp_path.iterdir()) == []
