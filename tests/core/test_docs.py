"""What README, CONTRIBUTING and docs/ tell people to type: every command and every piece of code is run here.

Each document is one story: its steps run in their order, in one folder, on a tiny scan. Flags appended to a command
only make it quick. The commands that set a machine up cannot run inside a test; they are held to .ci/run and tox.ini.
"""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from stub_engines import install

from ptycho_core.simulation import SimulationConfig, simulate_scan

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
GUIDES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [README, CONTRIBUTING, *GUIDES]
LANGUAGES = {"sh", "python", "yaml", "toml", "text"}
OUTPUT = "output"
"""Tag of a block that shows what the command before it prints; see test_shown_outputs."""
SETS_UP = ("python3.11 ", ".venv/bin/", "pip install ")
NEEDS_AN_ENGINE = {"conform", "demo", "run", "train", "reconstruct"}
NEEDS_RESULTS = {"compare", "export"}
QUICK_TRAINING = ["--epochs", "1"]
QUICK_NETWORK = [
    "--group_size",
    "8",
    "--model.width",
    "4",
    "--model.depth",
    "2",
    "--collapse_threshold",
    "0",
]
QUICK_SIMULATION = ["--N", "32", "--n_frames", "64"]

# in a process of its own: warnings as a user has them, one import of a framework for a whole story
STORY = """
import json, sys
from ptycho_core.cli.main import main
names = {"__name__": "example"}
for kind, content in json.load(open(sys.argv[1])):
    print("step:", content, flush=True)
    if kind == "command":
        code = main(content)
        if code:
            sys.exit(f"ptycho {' '.join(content)} ended with {code}")
    else:
        exec(compile(content, "example", "exec"), names)
"""


