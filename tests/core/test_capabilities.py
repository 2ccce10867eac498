"""Every config field is honoured or refused, for any engine."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from ptycho_core.config import InferenceConfig, ModelConfig, RefinementConfig, TrainingConfig
from ptycho_core.data.propagation import Propagation
from ptycho_core.data.raw import RawData
from ptycho_core.errors import BackendProtocolError, ConfigError
from ptycho_core.plugins.capabilities import (
    check_capabilities,
    check_inference_capabilities,
    check_runtime_capabilities,
    check_scan_capabilities,
)
from ptycho_core.protocol import OPTIMISER_FIELDS, Capabilities
from ptycho_core.runtime import Runtime

CONFIG = TrainingConfig(method="network")

NETWORK = Capabilities(
    methods=("network",),
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
        ({"probe_trainable": True}, "probe_trainable = True.*allowed: False"),
        ({"scale_trainable": True}, "scale_trainable = True.*allowed: False"),
        ({"probe_modes": 3}, "probe_modes = 3.*at most 2"),
        ({"refinement": RefinementConfig(frame_scale=True)}, "refinement.frame_scale = True.*allowed: False"),
        ({"refinement": RefinementConfig(probe_support=0.5)}, "refinement.probe_support = 0.5.*allowed: None"),
        ({"refinement": RefinementConfig(probe_power="free")}, "refinement.probe_power = 'free'.*allowed: kept"),
        ({"refinement": RefinementConfig(positions=True)}, "refinement.positions = True.*allowed: None"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_and_named(changes, words):
    able = replace(NETWORK, refine=True)
    check_capabilities(CONFIG, able, "eng")
    with pytest.raises(ConfigError, match=f"^engine 'eng': {words}"):
        check_capabilities(replace(CONFIG, **changes), able, "eng")


@pytest.mark.spec("BE-2")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "bf16"}, "precision = 'bf16'.*allowed: auto, 32"),
        ({"accelerator": "cuda"}, "accelerator = 'cuda'.*allowed: auto, cpu"),
        ({"loggers": ("mlflow",)}, "loggers = 'mlflow'.*allowed: none"),
        ({"resume_from": Path("a.ckpt")}, "resume_from = 'a.ckpt'.*cannot resume"),
        ({"devices": 2}, "devices = 2.*at most 1"),
        ({"threads": 2}, "threads = 2.*no effect|threads = 2 is not supported"),
    ],
)
def test_what_an_engine_cannot_work_with_is_refused_and_named(changes, words):
    check_capabilities(CONFIG, NETWORK, "eng", Runtime())
    for ask in (
        lambda: check_capabilities(CONFIG, NETWORK, "eng", Runtime(**changes)),
        lambda: check_runtime_capabilities(Runtime(**changes), NETWORK, "eng"),
        lambda: check_inference_capabilities(InferenceConfig(), NETWORK, "eng", Runtime(**changes)),
    ):
        with pytest.raises(ConfigError, match=f"^engine 'eng': (runtime.)?({words})"):
            ask()


@pytest.mark.spec("BE-2")
def test_a_method_that_an_engine_has_not_is_refused():
    with pytest.raises(ConfigError, match=r"'eng': method = 'solver' is not supported; allowed: network"):
        check_capabilities(TrainingConfig(), NETWORK, "eng")
    with pytest.raises(ConfigError, match=r"'eng': method = 'network' is not supported; allowed: solver"):
        check_capabilities(CONFIG, Capabilities(), "eng")


@pytest.mark.spec("BE-2")
def test_where_an_image_is_solved_by_steps_settings_of_networks_have_no_effect():
    both = Capabilities(
        methods=("solver", "network"), generators=("probe_unet",), losses=("amplitude", "poisson"),
        schedules=("one_cycle", "cosine"), stepping=True, refine_positions=True, scale_trainable=True,
    )  # fmt: skip
    solver = TrainingConfig(batch_size=7, algorithm="lsq", loss="amplitude")
    check_capabilities(solver, both, "eng")
    for changes in ({"learning_rate": 3.0}, {"group_size": 3}, {"scale_trainable": True}, {"schedule": "cosine"}):
        check_capabilities(replace(CONFIG, **changes), both, "eng")
        with pytest.raises(ConfigError, match=rf"'eng': {next(iter(changes))} = .* has no effect"):
            check_capabilities(replace(solver, **changes), both, "eng")
    with pytest.raises(ConfigError, match=r"frames_at_once = 3 has no effect"):
        check_capabilities(solver, both, "eng", Runtime(frames_at_once=3))


@pytest.mark.spec("BE-2")
def test_an_algorithm_of_steps_needs_an_engine_that_steps():
    solver = Capabilities(losses=("poisson",), ignored_fields=OPTIMISER_FIELDS)
    with pytest.raises(ConfigError, match=r"'eng': algorithm = 'lsq' has no effect"):
        check_capabilities(TrainingConfig(algorithm="lsq"), solver, "eng")
    refined = TrainingConfig(algorithm="lsq", refinement=RefinementConfig(engine="numpy"))
    check_capabilities(refined, solver, "eng")


def test_what_an_engine_can_do_is_accepted():
    able = Capabilities(
        methods=("network",), generators=("cnn",), losses=("poisson",), schedules=("cosine",), precisions=("bf16",),
        accelerators=("cuda",),
        loggers=("mlflow",), probe_trainable=True, scale_trainable=True, resume=True, max_modes=None, max_devices=None,
        threads=True,
    )  # fmt: skip
    config = TrainingConfig(
        model=ModelConfig(generator="cnn"), loss="poisson", schedule="cosine", probe_trainable=True,
        scale_trainable=True, probe_modes=40,
    )  # fmt: skip
    runtime = Runtime(
        precision="bf16", accelerator="cuda", loggers=("mlflow",), resume_from=Path("x"), devices=8, threads=3
    )
    check_capabilities(config, able, "eng", runtime)
    check_capabilities(replace(CONFIG, probe_modes=2), NETWORK, "eng")


def other_value(field, default):
    """A legal value that is not the default."""
    choices = {
        "loss": "poisson", "schedule": "cosine", "precision": "32", "accelerator": "cuda", "strategy": "ddp",
        "test_split": "region", "loggers": ("mlflow",), "output_dir": Path("o"), "resume_from": Path("r"),
        "backend": "b", "neighbor_pool_size": 99, "weight_average": 0.5, "test_fraction": 0.5, "algorithm": "lsq",
    }  # fmt: skip
    if field in choices:
        return choices[field]
    return (not default) if isinstance(default, bool) else (default or 0) + 1


FIELDS = [
    f.name
    for f in fields(TrainingConfig)
    if f.name not in {"method", "model", "inference", "refinement", "options", "algorithm"}
]
FIELDS += [f"inference.{f.name}" for f in fields(InferenceConfig)]
FIELDS += [f"runtime.{f.name}" for f in fields(Runtime) if f.name != "threads"]

FIELDS.remove("seed")


@pytest.mark.spec("BE-2")
def test_an_engine_that_draws_nothing_takes_any_seed():
    """Core draws groups and held-out frames by it, so it has an effect whatever the engine says."""
    check_capabilities(replace(CONFIG, seed=7), replace(NETWORK, ignored_fields=("seed",)), "eng")


@pytest.mark.spec("BE-2")
@pytest.mark.parametrize("field", FIELDS)
def test_an_ignored_field_keeps_its_default_or_is_refused(field):
    engine = replace(NETWORK, ignored_fields=(field,))
    check_capabilities(CONFIG, engine, "eng")
    group, _, name = field.rpartition(".")
    generator = "unrolled" if name == "passes" else "probe_unet"  # only one has passes
    base = TrainingConfig(model=ModelConfig(generator=generator))
    able = replace(engine, generators=(generator,))
    part = Runtime() if group == "runtime" else getattr(base, group) if group else base
    changed = replace(part, **{name: other_value(name, getattr(part, name))})
    config, runtime = (base, changed) if group == "runtime" else (base, Runtime())
    if group != "runtime":
        config = replace(base, **{group: changed}) if group else changed
    with pytest.raises(ConfigError, match=rf"'eng': {field} = .* has no effect in this engine; leave it out"):
        check_capabilities(config, able, "eng", runtime)


def test_an_ignored_word_needs_not_be_one_of_the_engines_words():
    solver = Capabilities(losses=("amplitude",), schedules=(), ignored_fields=("schedule",))
    check_capabilities(TrainingConfig(), solver, "eng")
    with pytest.raises(ConfigError, match=r"schedule = 'cosine' has no effect"):
        check_capabilities(TrainingConfig(schedule="cosine"), solver, "eng")


def test_a_solver_takes_no_network_settings():
    solver = Capabilities(methods=("solver", "network"), losses=("amplitude",), schedules=("one_cycle",))
    check_capabilities(TrainingConfig(), solver, "eng")
    with pytest.raises(ConfigError, match=r"'probe_unet' is not supported; allowed architectures: none"):
        check_capabilities(TrainingConfig(model=ModelConfig(width=3)), solver, "eng")


def test_an_ignored_field_that_does_not_exist_is_the_engines_fault():
    with pytest.raises(BackendProtocolError, match=r"'epoch', which is no config field. Did you mean 'epochs'"):
        check_capabilities(CONFIG, replace(NETWORK, ignored_fields=("epoch",)), "eng")


def test_inference_config_alone():
    check_inference_capabilities(InferenceConfig(central_crop_px=3), NETWORK, "eng", Runtime(frames_at_once=3))
    with pytest.raises(ConfigError, match=r"'eng': inference.passes = 3 is not supported; allowed: none"):
        check_inference_capabilities(InferenceConfig(passes=3), NETWORK, "eng")
    # whether the model is one that passes, the engine says
    check_inference_capabilities(InferenceConfig(passes=3), replace(NETWORK, generators=("cnn", "unrolled")), "eng")
    engine = replace(NETWORK, ignored_fields=("runtime.frames_at_once", "epochs", "inference.central_crop_px"))
    with pytest.raises(ConfigError, match=r"runtime\.frames_at_once = 3 has no effect.*default 64"):
        check_inference_capabilities(InferenceConfig(), engine, "eng", Runtime(frames_at_once=3))
    with pytest.raises(ConfigError, match=r"inference\.central_crop_px = 3 has no effect.*default None"):
        check_inference_capabilities(InferenceConfig(central_crop_px=3), engine, "eng")


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
        check_capabilities(replace(CONFIG, refinement=RefinementConfig(loss=loss)), solver, "eng")
    asked = replace(CONFIG, refinement=RefinementConfig(loss="poisson"))
    with pytest.raises(ConfigError, match=r"'eng': refinement.loss = 'poisson' is not supported; allowed: amplitude"):
        check_capabilities(asked, solver, "eng")


def scan_of(side: int = 16, **changes) -> RawData:
    return RawData.from_arrays(np.ones((3, side, side)), [[0, 0], [1.5, 2], [3, 7]], np.ones((side, side)), **changes)


@pytest.mark.spec("BE-3")
def test_frames_of_a_side_that_an_engine_does_not_take_are_refused():
    able = replace(NETWORK, sides=(16, 64, 16))
    check_scan_capabilities(scan_of(16), able, "eng")
    check_scan_capabilities(scan_of(64), able, "eng")
    for side in (10, 24, 80):
        check_scan_capabilities(scan_of(side), NETWORK, "eng")
        words = rf"'eng' takes frames with a side of 16 to 64 that is a multiple of 16, and scan has {side}×{side}"
        with pytest.raises(ConfigError, match=words):
            check_scan_capabilities(scan_of(side), able, "eng")


@pytest.mark.spec("BE-3")
def test_a_propagation_that_an_engine_has_not_is_refused_by_name():
    near = scan_of(32, propagation=Propagation(kind="near_field", fresnel_number=0.1))
    with pytest.raises(ConfigError, match=r"'eng' has far_field propagation, and scan is a near_field scan"):
        check_scan_capabilities(near, NETWORK, "eng")
    check_scan_capabilities(near, replace(NETWORK, propagations=("far_field", "near_field")), "eng")


@pytest.mark.spec("BE-2")
@pytest.mark.parametrize("changes", [{"loggers": ("mlflow",)}, {"devices": 2}, {"precision": "bf16"}])
def test_what_only_networks_use_is_refused_where_an_image_is_solved_by_steps(changes):
    both = Capabilities(
        methods=("solver", "network"), generators=("probe_unet",), losses=("amplitude", "poisson"), stepping=True,
        schedules=("one_cycle",), loggers=("mlflow",), max_devices=None, precisions=("auto", "bf16"),
    )  # fmt: skip
    check_capabilities(CONFIG, both, "eng", Runtime(**changes))
    with pytest.raises(ConfigError, match=rf"'eng': {next(iter(changes))} = .* has no effect: with method = 'solver'"):
        check_capabilities(TrainingConfig(), both, "eng", Runtime(**changes))


@pytest.mark.spec("BE-2")
def test_passes_and_algorithms_that_nothing_uses_are_refused():
    both = Capabilities(
        methods=("solver", "network"), generators=("unrolled", "probe_unet"), losses=("amplitude", "poisson"),
        stepping=True, schedules=("one_cycle",),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"'eng': inference\.passes = 3 has no effect"):
        check_capabilities(TrainingConfig(inference=InferenceConfig(passes=3)), both, "eng")
    nothing = RefinementConfig(engine="none")
    check_capabilities(TrainingConfig(algorithm="lsq", refinement=nothing), both, "eng")
    check_capabilities(replace(CONFIG, algorithm="lsq"), both, "eng")
    with pytest.raises(ConfigError, match=r"'eng': algorithm = 'lsq' has no effect"):
        check_capabilities(replace(CONFIG, algorithm="lsq", refinement=nothing), both, "eng")


@pytest.mark.spec("BE-2")
def test_a_limit_of_positions_needs_them_refined_or_tried():
    plain = Capabilities(losses=("poisson",), refine=True, refine_positions=True, ignored_fields=OPTIMISER_FIELDS)
    far = TrainingConfig(refinement=RefinementConfig(position_limit_px=3.0))
    with pytest.raises(
        ConfigError, match=r"'eng': refinement\.position_limit_px = 3.0 has no effect, since it makes no"
    ):
        check_capabilities(far, plain, "eng")
    check_capabilities(far, replace(plain, stepping=True), "eng")
