"""Configs: strict, frozen, one default each, old names, and plain data in and out."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
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
    passes_of,
)
from ptycho_core.config_mapping import config_from_mapping, config_to_mapping, resolve_names
from ptycho_core.errors import ConfigError, UnknownBackendError

CONFIGS = (ModelConfig, InferenceConfig, TrainingConfig)


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
        (TrainingConfig, {"model": {"widht": 8}}, r"ModelConfig has no field 'widht'\. Did you mean 'width'"),
        (TrainingConfig, {"zzzzzzz": 8}, r"TrainingConfig has no field 'zzzzzzz'\.$"),
        (TrainingConfig, {7: 8}, "TrainingConfig has no field '7'"),
        (ModelConfig, {"epochs": 8}, "ModelConfig has no field 'epochs'"),
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
        (TrainingConfig, "loggers", "tensorboard"),
        (TrainingConfig, "loggers", (1,)),
        (TrainingConfig, "output_dir", 3),
        (TrainingConfig, "backend", None),
        (TrainingConfig, "model", {"width": 8}),
        (TrainingConfig, "model", InferenceConfig()),
        (ModelConfig, "width", 8.0),
        (InferenceConfig, "batch_size", None),
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
        (TrainingConfig, "devices", 0, "at least 1"),
        (TrainingConfig, "probe_modes", 0, "at least 1"),
        (TrainingConfig, "early_stopping_patience", 0, "at least 1"),
        (TrainingConfig, "seed", -1, "at least 0"),
        (TrainingConfig, "num_workers", -1, "at least 0"),
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
        (TrainingConfig, "precision", "16", "allowed: auto, 32, 64, bf16"),
        (TrainingConfig, "test_split", "regions", "Did you mean 'region'"),
        (TrainingConfig, "loggers", ("csv",), "allowed: tensorboard, mlflow"),
        (TrainingConfig, "neighbor_pool_size", 14, "smaller than the 15 neighbours that group_size = 16 needs"),
        (ModelConfig, "width", 0, "between 1 and 512"),
        (ModelConfig, "depth", 6, "between 1 and 5"),
        (InferenceConfig, "batch_size", 0, "at least 1"),
        (InferenceConfig, "precision", "128", "allowed: auto, 32, 64, bf16"),
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
    TrainingConfig(n_groups=None, gradient_clip_norm=None, nphotons=10**9, output_dir=Path("a"))
    ModelConfig(width=512, depth=5)


@pytest.mark.spec("CONV-11")
def test_old_names_are_accepted_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="'nepochs' is deprecated; say 'epochs'"):
        assert config_from_mapping(TrainingConfig, {"nepochs": 7}).epochs == 7
    with pytest.warns(DeprecationWarning, match="'neighbor_count' is deprecated; say 'neighbor_pool_size'"):
        assert config_from_mapping(TrainingConfig, {"neighbor_count": 30}).neighbor_pool_size == 30
    with pytest.raises(ConfigError, match="ModelConfig has no field 'nepochs'"):
        config_from_mapping(ModelConfig, {"nepochs": 7})


@pytest.mark.spec("CONV-11")
def test_a_field_under_two_names_is_refused() -> None:
    for values in ({"epochs": 3, "nepochs": 3}, {"nepochs": 3, "epochs": 3}):
        with (
            pytest.warns(DeprecationWarning, match="say 'epochs'"),
            pytest.raises(ConfigError, match="'epochs' is given twice"),
        ):
            config_from_mapping(TrainingConfig, values)


@pytest.mark.spec("CONV-11")
def test_n_images_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match=r"'n_images' is refused: .*n_subsample .*n_groups"):
        config_from_mapping(TrainingConfig, {"n_images": 100})


@pytest.mark.spec("CONV-11")
def test_current_names_do_not_warn_and_layers_can_be_merged() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = {"epochs": 2, "model": {"width": 8}}
        assert resolve_names(TrainingConfig, values) == values
    with pytest.warns(DeprecationWarning, match="say 'epochs'"):
        assert resolve_names(TrainingConfig, {"nepochs": 2}) | {"epochs": 5} == {"epochs": 5}


@pytest.mark.spec("CONV-12")
def test_plain_data_becomes_the_type_of_the_field() -> None:
    config = config_from_mapping(
        TrainingConfig,
        {"loggers": ["mlflow"], "output_dir": "out/a", "model": {"depth": 2}, "inference": {"batch_size": 4}},
    )
    assert config.loggers == ("mlflow",)
    assert config.output_dir == Path("out/a")
    assert config.model == ModelConfig(depth=2)
    assert config.inference == InferenceConfig(batch_size=4)
    assert config_from_mapping(TrainingConfig, {"model": ModelConfig(depth=2)}).model.depth == 2


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
        output_dir=st.none() | st.sampled_from([Path("out"), Path("a/b c")]),
        loggers=st.sampled_from([(), ("mlflow",), ("tensorboard", "mlflow")]),
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


@pytest.mark.spec("BE-2")
@pytest.mark.parametrize(
    ("generator", "name", "value", "advice"),
    [
        ("cnn", "depth", 2, "probe_unet"),
        ("cnn", "sweeps", 3, "probe_unet"),
        ("cnn", "passes", 3, "unrolled"),
        ("probe_unet", "passes", 3, "unrolled"),
    ],
)
def test_sizes_that_a_generator_does_not_have_are_refused(generator: str, name: str, value: int, advice: str) -> None:
    with pytest.raises(ConfigError, match=rf"ModelConfig.{name} = {value} has no effect .*'{generator}'.*'{advice}'"):
        ModelConfig(generator=generator, **{name: value})
    ModelConfig(generator="unrolled", **{name: value})


@pytest.mark.spec("BE-2")
def test_passes_at_inference_are_refused_for_a_generator_that_passes_once() -> None:
    inference = InferenceConfig(passes=7)
    for generator in ("probe_unet", "cnn"):
        with pytest.raises(ConfigError, match=rf"InferenceConfig.passes = 7 has no effect on generator '{generator}'"):
            TrainingConfig(model=ModelConfig(generator=generator), inference=inference)
        assert passes_of(ModelConfig(generator=generator), InferenceConfig()) == 1
    config = TrainingConfig(model=ModelConfig(generator="unrolled", passes=3), inference=inference)
    assert (passes_of(config.model), passes_of(config.model, config.inference)) == (3, 7)
    assert passes_of(config.model, InferenceConfig()) == 3


@pytest.mark.spec("BE-2")
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"engine": "none", "epochs": 3}, "engine = 'none' refines nothing"),
        ({"position_limit_px": 1.0}, "position_limit_px = 1.0 has no effect while positions = False"),
        ({"positions": True, "position_limit_px": 0.0}, "position_limit_px = 0.0; it must be between"),
        ({"probe": False, "probe_modes": 2}, "probe_modes = 2 adds modes that probe = False would leave"),
        ({"loss": "mae"}, "loss = 'mae'; allowed: poisson, amplitude"),
        ({"patience": 0}, "patience = 0; it must be at least 1"),
    ],
)
def test_settings_of_refining_without_effect_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RefinementConfig(**fields)
    assert RefinementConfig(engine="none").engine == "none"


@pytest.mark.spec("PLUG-10")
@pytest.mark.parametrize(("backend", "refiner"), [("numpy", "auto"), ("pytorch", "numpy"), ("ptychi", "numpy")])
def test_options_come_back_as_those_of_their_engine(backend: str, refiner: str) -> None:
    from ptycho_backend_numpy.options import NumpyOptions

    config = TrainingConfig(
        backend=backend, refinement=RefinementConfig(engine=refiner), options=NumpyOptions(algorithm="lsq")
    )
    plain = json.loads(json.dumps(config_to_mapping(config)))
    assert plain["options"]["engine"] == "numpy"
    assert config_from_mapping(TrainingConfig, plain) == config


@pytest.mark.spec("CONV-12", "PLUG-10")
def test_options_that_are_left_plain_come_back_plain() -> None:
    config = TrainingConfig(backend="absent", options=PlainOptions(engine="absent", values={"a": [1, "é"], "b": None}))
    plain = json.loads(json.dumps(config_to_mapping(config)))
    assert plain["options"] == {"engine": "absent", "a": [1, "é"], "b": None}
    assert config_from_mapping(TrainingConfig, plain, plain_options=True) == config
    with pytest.raises(UnknownBackendError, match="absent"):
        config_from_mapping(TrainingConfig, plain)
    # a file that does not say whose they are means the engine beside them
    del plain["options"]["engine"]
    assert config_from_mapping(TrainingConfig, plain, plain_options=True) == config
    assert len({config, config_from_mapping(TrainingConfig, plain, plain_options=True)}) == 1
    with pytest.raises(ConfigError, match="settings of engine 'other', which has no part here"):
        TrainingConfig(options=PlainOptions(engine="other", values={}))
    with pytest.raises(ConfigError, match=r"PlainOptions\.values = 3"):
        PlainOptions(engine="other", values=3)  # type: ignore[arg-type]
