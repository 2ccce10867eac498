"""A network engine from outside, with a generator of its own: trained, bundled and applied by core unchanged."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from stub_engines import install

import ptycho_core
from ptycho_core.bundle import read_bundle
from ptycho_core.cli.main import main
from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.config_mapping import config_from_mapping, config_to_mapping
from ptycho_core.errors import ArchiveError, BackendConflictError, BackendProtocolError, Cancelled, ConfigError
from ptycho_core.generators import PlainSizes
from ptycho_core.io import write_scan
from ptycho_core.plugins.generators import installed_generators, with_typed_model
from ptycho_core.runtime import Runtime

FOLDER = Path(__file__).parent / "pixel_engine"
MODULES = {name: (FOLDER / f"{name}.py").read_text(encoding="utf-8") for name in ("pixel_engine", "pixel_generator")}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lay the engine out as pip does, in this process and in those that it starts."""
    site = tmp_path / "site"
    site.mkdir()
    install(site, "pixel-engine", {"pixel": "pixel_generator"}, MODULES)
    monkeypatch.syspath_prepend(site)
    yield site
    for name in ("pixel_engine", "pixel_generator", "other_generator"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def made():
    return ptycho_core.simulate(
        ptycho_core.SimulationConfig(object="dead_leaves", N=16, grid_shape=(5, 4), step_px=2.7, seed=5, n_modes=2)
    )


def config_of(**changes) -> TrainingConfig:
    settings = {"backend": "pixel", "group_size": 4, "epochs": 3, "schedule": "constant", "learning_rate": 0.02}
    model = {"generator": "pixel_mlp", "hidden": 5, "warm_up": 2}
    return config_from_mapping(TrainingConfig, {**settings, "model": model, "seed": 3, **changes})


@pytest.mark.spec("BE-28", "BUNDLE-10")
def test_it_is_trained_bundled_loaded_and_applied(site, made, tmp_path):
    config = config_of(refinement={"engine": "none"}, test_fraction=0.2)
    assert isinstance(config.network.sizes, PlainSizes)
    run = ptycho_core.run(made.raw, config)
    assert run.config.network.sizes.plain() == {"hidden": 5, "warm_up": 2}
    assert type(run.config.network.sizes).__name__ == "PixelSizes"
    history = run.model.history
    assert len(history["train_loss"]) == len(history["test_loss"]) == 3
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert run.model.weights["in.weight"].shape == (5, 4)
    assert run.model.weights["out.weight"].any()
    path = tmp_path / "model.ptycho"
    ptycho_core.save_model(run.model, path)
    # plain without the engine, strict with it
    bundle = read_bundle(path)
    assert bundle.generator == "pixel_mlp"
    assert isinstance(bundle.config.network.sizes, PlainSizes)
    loaded = ptycho_core.load_model(path)
    assert loaded.config == run.model.config
    again = ptycho_core.reconstruct(loaded, made.raw)
    fresh = ptycho_core.reconstruct(run.model, made.raw)
    np.testing.assert_array_equal(again.image.object, fresh.image.object)
    assert np.std(np.abs(again.image.object[again.image.coverage > 0.1])) > 0.02


def test_it_is_stopped_and_goes_on(site, made, tmp_path):
    config = with_typed_model(config_of(epochs=2, early_stopping_patience=9))
    engine = ptycho_core.load_backend("pixel")
    scan = ptycho_core.ensure_container(made.raw, config)
    whole = engine.train([scan], config)

    def stop(event):
        if event.done == 7:
            raise Cancelled("enough")

    with pytest.raises(Cancelled) as caught:
        engine.train([scan], config, Runtime(output_dir=tmp_path), progress=stop)
    again = engine.train([scan], config, Runtime(resume_from=Path(caught.value.checkpoint_path)))
    for name, value in whole.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)
    assert again.history == whole.history


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"hiden": 5}, r"model\.hiden = 5: generator 'pixel_mlp' has no such size; it has hidden, warm_up\. Did you"),
        ({"width": 8}, r"model\.width = 8: generator 'pixel_mlp' has no such size; it has hidden, warm_up\."),
        ({"hidden": 0}, r"PixelSizes\.hidden = 0; it must be between 1 and 64"),
        ({"hidden": 2.0}, r"PixelSizes\.hidden = 2\.0 is a float; it must be int"),
    ],
)
def test_sizes_that_it_does_not_have_are_refused_before_data_are_read(site, tmp_path, model, words):
    config = config_of(model={"generator": "pixel_mlp", **model})
    with pytest.raises(ConfigError, match=words):
        ptycho_core.run(tmp_path / "no such file.npz", config)