@dataclass(frozen=True)
class Fence:
    """A block of code in a document."""

    document: Path
    line: int
    language: str
    tags: tuple[str, ...]
    text: str

    @property
    def where(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    def tag(self, name: str) -> str | None:
        return next((t.partition("=")[2] for t in self.tags if t.startswith(f"{name}=")), None)

    @property
    def commands(self) -> list[str]:
        """Lines of a shell block, without comments, continued lines joined."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line.partition("  #")[0].strip() for line in joined if line.strip() and not line.startswith("#")]


def fences(document: Path) -> list[Fence]:
    text = document.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^(`{3,})([^\n`]*)\n(.*?)^\1[ \t]*$", text, flags=re.MULTILINE | re.DOTALL):
        language, *tags = match[2].split() or [""]
        found.append(Fence(document, text.count("\n", 0, match.start()) + 1, language, tuple(tags), match[3]))
    return found


ALL = [fence for document in DOCUMENTS for fence in fences(document)]


def set_up_commands(document: Path) -> list[str]:
    shell = [f for f in fences(document) if f.language == "sh"]
    return [line for f in shell for line in f.commands if line.startswith(SETS_UP)]


def is_ready(words: list[str]) -> bool:
    """Whether a command can run here: with the engine that it names, or one that it would take."""
    from ptycho_core import available_backends

    ready = {engine.name for engine in available_backends() if engine.state == "ready"}
    if words[0] == "conform":
        return words[1] in ready
    refiner = words[words.index("--refine") + 1].partition(":")[0] if "--refine" in words else "none"
    if refiner not in ready | {"none"}:
        return False
    if "--backend" in words:
        return words[words.index("--backend") + 1] in ready
    return bool({"pytorch", "tensorflow"} & ready) if of_network(words) else "numpy" in ready


def of_network(words: list[str]) -> bool:
    """Whether a command trains a network, or applies one."""
    return words[0] in ("train", "reconstruct") or "network" in words


def quickened(command: str) -> list[str]:
    """Arguments of a ``ptycho`` command, with flags that make it quick."""
    words = shlex.split(command)[1:]
    if words[0] == "simulate":
        return words + QUICK_SIMULATION
    if words[0] in ("demo", "run", "train"):
        refines = words[0] != "train" and not {"--refine", "quick"} & set(words)
        words += ["--refinement.epochs", "2"] if refines else []
        return words + QUICK_TRAINING + (QUICK_NETWORK if of_network(words) else [])
    return words


def steps(document: Path, *, engine: bool, everything: bool = False) -> list[tuple[str, list[str] | str]]:
    """What a document tells to do, in order.

    Without an engine, only the steps that need none; else those of the engines that are installed, or everything.
    """
    story: list[tuple[str, list[str] | str]] = []
    for fence in fences(document):
        if fence.language == "python" and fence.tag("file") is None and (engine or "engine" not in fence.tags):
            story.append(("code", re.sub(r"(method=\"network\", )epochs=\d+", r"\1epochs=1", fence.text)))
        if fence.language == "sh":
            for command in fence.commands:
                program, _, rest = command.partition(" ")
                words = shlex.split(rest)
                if program != "ptycho" or (not engine and words[0] in NEEDS_AN_ENGINE | NEEDS_RESULTS):
                    continue
                if words[0] not in NEEDS_AN_ENGINE or everything or is_ready(words):
                    story.append(("command", quickened(command)))
    return story


def write_amplitude_scan(path: Path) -> None:
    """A tiny scan that, like old files, does not say that it holds amplitudes, but has units."""
    raw = simulate_scan(SimulationConfig(object="dead_leaves", N=32, grid_shape=(6, 5), step_px=4.3, seed=5)).raw
    assert raw.probe is not None
    counts = raw.read_counts(np.arange(raw.n_frames))
    positions = raw.positions_px + 0.5
    columns = {"xcoords": positions[:, 1], "ycoords": positions[:, 0], "energy_eV": 8000.0, "pixel_size_m": 2e-8}
    np.savez(path, diff3d=np.sqrt(counts), probeGuess=raw.probe[0], **columns)


def tell(document: Path, folder: Path, *, engine: bool) -> int:
    """Run a document's story in a folder and return the number of its steps."""
    write_amplitude_scan(folder / "scan.npz")
    for fence in fences(document):
        if name := fence.tag("name"):
            (folder / name).write_text(fence.text, encoding="utf-8")
    story = steps(document, engine=engine)
    (folder / "story.json").write_text(json.dumps(story), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", STORY, "story.json"],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{document.name}\n{done.stdout}\n{done.stderr}"
    return len(story)


# ---- run


@pytest.mark.torch
@pytest.mark.slow
def test_every_step_of_the_recipes(tmp_path: Path) -> None:
    assert tell(ROOT / "docs" / "recipes.md", tmp_path, engine=True) > 20
    tuned = json.loads((tmp_path / "tuned" / "summary.json").read_text())
    assert tuned["config"]["refinement"]["position_limit_px"] == 1.5
    assert tuned["config"]["method"] == "solver"


@pytest.mark.slow
def test_every_step_of_the_readme(tmp_path: Path) -> None:
    assert tell(README, tmp_path, engine=True) == 3
    listed = re.findall(r"^\| `(\S+\.(?:html|h5|json|ptycho))` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(listed) == 4
    assert "`settings.yaml`" in README.read_text(encoding="utf-8")
    assert {path.name for path in (tmp_path / "result").iterdir()} >= {*listed, "training", "ptycho.log"}


@pytest.mark.torch
@pytest.mark.slow
def test_every_step_of_the_first_reconstruction(tmp_path: Path) -> None:
    assert tell(ROOT / "docs" / "first-reconstruction.md", tmp_path, engine=True) > 8


@pytest.mark.ptychi
@pytest.mark.slow
def test_every_step_of_the_first_reconstruction_that_needs_no_network(tmp_path: Path) -> None:
    """Where pty-chi is installed and Lightning is not, what needs a network is left out."""
    assert tell(ROOT / "docs" / "first-reconstruction.md", tmp_path, engine=True) > 8
    for name in ("thick", "varying"):
        options = json.loads((tmp_path / name / "summary.json").read_text())["config"]["options"]
        assert set(options) == {"ptychi"}


@pytest.mark.both
@pytest.mark.slow
def test_every_step_of_choosing_an_engine(tmp_path: Path) -> None:
    assert tell(ROOT / "docs" / "which-engine.md", tmp_path, engine=True) > 1


@pytest.mark.both
def test_commands_of_every_engine_run_where_both_are_installed() -> None:
    for document in (ROOT / "docs" / "recipes.md", ROOT / "docs" / "which-engine.md"):
        assert steps(document, engine=True) == steps(document, engine=True, everything=True)


def test_a_command_runs_only_where_every_engine_that_it_names_is() -> None:
    assert is_ready(["run", "star.npz", "--backend", "numpy", "--refine", "numpy:3"])
    assert is_ready(["run", "star.npz", "--refine", "none"])
    assert not is_ready(["run", "star.npz", "--refine", "absent:3"])
    assert not is_ready(["run", "star.npz", "--backend", "absent", "--refine", "numpy"])


@pytest.mark.parametrize("document", [README, *GUIDES], ids=lambda path: path.stem)
def test_steps_that_need_no_engine(document: Path, tmp_path: Path) -> None:
    assert tell(document, tmp_path, engine=False) > 0


@pytest.mark.plugin
def test_every_step_of_writing_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "toy" not in importlib.metadata.entry_points(group="ptycho.backends").names:
        pytest.skip("the toy engine is not installed: pip install tests/plugins/toy_engine")
    site = tmp_path / "site"
    site.mkdir()
    for name in ("small", "functional"):
        source = ROOT / "tests" / "plugins" / f"{name}_engine" / f"{name}_engine.py"
        text = source.read_text(encoding="utf-8")
        install(site, f"{name}-engine", {name: f"{name}_engine"}, {f"{name}_engine": text})
    monkeypatch.syspath_prepend(site)
    paths = [str(site), *([os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else [])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    assert tell(ROOT / "docs" / "write-an-engine.md", tmp_path, engine=True) == 8


@pytest.mark.slow
def test_every_step_of_the_verdict(tmp_path: Path) -> None:
    assert tell(ROOT / "docs" / "verdict.md", tmp_path, engine=True) == 2


@pytest.mark.slow
def test_every_step_in_a_notebook(tmp_path: Path) -> None:
    assert tell(ROOT / "docs" / "in-a-notebook.md", tmp_path, engine=True) == 5
    assert (tmp_path / "object.png").stat().st_size > 10_000
    assert (tmp_path / "star-result" / "report.html").is_file()


# ---- nothing escapes


def test_every_document_is_in_a_story() -> None:
    """A guide that is added must be given a test above."""
    guides = [
        "bring-your-data",
        "conventions",
        "first-reconstruction",
        "in-a-notebook",
        "recipes",
        "security",
        "status",
        "verdict",
        "which-engine",
        "write-a-reader",
        "write-an-engine",
    ]
    assert [path.stem for path in GUIDES] == guides
    with_an_engine = [
        document
        for document in DOCUMENTS
        if steps(document, engine=True, everything=True) != steps(document, engine=False)
    ]
    names = ["README", "first-reconstruction", "in-a-notebook", "recipes", "verdict", "which-engine", "write-an-engine"]
    assert [path.stem for path in with_an_engine] == names


@pytest.mark.parametrize("fence", ALL, ids=lambda fence: fence.where)
def test_every_block_is_checked(fence: Fence) -> None:
    assert fence.language in LANGUAGES, f"{fence.where}: give the block a language that is tested"
    if fence.language == "sh":
        for command in fence.commands:
            assert command.startswith(("ptycho ", *SETS_UP)), f"{fence.where}: no test runs {command!r}"
    elif source := fence.tag("file"):
        assert fence.text in (ROOT / source).read_text(encoding="utf-8"), f"{fence.where} is not in {source}"
        if fence.language == "python":
            ast.parse(textwrap.dedent(fence.text))
    elif fence.language == "text":
        assert fence.tags == (OUTPUT,), f"{fence.where}: say which command prints it, by the tag '{OUTPUT}' after it"
    else:
        assert fence.language == "python" or fence.tag("name"), f"{fence.where}: nothing reads it"


def test_decisions_hold_no_code() -> None:
    for path in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        assert fences(path) == [], f"{path.name}: code in a decision record is run by no test"


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    heads = {path.name: path.read_text(encoding="utf-8").partition("\n")[0] for path in sorted(folder.glob("0*.md"))}
    wanted = [re.sub(r"^# (\d+)\. (.+)$", rf"- \1: [\2]({name})", head) for name, head in heads.items()]
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("- ")] == wanted
    assert all(head.startswith(f"# {int(name[:4])}. ") for name, head in heads.items())


def test_links_lead_somewhere() -> None:
    for document in [*DOCUMENTS, *(ROOT / "docs" / "decisions").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_scan_of_documents_can_fail(tmp_path: Path) -> None:
    path = ROOT / "docs" / "x.md"
    text = "a\n```sh\nptycho run \\\n  scan.npz  # why\n# only a remark\nls\n```\n```\nx\n```\n"
    document = tmp_path / "x.md"
    document.write_text(text)
    shell, plain = fences(document)
    assert shell.commands == ["ptycho run    scan.npz", "ls"]
    assert plain.language == ""
    for fence in (Fence(path, 2, "sh", (), shell.text), Fence(path, 8, "", (), plain.text)):
        with pytest.raises(AssertionError, match=r"no test runs 'ls'|give the block a language"):
            test_every_block_is_checked(fence)


# ---- the commands that set up


def test_the_readme_has_two_commands_and_ci_is_the_second() -> None:
    install, check = set_up_commands(README)
    assert install == (
        "python3.11 -m venv .venv && .venv/bin/pip install -c constraints.txt '.[torch]' && .venv/bin/ptycho demo"
    )
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert script[0] == "#!/usr/bin/env bash"
    body = [line for line in script[1:] if line and not line.startswith("#")]
    assert body == ["set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."', check]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_what_the_commands_name_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    environments = {name.removeprefix("testenv:") for name in tox.sections()}
    assert {name.strip() for name in tox["tox"]["env_list"].split(",")} <= environments
    pins = pinned()
    named = set()
    for document in DOCUMENTS:
        for part in [part for command in set_up_commands(document) for part in command.split(" && ")]:
            words = shlex.split(part)
            if words[0].endswith("bin/pip"):
                assert words[1:4] == ["install", "-c", "constraints.txt"], part
                wanted = [word for word in words[4:] if not word.startswith("-")]
                named |= {extra for word in wanted for extra in re.findall(r"[\w-]+", word.partition("[")[2])}
                assert all(word in pins for word in wanted if not word.startswith(".")), part
            if words[0] == "pip":
                assert (ROOT / words[2]).is_dir(), part
    assert {"torch"} <= named <= set(extras)
    contributing = CONTRIBUTING.read_text(encoding="utf-8")
    assert len(set_up_commands(CONTRIBUTING)) == 5
    mentioned = re.search(r"checks: (.*?)\. ", contributing, re.DOTALL)
    assert mentioned
    listed = set(re.findall(r"`(\w+)`", mentioned[1]))
    assert listed == {name.strip() for name in tox["tox"]["env_list"].split(",")}


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)
    return {pair[0]: pair[1] for pair in pairs}


def test_every_dependency_is_pinned_to_a_public_version() -> None:
    pins = pinned()
    assert list(pins) == sorted(pins)
    assert not [version for version in pins.values() if "+" in version], "a local label is found on one machine only"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [w for ws in project["optional-dependencies"].values() for w in ws]
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in wanted}  # type: ignore[index]
    assert names - {"ptycho-core"} <= set(pins)
    assert {"hatchling", "hypothesis", "mypy", "pytest", "ruff", "tox"} <= set(pins)


def test_tox_installs_with_the_constraints_only() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    assert "-c {tox_root}{/}constraints.txt" in tox["testenv"]["install_command"]
    for name in tox.sections():
        assert "install_command" not in tox[name] or name == "testenv", name
        assert tox[name].get("package", "wheel") in ("wheel", "skip", "deps-only"), name
