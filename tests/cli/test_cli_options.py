"""Options: strict names and values, and default < file < command line."""

from __future__ import annotations

import pytest

from ptycho_core.cli import run, simulate
from ptycho_core.cli.options import add_config_options, build_config, given_fields, make_parser, parse
from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.errors import ConfigError
from ptycho_core.simulation import SimulationConfig

OMIT = {"output_dir": "the folder is chosen with --out"}


def config_of(*arguments, base=None):
    return build_config(TrainingConfig, parse(run.build_parser(), ["scan.npz", *arguments]), omit=OMIT, base=base)


def write(tmp_path, text, name="c.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_nothing_given_is_the_default():
    assert config_of() == TrainingConfig()


def test_precedence_default_file_command_line(tmp_path):
    path = write(tmp_path, "epochs: 7\nlearning_rate: 1e-2\nmodel: {width: 20, depth: 2}\n")
    for arguments in (
        ["--config", path, "--epochs", "5", "--model.width", "24"],
        ["--epochs", "5", "--model.width", "24", "--config", path],
    ):
        config = config_of(*arguments)
        assert (config.epochs, config.model.width) == (5, 24), "the command line wins in either order"
        assert (config.learning_rate, config.model.depth) == (1e-2, 2), "the file wins over the default"
        assert config.batch_size == TrainingConfig().batch_size


def test_a_value_equal_to_the_default_still_overrides_the_file(tmp_path):
    path = write(tmp_path, "epochs: 7\n")
    assert config_of("--config", path, "--epochs", str(TrainingConfig().epochs)).epochs == TrainingConfig().epochs


def test_base_lies_below_the_file(tmp_path):
    path = write(tmp_path, "epochs: 7\n")
    config = config_of("--config", path, base={"epochs": 3, "seed": 9})
    assert (config.epochs, config.seed) == (7, 9)


def test_values_of_each_type():
    config = config_of(
        "--probe_trainable", "true", "--scale_trainable=false", "--nphotons", "1e6", "--n_groups", "null",
        "--resume_from", "a b/last.ckpt", "--loggers", "[mlflow]", "--inference.batch_size", "32",
    )  # fmt: skip
    assert config.probe_trainable is True
    assert config.scale_trainable is False
    assert config.nphotons == 1e6
    assert config.n_groups is None
    assert str(config.resume_from) == "a b/last.ckpt"
    assert config.loggers == ("mlflow",)
    assert config.inference.batch_size == 32


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epoch", "5"], "unknown option --epoch. Did you mean '--epochs'"),
        (["--width", "5"], "Did you mean '--model.width'?"),
        (["--verb"], "Did you mean '--verbose'"),
        (["--output_dir", "x"], "unknown option --output_dir"),
        (["--epochs", "5.5"], "--epochs = 5.5; it must be an integer"),
        (["--epochs", "0"], "TrainingConfig.epochs = 0"),
        (["--probe_trainable", "1"], "--probe_trainable = 1; it must be true or false"),
        (["--probe_trainable", "maybe"], "it must be true or false"),
        (["--probe_trainable"], "argument"),
        (["--loss", "posson"], "Did you mean 'poisson'"),
        (["--measurement", "intensity"], "--measurement"),
        (["--n_images", "5"], "n_subsample"),
        (["another.npz"], "another.npz"),
    ],
)
def test_wrong_option_is_refused_in_one_line(arguments, said):
    with pytest.raises(ConfigError) as caught:
        config_of(*arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 5\n", "Did you mean 'epochs'"),
        ("model: {widht: 3}\n", "Did you mean 'width'"),
        ("n_images: 5\n", "n_groups"),
        ("epochs: 5\nepochs: 6\n", "'epochs' is given twice"),
        ("nepochs: 5\nepochs: 6\n", "given twice"),
        ("output_dir: x\n", "the folder is chosen with --out"),
        ("- 1\n", "must hold 'name: value'"),
        ("epochs: [1\n", "not a YAML or JSON file"),
        ("epochs: '5'\n", "TrainingConfig.epochs = '5' is a str"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*nepochs.*:DeprecationWarning")
def test_wrong_file_is_refused(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        config_of("--config", path)
    assert said in str(caught.value)


def test_fault_of_a_file_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        config_of("--config", write(tmp_path, "epoch: 5\n"))
    with pytest.raises(ConfigError, match=r"gone\.yaml.*cannot be read"):
        config_of("--config", str(tmp_path / "gone.yaml"))


def test_old_names_are_accepted_with_a_notice(tmp_path):
    with pytest.warns(DeprecationWarning, match="say 'epochs'"):
        assert config_of("--nepochs", "4").epochs == 4
    with pytest.warns(DeprecationWarning, match="say 'neighbor_pool_size'"):
        assert config_of("--neighbor_count=31").neighbor_pool_size == 31
    path = write(tmp_path, "nepochs: 4\n")
    with pytest.warns(DeprecationWarning, match="say 'epochs'"):
        assert config_of("--config", path).epochs == 4
    with pytest.warns(DeprecationWarning, match="say 'epochs'"):
        assert config_of("--config", path, "--epochs", "6").epochs == 6, "the old name in a file is below the new one"


def test_dashes_may_stand_for_underscores():
    options = parse(run.build_parser(), ["scan.npz", "--half-data-frc", "--test-fraction", "0.2"])
    assert options["half_data_frc"] is True
    assert options["test_fraction"] == 0.2


def test_every_field_of_the_config_is_an_option():
    known = run.build_parser()._option_string_actions
    assert {"--epochs", "--model.width", "--inference.batch_size", "--seed"} <= known.keys()
    assert "--output_dir" not in known


def inference_parser():
    parser = make_parser("x", "", "summary", "ptycho x")
    add_config_options(parser, InferenceConfig, omit={})
    return parser


def test_inference_settings_stand_under_their_own_name(tmp_path):
    path = write(tmp_path, "inference: {batch_size: 8, precision: '32'}\n")
    options = parse(inference_parser(), ["--inference.batch_size", "4", "--config", path])
    config = build_config(InferenceConfig, options, omit={}, base={"batch_size": 128, "accelerator": "cpu"})
    assert (config.batch_size, config.precision, config.accelerator) == (4, "32", "cpu")
    options = parse(inference_parser(), ["--config", write(tmp_path, "epochs: 3\n", "d.yaml")])
    with pytest.raises(ConfigError, match="no effect on a trained model"):
        build_config(InferenceConfig, options, omit={})


def test_fields_of_a_simulation(tmp_path):
    path = write(tmp_path, "photons: 1e4\ngrid_shape: [3, 5]\nseed: 1\n")
    options = parse(simulate.build_parser(), ["--config", path, "--seed", "2", "--phase_range_rad", "[-0.5,0.25]"])
    config = SimulationConfig(**given_fields(SimulationConfig, options))
    assert config == SimulationConfig(photons=1e4, grid_shape=(3, 5), seed=2, phase_range_rad=(-0.5, 0.25))
    options = parse(simulate.build_parser(), ["--config", write(tmp_path, "photon: 3\n", "d.yaml")])
    with pytest.raises(ConfigError, match="Did you mean 'photons'"):
        given_fields(SimulationConfig, options)
