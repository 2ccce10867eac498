"""The documentation site: built strictly and without a network, it shows every public name and every option."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ptycho_core
from ptycho_core.cli.main import _MODULES

pytestmark = pytest.mark.docs

ROOT = Path(__file__).resolve().parents[2]
GATHER = ROOT / "docs" / "site" / "gather.py"

# a socket that is opened for anything but this machine ends the build
BUILD = """
import socket, sys
from mkdocs.__main__ import cli

def refuse(self, address):
    raise SystemExit(f"the build wants the network: {address}")

socket.socket.connect = socket.socket.connect_ex = refuse
cli(["build", "--strict", "-f", sys.argv[1]])
"""

LOADING = {
    "audio": ("src",), "embed": ("src",), "iframe": ("src",), "image": ("href", "xlink:href"), "img": ("src", "srcset"),
    "link": ("href",), "object": ("data",), "script": ("src",), "source": ("src", "srcset"),
    "use": ("href", "xlink:href"), "video": ("src", "poster"),
}  # fmt: skip
"""What a browser fetches without being asked: tag → its attributes."""
SAYS_ONLY = {"canonical", "next", "prev"}
"""Relations of a link element of which nothing is loaded."""


class Loads(HTMLParser):
    """What a page loads, its ids, and the text that it shows outside of code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.shown: list[str] = []
        self._in_code = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {given["id"]} if given.get("id") else set()
        self._in_code += tag in ("code", "script", "style")
        if not (tag == "link" and given.get("rel") in SAYS_ONLY):
            self.loaded += [given[name] for name in LOADING.get(tag, ()) if given.get(name)]  # type: ignore[misc]
        self.loaded += re.findall(r"url\(['\"]?([^'\")]+)", given.get("style") or "")

    def handle_endtag(self, tag: str) -> None:
        self._in_code -= tag in ("code", "script", "style")

    def handle_data(self, data: str) -> None:
        if not self._in_code:
            self.shown.append(data)


def from_elsewhere(addresses: list[str]) -> list[str]:
    """Those that lead off the site."""
    return [address for address in addresses if re.match(r"(?:[a-z]+:)?//", address)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    for words in ([str(GATHER), str(folder)], ["-c", BUILD, str(folder / "mkdocs.yml")]):
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Loads]:
    return {
        path.relative_to(site).as_posix(): Loads(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
    }


def test_no_page_loads_anything_from_elsewhere(site: Path, pages: dict[str, Loads]) -> None:
    assert len(pages) > 80
    for name, page in pages.items():
        assert page.loaded, name
        assert from_elsewhere(page.loaded) == [], name
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert from_elsewhere(re.findall(r"(?:url\(|@import )['\"]?([^'\")\s]+)", text)) == [], path.name


def test_what_a_page_loads_is_seen() -> None:
    page = '<link rel=canonical href="https://a/"><script src="https://b/x.js"></script><img srcset="//c/y.png 2x">'
    assert from_elsewhere(Loads(page).loaded) == ["https://b/x.js", "//c/y.png 2x"]
    assert from_elsewhere(Loads('<p style="background: url(\'http://d/z\')"><img src="../a.png">').loaded) == [
        "http://d/z"
    ]


def test_every_public_name_has_its_place(pages: dict[str, Loads]) -> None:
    shown = {found for name, page in pages.items() if name.startswith("reference/python/") for found in page.ids}
    for name in ptycho_core.__all__:
        assert f"ptycho_core.{name}" in shown, name
    for error in ("DataError", "BackendUnavailableError"):
        assert f"ptycho_core.errors.{error}" in shown


def test_every_option_of_every_command_has_its_place(site: Path) -> None:
    listed = re.findall(r'href="(\w[\w-]*)\.html"><code>ptycho', (site / "reference/commands/index.html").read_text())
    assert {"run", "inspect", "backends"} <= set(listed)
    for command in listed:
        parser = importlib.import_module(f"ptycho_core.cli.{_MODULES.get(command, command)}").build_parser()
        text = (site / "reference" / "commands" / f"{command}.html").read_text(encoding="utf-8")
        defined = re.findall(r"--([\w.-]+)", " ".join(re.findall(r"<dt><code>(.*?)</code></dt>", text)))
        known = {option[2:].replace("-", "_") for option in parser.known}
        assert {option.replace("-", "_") for option in defined} == known, command


def test_markup_is_rendered(pages: dict[str, Loads]) -> None:
    for name, page in pages.items():
        text = "".join(page.shown)
        for mark in ("```", ":::", "](", ":func:", ":class:", ":meth:"):
            assert mark not in text, f"{name}: {text[max(text.find(mark) - 80, 0) :][:160]}"


def test_what_a_function_returns_is_told_in_one_piece(pages: dict[str, Loads]) -> None:
    text = " ".join("".join(pages["reference/python/stages.html"].shown).split())
    assert "what looks wrong and which reader was passed over because it failed" in text


def test_a_notebook_that_has_run_shows_what_it_printed(tmp_path: Path) -> None:
    def cell(kind: str, source: str, *outputs: dict[str, object]) -> dict[str, object]:
        return {"cell_type": kind, "source": source.splitlines(keepends=True), "outputs": list(outputs)}

    notebook = {
        "cells": [
            cell("markdown", "# Title\n\nwords"),
            cell("code", "run()\nrun", {"output_type": "stream", "name": "stdout", "text": ["epoch 1\n", "epoch 2\n"]}),
            cell("code", "a", {"output_type": "execute_result", "data": {"text/plain": "A", "text/html": "<b>A</b>"}}),
            cell("code", "b", {"output_type": "display_data", "data": {"text/plain": "fig", "image/png": "iVBOR\n"}}),
            cell("code", "c", {"output_type": "execute_result", "data": {"text/plain": ["C"]}}),
            cell("code", ""),
        ]
    }
    (tmp_path / "x.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from notebook import markdown_of_notebook;"
        "print(markdown_of_notebook(open('x.ipynb').read()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(GATHER.parent)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    parts = [
        "# Title\n\nwords", "```python\nrun()\nrun\n```", "```text\nepoch 1\nepoch 2\n```", "```python\na\n```",
        '<div class="output">\n<b>A</b>\n</div>', "```python\nb\n```",
        '<img alt="Figure that the code above makes" src="data:image/png;base64,iVBOR">', "```python\nc\n```",
        "```text\nC\n```",
    ]  # fmt: skip
    assert done.stdout.strip() == "\n\n".join(parts)


def test_a_link_that_leads_nowhere_ends_the_job(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import gather;"
        "print(gather.fitted('[a](which-engine.md#threads) [b](../specs) [c](../tox.ini)', 'docs/x.md', 'x.md',"
        " {'which-engine.md', 'specs/index.md'}));"
        "gather.fitted('[a](gone.md)', 'docs/x.md', 'x.md', set())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(GATHER.parent)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(GATHER.parent)},
    )  # fmt: skip
    assert done.stdout.strip() == "[a](which-engine.md#threads) [b](specs/index.md) c (`tox.ini`)"
    assert done.returncode != 0
    assert "BrokenLinkError: docs/x.md: gone.md leads nowhere" in done.stderr
