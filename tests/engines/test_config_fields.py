"""Every field of every config has an effect in each engine or is refused: one row each, and no field without a row."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from engine_scans import CONFIG, config_for, exact, make_scan, vary, weights_of

import ptycho_core
from ptycho_core.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho_core.enginekit.architectures import GENERATORS
from ptycho_core.errors import ConfigError, UnknownBackendError
from ptycho_core.runtime import Runtime

RUNTIME = {f.name for f in dataclasses.fields(Runtime)}


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=5)


@pytest.fixture(scope="module")
def large_scan():
    """Frames that the ``cnn`` takes."""
    return make_scan(64, 2, 2)


def train_by_facade(engine, scan, config):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no test data.*")
        return ptycho_core.train_cdi_model(scan, None, *config_for(engine, config))["model"]


@pytest.fixture(scope="module")
def learnt(engine):
    """Everything that a training by the facade decides; each training is made once."""
    done = {}

    def get(scan, config):
        key = (id(scan), config)
        if key not in done:
            model = train_by_facade(engine, scan, config)
            figures = {name: np.array(values) for name, values in model.history.items()}
            done[key] = {**weights_of(model), **figures}
        return done[key]

    return get


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


TRAINING = {
    "model.generator": {"model": {"generator": "cnn", "width": 2}},
    "model.width": {"model": {"width": 3}},
    "model.depth": {"model": {"depth": 2}},
    "model.sweeps": {"model": {"sweeps": 1}},
    "model.passes": {"model": {"generator": "unrolled", "passes": 2}},
    "group_size": {"group_size": 3},
    "n_groups": {"n_groups": 5},
    "neighbor_pool_size": {"neighbor_pool_size": 9},
    "n_subsample": {"n_subsample": 11},
    "test_fraction": {"test_fraction": 0.3},
    "test_split": {"test_split": "region"},
    "loss": {"loss": "poisson"},
    "epochs": {"epochs": 1},
    "batch_size": {"batch_size": 2},
    "learning_rate": {"learning_rate": 2e-3},
    "schedule": {"schedule": "cosine"},
    "weight_decay": {"weight_decay": 0.1},
    "gradient_clip_norm": {"gradient_clip_norm": 1e-9},
    "weight_average": {"weight_average": 0.5},
    "early_stopping_patience": {"early_stopping_patience": 1, "learning_rate": 0.5, "epochs": 12},
    "probe_modes": {"probe_modes": 2, "probe_trainable": True},
    "probe_trainable": {"probe_trainable": True},
    "probe_learning_rate": {"probe_learning_rate": 0.1, "probe_trainable": True},
    "scale_trainable": {"scale_trainable": True},
    "scale_learning_rate": {"scale_learning_rate": 0.1, "scale_trainable": True},
    "precision": {"precision": "bf16"},
    "seed": {"seed": 2},
}
"""Field → changes, of which only the field differs from the base where others are named too."""

ELSEWHERE = {
    "backend", "nphotons", "collapse_threshold", "accelerator", "devices", "threads", "method", "algorithm",
    "num_workers", "frames_at_once", "options", "output_dir", "resume_from", "loggers", "inference.central_crop_px",
    "inference.passes",
}  # fmt: skip
"""Fields that change something else than what is learnt: a test below for each, but options in test_cli_refine, those
of a solver and of refinement in the tests of solving and refining, inference.passes in test_unrolled,
collapse_threshold in test_health, devices in test_devices, and num_workers in test_data."""

OF_ONE_ENGINE = {"pytorch": {"strategy"}, "tensorflow": set()}
"""The same, for fields that only one engine follows; its own tests have them."""

REFUSED = {"pytorch": {}, "tensorflow": {"strategy": "mirrored"}}
"""Fields without effect in an engine, and a value to ask for."""

ACCELERATORS = {"pytorch": ("auto", "cpu", "cuda", "mps"), "tensorflow": ("auto", "cpu", "cuda")}


def test_every_field_has_its_row(engine):
    fields = {f.name for f in dataclasses.fields(TrainingConfig)} - {"model", "inference", "refinement"}
    fields |= {f.name for f in dataclasses.fields(Runtime)} | {"model.generator"}
    fields |= {f"model.{f.name}" for record in GENERATORS for f in dataclasses.fields(record.sizes)}
    fields |= {f"inference.{f.name}" for f in dataclasses.fields(InferenceConfig)}
    rows = [*TRAINING, *ELSEWHERE, *OF_ONE_ENGINE[engine.name], *REFUSED[engine.name]]
    assert sorted(rows) == sorted(fields)
    assert set(engine.capabilities.ignored_fields) == {f"runtime.{name}" for name in REFUSED[engine.name]}


@pytest.mark.spec("BE-2")
@pytest.mark.parametrize("field", TRAINING)
def test_what_is_learnt_depends_on(field, engine, scan, large_scan, learnt):
    raw = large_scan if field == "model.generator" else scan
    changed = vary(**TRAINING[field])
    owner, _, name = field.rpartition(".")
    if owner:
        plain = {
            "generator": changed.network.generator,
            **ModelConfig(generator=changed.network.generator).sizes.plain(),
        }
        back = {"model": {name: CONFIG.network.sizes.plain().get(name, plain[name])}}
    else:
        back = {name: getattr(CONFIG.runtime if name in RUNTIME else CONFIG.config, name)}
    if field == "model.generator":  # the width was lowered for the sake of speed
        back["model"] = {"generator": CONFIG.network.generator, **CONFIG.network.sizes.plain()}
    assert not same(learnt(raw, changed), learnt(raw, vary(changed, **back)))


def test_the_same_config_gives_the_same_model(engine, scan, learnt):
    """Else the test above would show nothing."""
    model = train_by_facade(engine, scan, CONFIG)
    figures = {name: np.array(values) for name, values in model.history.items()}
    assert same({**weights_of(model), **figures}, learnt(scan, CONFIG))


@pytest.mark.spec("BE-2")
def test_a_field_without_effect_is_refused_before_data_are_read(engine, tmp_path):
    for field, value in REFUSED[engine.name].items():
        config = config_for(engine, **{field: value})
        with pytest.raises(ConfigError, match=rf"engine '{engine.name}': runtime.{field} = '{value}' has no effect"):
            ptycho_core.train_cdi_model(tmp_path / "missing.npz", None, *config)


def test_backend(engine, scan):
    wrong = engine.name[:-2] + engine.name[-1] + engine.name[-2]
    with pytest.raises(UnknownBackendError, match=rf"{wrong}.*Did you mean '{engine.name}'"):
        ptycho_core.train_cdi_model(scan, None, *vary(backend=wrong))


def test_nphotons(engine, scan):
    config = config_for(engine, nphotons=5.0, epochs=1)
    with pytest.warns(UserWarning, match="no test data"), pytest.warns(UserWarning, match=r"nphotons = 5, but"):
        ptycho_core.train_cdi_model(scan, None, *config)


def test_an_accelerator_that_the_engine_does_not_know(engine, tmp_path):
    known = ACCELERATORS[engine.name]
    assert engine.capabilities.accelerators == known
    for wrong in sorted({"tpu", "mps"} - set(known)):
        config = config_for(engine, accelerator=wrong)
        with pytest.raises(
            ConfigError, match=rf"accelerator = '{wrong}' is not supported; allowed: {', '.join(known)}"
        ):
            ptycho_core.train_cdi_model(tmp_path / "missing.npz", None, *config)


def test_output_folder_and_resuming(engine, scan, tmp_path):
    first = train_by_facade(engine, scan, vary(output_dir=tmp_path, epochs=1))
    assert (tmp_path / "history.csv").exists()
    more = train_by_facade(engine, scan, vary(resume_from=first.checkpoint_path))
    assert more.history["train_loss"][0] == first.history["train_loss"][0]
    assert len(more.history["train_loss"]) == 2


def test_loggers(engine, scan, tmp_path):
    pytest.importorskip("tensorboard")
    train_by_facade(engine, scan, vary(output_dir=tmp_path, epochs=1, loggers=("tensorboard",)))
    assert list((tmp_path / "tensorboard").glob("events.*"))
    assert not list(tmp_path.glob("mlflow*"))


def test_inference_fields(engine, scan):
    model = train_by_facade(engine, scan, vary(epochs=1))
    images = {
        name: ptycho_core.reconstruct(model, scan, *exact(**changes)).image.object
        for name, changes in {
            "plain": {}, "precision": {"precision": "bf16"}, "central_crop_px": {"central_crop_px": 8},
        }.items()
    }  # fmt: skip
    assert not np.array_equal(images["plain"], images["precision"])
    assert not np.array_equal(images["plain"], images["central_crop_px"])
    steps = []
    for batch_size in (4, 64):
        events = []
        ptycho_core.reconstruct(model, scan, *exact(frames_at_once=batch_size), progress=events.append)
        steps.append(len(events))
    assert steps[0] > steps[1]
