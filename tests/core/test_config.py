"""Configs: strict, frozen, one default each, old names, and plain data in and out."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core.config import (
    LOSSES,
    SCHEDULES,
    InferenceConfig,
    ModelConfig,
    PlainOptions,
    RefinementConfig,
    TrainingConfig,
)
from ptycho_core.config_mapping import config_from_mapping, config_to_mapping
from ptycho_core.enginekit.architectures import GENERATORS
from ptycho_core.errors import ConfigError
from ptycho_core.runtime import Runtime

CONFIGS = (InferenceConfig, RefinementConfig, TrainingConfig, Runtime)


@pytest.mark.spec("CONV-10")
@pytest.mark.parametrize("config_type", CONFIGS)
def test_configs_are_frozen_values(config_type: Any) -> None:
    assert config_type() == config_type()
    name = dataclasses.fields(config_type)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config_type(), name, getattr(config_type(), name))
    with pytest.raises(TypeError):
        config_type("positional")
    with pytest.raises(TypeError):
        config_type(no_such_field=1)


@pytest.mark.spec("CONV-10")
@pytest.mark.parametrize(
    ("config_type", "values", "message"),
    [
        (TrainingConfig, {"epoch": 3}, r"TrainingConfig has no field 'epoch'\. Did you mean 'epochs'"),
        (TrainingConfig, {"learning_rte": 1}, "'learning_rate'"),
        (TrainingConfig, {"width": 8}, r"no field 'width'\. Did you mean 'model\.width'\?"),
        (TrainingConfig, {"central_crop_px": 8}, r"Did you mean 'inference\.central_crop_px'\?"),
        (TrainingConfig, {"model": {"widht": 8}}, r"model\.widht = 8: generator 'probe_unet' .*Did you mean 'width'"),
        (TrainingConfig, {"threads": 8}, r"'threads': it does not decide the result\. Put it in a Runtime"),
        (TrainingConfig, {"thread": 8}, r"no field 'thread'\. Did you mean 'threads'"),
        (Runtime, {"thread": 8}, r"Runtime has no field 'thread'\. Did you mean 'threads'"),
        (TrainingConfig, {"zzzzzzz": 8}, r"TrainingConfig has no field 'zzzzzzz'\.$"),
        (TrainingConfig, {7: 8}, "TrainingConfig has no field '7'"),
        (ModelConfig, {"epochs": 8}, "model.epochs = 8: generator 'probe_unet' has no such size"),
    ],
)
def test_unknown_fields_are_refused_with_the_nearest_names(
    config_type: Any, values: dict[Any, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_mapping(config_type, values)


@pytest.mark.spec("CONV-10")
@pytest.mark.parametrize(
    ("config_type", "field", "value"),
    [
        (TrainingConfig, "epochs", True),
        (TrainingConfig, "epochs", 3.0),
        (TrainingConfig, "epochs", "3"),
        (TrainingConfig, "learning_rate", True),
        (TrainingConfig, "learning_rate", "1e-3"),
        (TrainingConfig, "learning_rate", math.nan),
        (TrainingConfig, "learning_rate", math.inf),
        (TrainingConfig, "probe_trainable", 1),
        (TrainingConfig, "probe_trainable", "no"),
        (TrainingConfig, "n_groups", False),
        (Runtime, "loggers", "tensorboard"),
        (Runtime, "loggers", (1,)),
        (Runtime, "output_dir", 3),
        (Runtime, "frames_at_once", None),
        (TrainingConfig, "backend", None),
        (TrainingConfig, "options", PlainOptions(engine="x", values={})),
        (TrainingConfig, "model", {"width": 8}),
        (TrainingConfig, "model", InferenceConfig()),
        (RefinementConfig, "positions", 1),
        (InferenceConfig, "passes", 3.0),
    ],
)
def test_values_of_another_type_are_refused(config_type: Any, field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{config_type.__name__}\.{field} = .* it must be "):
        config_type(**{field: value})


@pytest.mark.spec("CONV-10")
@pytest.mark.parametrize(
    ("config_type", "field", "value", "allowed"),
    [
        (TrainingConfig, "epochs", 0, "at least 1"),
        (TrainingConfig, "group_size", 0, "at least 1"),
        (TrainingConfig, "n_groups", 0, "at least 1"),
        (TrainingConfig, "n_subsample", -5, "at least 1"),
        (TrainingConfig, "batch_size", 0, "at least 1"),
        (Runtime, "devices", 0, "at least 1"),
        (Runtime, "threads", 0, "at least 1"),
        (Runtime, "frames_at_once", 0, "at least 1"),
        (TrainingConfig, "probe_modes", 0, "at least 1"),
        (TrainingConfig, "early_stopping_patience", 0, "at least 1"),
        (TrainingConfig, "seed", -1, "at least 0"),
        (Runtime, "num_workers", -1, "at least 0"),
        (TrainingConfig, "weight_decay", -0.1, "at least 0"),
        (TrainingConfig, "collapse_threshold", -0.1, "at least 0"),
        (TrainingConfig, "learning_rate", 0.0, "at least 1e-12"),
        (TrainingConfig, "probe_learning_rate", -1.0, "at least"),
        (TrainingConfig, "scale_learning_rate", 0.0, "at least"),
        (TrainingConfig, "gradient_clip_norm", 0.0, "at least"),
        (TrainingConfig, "nphotons", 0.0, "at least"),
        (TrainingConfig, "weight_average", 1.0, "between 0 and 0.99999"),
        (TrainingConfig, "test_fraction", 0.95, "between 0 and 0.9"),
        (TrainingConfig, "loss", "poison", r"allowed: poisson, amplitude\. Did you mean 'poisson'"),
        (TrainingConfig, "schedule", "linear", "allowed: one_cycle, cosine, exponential, constant"),
        (TrainingConfig, "method", "solve", r"allowed: solver, network\. Did you mean 'solver'"),
        (TrainingConfig, "algorithm", "epie", r"allowed: rpie, lsq"),
        (Runtime, "precision", "16", "allowed: auto, 32, 64, bf16"),
        (TrainingConfig, "test_split", "regions", "Did you mean 'region'"),
        (Runtime, "loggers", ("csv",), "allowed: tensorboard, mlflow"),
        (TrainingConfig, "neighbor_pool_size", 14, "smaller than the 15 neighbours that group_size = 16 needs"),
        (InferenceConfig, "central_crop_px", 0, "at least 1"),
    ],
)
def test_values_out_of_range_are_refused(config_type: Any, field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError, match=allowed) as caught:
        config_type(**{field: value})
    assert f"{config_type.__name__}.{field} = " in str(caught.value)


@pytest.mark.spec("CONV-10")
def test_the_ends_of_the_ranges_are_accepted() -> None:
    TrainingConfig(test_fraction=0.0, weight_average=0.99999, seed=0, neighbor_pool_size=15, learning_rate=1)
    TrainingConfig(n_groups=None, gradient_clip_norm=None, nphotons=10**9)
    Runtime(output_dir=Path("a"), num_workers=0, threads=1)
    ModelConfig(width=512, depth=5, sweeps=0)


@pytest.mark.spec("CONV-10")
@pytest.mark.parametrize(
    ("size", "value", "allowed"),
    [("width", 0, "between 1 and 512"), ("depth", 6, "between 1 and 5"), ("sweeps", -1, "between 0 and 1000")],
)
def test_sizes_out_of_range_are_refused(size: str, value: int, allowed: str) -> None:
    with pytest.raises(ConfigError, match=rf"Sizes\.{size} = {value}; it must be {allowed}"):
        ModelConfig(**{size: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"Sizes\.{size} = 8.0 is a float"):
        ModelConfig(**{size: 8.0})  # type: ignore[arg-type]


@pytest.mark.spec("CONV-10")
def test_what_a_method_takes_where_nothing_is_said() -> None:
    solver, network = TrainingConfig(), TrainingConfig(method="network")
    assert (solver.method, solver.model, solver.loss, solver.epochs, solver.batch_size) == (
        "solver", None, None, 5, None
    )  # fmt: skip
    assert (network.model, network.loss, network.epochs, network.batch_size) == (ModelConfig(), "amplitude", 5, 1)
    assert TrainingConfig(refinement=RefinementConfig(engine="none")).epochs == 30, "nothing goes on from it"
    assert (solver.backend, network.backend) == ("numpy", "pytorch"), "what is always there; the first with a network"
    assert TrainingConfig(backend="tensorflow").backend == "tensorflow"
    assert TrainingConfig(model=ModelConfig(width=4)).method == "network"
    assert TrainingConfig(method="network", loss="poisson", epochs=3).loss == "poisson"
    assert dataclasses.replace(network, epochs=3).method == "network", "it is settled once"
    with pytest.raises(ConfigError, match="method = 'solver' has no network, and model names 'unrolled'"):
        TrainingConfig(method="solver", model=ModelConfig(generator="unrolled"))
    with pytest.raises(ConfigError, match="method = 'solver' has no network; say method = 'network'"):
        _ = solver.network


@pytest.mark.spec("CONV-12")
@given(
    config=st.builds(
        TrainingConfig,
        model=st.builds(ModelConfig, width=st.integers(1, 64), depth=st.integers(1, 5)),
        inference=st.builds(InferenceConfig, central_crop_px=st.none() | st.integers(1, 64)),
        group_size=st.integers(1, 9),
        n_groups=st.none() | st.integers(1, 10**6),
        neighbor_pool_size=st.none() | st.integers(8, 99),
        loss=st.sampled_from(LOSSES),
        schedule=st.sampled_from(SCHEDULES),
        learning_rate=st.floats(1e-9, 10),
        probe_trainable=st.booleans(),
        nphotons=st.none() | st.floats(1, 1e12),
        seed=st.integers(0, 2**40),
    )
)
@settings(max_examples=40, deadline=None)
def test_configs_survive_a_passage_through_json(config: TrainingConfig) -> None:
    text = json.dumps(config_to_mapping(config), allow_nan=False)
    assert config_from_mapping(TrainingConfig, json.loads(text)) == config


@pytest.mark.spec("CONV-10")
def test_every_field_is_documented() -> None:
    for config_type in CONFIGS:
        for field in dataclasses.fields(config_type):
            assert f"        {field.name}: " in (config_type.__doc__ or ""), f"{config_type.__name__}.{field.name}"
    for record in GENERATORS:
        text = "".join(base.__doc__ or "" for base in record.sizes.__mro__)
        assert all(f"        {size.name}: " in text for size in dataclasses.fields(record.sizes)), record.name


@pytest.mark.spec("BE-2")
@pytest.mark.parametrize(
    ("generator", "name", "value"),
    [("cnn", "depth", 2), ("cnn", "sweeps", 3), ("cnn", "passes", 3), ("probe_unet", "passes", 3)],
)
def test_sizes_that_a_generator_does_not_have_are_refused(generator: str, name: str, value: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"model\.{name} = {value}: generator '{generator}' has no such size; it has"
    ):
        ModelConfig(generator=generator, **{name: value})  # type: ignore[arg-type]
    ModelConfig(generator="unrolled", **{name: value})  # type: ignore[arg-type]


@pytest.mark.spec("BE-2")
def test_passes_at_inference_are_refused_for_a_generator_that_passes_once() -> None:
    inference = InferenceConfig(passes=7)
    for generator in ("probe_unet", "cnn"):
        with pytest.raises(ConfigError, match=rf"InferenceConfig.passes = 7 has no effect on generator '{generator}'"):
            TrainingConfig(model=ModelConfig(generator=generator), inference=inference)
    TrainingConfig(model=ModelConfig(generator="unrolled", passes=3), inference=inference)


@pytest.mark.spec("BE-2")
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"engine": "none", "epochs": 3}, "engine = 'none' refines nothing"),
        (
            {"positions": False, "position_limit_px": 1.0},
            "position_limit_px = 1.0 has no effect while positions = False",
        ),
        ({"position_affine": True}, "position_affine = True fits positions, and positions is not True"),
        ({"probe": False, "probe_support": 0.5}, "probe_support = 0.5 has no effect while probe = False"),
        ({"probe": False, "probe_power": "free"}, "probe_power = free has no effect while probe = False"),
        ({"probe_power": "lost"}, "probe_power = 'lost'; allowed: kept, free"),
        ({"probe_support": 0.0}, "probe_support = 0.0; it must be between"),
        ({"positions": True, "position_limit_px": 0.0}, "position_limit_px = 0.0; it must be between"),
        ({"probe": False, "probe_modes": 2}, "probe_modes = 2 adds modes, and with probe = False they are not refined"),
        ({"loss": "mae"}, "loss = 'mae'; allowed: poisson, amplitude"),
        ({"patience": 0}, "patience = 0; it must be at least 1"),
    ],
)
def test_settings_of_refining_without_effect_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RefinementConfig(**fields)
    assert RefinementConfig(engine="none").engine == "none"


@pytest.mark.spec("CONV-10")
def test_a_map_of_all_positions_needs_enough_frames_in_a_step() -> None:
    RefinementConfig(positions=True, position_affine=True, batch_size=6)
    with pytest.raises(ConfigError, match="batch_size = 5 is too few frames to fit the stretch, rotation and shear"):
        RefinementConfig(positions=True, position_affine=True, batch_size=5)
