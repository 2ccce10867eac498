"""A trained network as arrays: what it says of scans, and that any engine that knows its generator reads it whole."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from physics_problem import smooth_probe

from ptycho_core.bundle import read_bundle, write_bundle
from ptycho_core.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, Statistics
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.network_model import NetworkModel, load_network, save_network
from ptycho_core.enginekit.weights import initial_weights
from ptycho_core.errors import ArchiveError, ConfigError, OutputError

GENERATORS = ("probe_unet", "unrolled", "cnn")


def make_model(generator: str = "probe_unet", N: int = 64, backend: str = "first", **changes) -> NetworkModel:
    """A model that no training made: every weight random, two asymmetric modes, figures that no short decimal hits."""
    sizes = {} if generator == "cnn" else {"depth": 2, "sweeps": 7}
    if generator == "unrolled":
        sizes["passes"] = 5
    config = TrainingConfig(
        backend=backend,
        model=ModelConfig(generator=generator, width=3, **sizes),
        inference=InferenceConfig(central_crop_px=12),
        group_size=3,
        seed=5,
        learning_rate=1 / 3000,
        loss="poisson",
    )
    rng = np.random.default_rng(8)
    weights = {
        name: (first + 0.1 * rng.normal(size=first.shape)).astype(np.float32)
        for name, first in initial_weights(config, N).items()
    }
    values = {
        "backend": backend,
        "config": config,
        "weights": weights,
        "statistics": Statistics(mean_counts=1000 / 3, n_frames=11, scale=0.1 + 0.2),
        "scale": 1 / 7,
        "probe": smooth_probe(N, 2).astype(np.complex64),
        "history": {"train_loss": [2 / 3, 0.1], "test_loss": [math.nan, 1e-300], "learning_rate": [1e-3, 1e-7]},
        "checkpoint_path": Path("training/checkpoints/last.ckpt"),
    }
    return NetworkModel(**(values | changes))


def make_data(N: int = 64, scale: float = 5.0) -> PtychoDataContainer:
    positions = np.array([[40.2, 41.7], [43.9, 40.1]])
    raw = RawData.from_arrays(np.ones((2, N, N), np.float32), positions, smooth_probe(N, 1))
    return PtychoDataContainer.of(raw, statistics=Statistics(mean_counts=1.0, n_frames=2, scale=scale))


# ---- what it says of a scan


@pytest.mark.spec("BE-4")
def test_the_scale_of_a_scan_is_its_own_times_what_training_changed():
    model = make_model(scale=0.6, statistics=Statistics(mean_counts=3.0, n_frames=2, scale=0.3))
    assert model.scale_for(make_data(scale=5.0)) == 10.0
    # the scan it was trained on has the very statistics it started from
    assert model.scale_for(make_data(scale=0.3)) == pytest.approx(model.scale, rel=1e-15)


def test_a_cnn_takes_the_side_it_was_trained_on_only():
    model = make_model("cnn")
    model.check_groups(make_data(64), 3)
    with pytest.raises(ConfigError, match=r"the model was trained on frames of 64×64; this scan has 128"):
        model.check_groups(make_data(128), 3)


def test_a_probe_unet_takes_any_side_that_can_be_halved_often_enough():
    model = make_model()
    for side in (16, 64, 48):
        model.check_groups(make_data(side), 9)
    deep = make_model(config=TrainingConfig(model=ModelConfig(depth=5)))
    with pytest.raises(ConfigError, match=r"depth = 5 halves .* N = 48 is not a multiple of 32"):
        deep.check_groups(make_data(48), 1)


@pytest.mark.spec("BE-2", "FM-20")
def test_passes_are_those_of_training_unless_others_are_asked_for():
    model = make_model("unrolled")
    assert model.passes_for(InferenceConfig()) == 5
    assert model.passes_for(InferenceConfig(passes=15)) == 15
    for generator in ("probe_unet", "cnn"):
        assert make_model(generator).passes_for(InferenceConfig()) == 1
        with pytest.raises(ConfigError, match=rf"InferenceConfig.passes = 2 has no effect on generator '{generator}'"):
            make_model(generator).passes_for(InferenceConfig(passes=2))


def test_it_cannot_be_changed_by_accident():
    model = make_model()
    with pytest.raises(AttributeError):
        model.scale = 2.0
    assert model != make_model()  # arrays have no truth of their own; two models are the same when they are one


# ---- saving and loading


@pytest.mark.spec("BE-10", "BUNDLE-2")
@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("reader", ["first", "second"])
def test_a_model_comes_back_whole_in_the_engine_that_reads_it(tmp_path, generator, reader):
    model = make_model(generator)
    save_network(model, tmp_path / "model.ptycho", ())
    found = load_network(tmp_path / "model.ptycho", reader, GENERATORS)
    assert found.backend == reader
    assert found.checkpoint_path is None  # it belongs to the machine that trained
    assert found.config == model.config
    assert found.config.backend == "first"  # who trained is not forgotten
    assert (found.scale, found.statistics) == (model.scale, model.statistics)
    np.testing.assert_array_equal(found.probe, model.probe)
    assert (found.probe.dtype, found.probe.shape) == (np.complex64, (2, 64, 64))
    assert found.weights.keys() == model.weights.keys()
    for name, wanted in model.weights.items():
        assert found.weights[name].dtype == np.float32
        np.testing.assert_array_equal(found.weights[name], wanted, err_msg=name)
    assert found.history.keys() == model.history.keys()
    for name, wanted in model.history.items():
        np.testing.assert_array_equal(found.history[name], wanted)


def test_a_loaded_model_saved_again_is_the_same_but_for_its_engine(tmp_path):
    save_network(make_model(), tmp_path / "one.ptycho", ())
    again = load_network(tmp_path / "one.ptycho", "first", GENERATORS)
    save_network(again, tmp_path / "two.ptycho", ())
    assert (tmp_path / "one.ptycho").read_bytes() == (tmp_path / "two.ptycho").read_bytes()
    save_network(load_network(tmp_path / "one.ptycho", "second", GENERATORS), tmp_path / "three.ptycho", ())
    assert read_bundle(tmp_path / "three.ptycho").backend == "second"


def test_arrays_that_do_not_lie_in_order_are_saved_right(tmp_path):
    model = make_model()
    name = "encoder0.conv0.weight"
    turned = np.asfortranarray(model.weights[name])
    odd = np.ascontiguousarray(model.probe[:, :, ::-1])[:, :, ::-1]
    assert not turned.flags.c_contiguous
    save_network(replace(model, weights={**model.weights, name: turned}, probe=odd), tmp_path / "model.ptycho", ())
    found = load_network(tmp_path / "model.ptycho", "first", GENERATORS)
    np.testing.assert_array_equal(found.weights[name], model.weights[name])
    np.testing.assert_array_equal(found.probe, model.probe)


def test_where_it_came_from_is_kept_with_it(tmp_path):
    save_network(make_model(), tmp_path / "model.ptycho", ("pytest",))
    kept = read_bundle(tmp_path / "model.ptycho").provenance
    assert kept["seed"] == 5
    assert kept["versions"]["pytest"] == pytest.__version__
    assert "numpy" in kept["versions"]
    assert kept["machine"]["python"].startswith("3.")


@pytest.mark.spec("BUNDLE-7")
def test_a_solvers_bundle_is_refused_with_both_names(tmp_path):
    path = tmp_path / "model.ptycho"
    save_network(make_model(backend="iterative"), path, ())
    write_bundle(path, replace(read_bundle(path), generator=None, weights={"object": np.ones((3, 4), np.float32)}))
    with pytest.raises(ArchiveError) as caught:
        load_network(path, "second", GENERATORS)
    assert str(caught.value) == (
        f"{path}: made by engine 'iterative' with generator None, which engine 'second' does not have "
        "(it has probe_unet, unrolled, cnn); load it with the engine that made it."
    )


def test_a_generator_that_the_reader_does_not_have(tmp_path):
    path = tmp_path / "model.ptycho"
    save_network(make_model("cnn"), path, ())
    with pytest.raises(
        ArchiveError, match=r"'first' with generator 'cnn', which engine 'second' .*\(it has probe_unet\)"
    ):
        load_network(path, "second", ("probe_unet",))


@pytest.mark.spec("BUNDLE-4")
@pytest.mark.parametrize("change", ["missing", "extra", "misshapen"])
def test_weights_that_are_not_the_generators(tmp_path, change):
    path = tmp_path / "model.ptycho"
    model = make_model()
    weights = dict(model.weights)
    if change == "missing":
        del weights["head.bias"]
    elif change == "extra":
        weights["head.gain"] = np.ones(2, np.float32)
    else:
        weights["head.bias"] = np.ones(3, np.float32)
    save_network(replace(model, weights=weights), path, ())
    with pytest.raises(ArchiveError, match=r"head\.(bias|gain)"):
        load_network(path, "second", GENERATORS)


@pytest.mark.spec("BUNDLE-4")
def test_sizes_of_another_network_are_refused(tmp_path):
    path = tmp_path / "model.ptycho"
    model = make_model()
    other = replace(model.config, model=replace(model.config.model, width=4))
    save_network(replace(model, config=other), path, ())
    with pytest.raises(ArchiveError, match=r"encoder0\.conv0\.weight.*must be float32 \(4, 4, 3, 3\)"):
        load_network(path, "second", GENERATORS)


@pytest.mark.spec("BUNDLE-8")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_diverged_is_not_written(tmp_path, value):
    model = make_model()
    weights = {**model.weights, "head.bias": np.array([0, value], np.float32)}
    for bad in (replace(model, weights=weights), replace(model, probe=model.probe * np.float32(value))):
        with pytest.raises(ArchiveError):
            save_network(bad, tmp_path / "model.ptycho", ())
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_bundle_or_has_no_place(tmp_path):
    with pytest.raises(ArchiveError, match=r"gone\.ptycho: no such file"):
        load_network(tmp_path / "gone.ptycho", "first", GENERATORS)
    (tmp_path / "torn.ptycho").write_bytes(b"PK\x03\x04")
    with pytest.raises(ArchiveError, match=r"torn\.ptycho: not a complete zip file"):
        load_network(tmp_path / "torn.ptycho", "first", GENERATORS)
    with pytest.raises(OutputError, match="nowhere"):
        save_network(make_model(), tmp_path / "nowhere" / "model.ptycho", ())
