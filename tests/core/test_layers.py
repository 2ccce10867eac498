"""Who may import whom: no circle among the modules of core, and an engine uses nothing of the host's side."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "ptycho_core"

VALUES = {"config", "config_checks", "data", "errors", "generators", "limits", "physics", "runtime", "stopping", "text"}
"""What says what things are, and the formulas; all may import these."""

ROOMS = {
    "errors": {"text"},
    "physics": VALUES,
    "data": VALUES,
    "evaluation": VALUES,
    "simulation": VALUES,
    "enginekit": VALUES
    | {"bundle", "config_mapping", "enginekit", "io.atomic", "io.regular", "protocol", "provenance"},
    "report": VALUES | {"config_mapping", "io", "protocol", "report"},
    "inspection": VALUES | {"inspection", "io", "plugins", "reader_protocol"},
    "notebook": VALUES | {"notebook", "protocol", "report"},
}
"""Room → what its modules may import of core, itself apart."""

FOR_ENGINES = {
    "bundle", "config", "data", "enginekit", "errors", "generators", "io.atomic", "limits", "physics",
    "plugins.hookspecs", "protocol", "runtime", "text",
}  # fmt: skip
"""What an engine may import of core; the rest is the host's side."""


def modules(root: Path) -> dict[str, Path]:
    """Name → file of every module below a folder's ``ptycho_core``."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((root / "ptycho_core").rglob("*.py"))
    }


def imported(name: str, path: Path) -> Iterator[str]:
    """What a module imports, at its top, in functions and for types alone, as absolute dotted names."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def graph(root: Path) -> dict[str, set[str]]:
    """Module → the modules of core that it imports."""
    known = modules(root)
    out: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for wanted in imported(name, path):
            target = wanted if wanted in known else wanted.rpartition(".")[0]
            if target in known and target != name:
                out[name].add(target)
    return out


def circle(edges: dict[str, set[str]]) -> list[str]:
    """One circle of imports, or an empty list."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name not in done:
            for target in sorted(edges[name]):
                if found := walk(target, [*way, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := walk(name, []))), [])


def within(name: str, rooms: set[str]) -> bool:
    """Whether a dotted name is one of some rooms of core or in one of them."""
    return any(name == f"ptycho_core.{room}" or name.startswith(f"ptycho_core.{room}.") for room in rooms)


def strangers(root: Path, room: str, allowed: set[str]) -> list[str]:
    """What the modules of a room import of core that they may not."""
    return [
        f"{name} imports {target}"
        for name, targets in graph(root).items()
        if within(name, {room})
        for target in sorted(targets)
        if not within(target, allowed | {room})
    ]


def host_imports(backends: Path) -> list[str]:
    """What the modules of engines import of core that is the host's."""
    return [
        f"{path.relative_to(backends)} imports {name}"
        for path in sorted(backends.rglob("*.py"))
        for name in imported(".".join(path.relative_to(backends).with_suffix("").parts), path)
        if name.split(".")[0] == "ptycho_core" and not within(name, FOR_ENGINES)
    ]