@pytest.mark.spec("BE-28")
def test_passes_that_it_does_not_have(site, tmp_path):
    with pytest.raises(ConfigError, match=r"InferenceConfig\.passes = 2 has no effect on generator 'pixel_mlp'"):
        ptycho_core.run(tmp_path / "no such file.npz", config_of(inference={"passes": 2}))


def test_another_engine_names_both_where_it_lacks_the_generator(site, made, tmp_path):
    config = config_of(epochs=1, refinement={"engine": "none"})
    path = tmp_path / "model.ptycho"
    ptycho_core.save_model(ptycho_core.run(made.raw, config).model, path)
    with pytest.raises(ArchiveError, match=r"architecture 'pixel_mlp'.* engine 'pixel'; engine 'numpy' knows none"):
        ptycho_core.load_model(path, backend="numpy")
    with pytest.raises(
        ConfigError, match=r"engine 'pixel': model.generator = 'probe_unet' is not supported; allowed architectures: p"
    ):
        ptycho_core.run(made.raw, config_of(model={"generator": "probe_unet"}))


OTHER = MODULES["pixel_generator"].replace('"pixel"', '"other"').replace("pixel_generator:", "other_generator:")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (OTHER.replace("hidden: int = 3", "hidden: int = 4"), r"sizes \(hidden = 3, warm_up = 4\) and \(hidden = 4, "),
        (
            OTHER.replace("(sizes.hidden, 4)", "(sizes.hidden, 6)"),
            r"weight 'in\.weight' of shape \(3, 4\) and \(3, 6\)",
        ),
        (OTHER.replace("sweeps=lambda sizes: sizes.warm_up, ", ""), r"other groups, sweeps or passes"),
    ],
    ids=["sizes", "shapes", "sweeps"],
)
def test_two_networks_of_one_name_are_refused_before_data_are_read(site, tmp_path, source, words):
    install(site, "other-engine", {"other": "other_generator"}, {"other_generator": source})
    with pytest.raises(BackendConflictError, match=rf"'pixel_mlp' is one network in engine 'pixel' .*'other': {words}"):
        ptycho_core.run(tmp_path / "no such file.npz", config_of())


@pytest.mark.spec("BE-29")
def test_two_engines_may_have_one_network(site):
    install(site, "other-engine", {"other": "other_generator"}, {"other_generator": OTHER})
    assert [who for who, record in installed_generators() if record.name == "pixel_mlp"] == ["other", "pixel"]
    assert with_typed_model(config_of()).network.sizes.plain()["hidden"] == 5


@pytest.mark.spec("BE-29")
def test_a_network_called_like_one_that_ships_is_refused_and_harms_no_other(site, tmp_path):
    source = OTHER.replace("pixel_mlp", "cnn")
    install(site, "other-engine", {"other": "other_generator"}, {"other_generator": source})
    with pytest.raises(
        BackendConflictError, match=r"'cnn' is one network in engine 'other' and another in 'ptycho-core'"
    ):
        ptycho_core.run(tmp_path / "none.npz", config_of(backend="other", model={"generator": "cnn"}))
    assert with_typed_model(config_of()).network.sizes.plain()["hidden"] == 5


def test_an_engine_whose_generator_nobody_described(site):
    source = MODULES["pixel_generator"].replace('generators="pixel_generator:GENERATORS", ', "")
    (site / "pixel_generator.py").write_text(source)
    with pytest.raises(BackendProtocolError, match=r"names 'pixel_mlp', which has no record; give the BackendSpec"):
        ptycho_core.load_backend("pixel")


def test_the_command_knows_its_sizes(site, made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scan(tmp_path / "scan.npz", made.raw)
    given = ["--backend", "pixel", "--method", "network", "--model.generator", "pixel_mlp", "--group_size", "4"]
    small = ["--model.hidden", "2", "--epochs", "1", "--schedule", "constant", "--refinement.engine", "none"]
    assert main(["train", "scan.npz", *given, *small, "--out", "out"]) == 0, capsys.readouterr().err
    (path,) = (tmp_path / "out").rglob("model.ptycho")
    assert ptycho_core.load_model(path).config.network.sizes.plain() == {"hidden": 2, "warm_up": 4}
    assert main(["train", "--help-all"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--model.hidden N pixel_mlp: units that look at each pixel (default: 3)" in said


def test_sizes_stay_plain_and_are_a_value():
    config = config_of()
    assert config == config_of()
    assert hash(config.network) == hash(ModelConfig(generator="pixel_mlp"))
    assert config_to_mapping(config)["model"] == {"generator": "pixel_mlp", "hidden": 5, "warm_up": 2}
