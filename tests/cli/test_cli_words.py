"""The command speaks of options, in the field's words, one sentence after another (CMD-22)."""

from __future__ import annotations

import inspect
import re

import pytest

from ptycho_core import config, runtime
from ptycho_core.cli import main as cli
from ptycho_core.cli import run, session
from ptycho_core.cli.fields import fields_of
from ptycho_core.cli.option_words import in_option_words
from ptycho_core.config import TrainingConfig
from ptycho_core.plugins import registry
from ptycho_core.runtime import Runtime


@pytest.mark.spec("CMD-22")
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("TrainingConfig.epochs = 0; it must be at least 1.", "--epochs = 0; it must be at least 1."),
        ("RefinementConfig.batch_size = None; allowed", "--refinement.batch_size = null; allowed"),
        (
            "RefinementConfig.positions = True has no effect while x = False; set x.",
            "--refinement.positions = true has no effect while x = false; set x.",
        ),
        ("Runtime.threads = 0 and InferenceConfig.passes = 3", "--threads = 0 and --inference.passes = 3"),
        ("a: PtychiOptions.slices = 3", "a: --options.ptychi.slices = 3"),
        ("SimulationConfig.object = 'star'; allowed", "--object = 'star'; allowed"),
        (
            "TrainingConfig has no field 'epoch'. Did you mean 'epochs'?",
            "there is no setting 'epoch'. Did you mean 'epochs'?",
        ),
        ("PtychiOptions has no field 'x'.", "there is no setting 'options.ptychi.x'."),
        ("RefinementConfig: 'epochs' is given twice", "'epochs' is given twice"),
        ("pass --overwrite (overwrite=True) to replace", "pass --overwrite to replace"),
        ("--measurement amplitude|counts (measurement='amplitude' or 'counts').", "--measurement amplitude|counts."),
        ("allow more with --max_memory (Limits.memory_mb).", "allow more with --max_memory."),
        (
            "PtychiOptions.alpha = 'x' is a str; it must be float | None.",
            "--options.ptychi.alpha = 'x'; it must be a number or null.",
        ),
        ("x = 1 is an int; it must be tuple[str, ...] | bool.", "x = 1; it must be a list or true or false."),
        ("runtime.frames_at_once = 3 has no effect", "--frames_at_once = 3 has no effect"),
        ("a RuntimeError, a (out of 3)", "a RuntimeError, a (out of 3)"),
    ],
)
def test_fields_of_configs_are_options(said, shown):
    assert in_option_words(said) == shown


API = re.compile(
    r"\b(?:TrainingConfig|RefinementConfig|InferenceConfig|ModelConfig|Runtime|RawData|\w+Options)\b|=True\b|\bNone\b"
)

WRONG = [
    (["--epochs", "0"], "--epochs = 0; it must be at least 1"),
    (["--refinement.patience", "0"], "--refinement.patience = 0"),
    (["--threads", "0"], "--threads = 0"),
    (["--loss", "posson"], "--loss = 'posson'"),
    (["--backend", "ptychi", "--options.ptychi.alpha", "x"], "--options.ptychi.alpha"),
    (["--refinement.probe", "false", "--refinement.probe_modes", "3"], "with probe = false they are not refined"),
    (["--method", "solver", "--model.width", "3"], "--method = 'solver' has no network"),
    (["--group_size", "9", "--neighbor_pool_size", "3"], "--neighbor_pool_size = 3 is smaller"),
    (["--refinement.position_affine", "true"], "--refinement.position_affine = true"),
]


@pytest.mark.spec("CMD-22")
@pytest.mark.parametrize(("words", "said"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_an_error_of_the_command_names_what_was_typed(scan, words, said, capsys):
    assert cli.main(["run", str(scan), *words]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in line
    assert not API.search(line), line


@pytest.mark.spec("CMD-22")
def test_a_notice_does_too(scan, tmp_path, capsys):
    assert cli.main(["run", str(scan), "--epochs", "1", "--test_fraction", "0", "--refine", "numpy:1"]) == 0
    assert cli.main(["run", str(scan), "--epochs", "1"]) == 2
    err = capsys.readouterr().err
    assert "pass --overwrite to replace it" in err
    assert "so refining makes all its epochs" in err
    assert not API.search(err), err


@pytest.mark.spec("CMD-22")
def test_a_fault_is_told_in_sentences(stub, scan, monkeypatch, capsys):
    monkeypatch.setattr(stub, "fail_with", ValueError("no good"))
    assert cli.main(["run", str(scan), "--epochs", "1", "--out", "r"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert ".;" not in line
    assert ".." not in line
    assert "failed in train: ValueError: no good. That is a fault of the engine: take another engine, or " in line
    assert line.endswith("Run it again with --debug and report what it shows.")
    assert registry  # the name of the engine comes from there


BANNED = ("answered by itself", "explanation of the held-out", "four tenths", "what positions have in common")


@pytest.mark.spec("CMD-22")
def test_help_is_in_short_sentences_and_known_words():
    texts = {field.name: field.text for config_type in (TrainingConfig, Runtime) for field in fields_of(config_type)}
    for name, text in texts.items():
        assert not any(words in text for words in BANNED), name
        for sentence in re.split(r"(?<=\w\w)[.;:]\s+", text):
            assert len(sentence.split()) <= 30, (name, sentence)
    assert texts["model.generator"].startswith("architecture of the network")
    assert "validation" in texts["refinement.patience"]
    assert "validation" in texts["test_fraction"]
    assert not any(words in inspect.getsource(module) for words in BANNED for module in (config, runtime))
    assert run.build_parser().known


LONG = "verdict   " + " ".join(["explained to 1.5 x the noise,"] * 6)


@pytest.mark.parametrize("columns", ["60", "100"])
def test_a_long_line_of_a_result_stands_below_its_beginning_on_a_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    lines = session._fitted(f"{LONG}\nresults   r").split("\n")
    assert max(map(len, lines)) <= int(columns)
    assert all(line.startswith(" " * 10 + "explained") or line[10] != " " for line in lines[1:-1])
    assert " ".join(" ".join(lines).split()) == " ".join(f"{LONG} results r".split())
    for whole in ("{" + "x " * 90, "engine      title       state " * 9, "  indented " * 20, "abcdefghijklm " * 9):
        assert session._fitted(whole) == whole


def test_a_line_in_a_pipe_stays_one(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert session._fitted(LONG) == LONG
