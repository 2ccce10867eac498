"""``ptycho new-engine``: what it writes is an engine that keeps the protocol (CMD-21)."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from stub_engines import install

from ptycho_core.cli import main as cli
from ptycho_core.cli.new_engine import engine_files
from ptycho_core.testing import run_conformance


@pytest.fixture
def written(tmp_path, monkeypatch):
    """The distribution, laid out as pip does with its own pyproject.toml."""
    assert cli.main(["new-engine", "my-own_engine", "--out", "somewhere/mine"]) == 0
    folder = tmp_path / "somewhere" / "mine"
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    entries = project["project"]["entry-points"]["ptycho.backends"]
    (module,) = (name.removesuffix(".py") for name in project["tool"]["hatch"]["build"]["targets"]["wheel"]["include"])
    site = tmp_path / "site"
    site.mkdir()
    text = (folder / f"{module}.py").read_text()
    install(site, project["project"]["name"], entries, {module: text}, version=project["project"]["version"])
    monkeypatch.syspath_prepend(site)
    yield folder
    sys.modules.pop(module, None)


@pytest.mark.spec("CMD-21")
def test_what_is_written_keeps_the_protocol_and_makes_an_image(written, capsys):
    sheet = run_conformance("my_own_engine")
    assert {outcome.test: outcome.reason for outcome in sheet.of("failed")} == {}
    assert sheet.conforms
    assert len(sheet.of("passed")) > 30
    words = ["--epochs", "3", "--refine", "none", "--backend", "my_own_engine", "--n_subsample", "60", "--out", "d"]
    assert cli.main(["demo", *words]) == 0, capsys.readouterr().err
    assert json.loads(Path("d/summary.json").read_text())["engine"] == "my_own_engine"
    capsys.readouterr()
    assert cli.main(["backends", "my_own_engine"]) == 0
    assert "my_own_engine (My Own Engine), from my-own-engine 0.1.0: ready" in capsys.readouterr().out


@pytest.mark.spec("CMD-21")
def test_its_files_are_those_that_are_needed_and_hold_no_placeholder(written):
    found = {path.name: path.read_text() for path in written.iterdir()}
    assert set(found) == {"README.md", "my_own_engine.py", "pyproject.toml", "test_conformance.py"}
    assert not any("{{" in text or "}}" in text for text in found.values())
    assert 'engine_name = "my_own_engine"' in found["test_conformance.py"]
    assert len(found["test_conformance.py"].splitlines()) <= 15
    assert "ptycho conform my_own_engine" in found["README.md"]
    assert found == engine_files("my_own_engine")


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed")
def test_it_is_written_in_the_style_of_this_project(written):
    config = Path(__file__).parents[2] / "pyproject.toml"
    rules = ["--config", str(config), "--no-cache"]
    for words in (["check", "--select", "E,F,W,B,UP,RUF", *rules], ["format", "--check", *rules]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "."], cwd=written, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.spec("CMD-21")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("3engine", "it must be 2 to 40 small letters"),
        ("Engine", "it must be 2 to 40 small letters"),
        ("a/b", "it must be 2 to 40 small letters"),
        ("..", "it must be 2 to 40 small letters"),
        ("class", "it must be 2 to 40 small letters"),
        ("x" * 41, "it must be 2 to 40 small letters"),
        ("numpy", "there is an engine of that name"),
        ("auto", "there is an engine of that name"),
        ("json", "there is a Python module of that name"),
        ("ptycho-core", "there is a Python module of that name"),
    ],
)
def test_names_that_are_taken_or_none(name, said, tmp_path, capsys):
    assert cli.main(["new-engine", name]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.spec("CMD-21")
def test_a_folder_that_is_there_is_left_as_it_is(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine").mkdir()
    assert cli.main(["new-engine", "my_engine", "--out", "mine"]) == 2
    assert "mine: is there already" in capsys.readouterr().err
    assert list((tmp_path / "mine").iterdir()) == []

    def full(self, *arguments, **how):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert cli.main(["new-engine", "my_engine", "--out", "other"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
