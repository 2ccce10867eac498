"""Options: strict names and values, and default < preset < file < command line."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from stub_engines import offer_only

from ptycho_backend_tensorflow.options import TensorflowOptions
from ptycho_core.cli import reconstruct, run, simulate, train
from ptycho_core.cli.fields import fields_of
from ptycho_core.cli.options import parse
from ptycho_core.cli.reading_options import read_options
from ptycho_core.cli.refining import with_refine_option
from ptycho_core.cli.session import Session
from ptycho_core.cli.settings import build_inference, build_settings, given_fields
from ptycho_core.cli.values import type_text, typed_value
from ptycho_core.cli.words import files_given
from ptycho_core.config import InferenceConfig, ModelConfig, RefinementConfig, TrainingConfig
from ptycho_core.data.propagation import Propagation
from ptycho_core.errors import BackendUnavailableError, ConfigError
from ptycho_core.reader_protocol import ReadOptions
from ptycho_core.runtime import Runtime
from ptycho_core.simulation import SimulationConfig


def settings_of(*arguments, command=run, method=None):
    """Config and runtime of a command line, as the command makes them."""
    options = parse(command.build_parser(), ["scan.npz", *arguments])
    if "refine" in options:
        options = with_refine_option(options)
    return build_settings(options, Session(), method=method)


def config_of(*arguments):
    return settings_of("--backend", "pytorch", *arguments)[0]


def runtime_of(*arguments):
    return settings_of("--backend", "pytorch", *arguments)[1]


def write(tmp_path, text, name="c.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


# ---- layers


def test_nothing_given_is_the_default():
    assert settings_of("--backend", "pytorch") == (TrainingConfig(backend="pytorch"), Runtime())
    assert settings_of("--backend", "auto") == (TrainingConfig(), Runtime())


def test_precedence_default_file_command_line(tmp_path):
    path = write(tmp_path, "epochs: 7\nthreads: 3\ndevices: 2\nlearning_rate: 1e-2\nmodel: {width: 20, depth: 2}\n")
    given = ["--epochs", "5", "--model.width", "24", "--threads", "1"]
    for arguments in (["--config", path, *given], [*given, "--config", path]):
        config, runtime = settings_of("--backend", "pytorch", *arguments)
        assert config.epochs == 5, "the command line wins in either order"
        assert config.model == ModelConfig(width=24, depth=2), "the file wins over the default, field by field"
        assert config.learning_rate == 1e-2
        assert config.batch_size == TrainingConfig(method="network").batch_size
        assert (runtime.threads, runtime.devices) == (1, 2)


def test_a_value_equal_to_the_default_still_overrides_the_file(tmp_path):
    path = write(tmp_path, "epochs: 7\nloss: amplitude\n")
    config = config_of("--config", path, "--epochs", str(TrainingConfig().epochs), "--loss", "null")
    assert (config.epochs, config.loss) == (TrainingConfig().epochs, TrainingConfig().loss)


def test_a_preset_lies_below_the_file(tmp_path):
    path = write(tmp_path, "refinement: {epochs: 9}\n")
    config = config_of("--preset", "best", "--config", path, "--seed", "3")
    assert (config.refinement.epochs, config.seed) == (9, 3)
    assert config.refinement.patience > RefinementConfig().patience, "the rest is the preset's"


def test_the_short_form_of_refining_lies_below_the_long_one():
    assert config_of("--refine", "numpy:7").refinement == RefinementConfig(engine="numpy", epochs=7)
    assert config_of("--refine", "numpy:7", "--refinement.epochs", "3").refinement.epochs == 3
    with pytest.raises(ConfigError, match="--refine = 'numpy:x'; it must be none, auto or ENGINE"):
        config_of("--refine", "numpy:x")


def test_settings_of_the_runtime_may_stand_under_its_name(tmp_path):
    path = write(tmp_path, "runtime: {threads: 4, loggers: [mlflow]}\n")
    assert runtime_of("--config", path) == Runtime(threads=4, loggers=("mlflow",))
    assert runtime_of("--config", path, "--runtime.threads", "2").threads == 2


# ---- values


def test_values_of_each_type():
    config, runtime = settings_of(
        "--backend", "pytorch", "--probe_trainable", "true", "--scale_trainable=false", "--nphotons", "1e6",
        "--n_groups", "null", "--resume_from", "a b/last.ckpt", "--loggers", "[mlflow]", "--frames_at_once", "32",
        "--refinement.positions", "false", "--precision", "32",
    )  # fmt: skip
    assert config.probe_trainable is True
    assert config.scale_trainable is False
    assert config.nphotons == 1e6
    assert config.n_groups is None
    assert config.refinement.positions is False
    assert runtime == Runtime(resume_from=Path("a b/last.ckpt"), loggers=("mlflow",), frames_at_once=32, precision="32")


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("-1e-3", float, -1e-3),
        ("7", float, 7.0),
        ("-7", int, -7),
        ("null", int | None, None),
        ("null", str, "null"),
        ("5", str, "5"),
        ("true", bool | None, True),
        ("[a, 'b c']", tuple[str, ...], ("a", "b c")),
        ("[1e-3,2]", tuple[float, float], (1e-3, 2)),
        ('{"a": {"b": 1e-3}}', dict[str, int], {"a": {"b": 1e-3}}),
        ("{a: [1, x]}", dict[str, int], {"a": [1, "x"]}),
    ],
)
def test_a_word_becomes_the_value_of_its_field(text, hint, value):
    found = typed_value(text, hint)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("5.5", int), ("1e3", int), ("five", float), ("nan", float), ("inf", float), ("True", bool), ("1", bool),
        ("null", int), ("a", tuple[str, ...]), ("[1, a]", tuple[int, int]), ("[1", tuple[int, int]),
        ("[1]", dict[str, int]), ("{a: 1, a: 2}", dict[str, int]), ("", int | None),
    ],
)  # fmt: skip
def test_a_word_that_is_no_value_of_its_field(text, hint):
    with pytest.raises(ValueError, match=r"^"):
        typed_value(text, hint)


def test_what_a_value_must_be_is_said_for_every_setting():
    for config_type in (TrainingConfig, Runtime, InferenceConfig, SimulationConfig):
        for field in fields_of(config_type):
            assert type_text(field.hint), field.name
            assert field.text, field.name


@pytest.mark.parametrize("value", ["-1e-3", "-.5"])
def test_a_negative_value_is_no_option(value):
    with pytest.raises(ConfigError, match=r"nphotons = -[\d.e-]+; it must be at least"):
        config_of("--nphotons", value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epoch", "5"], "unknown option --epoch. Did you mean '--epochs'"),
        (["--width", "5"], "Did you mean '--model.width'?"),
        (["--model.widht", "5"], "Did you mean '--model.width'"),
        (["--thread", "5"], "Did you mean '--threads'"),
        (["--verb"], "Did you mean '--verbose'"),
        (["--output_dir", "x"], "unknown option --output_dir"),
        (["--epochs", "5.5"], "--epochs = 5.5; it must be an integer or null"),
        (["--epochs", "0"], "TrainingConfig.epochs = 0"),
        (["--threads", "0"], "Runtime.threads = 0"),
        (["--probe_trainable", "1"], "--probe_trainable = 1; it must be true or false"),
        (["--probe_trainable", "maybe"], "it must be true or false"),
        (["--refinement.positions", "yes"], "--refinement.positions = yes; it must be true or false or null"),
        (["--loggers", "mlflow"], "--loggers = mlflow; it must be a list such as [a,b]"),
        (["--options", "lsq"], "--options = lsq; it must be a mapping"),
        (["--probe_trainable"], "argument --probe_trainable: expected one argument"),
        (["--probe_trainable", "--verbose"], "argument --probe_trainable: expected one argument"),
        (["--options.pytorch.x"], "argument --options.pytorch.x: expected one argument"),
        (["--verbose=1"], "ignored explicit argument '1'"),
        (["--loss", "posson"], "Did you mean 'poisson'"),
        (["--method", "solve"], "Did you mean 'solver'"),
        (["--preset", "fast"], "--preset: invalid choice: 'fast' (choose from"),
        (["--measurement", "intensity"], "--measurement: invalid choice: 'intensity'"),
        (["--n_images", "5"], "n_subsample"),
        (["another.npz"], "another.npz"),
    ],
)
def test_wrong_option_is_refused_in_one_line(arguments, said):
    with pytest.raises(ConfigError) as caught:
        config_of(*arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_is_never_abbreviated():
    with pytest.raises(ConfigError, match="unknown option --measure"):
        config_of("--measure", "counts")


# ---- files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 5\n", "Did you mean 'epochs'"),
        ("thread: 5\n", "Did you mean 'threads'"),
        ("width: 5\n", "Did you mean 'model.width'"),
        ("runtime: {thread: 5}\n", "Did you mean 'threads'"),
        ("runtime: {threads: 5}\nthreads: 5\n", "'threads' is given twice"),
        ("n_images: 5\n", "n_groups"),
        ("epochs: 5\nepochs: 6\n", "'epochs' is given twice"),
        ("nepochs: 5\nepochs: 6\n", "given twice"),
        ("output_dir: x\n", "the folder is chosen with --out"),
        ("runtime: {output_dir: x}\n", "the folder is chosen with --out"),
        ("- 1\n", "must hold 'name: value'"),
        ("epochs: [1\n", "not YAML or JSON"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*nepochs.*:DeprecationWarning")
def test_wrong_file_is_refused_by_its_name(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        config_of("--config", path)
    assert said in str(caught.value)
    assert "c.yaml: " in str(caught.value)


def test_a_wrong_value_of_a_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"TrainingConfig.epochs = '5' is a str"):
        config_of("--config", write(tmp_path, "epochs: '5'\n"))
    with pytest.raises(ConfigError, match=r"model.widht = 3: .*Did you mean 'width'"):
        config_of("--config", write(tmp_path, "model: {widht: 3}\n"))
    with pytest.raises(ConfigError, match=r"gone\.yaml.*cannot be read"):
        config_of("--config", str(tmp_path / "gone.yaml"))


def test_a_file_may_be_json(tmp_path):
    assert config_of("--config", write(tmp_path, '{"epochs": 3, "learning_rate": 1e-2}')).epochs == 3


# ---- names


def test_old_names_are_accepted_with_a_notice(tmp_path):
    with pytest.warns(DeprecationWarning, match="say 'epochs'"):
        assert config_of("--nepochs", "4").epochs == 4
    with pytest.warns(DeprecationWarning, match="say 'neighbor_pool_size'"):
        assert config_of("--neighbor_count=31").neighbor_pool_size == 31
    with pytest.warns(DeprecationWarning, match="say 'frames_at_once'"):
        assert runtime_of("--inference.batch-size", "8").frames_at_once == 8
    path = write(tmp_path, "inference: {accelerator: cpu}\n")
    with pytest.warns(DeprecationWarning, match="say 'accelerator'"):
        assert runtime_of("--config", path).accelerator == "cpu"
    path = write(tmp_path, "nepochs: 4\n")
    with pytest.warns(DeprecationWarning, match="say 'epochs'"):
        assert config_of("--config", path).epochs == 4
    with pytest.warns(DeprecationWarning, match="say 'epochs'"):
        assert config_of("--config", path, "--epochs", "6").epochs == 6, "the old name in a file is below the new one"


def test_dashes_may_stand_for_underscores():
    options = parse(run.build_parser(), ["scan.npz", "--half-data-frc", "--test-fraction", "0.2"])
    assert options["half_data_frc"] is True
    assert options["settings"] == {"test_fraction": 0.2}


def test_what_follows_two_dashes_is_no_option():
    options = parse(run.build_parser(), ["--epochs", "3", "--", "--odd.npz"])
    assert options["data"] == "--odd.npz"


def test_every_field_of_config_and_runtime_is_an_option():
    known = run.build_parser().known
    names = {field.name for config_type in (TrainingConfig, Runtime) for field in fields_of(config_type)}
    assert {f"--{name}" for name in names} - {"--output_dir"} <= known.keys()
    assert {"--model.width", "--model.passes", "--refinement.frame_scale", "--threads"} <= known.keys()
    assert "--output_dir" not in known


# ---- options of engines


def of_engines(*arguments):
    options = parse(run.build_parser(), ["scan.npz", *arguments])
    return options["settings"].get("options")


def test_settings_of_an_engine():
    assert of_engines("--options", '{"algorithm": "lsq"}') == {"algorithm": "lsq"}
    assert of_engines("--options", "{ptychi: {algorithm: rpie}}") == {"ptychi": {"algorithm": "rpie"}}
    assert of_engines("--options.ptychi.algorithm", "rpie", "--options.ptychi.alpha=1e-2") == {
        "ptychi": {"algorithm": "rpie", "alpha": 1e-2}
    }
    given = ["--options.ptychi.alpha", "0.5", "--options", "{ptychi: {algorithm: rpie, alpha: 0.1}}"]
    assert of_engines(*given) == {"ptychi": {"algorithm": "rpie", "alpha": 0.5}}


@pytest.mark.ptychi
def test_settings_of_an_engine_reach_it(tmp_path):
    path = write(tmp_path, "backend: ptychi\noptions: {ptychi: {algorithm: rpie, alpha: 0.5}}\n")
    config = settings_of("--config", path, "--options.ptychi.alpha", "0.25")[0]
    (options,) = config.options
    assert (options.engine, options.algorithm, options.alpha) == ("ptychi", "rpie", 0.25)
    (options,) = settings_of("--backend", "ptychi", "--options", '{"algorithm": "rpie"}')[0].options
    assert (options.engine, options.algorithm) == ("ptychi", "rpie")
    with pytest.raises(ConfigError, match="Did you mean 'algorithm'"):
        settings_of("--backend", "ptychi", "--options.ptychi.algoritm", "rpie")


def test_options_with_and_without_the_name_of_an_engine_do_not_mix(tmp_path):
    path = write(tmp_path, "options: {ptychi: {algorithm: rpie}}\n")
    with pytest.raises(ConfigError, match="name it in both"):
        config_of("--config", path, "--options", '{"alpha": 0.5}')


def test_settings_of_an_engine_without_a_part_are_refused():
    with pytest.raises(ConfigError, match="engine 'numpy' has none"):
        config_of("--options.numpy.algorithm", "rpie")


# ---- engine and method


def offer(monkeypatch, *names):
    plugins = {name: name for name in names} | {"pytorch": "torch"}
    entries = [
        importlib.metadata.EntryPoint(name, f"ptycho_backend_{plugins[name]}.plugin", "ptycho.backends")
        for name in names
    ]
    offer_only(monkeypatch, entries)


@pytest.fixture
def installed(monkeypatch):
    """Let every package that an engine needs count as installed but for some."""
    from ptycho_core.plugins import registry

    absent: set[str] = set()
    monkeypatch.setattr(registry, "is_missing", lambda module: module in absent)
    return absent


ALL = ("numpy", "ptychi", "pytorch", "tensorflow")


@pytest.mark.parametrize(
    ("arguments", "absent", "engine"),
    [
        ([], set(), "numpy"),
        (["--method", "solver"], set(), "numpy"),
        (["--accelerator", "cpu"], set(), "numpy"),
        (["--accelerator", "cuda"], set(), "pytorch"),
        (["--accelerator", "cuda"], {"torch"}, "tensorflow"),
        (["--method", "network"], set(), "pytorch"),
        (["--model.width", "4"], set(), "pytorch"),
        (["--method", "network"], {"torch"}, "tensorflow"),
        (["--method", "network"], {"lightning"}, "tensorflow"),
        (["--method", "network", "--backend", "tensorflow"], set(), "tensorflow"),
        ([], {"numpy"}, "pytorch"),
        ([], {"numpy", "torch"}, "tensorflow"),
    ],
)
def test_the_engine_where_none_is_named(monkeypatch, installed, capsys, arguments, absent, engine):
    offer(monkeypatch, *ALL)
    installed |= absent
    config, _ = settings_of(*arguments)
    assert config.backend == engine
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"engine    {engine}")
    assert ("--backend names another" in line) == ("--backend" not in arguments)


def test_the_engine_of_a_file_is_named(monkeypatch, tmp_path):
    offer(monkeypatch, *ALL)
    assert settings_of("--config", write(tmp_path, "backend: tensorflow\n"))[0].backend == "tensorflow"


def test_without_an_engine_for_it_one_line_says_what_to_install(monkeypatch, installed):
    offer(monkeypatch, *ALL)
    installed |= {"torch", "tensorflow"}
    with pytest.raises(BackendUnavailableError) as caught:
        settings_of("--method", "network")
    said = str(caught.value)
    assert "no engine that trains a network is installed" in said
    assert "pip install 'ptycho-core[torch]' or 'ptycho-core[tensorflow]'" in said
    assert "pytorch is missing: not installed: torch" in said
    installed |= {"numpy"}
    with pytest.raises(BackendUnavailableError, match="no engine that solves is installed"):
        settings_of()


def test_method_words():
    assert config_of().method == "solver"
    assert config_of("--model.width", "4").method == "network"
    assert config_of("--method", "network").model == ModelConfig()
    with pytest.raises(ConfigError, match="method = 'solver' has no network"):
        config_of("--method", "solver", "--model.width", "4")


@pytest.mark.parametrize(
    ("arguments", "method"),
    [([], "network"), (["--method", "solver"], "solver"), (["--model.width", "4"], "network")],
)
def test_train_trains_a_network_unless_told_otherwise(arguments, method):
    assert settings_of("--backend", "pytorch", *arguments, command=train, method="network")[0].method == method


def test_train_asks_its_config_first(tmp_path):
    path = write(tmp_path, "method: solver\n")
    assert settings_of("--backend", "numpy", "--config", path, command=train, method="network")[0].method == "solver"


# ---- reading


def test_propagation():
    def said(*arguments):
        return read_options(parse(run.build_parser(), ["scan.npz", *arguments])).propagation

    assert said() is None
    assert said("--propagation", "far_field") == Propagation()
    assert said("--propagation", "near_field:4e-3") == Propagation("near_field", 4e-3)
    for wrong in ("near_field", "near_field:", "near_field:-1", "far_field:2", "middle"):
        with pytest.raises(ConfigError, match=rf"--propagation = {wrong}; it must be far_field, or near_field:F"):
            said("--propagation", wrong)


def test_what_is_said_of_a_scan():
    def said(*arguments):
        return read_options(parse(run.build_parser(), ["scan.npz", *arguments]))

    assert said() == ReadOptions()
    assert said("--scan_step", "93.75A", "--rotate", "-126", "--raster", "43,40") == ReadOptions(
        scan_step_m=(93.75e-10, 93.75e-10), rotate_deg=-126.0, raster=(43, 40)
    )
    assert said("--scan-step", "50nm,2 um").scan_step_m == pytest.approx((5e-8, 2e-6))
    given = said("--energy_eV", "300 keV", "--radiation", "electron", "--pixel_size_m", "9.3A", "--distance_m", "650mm")
    assert (given.energy_eV, given.radiation) == (300e3, "electron")
    assert (given.pixel_size_m, given.distance_m) == pytest.approx((9.3e-10, 0.65))
    given = said("--crop", "64", "--bin", "2", "--centre", "31.5,40", "--mask", "auto", "--background", "0.5")
    assert (given.crop, given.bin, given.centre, given.mask, given.background) == (64, 2, (31.5, 40.0), "auto", 0.5)
    given = said(
        "--mask", "bad.npy", "--background", "dark.npy", "--gain", "auto", "--centre", "auto", "--map", "m.yaml"
    )
    assert (given.mask, given.background, given.mapping) == (Path("bad.npy"), Path("dark.npy"), Path("m.yaml"))
    assert (given.gain, given.centre) == ("auto", "auto")
    given = said(
        "--frames", "0:10", "--scan_index", "2", "--orientation", "transpose", "--position_unit", "um", "--follow"
    )
    assert (given.frames, given.entry, given.orientation, given.follow) == ("0:10", "2", "transpose", True)
    assert said("--orientation", "auto").orientation is None  # whoever calls tries all


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--scan_step", "fifty"), "--scan_step = 'fifty'; it must be a number"),
        (("--scan_step", "5 parsec"), "unit 'parsec'; allowed: m, cm, mm"),
        (("--scan_step", "1nm,2nm,3nm"), "one length, or two"),
        (("--energy_eV", "8 kV"), "unit 'kV'; allowed: eV, keV"),
        (("--energy_eV", "-8"), "--energy_eV = -8; it must be a finite number > 0"),
        (("--crop", "big"), "--crop = big; it must be a whole number"),
        (("--centre", "3"), "--centre = 3; it must be two numbers y,x"),
        (("--raster", "3x4"), "--raster = 3x4"),
        (("--rotate", "left"), "--rotate = left; it must be a number"),
        (("--entry", "a", "--scan_index", "0"), "given both"),
        (("--gain", "0"), "--gain = 0; it must be a finite number > 0"),
        (("--mask_polarity", "up"), "invalid choice: 'up'"),
    ],
)
def test_what_cannot_be_said_of_a_scan(arguments, match):
    with pytest.raises(ConfigError, match=match):
        read_options(parse(run.build_parser(), ["scan.npz", *arguments]))


def test_a_file_that_holds_a_dataset_is_among_those_to_leave_alone(tmp_path):
    for name in ("motors.h5", "dark.npy", "scan.npz"):
        (tmp_path / name).write_bytes(b"x")
    given = ["--positions", f"{tmp_path}/motors.h5:/entry/y,/entry/x", "--background", f"{tmp_path}/dark.npy"]
    options = parse(run.build_parser(), [f"{tmp_path}/scan.npz", *given, "--mask", "auto", "--frames", "0:9"])
    assert {path.name for path in files_given(options)} == {"motors.h5", "dark.npy", "scan.npz"}


# ---- other commands


def inference_of(*arguments, model=InferenceConfig()):  # noqa: B008
    options = parse(reconstruct.build_parser(), ["scan.npz", "--model", "m.ptycho", *arguments])
    return build_inference(options, model)


def test_inference_is_what_the_model_was_trained_for_unless_told_otherwise(tmp_path):
    path = write(tmp_path, "inference: {central_crop_px: 8}\nthreads: 2\nprecision: '32'\n")
    trained = InferenceConfig(central_crop_px=24, passes=5)
    assert inference_of(model=trained) == (trained, Runtime())
    inference, runtime = inference_of("--threads", "1", "--config", path, model=trained)
    assert inference == InferenceConfig(central_crop_px=8, passes=5)
    assert runtime == Runtime(threads=1, precision="32")
    assert inference_of("--config", path, "--inference.central_crop_px", "4")[0].central_crop_px == 4
    with pytest.warns(DeprecationWarning, match="say 'frames_at_once'"):
        assert inference_of("--inference.batch_size", "4")[1].frames_at_once == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs: 3\n", "'epochs' has no effect on a trained model"),
        ("resume_from: x\n", "nothing to go on from"),
        ("inference: [1]\n", "'inference' must hold"),
        ("inference: {passse: 1}\n", "Did you mean 'passes'"),
    ],
)
def test_what_has_no_effect_on_a_trained_model_is_refused(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        inference_of("--config", write(tmp_path, text))
    with pytest.raises(ConfigError, match="unknown option --epochs"):
        inference_of("--epochs", "3")


def test_fields_of_a_simulation(tmp_path):
    path = write(tmp_path, "photons: 1e4\ngrid_shape: [3, 5]\nseed: 1\n")
    options = parse(simulate.build_parser(), ["--config", path, "--seed", "2", "--phase_range_rad", "[-0.5,0.25]"])
    config = SimulationConfig(**given_fields(SimulationConfig, options))
    assert config == SimulationConfig(photons=1e4, grid_shape=(3, 5), seed=2, phase_range_rad=(-0.5, 0.25))
    options = parse(simulate.build_parser(), ["--config", write(tmp_path, "photon: 3\n", "d.yaml")])
    with pytest.raises(ConfigError, match="Did you mean 'photons'"):
        given_fields(SimulationConfig, options)


def test_a_word_is_no_truth_value(tmp_path):
    """YAML 1.1 reads ``on`` as true, which is a word of an engine's option here."""
    wanted = TensorflowOptions(jit="on")
    engine = ("--backend", "tensorflow", "--method", "network")
    path = write(tmp_path, "options: {tensorflow: {jit: on}}\n")
    for given in (("--config", path), ("--options.tensorflow.jit", "on")):
        assert settings_of(*engine, *given)[0].options_for("tensorflow") == wanted
    with pytest.raises(ConfigError, match="positions"):
        config_of("--config", write(tmp_path, "refinement: {positions: yes}\n"))