def copied(folder: Path) -> Path:
    """A copy of core and the engines to break."""
    for name in ("ptycho_core", "backends"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")


def test_no_two_modules_import_each_other_however_far_around() -> None:
    assert len(modules(ROOT)) > 100
    assert circle(graph(ROOT)) == []


@pytest.mark.parametrize(
    "line",
    [
        "\nfrom .report import write\n",
        "\ndef f():\n    from . import protocol\n",
        "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .data.run import Run\n",
    ],
)
def test_a_circle_is_found_in_functions_and_for_types_too(tmp_path: Path, line: str) -> None:
    root = copied(tmp_path)
    append(root / "ptycho_core" / "errors.py", line)
    found = circle(graph(root))
    assert "ptycho_core.errors" in found
    assert found[0] == found[-1]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_room_above_it(room: str) -> None:
    assert strangers(ROOT, room, ROOMS[room]) == []


def test_an_import_of_a_room_above_is_found(tmp_path: Path) -> None:
    root = copied(tmp_path)
    append(root / "ptycho_core" / "physics" / "steps.py", "\nfrom ..enginekit import state\n")
    append(root / "ptycho_core" / "enginekit" / "state.py", "\ndef f():\n    from ..io import registry\n")
    assert strangers(root, "physics", ROOMS["physics"]) == [
        "ptycho_core.physics.steps imports ptycho_core.enginekit.state"
    ]
    assert strangers(root, "enginekit", ROOMS["enginekit"]) == [
        "ptycho_core.enginekit.state imports ptycho_core.io.registry"
    ]


BY_NAME = "ptycho_core.data.shown"
"""The one module of values and formulas that reaches a room above it, by name and when somebody looks (0047)."""


def by_name(root: Path) -> dict[str, set[str]]:
    """Module of the lower rooms that imports by name → the rooms that it asks ``from_above`` for, or ``?`` for others.

    Values are drawn and saved by rooms above them, and they must work without those: an import by name is not seen by
    the graph, so it has one place, and every use of it names its room in plain words.
    """
    found: dict[str, set[str]] = {}
    for name, path in modules(root).items():
        if not within(name, VALUES | {"evaluation", "enginekit"}) or within(name, {"enginekit.tracking"}):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called.endswith(("import_module", "__import__")) and name != BY_NAME:
                found.setdefault(name, set()).add("?")
            if called == "from_above":
                room = node.args[0]
                found.setdefault(name, set()).add(room.value if isinstance(room, ast.Constant) else "?")
    return found


def test_values_reach_the_rooms_above_them_in_one_way_only() -> None:
    known = modules(ROOT)
    found = by_name(ROOT)
    assert set(found) == {BY_NAME, "ptycho_core.data.results", "ptycho_core.data.run"}
    for room in set().union(*found.values()):
        assert f"ptycho_core.{room}" in known, room
        assert room.startswith("notebook.") or room == "api.saved"


def test_an_import_by_name_in_a_lower_room_is_found(tmp_path: Path) -> None:
    root = copied(tmp_path)
    line = "\nimport importlib\n\n\ndef f():\n    return importlib.import_module('ptycho_core.report.write')\n"
    append(root / "ptycho_core" / "physics" / "steps.py", line)
    append(root / "ptycho_core" / "data" / "roles.py", "\n\ndef f(room):\n    return from_above(room, 'x')\n")
    found = by_name(root)
    assert found["ptycho_core.physics.steps"] == {"?"}
    assert found["ptycho_core.data.roles"] == {"?"}


def test_engines_import_nothing_of_the_hosts_side() -> None:
    assert len(list((ROOT / "backends").rglob("*.py"))) > 30
    assert host_imports(ROOT / "backends") == []


BANNED_LINES = {
    "from ptycho_core.api.run import run": "ptycho_core.api",
    "import ptycho_core.report.write": "ptycho_core.report",
    "from ptycho_core.plugins.registry import load_backend": "ptycho_core.plugins.registry",
    "from ptycho_core.io.registry import read_scan": "ptycho_core.io.registry",
}


@pytest.mark.parametrize("line", BANNED_LINES)
def test_an_engine_that_uses_the_host_is_found(tmp_path: Path, line: str) -> None:
    root = copied(tmp_path)
    append(root / "backends" / "ptycho_backend_numpy" / "gradient.py", f"\ndef f():\n    {line}\n")
    (found,) = host_imports(root / "backends")
    assert found.startswith(f"ptycho_backend_numpy/gradient.py imports {BANNED_LINES[line]}")


@pytest.mark.parametrize("line", BANNED_LINES)
@pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed")
def test_the_linter_refuses_it_too(tmp_path: Path, line: str) -> None:
    root = copied(tmp_path)
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251", "backends"]
    assert subprocess.run(command, cwd=root, capture_output=True, check=False).returncode == 0
    append(root / "backends" / "ptycho_backend_numpy" / "gradient.py", f"\ndef f():\n    {line}\n")
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"`{BANNED_LINES[line]}" in done.stdout


def test_the_linter_bans_what_is_not_for_engines_and_nothing_else() -> None:
    rules = tomllib.loads((ROOT / "backends" / "ruff.toml").read_text(encoding="utf-8"))
    banned = {name.removeprefix("ptycho_core.") for name in rules["lint"]["flake8-tidy-imports"]["banned-api"]}
    for name in modules(ROOT):
        if name.count(".") and (ROOT / name.replace(".", "/")).is_dir():
            continue  # a room as such is judged by what is in it
        if name != "ptycho_core":
            assert within(name, banned) != within(name, FOR_ENGINES), f"{name}: banned, or for engines?"
