"""Configs and runtimes from plain data and back: old names, layers, options of engines, presets."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core import run
from ptycho_core.config import InferenceConfig, ModelConfig, PlainOptions, RefinementConfig, TrainingConfig
from ptycho_core.config_mapping import (
    config_from_mapping,
    config_to_mapping,
    current_name,
    resolve_names,
    settings_from_mapping,
    split_settings,
)
from ptycho_core.data.raw import RawData
from ptycho_core.errors import ConfigError, UnknownBackendError
from ptycho_core.presets import PRESETS, preset
from ptycho_core.runtime import DEFAULT_RUNTIME, Runtime, runtime_to_mapping
from ptycho_core.simulation import SimulationConfig, simulate_scan

# ---- old names


@pytest.mark.spec("CONV-11")
def test_old_names_are_accepted_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="'nepochs' is deprecated; say 'epochs'"):
        assert config_from_mapping(TrainingConfig, {"nepochs": 7}).epochs == 7
    with pytest.warns(DeprecationWarning, match="'neighbor_count' is deprecated; say 'neighbor_pool_size'"):
        assert config_from_mapping(TrainingConfig, {"neighbor_count": 30}).neighbor_pool_size == 30
    with pytest.raises(ConfigError, match="InferenceConfig has no field 'nepochs'"):
        config_from_mapping(InferenceConfig, {"nepochs": 7})


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
    for ask in (lambda: config_from_mapping(TrainingConfig, {"n_images": 100}), lambda: current_name("n_images")):
        with pytest.raises(ConfigError, match=r"'n_images' is refused: .*n_subsample .*n_groups"):
            ask()


@pytest.mark.spec("CONV-11")
@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("nepochs", "epochs"),
        ("refinement.nepochs", "refinement.epochs"),
        ("neighbor_count", "neighbor_pool_size"),
        ("inference.batch_size", "frames_at_once"),
        ("inference.precision", "precision"),
    ],
)
def test_what_an_old_name_is_now(old: str, now: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"'{old}' is deprecated; say '{now}'"):
        assert current_name(old) == now


@pytest.mark.spec("CONV-11")
def test_current_names_do_not_warn_and_layers_can_be_merged() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = {"epochs": 2, "model": {"width": 8}}
        assert resolve_names(TrainingConfig, values) == values
        assert current_name("epochs") is None
        assert current_name("batch_size") is None
    with pytest.warns(DeprecationWarning, match="say 'epochs'"):
        assert resolve_names(TrainingConfig, {"nepochs": 2}) | {"epochs": 5} == {"epochs": 5}


# ---- config and runtime


@pytest.mark.spec("CONV-12")
def test_plain_data_becomes_the_type_of_the_field() -> None:
    config, runtime = settings_from_mapping(
        {
            "loggers": ["mlflow"],
            "resume_from": "out/a",
            "model": {"depth": 2},
            "inference": {"central_crop_px": 4},
            "refinement": {"positions": True},
        }
    )
    assert runtime == Runtime(loggers=("mlflow",), resume_from=Path("out/a"))
    assert config.model == ModelConfig(depth=2)
    assert config.inference == InferenceConfig(central_crop_px=4)
    assert config.refinement == RefinementConfig(positions=True)
    assert config_from_mapping(TrainingConfig, {"model": ModelConfig(depth=2)}).model == ModelConfig(depth=2)
    assert settings_from_mapping({}) == (TrainingConfig(), DEFAULT_RUNTIME)


def test_settings_are_parted() -> None:
    config, runtime = split_settings({"epochs": 3, "threads": 2, "runtime": {"precision": "32"}, "inference": {}})
    assert config == {"epochs": 3, "inference": {}}
    assert runtime == {"threads": 2, "precision": "32"}
    with pytest.warns(DeprecationWarning, match="say 'frames_at_once'"):
        config, runtime = split_settings({"inference": {"batch_size": 3, "passes": 2}})
    assert (config, runtime) == ({"inference": {"passes": 2}}, {"frames_at_once": 3})


@pytest.mark.filterwarnings("ignore:.*inference.precision:DeprecationWarning")
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"threads": 2, "runtime": {"threads": 2}}, "'threads' is given twice"),
        ({"precision": "32", "inference": {"precision": "64"}}, "precision = '32', but inference.precision = '64'"),
        ({"runtime": 3}, "runtime = 3; it must hold 'name: value' settings"),
        ({"runtime": {"thread": 3}}, r"Runtime has no field 'thread'\. Did you mean 'threads'"),
        ({"thread": 3}, "Did you mean 'threads'"),
    ],
)
def test_settings_that_cannot_be_parted(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_from_mapping(values)


@pytest.mark.spec("CONV-12")
def test_a_runtime_survives_a_passage_through_json() -> None:
    runtime = Runtime(
        threads=2, output_dir=Path("a/b c"), resume_from=Path("x.ckpt"), loggers=("tensorboard", "mlflow")
    )
    assert config_from_mapping(Runtime, json.loads(json.dumps(runtime_to_mapping(runtime)))) == runtime


# ---- options of engines


def options_of(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    config = config_from_mapping(TrainingConfig, values, plain_options=True)
    return {options.engine: dict(options.values) for options in config.options}  # type: ignore[attr-defined]


@pytest.mark.spec("PLUG-10")
@pytest.mark.parametrize("values", [{"backend": "ptychi"}, {"backend": "numpy", "refinement": {"engine": "ptychi"}}])
def test_options_come_back_as_those_of_their_engine(values: dict[str, Any]) -> None:
    from ptycho_backend_ptychi.options import PtychiOptions

    for given in ({"algorithm": "rpie", "alpha": 0.5}, {"ptychi": {"algorithm": "rpie", "alpha": 0.5}}):
        config = config_from_mapping(TrainingConfig, {**values, "options": given})
        assert config.options == (PtychiOptions(algorithm="rpie", alpha=0.5),), "the one that has settings of its own"
        plain = json.loads(json.dumps(config_to_mapping(config)))
        assert plain["options"]["ptychi"]["algorithm"] == "rpie"
        assert config_from_mapping(TrainingConfig, plain) == config


@pytest.mark.spec("PLUG-10")
def test_options_of_each_engine_that_takes_part() -> None:
    both = {"one": {"a": 1}, "two": {"b": [2]}}
    values = {"backend": "one", "refinement": {"engine": "two"}, "options": both}
    assert options_of(values) == both
    config = config_from_mapping(TrainingConfig, values, plain_options=True)
    found = config.options_for("two")
    assert isinstance(found, PlainOptions)
    assert found.values == {"b": [2]}
    assert config.options_for("three") is None
    with pytest.raises(ConfigError, match="settings of engine 'two', which has no part here"):
        options_of({"backend": "one", "options": both})
    with pytest.raises(ConfigError, match="settings of engine 'one' twice"):
        TrainingConfig(backend="one", options=(PlainOptions(engine="one", values={}),) * 2)


@pytest.mark.spec("CONV-12", "PLUG-10")
def test_options_that_are_left_plain_come_back_plain() -> None:
    options = (PlainOptions(engine="absent", values={"a": [1, "é"], "b": None}),)
    config = TrainingConfig(backend="absent", options=options)
    plain = json.loads(json.dumps(config_to_mapping(config)))
    assert plain["options"] == {"absent": {"a": [1, "é"], "b": None}}
    assert config_from_mapping(TrainingConfig, plain, plain_options=True) == config
    with pytest.raises(UnknownBackendError, match="absent"):
        config_from_mapping(TrainingConfig, plain)
    # a file that does not say whose they are means the engine beside them, as does one written before there were two
    for given in ({"a": [1, "é"], "b": None}, {"engine": "absent", "a": [1, "é"], "b": None}):
        again = config_from_mapping(TrainingConfig, {**plain, "options": given}, plain_options=True)
        assert again == config
        assert len({config, again}) == 1
    with pytest.raises(ConfigError, match=r"PlainOptions\.values = 3"):
        PlainOptions(engine="other", values=3)  # type: ignore[arg-type]


# ---- presets


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def at(config: TrainingConfig, dotted: str) -> Any:
    found: Any = config
    for name in dotted.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("method", ["solver", "network"])
@pytest.mark.parametrize("name", PRESETS)
def test_each_field_of_a_preset_has_an_effect(name: str, method: str) -> None:
    chosen, plain = preset(name, {"method": method}), TrainingConfig(method=method)
    config = config_from_mapping(TrainingConfig, {"method": method, **chosen})
    for dotted, value in leaves(chosen).items():
        assert at(config, dotted) == value
        assert at(plain, dotted) != value, f"{dotted} is the default anyway"


def test_a_preset_is_for_the_method_that_is_given() -> None:
    assert preset("best") == preset("best", {"method": "solver"}) == preset("best", {"model": None})
    assert preset("quick")["epochs"] != preset("quick", {"model": {"width": 4}})["epochs"]
    assert "epochs" not in preset("best"), "more of the first passes gain nothing for an image that is refined"
    assert preset("best", {"model": {"width": 4}}) == preset("best", {"method": "network"})
    with pytest.raises(ConfigError, match="preset = 'fast'; allowed: quick, best"):
        preset("fast")


@pytest.mark.parametrize(
    "refinement", [{"engine": "none"}, {"positions": False}, {"positions": True}, {"epochs": 3}, {"engine": "numpy"}]
)
@pytest.mark.parametrize("name", PRESETS)
def test_what_is_given_leaves_nothing_of_a_preset_without_effect(name: str, refinement: dict[str, Any]) -> None:
    chosen = preset(name, {"refinement": refinement})
    merged = {**chosen, "refinement": {**chosen.get("refinement", {}), **refinement}}
    config = config_from_mapping(TrainingConfig, merged)
    for dotted, value in leaves({"refinement": refinement}).items():
        assert at(config, dotted) == value


def test_a_preset_that_was_changed_by_its_caller_is_as_before() -> None:
    before = json.dumps(preset("best"))
    preset("best")["refinement"]["epochs"] = 1
    assert json.dumps(preset("best")) == before


@pytest.fixture(scope="module")
def poor_scan() -> RawData:
    """Two modes of which the scan tells one, and positions with errors; complex, rectangular, off the grid."""
    scan = simulate_scan(
        SimulationConfig(
            object="dead_leaves",
            N=32,
            grid_shape=(9, 13),
            step_px=4.3,
            photons=2e4,
            n_modes=2,
            mode_fraction=0.08,
            seed=5,
        )
    ).raw
    rng = np.random.default_rng(0)
    assert scan.probe is not None
    counts = scan.read_counts(np.arange(scan.n_frames))
    return RawData.from_arrays(counts, scan.positions_px + rng.uniform(-0.7, 0.7, (117, 2)), scan.probe[:1])


def test_quick_default_and_best_are_in_this_order(poor_scan: RawData) -> None:
    epochs, deviance = [], []
    for settings in (preset("quick"), {}, preset("best")):
        config = config_from_mapping(TrainingConfig, {"backend": "numpy", "test_fraction": 0.1, "seed": 1, **settings})
        done = run(poor_scan, config, Runtime(threads=1))
        refined = {} if done.refined is None else done.refined.history
        epochs.append(len(done.history["train_loss"]) + len(refined.get("train_loss", ())))
        assert done.scored.heldout is not None
        deviance.append(done.scored.heldout.deviance)
    assert epochs[0] < epochs[1] < epochs[2]
    assert deviance[0] > deviance[1] >= deviance[2]
