"""``ptycho settings`` and ``settings.yaml``: both are what ``--config`` takes as it is (CMD-15)."""

from __future__ import annotations

import json
import os
import shlex
import signal
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptycho_core.api.run import run as run_scan
from ptycho_core.api.train import train as train_scan
from ptycho_core.cli import main as cli
from ptycho_core.cli import run
from ptycho_core.cli.options import parse
from ptycho_core.cli.refining import with_refine_option
from ptycho_core.cli.session import Session
from ptycho_core.cli.settings import build_settings, with_reading
from ptycho_core.config import RefinementConfig, TrainingConfig
from ptycho_core.errors import ConfigError
from ptycho_core.io.plain_yaml import read_yaml
from ptycho_core.io.result_folder import verify_result
from ptycho_core.io.settings_text import settings_lines, yaml_value
from ptycho_core.reader_protocol import ReadOptions
from ptycho_core.runtime import Runtime


def printed(capsys, *words: str) -> str:
    assert cli.main(["settings", *words]) == 0
    return capsys.readouterr().out


def taken(path: Path, *words: str) -> tuple[TrainingConfig, Runtime]:
    options = with_refine_option(parse(run.build_parser(), ["scan.npz", "--config", str(path), *words]))
    return build_settings(options, Session())


def given(*words: str) -> tuple[TrainingConfig, Runtime]:
    options = with_refine_option(parse(run.build_parser(), ["scan.npz", *words]))
    return build_settings(options, Session())


NETWORK = ["--backend", "pytorch", "--method", "network", "--model.width", "5"]


@pytest.mark.spec("CMD-15")
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--preset", "quick"],
        ["--preset", "best", "--backend", "numpy"],
        NETWORK,
        [*NETWORK, "--preset", "best", "--refinement.probe_support", "0.7"],
        ["--backend", "tensorflow", "--method", "network", "--options.tensorflow.jit", "off"],
        ["--epochs", "7", "--precision", "32", "--loggers", "[mlflow]", "--learning_rate", "3.7e-5"],
    ],
    ids=lambda words: " ".join(words) or "none",
)
def test_what_is_printed_is_taken_as_it_is(words, tmp_path, capsys):
    path = tmp_path / "settings.yaml"
    path.write_text(printed(capsys, *words))
    assert taken(path) == given(*words)


@pytest.mark.spec("CMD-15")
def test_every_setting_stands_there_with_its_meaning(capsys):
    text = printed(capsys, *NETWORK)
    words = " ".join(text.replace("#", " ").split())
    for field in run.build_parser().settings.values():
        leaf = field.name.rpartition(".")[2]
        if not field.name.startswith(("options", "model")):
            assert f"\n{'  ' * field.name.count('.')}{leaf}: " in text or f"  {leaf}: " in text, field.name
            assert " ".join(field.text.split()) in words, field.name
    assert "\nmodel:\n" in text
    assert "\n  width: 5\n" in text
    assert "#   measurement: amplitude|counts" in text
    assert "\n# model:\n" in printed(capsys)


@pytest.mark.spec("CMD-15")
def test_options_of_an_engine_stand_there_with_their_meaning(capsys):
    text = printed(capsys, "--backend", "tensorflow", "--method", "network")
    assert "\noptions:\n  tensorflow:\n    # compile networks with XLA. auto compiles" in text
    assert "\n    jit: auto\n" in text


