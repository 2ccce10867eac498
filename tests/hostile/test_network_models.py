"""Trained networks and their checkpoints from strangers, read by an engine with a framework; and extreme models."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil

import numpy as np
import pytest
from forged_bundles import forge, unpack
from refusals import refused

from ptycho_core.cli.main import main
from ptycho_core.enginekit.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.hostile

RECONSTRUCT = ["reconstruct", "--model", "model.ptycho", "scan.npz", "--out", "new"]
NETWORK = [
    "train", "scan.npz", "--method", "network", "--model.width", "4", "--model.depth", "1", "--model.sweeps", "1",
    "--group_size", "2", "--n_groups", "24", "--accelerator", "cpu",
]  # fmt: skip
ENGINES = [
    pytest.param(name, marks=mark)
    for name, mark in (("pytorch", pytest.mark.torch), ("tensorflow", pytest.mark.tensorflow))
]


def _ended(argv):
    """Exit code of a command, of which nothing is a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    assert code in (0, 2), err.getvalue()[-2000:]
    assert "Traceback" not in out.getvalue() + err.getvalue()
    return code


def _set(*path, value):
    def change(manifest):
        for name in path[:-1]:
            manifest = manifest[name]
        manifest[path[-1]] = value

    return change


EXTREME = {
    "a scale next to nothing": _set("statistics", "scale", value=1e-300),
    "a scale of almost all": _set("statistics", "scale", value=1e308),
    "another scale": _set("scale", value=1e-320),
    "another scale of almost all": _set("scale", value=1.7e308),
    "counts of almost all": _set("statistics", "mean_counts", value=1.7e308),
    "frames below 0": _set("statistics", "n_frames", value=-5),
    "a history that acts": _set("history", value={"\x1b]0;owned\x07\u202e": [1.0]}),
    "a history without names": _set("history", value={"": [1.0], "a/b/../../c": [2.0]}),
    "a history of nothing": _set("history", value={"train_loss": []}),
    "a long name": _set("history", value={"x" * 50_000: [1.0]}),
    "provenance that acts": _set("provenance", value={"\x1b[2J": ["\u202e", {"a": "\x07"}]}),
    "a seed": _set("config", "seed", value=2**63 - 1),
    "epochs": _set("config", "epochs", value=2**63 - 1),
}


@pytest.mark.parametrize("case", EXTREME)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_sound_model_of_extremes_is_used_or_refused(sound, case):
    forge(sound / "model.ptycho", EXTREME[case])
    _ended(RECONSTRUCT)
    assert not (sound.parent / "c").exists()


