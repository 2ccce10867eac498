"""``--help`` fits a screen and ``--help-all`` lists everything; both wrap to the terminal (CMD-14)."""

from __future__ import annotations

import importlib

import pytest

from ptycho_core.cli import main as cli
from ptycho_core.cli import run
from ptycho_core.cli.help import USUAL, first_sentence
from ptycho_core.cli.values import placeholder

COMMANDS = [name for name in cli._COMMANDS if name != "new-engine"]


def shown(capsys, *words: str) -> list[str]:
    assert cli.main([*words]) == 0
    return capsys.readouterr().out.splitlines()


def parser_of(command: str):
    return importlib.import_module(f"ptycho_core.cli.{cli._MODULES.get(command, command)}").build_parser()


@pytest.mark.spec("CMD-14")
@pytest.mark.parametrize("command", cli._COMMANDS)
def test_help_fits_a_screen(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown(capsys, command, "--help")
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"usage: ptycho {command}")


@pytest.mark.spec("CMD-14")
@pytest.mark.parametrize("command", cli._COMMANDS)
def test_both_pages_wrap_to_the_terminal(command, capsys, monkeypatch):
    for page in ("--help", "--help-all"):
        lengths = {}
        for columns in ("60", "80", "110", "400"):
            monkeypatch.setenv("COLUMNS", columns)
            lines = shown(capsys, command, page)
            words = [line for line in lines[1:] if " " in line.strip() and "|" not in line and "suffix   " not in line]
            lengths[columns] = max(map(len, words))
            assert lengths[columns] <= min(int(columns), 120), page
        assert lengths["60"] < lengths["110"], page


@pytest.mark.spec("CMD-14")
@pytest.mark.parametrize("command", cli._COMMANDS)
def test_help_all_lists_every_option_once_with_its_text(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    lines = shown(capsys, command, "--help-all")
    parser = parser_of(command)
    starts = [line.split()[0].rstrip(",") for line in lines if line.startswith("  -") and "suffix   " not in line]
    for name in parser.known:
        start = {"--help": "-h", "--help_all": "--help-all"}.get(name, name)
        assert starts.count(start) == 1, name
    text = " ".join(" ".join(lines).split())
    for field in parser.settings.values():
        assert " ".join(field.text.split()) in text, field.name


@pytest.mark.spec("CMD-14")
def test_the_short_page_of_run_has_what_people_use_and_says_where_the_rest_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown(capsys, "run", "--help")
    text = "\n".join(lines)
    for option in ("--out", "--refine", "--measurement", "--probe", "--backend", "--epochs", "--seed", "--config"):
        assert f"\n  {option} " in text
    for rest in ("ptycho run --help-all", "ptycho settings", "ptycho backends NAME"):
        assert f"\n  {rest} " in text
    assert "--refinement.patience" not in text
    assert "positions (y, x)" not in text
    assert "passes over the frames\n" in text, "the first sentence, and no default that says nothing"


def test_help_all_stands_before_what_is_missing(capsys):
    assert cli.main(["reconstruct", "--help-all"]) == 0
    assert cli.main(["run", "-h"]) == 0
    assert "usage: ptycho run" in capsys.readouterr().out


def test_defaults_and_null_are_as_on_a_command_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    text = " ".join(" ".join(shown(capsys, "run", "--help-all")).split())
    assert "--refinement.epochs N most passes over the frames (default: 40)" in text
    assert "null is network where model is given, else solver (default: null)" in text
    assert "--probe_trainable true|false" in text
    assert "--learning_rate NUMBER" in text


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("engine: numpy or another. auto is numpy", "engine: numpy or another"),
        ("positions; text, .npy, MAT", "positions"),
        ("rule 1.5 (Maiden et al., Optica 4, 736 (2017)); more", "rule 1.5 (Maiden et al., Optica 4, 736 (2017))"),
        ("one", "one"),
    ],
)  # fmt: skip
def test_the_first_sentence_of_a_text(text, first):
    assert first_sentence(text) == first


def test_usual_options_are_options():
    known = set(run.build_parser().known) | set(parser_of("simulate").known) | set(parser_of("demo").known)
    assert set(USUAL) <= known


def test_what_stands_for_a_value():
    assert [placeholder(hint) for hint in (int | None, float, bool, tuple[str, ...])] == [
        "N", "NUMBER", "true|false", "[A,B]"
    ]  # fmt: skip
