"""Every config field is honoured or refused, for any engine."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from ptycho_core.config import InferenceConfig, ModelConfig, RefinementConfig, TrainingConfig
from ptycho_core.data.raw import RawData
from ptycho_core.errors import BackendProtocolError, ConfigError
from ptycho_core.plugins.capabilities import (
    check_capabilities,
    check_inference_capabilities,
    check_scan_capabilities,
)
from ptycho_core.protocol import Capabilities

NETWORK = Capabilities(
    generators=("probe_unet", "cnn"),
    losses=("amplitude",),
    schedules=("one_cycle",),
    max_modes=2,
    max_devices=1,
)


@pytest.mark.spec("BE-2")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model": ModelConfig(generator="probe_unit")},
            "model.generator = 'probe_unit'.*probe_unet, cnn.*Did you mean",
        ),
        ({"loss": "poisson"}, "loss = 'poisson' is not supported; allowed: amplitude"),
        ({"schedule": "cosine"}, "schedule = 'cosine'.*allowed: one_cycle"),
        ({"precision": "bf16"}, "precision = 'bf16'.*allowed: auto, 32"),
        ({"accelerator": "cuda"}, "accelerator = 'cuda'.*allowed: auto, cpu"),
        ({"inference": InferenceConfig(accelerator="mps")}, "inference.accelerator = 'mps'"),
        ({"inference": InferenceConfig(precision="bf16")}, "inference.precision = 'bf16'"),
        ({"loggers": ("mlflow",)}, "loggers = 'mlflow'.*allowed: none"),
        ({"probe_trainable": True}, "probe_trainable = True.*allowed: False"),
        ({"scale_trainable": True}, "scale_trainable = True.*allowed: False"),
        ({"resume_from": Path("a.ckpt")}, "resume_from = 'a.ckpt'.*cannot resume"),
        ({"probe_modes": 3}, "probe_modes = 3.*at most 2"),
        ({"devices": 2}, "devices = 2.*at most 1"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_and_named(changes, words):
    check_capabilities(TrainingConfig(), NETWORK, "eng")
    with pytest.raises(ConfigError, match=f"^engine 'eng': {words}"):
        check_capabilities(replace(TrainingConfig(), **changes), NETWORK, "eng")


def test_what_an_engine_can_do_is_accepted():
    able = Capabilities(
        generators=("cnn",), losses=("poisson",), schedules=("cosine",), precisions=("bf16",), accelerators=("cuda",),
        loggers=("mlflow",), probe_trainable=True, scale_trainable=True, resume=True, max_modes=None, max_devices=None,
    )  # fmt: skip
    config = TrainingConfig(
        model=ModelConfig(generator="cnn"), loss="poisson", schedule="cosine", precision="bf16", accelerator="cuda",
        loggers=("mlflow",), probe_trainable=True, scale_trainable=True, resume_from=Path("x"), probe_modes=40,
        devices=8, inference=InferenceConfig(precision="bf16", accelerator="cuda"),
    )  # fmt: skip
    check_capabilities(config, able, "eng")
    check_capabilities(replace(TrainingConfig(), probe_modes=2), NETWORK, "eng")


def other_value(field, default):
    """A legal value that is not the default."""
    choices = {
        "loss": "poisson", "schedule": "cosine", "precision": "32", "accelerator": "cuda", "strategy": "ddp",
        "test_split": "region", "loggers": ("mlflow",), "output_dir": Path("o"), "resume_from": Path("r"),
        "backend": "b", "neighbor_pool_size": 99, "weight_average": 0.5, "test_fraction": 0.5, "generator": "cnn",
    }  # fmt: skip
    if field in choices:
        return choices[field]
    return (not default) if isinstance(default, bool) else (default or 0) + 1


FIELDS = [f.name for f in fields(TrainingConfig) if f.name not in {"model", "inference", "refinement", "options"}]
FIELDS += [f"model.{f.name}" for f in fields(ModelConfig)] + [f"inference.{f.name}" for f in fields(InferenceConfig)]

FIELDS.remove("seed")


@pytest.mark.spec("BE-2")
def test_an_engine_that_draws_nothing_takes_any_seed():
    """Core draws groups and held-out frames by it, so it has an effect whatever the engine says."""
    check_capabilities(TrainingConfig(seed=7), replace(NETWORK, ignored_fields=("seed",)), "eng")


@pytest.mark.spec("BE-2")
@pytest.mark.parametrize("field", FIELDS)
def test_an_ignored_field_keeps_its_default_or_is_refused(field):
    engine = replace(NETWORK, ignored_fields=(field,))
    check_capabilities(TrainingConfig(), engine, "eng")
    group, _, name = field.rpartition(".")
    generator = "unrolled" if name == "passes" else "probe_unet"  # only one has passes
    base = TrainingConfig(model=ModelConfig(generator=generator))
    able = replace(engine, generators=(generator,))
    part = getattr(base, group) if group else base
    changed = replace(part, **{name: other_value(name, getattr(part, name))})
    config = replace(base, **{group: changed}) if group else changed
    with pytest.raises(ConfigError, match=rf"'eng': {field} = .* has no effect in this engine; allowed: leave it"):
        check_capabilities(config, able, "eng")


def test_an_ignored_word_needs_not_be_one_of_the_engines_words():
    solver = Capabilities(losses=("amplitude",), schedules=(), ignored_fields=("schedule",))
    check_capabilities(TrainingConfig(), solver, "eng")
    with pytest.raises(ConfigError, match=r"schedule = 'cosine' has no effect"):
        check_capabilities(TrainingConfig(schedule="cosine"), solver, "eng")


def test_a_solver_takes_no_network_settings():
    solver = Capabilities(losses=("amplitude",), schedules=("one_cycle",))
    check_capabilities(TrainingConfig(), solver, "eng")
    with pytest.raises(ConfigError, match=r"model.width = 3 has no effect"):
        check_capabilities(TrainingConfig(model=ModelConfig(width=3)), solver, "eng")


def test_an_ignored_field_that_does_not_exist_is_the_engines_fault():
    with pytest.raises(BackendProtocolError, match=r"'epoch', which is no config field. Did you mean 'epochs'"):
        check_capabilities(TrainingConfig(), replace(NETWORK, ignored_fields=("epoch",)), "eng")


def test_inference_config_alone():
    check_inference_capabilities(InferenceConfig(batch_size=3), NETWORK, "eng")
    with pytest.raises(ConfigError, match=r"'eng': inference.passes = 3 is not supported; allowed: None"):
        check_inference_capabilities(InferenceConfig(passes=3), NETWORK, "eng")
    # whether the model is one that passes, the engine says
    check_inference_capabilities(InferenceConfig(passes=3), replace(NETWORK, generators=("cnn", "unrolled")), "eng")
    with pytest.raises(ConfigError, match=r"'eng': inference.precision = 'bf16'"):
        check_inference_capabilities(InferenceConfig(precision="bf16"), NETWORK, "eng")
    engine = replace(NETWORK, ignored_fields=("inference.batch_size", "epochs"))
    with pytest.raises(ConfigError, match=r"inference\.batch_size = 3 has no effect.*default 64"):
        check_inference_capabilities(InferenceConfig(batch_size=3), engine, "eng")


@pytest.mark.spec("BE-3")
def test_a_scan_with_more_in_it_than_the_engine_models_is_refused():
    counts = np.ones((3, 16, 16))
    positions = [[0, 0], [1.5, 2], [3, 7]]
    mask = np.ones((16, 16), bool)
    plain = RawData.from_arrays(counts, positions, np.ones((16, 16)), mask=mask, background=np.zeros((16, 16)))
    check_scan_capabilities(plain, NETWORK, "eng")
    mask[3, 5] = False
    masked = RawData.from_arrays(counts, positions, np.ones((16, 16)), mask=mask)
    with pytest.raises(ConfigError, match=r"'eng' cannot leave bad pixels out.*1 of them"):
        check_scan_capabilities(masked, NETWORK, "eng")
    check_scan_capabilities(masked, replace(NETWORK, mask=True), "eng")
    lit = RawData.from_arrays(counts, positions, np.ones((16, 16)), background=np.ones((16, 16)))
    with pytest.raises(ConfigError, match=r"'eng' has no background"):
        check_scan_capabilities(lit, NETWORK, "eng")
    check_scan_capabilities(lit, replace(NETWORK, background=True), "eng")
    modes = plain.with_probe(np.ones((3, 16, 16)))
    with pytest.raises(ConfigError, match=r"at most 2 probe modes, and the probe of scan has 3; set probe_modes = 2"):
        check_scan_capabilities(modes, NETWORK, "eng")
    check_scan_capabilities(modes, replace(NETWORK, max_modes=None), "eng")


def test_a_loss_to_refine_with_is_one_that_the_engine_has():
    solver = replace(NETWORK, losses=("amplitude",), refine=True)
    for loss in (None, "amplitude"):
        check_capabilities(TrainingConfig(loss="amplitude", refinement=RefinementConfig(loss=loss)), solver, "eng")
    asked = TrainingConfig(loss="amplitude", refinement=RefinementConfig(loss="poisson"))
    with pytest.raises(ConfigError, match=r"'eng': refinement.loss = 'poisson' is not supported; allowed: amplitude"):
        check_capabilities(asked, solver, "eng")
