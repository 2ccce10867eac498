"""Every field of every config has an effect in this engine: one row each, and no field without a row."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
from torch_scans import CONFIG, EXACT, make_scan, train, vary, weights_of

from ptycho_backend_torch.backend import TorchBackend
from ptycho_backend_torch.relay import strategy_of
from ptycho_core import api
from ptycho_core.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho_core.errors import ConfigError, UnknownBackendError
from ptycho_core.plugins.capabilities import check_capabilities

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=5)


def trained(scan, config):
    """Everything that a training decides, by the facade."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no test data.*")
        model = api.train_cdi_model(scan, None, config)["model"]
    return {**weights_of(model), **{name: np.array(values) for name, values in model.history.items()}}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


TRAINING = {
    "model.generator": ({"model": {"generator": "cnn", "width": 2}}, 64),
    "model.width": ({"model": {"width": 3}}, 16),
    "model.depth": ({"model": {"depth": 1}}, 16),
    "model.sweeps": ({"model": {"sweeps": 1}}, 16),
    "group_size": ({"group_size": 3}, 16),
    "n_groups": ({"n_groups": 5}, 16),
    "neighbor_pool_size": ({"neighbor_pool_size": 9}, 16),
    "n_subsample": ({"n_subsample": 11}, 16),
    "loss": ({"loss": "poisson"}, 16),
    "epochs": ({"epochs": 1}, 16),
    "batch_size": ({"batch_size": 3}, 16),
    "learning_rate": ({"learning_rate": 2e-3}, 16),
    "schedule": ({"schedule": "cosine"}, 16),
    "weight_decay": ({"weight_decay": 0.1}, 16),
    "gradient_clip_norm": ({"gradient_clip_norm": 1e-9}, 16),
    "weight_average": ({"weight_average": 0.5}, 16),
    "early_stopping_patience": ({"early_stopping_patience": 1, "learning_rate": 0.5, "epochs": 30}, 16),
    "probe_modes": ({"probe_modes": 2, "probe_trainable": True}, 16),
    "probe_trainable": ({"probe_trainable": True}, 16),
    "probe_learning_rate": ({"probe_learning_rate": 0.1, "probe_trainable": True}, 16),
    "scale_trainable": ({"scale_trainable": True}, 16),
    "scale_learning_rate": ({"scale_learning_rate": 0.1, "scale_trainable": True}, 16),
    "precision": ({"precision": "bf16"}, 16),
    "seed": ({"seed": 2}, 16),
}
"""Field → changes, of which only the field differs from the base where others are named too, and the frames' side."""

ELSEWHERE = {
    "backend", "test_fraction", "test_split", "nphotons", "collapse_threshold", "accelerator", "devices", "strategy",
    "num_workers", "output_dir", "resume_from", "loggers", "inference.batch_size", "inference.accelerator",
    "inference.precision", "inference.central_crop_px",
}  # fmt: skip
"""Fields that change something else than what is learnt; a test below for each."""


def test_every_field_has_its_row():
    fields = {f.name for f in dataclasses.fields(TrainingConfig)} - {"model", "inference"}
    fields |= {f"model.{f.name}" for f in dataclasses.fields(ModelConfig)}
    fields |= {f"inference.{f.name}" for f in dataclasses.fields(InferenceConfig)}
    assert set(TRAINING) | ELSEWHERE == fields
    assert not set(TRAINING) & ELSEWHERE
    assert TorchBackend.capabilities.ignored_fields == ()


@pytest.mark.spec("BE-2")
@pytest.mark.parametrize("field", TRAINING)
def test_what_is_learnt_depends_on(field, scan):
    changes, N = TRAINING[field]
    raw = scan if N == 16 else make_scan(N, 2, 2)
    changed = vary(**dict(changes))
    check_capabilities(changed, TorchBackend.capabilities, "pytorch")
    owner, _, name = field.rpartition(".")
    default = getattr(CONFIG.model if owner else CONFIG, name)
    back = {"model": {name: default}} if owner else {name: default}
    if field == "model.generator":  # the width was lowered for the sake of speed
        back["model"]["width"] = 4
    assert same(trained(raw, vary(changed)), trained(raw, vary(changed)))
    assert not same(trained(raw, changed), trained(raw, vary(changed, **back)))


def test_backend(scan):
    with pytest.raises(UnknownBackendError, match=r"pytorhc.*Did you mean 'pytorch'"):
        api.train_cdi_model(scan, None, vary(backend="pytorhc"))


def test_split_fields(scan):
    parts = {
        (fraction, how): scan.split(fraction, 0, how)[1].frame_numbers.tolist()
        for fraction in (0.2, 0.4)
        for how in ("random", "region")
    }
    assert len({tuple(part) for part in parts.values()}) == 4


def test_nphotons(scan):
    with pytest.warns(UserWarning, match="no test data"), pytest.warns(UserWarning, match=r"nphotons = 5, but"):
        api.train_cdi_model(scan, None, vary(nphotons=5.0, epochs=1))


def test_collapse_threshold_is_tested_with_training():
    from test_torch_training import test_a_constant_object_stops_training

    assert test_a_constant_object_stops_training.__name__  # kept together with the rest of what stops a training


@pytest.mark.parametrize("name", ["accelerator", "inference"])
def test_accelerator(scan, name):
    wrong = {"accelerator": "tpu"} if name == "accelerator" else {"inference": {"accelerator": "tpu"}}
    with pytest.raises(ConfigError, match=r"accelerator = 'tpu' is not supported; allowed: auto, cpu, cuda, mps"):
        api.train_cdi_model(scan, None, vary(**wrong))


def test_strategy_and_devices(scan):
    assert strategy_of("ddp_fork", 2) != strategy_of("auto", 2) != strategy_of("auto", 1)
    with pytest.raises(ConfigError, match=r"Lightning refuses .*strategy = 'rings'"):
        train(scan, vary(strategy="rings"))


def test_num_workers(scan):
    from ptycho_backend_torch.data import GroupDataModule

    assert [GroupDataModule(scan, None, vary(num_workers=n)).train_dataloader().num_workers for n in (0, 1)] == [0, 1]


def test_output_folder_and_resuming(scan, tmp_path):
    first = train(scan, vary(output_dir=tmp_path, epochs=1))
    assert (tmp_path / "history.csv").exists()
    more = train(scan, vary(resume_from=first.checkpoint_path))
    assert more.history["train_loss"][0] == first.history["train_loss"][0]
    assert len(more.history["train_loss"]) == 2


def test_loggers(scan, tmp_path):
    pytest.importorskip("tensorboard")
    train(scan, vary(output_dir=tmp_path, epochs=1, loggers=("tensorboard",)))
    assert list((tmp_path / "tensorboard").glob("events.*"))
    assert not list(Path(tmp_path).glob("mlflow*"))


def test_inference_fields(scan):
    model = train(scan, vary(epochs=1))
    images = {
        name: api.reconstruct(model, scan, dataclasses.replace(EXACT, **changes)).object
        for name, changes in {
            "plain": {}, "precision": {"precision": "bf16"}, "central_crop_px": {"central_crop_px": 8},
        }.items()
    }  # fmt: skip
    assert not np.array_equal(images["plain"], images["precision"])
    assert not np.array_equal(images["plain"], images["central_crop_px"])
    steps = []
    for batch_size in (4, 64):
        events = []
        api.reconstruct(model, scan, dataclasses.replace(EXACT, batch_size=batch_size), progress=events.append)
        steps.append(len(events))
    assert steps[0] > steps[1]