@pytest.mark.spec("CMD-15")
def test_what_no_run_would_take_is_not_printed(capsys):
    assert cli.main(["settings", "--epochs", "0"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "value",
    ["plain", "32", "true", "null", "on", "a b", "", "1e-3", "µ: #x", "[1]", '"', "-", "\u202e", "tab\there", "it's",
     "a\n\U0001f600\x7f\U000e0001",
     1, -1.5, 1e-12, 1.7976931348623157e308, 0.1, True, None, ["a", "1"], {}, [], {"a b": [1, {"c": None}]}],
    ids=repr,
)  # fmt: skip
def test_a_value_is_read_back_as_it_was(value):
    text = "\n".join(settings_lines({"x": value}))
    found = read_yaml(text, "x")["x"]
    assert found == value
    assert type(found) is type(value)
    assert "\n" not in yaml_value(value)


def object_of(folder: str) -> np.ndarray:
    with h5py.File(Path(folder) / "reconstruction.h5") as file:
        return file["entry/object"][()]


HOW = ["--measurement", "counts", "--mask", "mask.npy", "--frames", "0:24:1", "--despite-findings"]


@pytest.mark.spec("CMD-15")
def test_a_run_is_repeated_bit_for_bit_by_its_settings(unsaid, capsys):
    words = ["--backend", "numpy", "--epochs", "3", "--refine", "numpy:2", "--seed", "4", "--precision", "64"]
    more = ["--test_fraction", "0.2", "--algorithm", "lsq", "--refinement.positions", "true", "--probe_modes", "2"]
    assert cli.main(["run", unsaid, *HOW, *words, *more, "--out", "first"]) == 0, capsys.readouterr().err
    assert cli.main(["run", unsaid, "--config", "first/settings.yaml", "--out", "again"]) == 0, capsys.readouterr().err
    first, again = object_of("first"), object_of("again")
    assert np.array_equal(first, again)
    assert first.dtype == again.dtype
    one, two = (json.loads(Path(name, "summary.json").read_text()) for name in ("first", "again"))
    assert one["config"] == two["config"]
    assert one["config"]["seed"] == 4
    assert one["figures"] == two["figures"]
    body = [Path(name, "settings.yaml").read_text().partition("backend:")[2] for name in ("first", "again")]
    assert body[0] == body[1]
    assert "measurement: counts" in body[0]
    assert "despite_findings: true" in body[0]
    assert cli.main(["run", unsaid, *HOW, *words, *more, "--seed", "5", "--out", "other"]) == 0
    assert not np.array_equal(first, object_of("other")), "else the comparison says nothing"


@pytest.mark.spec("CMD-15")
@pytest.mark.spec("RES-13")
def test_the_settings_are_a_file_of_the_result(stub, scan, capsys):
    assert cli.main(["run", str(scan), "--epochs", "1", "--out", "r"]) == 0
    listed = json.loads(Path("r/summary.json").read_text())["files"]
    assert listed["settings.yaml"]["bytes"] == Path("r/settings.yaml").stat().st_size
    assert verify_result("r") == []
    Path("r/settings.yaml").write_text("seed: 7\n")
    assert verify_result("r") == ["settings.yaml"]
    assert cli.main(["train", str(scan), "--epochs", "1", "--out", "t", "--model.width", "4"]) == 0
    assert "settings.yaml" in json.loads(Path("t/summary.json").read_text())["files"]
    config, _ = taken(Path("t/settings.yaml"))
    assert (config.method, config.epochs, config.network.sizes.width) == ("network", 1, 4)


@pytest.mark.spec("CMD-15")
def test_the_command_line_goes_before_the_file(unsaid, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("epochs: 3\nreading: {measurement: amplitude, crop: 16, raster: [6, 4], follow: true, bin: 2}\n")
    options = with_reading(parse(run.build_parser(), [unsaid, "--config", str(path), "--measurement", "counts"]))
    names = ("measurement", "crop", "raster", "follow", "bin", "mask")
    assert [options[n] for n in names] == ["counts", "16", "6,4", True, "2", None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("reading: {measuremen: counts}\n", "reading has no option 'measuremen'. Did you mean 'measurement'"),
        ("reading: {measurement: photons}\n", "reading.measurement = 'photons'; allowed: amplitude, counts"),
        ("reading: {follow: 1}\n", "reading.follow = 1; it must be true or false"),
        ("reading: {crop: null}\n", "reading.crop = None; it must be a text or a number"),
        ("reading: 3\n", "'reading' must hold 'name: value'"),
        ("reading: {epochs: 3}\n", "reading has no option 'epochs'"),
        ("reading: {no_guard: true}\n", "reading.no_guard is to trust the file"),
        ("reading: {allow_external: true}\n", "reading.allow_external is to trust the file"),
        ("reading: {max_memory: 900000}\n", "reading.max_memory = 900000 lets the file of the scan cost more than"),
        ("reading: {max_seconds: 1e9}\n", "reading.max_seconds = 1000000000.0 lets the file of the scan cost more"),
        ("reading: {max_nesting: 65}\n", "reading.max_nesting = 65 lets the file of the scan cost more than usual"),
    ],
)
def test_what_is_wrong_in_it_is_told_by_the_name_of_the_file(tmp_path, text, said):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        with_reading(parse(run.build_parser(), ["scan.npz", "--config", str(path)]))
    assert f"c.yaml: {said}" in str(caught.value)


def test_what_reading_may_cost_is_lowered_by_a_file_and_raised_by_the_command_line(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("reading: {max_memory: 300, max_canvas: 300000000}\n")
    words = ["scan.npz", "--config", str(path)]
    options = with_reading(parse(run.build_parser(), [*words, "--max_canvas", "300000000"]))
    assert (options["max_memory"], options["max_canvas"]) == ("300", "300000000")
    with pytest.raises(ConfigError, match="give --max_canvas 300000000 on the command line too, if you do"):
        with_reading(parse(run.build_parser(), words))


def test_a_command_that_reads_no_scan_refuses_to_be_told_how(stub, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("reading: {measurement: counts}\n")
    assert cli.main(["demo", "--config", "c.yaml"]) == 2
    assert "'reading' has no effect here" in capsys.readouterr().err


@pytest.mark.spec("CMD-15")
def test_a_program_leaves_the_same_file(unsaid, tmp_path):
    from ptycho_core.io import read_scan

    raw = read_scan(unsaid, options=ReadOptions(measurement="counts", crop=16, raster=None, rotate_deg=90.0))
    plan = RefinementConfig(engine="none")
    config = TrainingConfig(epochs=2, refinement=plan, test_fraction=0.1)
    run_scan(raw, config, out=tmp_path / "program", despite_findings=True)
    found, _ = taken(tmp_path / "program" / "settings.yaml")
    assert found == config
    options = parse(run.build_parser(), [unsaid, "--config", str(tmp_path / "program" / "settings.yaml")])
    options = with_reading(options)
    assert [options[n] for n in ("measurement", "crop", "rotate")] == ["counts", "16", "90.0"]
    train_scan(raw, replace(config, seed=3), out=tmp_path / "trained", despite_findings=True)
    assert taken(tmp_path / "trained" / "settings.yaml")[0].seed == 3


@pytest.mark.spec("CMD-15")
def test_the_line_that_goes_on_says_how_the_scan_was_read_by_the_file(unsaid, tmp_path, stub, monkeypatch, capsys):
    (tmp_path / "c.yaml").write_text("reading: {measurement: counts, follow: true, frames: '0:20:1'}\nepochs: 1\n")
    real = stub.reconstruct

    def interrupted(self, *arguments, **more):
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, *arguments, **more)

    monkeypatch.setattr(stub, "reconstruct", interrupted)
    words = ["run", unsaid, "--config", "c.yaml", "--frames", "0:22:1", "--despite-findings", "--out", "r"]
    assert cli.main(words) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    again = shlex.split(line.partition("get the image with: ")[2])
    assert "--measurement=counts" in again
    assert "--follow" in again
    assert [word for word in again if "frames" in word] == ["--frames"], "the command line goes before the file"
    assert again[again.index("--frames") + 1] == "0:22:1"
