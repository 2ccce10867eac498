"""sdist and wheel, built by the lines of RELEASING.md: what is in them, and what an index shows of them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ".tox/docs/bin/python "


def recipe(tool: str) -> list[str]:
    """The line of the recipe that calls a tool, for the Python that runs here."""
    lines = [line.strip() for line in (ROOT / "RELEASING.md").read_text(encoding="utf-8").splitlines()]
    (line,) = [line for line in lines if line.startswith(f"{PYTHON}-m {tool} ")]
    return [sys.executable, *shlex.split(line.removeprefix(PYTHON))]


def done(words: list[str], folder: Path) -> str:
    outcome = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert outcome.returncode == 0, f"{words}\n{outcome.stdout}\n{outcome.stderr}"
    return outcome.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "dist"
    build = recipe("build")
    assert build[-2:] == ["dist", "."]
    done([*build[:-2], str(folder), "."], ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(dist: Path) -> Path:
    (path,) = dist.glob("*.tar.gz")
    return path


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return BytesParser().parsebytes(archive.read(name))


def test_twine_finds_no_fault(dist: Path, wheel: Path, sdist: Path) -> None:
    check = recipe("twine check")
    assert check[-1] == "dist/*"
    said = done([*check[:-1], str(wheel), str(sdist)], dist)
    assert said.count("PASSED") == 2


def test_the_tree_and_the_sdist_give_one_wheel(tmp_path: Path, wheel: Path) -> None:
    done([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), "."], ROOT)
    (direct,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(direct) as one, zipfile.ZipFile(wheel) as other:
        assert {i.filename: i.CRC for i in one.infolist()} == {i.filename: i.CRC for i in other.infolist()}


def test_what_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    engines = {f"ptycho_backend_{engine}" for engine in ("numpy", "ptychi", "tensorflow", "torch")}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ptycho_core", *engines}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ptycho_core").rglob("*") if path.is_file()}
    assert {name for name in sources if "__pycache__" not in name} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert metadata(wheel)["Name"] == "ptycho-core"


def test_what_is_in_the_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = {member.name.partition("/")[2]: member.size for member in archive if member.isfile()}
    for name in ("README.md", "CITATION.cff", "constraints.txt", "tox.ini", "mkdocs.yml", "docs/site/gather.py"):
        assert name in members
    assert {
        "tests/core/test_docs.py",
        "specs/00-conventions.md",
        "docs/decisions/0001-registry-without-state.md",
    } <= set(members)
    strange = [name for name in members if re.search(r"__pycache__|^build/|^\.tox|^\.ci|\.pyc$|^dist/", name)]
    assert strange == []
    assert {name: size for name, size in members.items() if size > 600_000} == {}
    assert sdist.stat().st_size < 5_000_000


def test_the_readme_on_an_index_leads_nowhere_wrong(wheel: Path) -> None:
    shown = metadata(wheel)
    assert shown["Description-Content-Type"] == "text/markdown"
    text = str(shown.get_payload(decode=True), "utf-8") if shown.is_multipart() is False else ""
    assert text.startswith("# ptycho-core\n")
    assert "```sh\nptycho inspect scan.npz" in text
    assert "Bring your data" in text
    assert re.findall(r"\]\((?!https://)|<img|!\[", text) == []