@pytest.mark.parametrize("size", [1e38, 1e-38])
@pytest.mark.parametrize("member", ["weights", "probe"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_sound_numbers_of_extremes_are_used_or_refused(sound, member, size):
    from safetensors.numpy import load, save

    arrays = load(unpack(sound / "model.ptycho")[f"{member}.safetensors"])
    changed = {n: np.full_like(a, size) if a.dtype == np.float32 else a for n, a in arrays.items()}
    forge(sound / "model.ptycho", **{member: save(changed)})
    _ended(RECONSTRUCT)
    _ended(["run", "scan.npz", "--out", "other", "--probe", "model.ptycho", "--refine", "none", "--epochs", "1"])


@pytest.fixture(scope="session")
def trained(sound_files, tmp_path_factory):
    """Engine → a folder with a trained network's ``model.ptycho`` and ``last.ckpt``; made when it is asked for."""
    made = {}

    def of(engine):
        if engine not in made:
            folder = tmp_path_factory.mktemp(engine)
            quiet = io.StringIO()
            with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), contextlib.chdir(sound_files):
                code = main([*NETWORK, "--backend", engine, "--epochs", "2", "--out", str(folder / "out")])
            assert code == 0
            shutil.copy(next((folder / "out").rglob("model.ptycho")), folder / "model.ptycho")
            shutil.copy(next((folder / "out").rglob("last.ckpt")), folder / "last.ckpt")
            made[engine] = folder
        return made[engine]

    return of


@pytest.mark.parametrize("sizes", [["--model.width", "512", "--model.depth", "4"], ["--group_size", str(2**62)]])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_of_gigabytes_is_not_begun(sound, engine, sizes):
    generator = ["--model.generator", "cnn"] if "--group_size" in sizes else []
    argv = ["train", "scan.npz", "--method", "network", "--backend", engine, "--out", "new", *generator, *sizes]
    refused(argv, sound, "weights|group|supports N", notes=True)


NETWORKS = {
    "a width without end": _set("config", "model", "width", value=10**12),
    "the widest": _set("config", "model", "width", value=512),
    "the deepest": _set("config", "model", "depth", value=5),
    "a depth of text": _set("config", "model", "depth", value="3"),
    "another generator": _set("generator", value="unrolled"),
    "another generator and its config": lambda manifest: (
        manifest.update(generator="unrolled"),
        manifest["config"]["model"].update(generator="unrolled"),
    ),
    "a generator of nobody": lambda manifest: (
        manifest.update(generator="nobody"),
        manifest["config"]["model"].update(generator="nobody"),
    ),
    "a solver": _set("generator", value=None),
    "no model": _set("config", "model", value=None),
    "groups without end": _set("config", "group_size", value=2**62),
    "passes": _set("config", "inference", "passes", value=3),
}


@pytest.mark.parametrize("case", NETWORKS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_that_is_none_is_refused(sound, trained, engine, case):
    shutil.copy(trained(engine) / "model.ptycho", sound / "model.ptycho")
    forge(sound / "model.ptycho", NETWORKS[case])
    if case == "groups without end":  # how large its groups were in training is nothing to a net that takes any
        _ended(RECONSTRUCT)
    else:
        refused(RECONSTRUCT, sound, "model.ptycho")


def _first(arrays, kind):
    return next(name for name in sorted(arrays) if name.startswith(kind))


def _drop(kind):
    return lambda arrays, facts: arrays.pop(_first(arrays, kind))


def _reshape(kind):
    def change(arrays, facts):
        arrays[_first(arrays, kind)] = np.ones((3, 1, 7), np.float32)

    return change


CHECKPOINTS = {
    "no parameter": _drop("parameter."),
    "another parameter": _reshape("parameter."),
    "no best": _drop("best."),
    "another best": _reshape("best."),
    "another optimizer": _reshape("optimizer."),
    "a kind of nobody": lambda arrays, facts: arrays.update({"parameter.nobody": np.ones(3, np.float32)}),
    "no state": lambda arrays, facts: facts.pop("state"),
    "a state of a list": lambda arrays, facts: facts.update(state=[1]),
    "a state of more": lambda arrays, facts: facts["state"].update(nothing=1),
    "steps of text": lambda arrays, facts: facts["state"].update(steps="x"),
    "steps below": lambda arrays, facts: facts["state"].update(steps=-1),
    "steps beyond": lambda arrays, facts: facts["state"].update(steps=10**30),
    "epochs of truth": lambda arrays, facts: facts["state"].update(epoch=True),
    "epochs of another history": lambda arrays, facts: facts["state"].update(epoch=1),
    "a batch of a fraction": lambda arrays, facts: facts["state"].update(batch=0.5),
    "a best of nothing": lambda arrays, facts: facts["state"].update(best=None),
    "a sum of text": lambda arrays, facts: facts["state"].update(loss_sum="x"),
    "a history of a list": lambda arrays, facts: facts["state"].update(history=[1]),
    "a history of text": lambda arrays, facts: facts["state"]["history"].update(train_loss="xy"),
    "a history of nothing": lambda arrays, facts: facts["state"].update(history={}),
    "a history of other lengths": lambda arrays, facts: facts["state"]["history"]["train_loss"].append(1.0),
    "a history of no numbers": lambda arrays, facts: facts["state"]["history"].update(train_loss=[None, None]),
    "another run": lambda arrays, facts: facts["run"].update(seed=77),
    "no run": lambda arrays, facts: facts.pop("run"),
    "a run of a list": lambda arrays, facts: facts.update(run=[1]),
}


@pytest.mark.spec("BUNDLE-12")
@pytest.mark.parametrize("case", CHECKPOINTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_no_checkpoint_of_this_training_is_refused(sound, trained, engine, case):
    arrays, facts = read_checkpoint(trained(engine) / "last.ckpt", engine)
    arrays, facts = dict(arrays), json.loads(json.dumps(facts))
    CHECKPOINTS[case](arrays, facts)
    write_checkpoint(sound / "given.ckpt", engine, arrays, facts)
    argv = [*NETWORK, "--backend", engine, "--epochs", "3", "--out", "new", "--resume_from", "given.ckpt"]
    refused(argv, sound, "given.ckpt")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_sound_checkpoint_is_gone_on_from(sound, trained, engine):
    shutil.copy(trained(engine) / "last.ckpt", sound / "given.ckpt")
    argv = [*NETWORK, "--backend", engine, "--epochs", "3", "--out", "new", "--resume_from", "given.ckpt"]
    assert _ended(argv) == 0
    _, facts = read_checkpoint(next((sound / "new").rglob("last.ckpt")), engine)
    assert len(facts["state"]["history"]["train_loss"]) == 3
    assert all(math.isfinite(loss) for loss in facts["state"]["history"]["train_loss"])
