"""What a release says of itself, said in one place: version, licence, day; and a citation that a reader can take."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import ptycho_core
from ptycho_core.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "RELEASING.md"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_one_version(project: dict[str, Any], citation: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    version = project["version"]
    assert importlib.metadata.version("ptycho-core") == version
    assert ptycho_core.__version__ == version
    assert citation["version"] == version
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"ptycho {version} ")


def test_the_day_of_a_release_is_said_twice_or_not_at_all(project: dict[str, Any], citation: dict[str, Any]) -> None:
    top = re.search(r"^## (\S+), (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert top
    assert top[1] == project["version"]
    assert top[2] == str(citation.get("date-released", "unreleased"))


def test_the_citation_can_be_taken(project: dict[str, Any], citation: dict[str, Any]) -> None:
    """What format 1.2.0 demands, and no word that it does not know."""
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    known = {
        "abstract", "authors", "cff-version", "date-released", "doi", "identifiers", "keywords", "license", "message",
        "preferred-citation", "references", "repository-code", "title", "type", "url", "version",
    }  # fmt: skip
    assert {"authors", "cff-version", "message", "title"} <= citation.keys() <= known
    assert all(isinstance(value, str) for name, value in citation.items() if name not in ("authors", "keywords"))
    assert citation["license"] == project["license"]
    assert citation["keywords"] == project["keywords"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    assert citation["title"].endswith(project["description"][0].lower() + project["description"][1:])


def test_no_address_is_made_up(project: dict[str, Any], citation: dict[str, Any]) -> None:
    """Either all of them have the address of this repository, or none has one."""
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    said = ["urls" in project, "repository-code" in citation, "repo_url:" in site]
    assert len(set(said)) == 1


def test_the_recipe_names_what_is_there() -> None:
    text = RECIPE.read_text(encoding="utf-8")
    for name in re.findall(r"`([\w./]+\.(?:md|py|toml|yml|cff))`", text):
        assert (ROOT / name).is_file(), name
    lines = [line.strip() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len([line for line in lines if line]) == 13
    named = set(re.findall(r"\.tox/(\w+)/bin", text))
    environments = named - {"bootstrap", "try"}
    assert environments == {"docs", "notebooks"}
    text = (ROOT / "tox.ini").read_text(encoding="utf-8")
    assert all(f"[testenv:{name}]" in text for name in environments)
