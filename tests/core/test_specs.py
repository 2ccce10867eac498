"""Every normative sentence is checked by a test, and every test that claims so names a sentence that exists."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "specs").glob("*.md"))
ID = r"(?:CONV|DATA|FM|BE|PLUG|BUNDLE|CDI|NOTE|PTYD|RES|CMD|FIND|READ|SETTLE|VERDICT|PROBE)-\d+"
PREFIX_OF = {
    "00": "CONV",
    "10": "DATA",
    "20": "FM",
    "30": "BE",
    "40": "PLUG",
    "50": "BUNDLE",
    "60": "CDI",
    "62": "NOTE",
    "65": "PTYD",
    "70": "RES",
    "75": "CMD",
    "80": "FIND",
    "82": "PROBE",
    "85": "READ",
    "86": "SETTLE",
    "90": "VERDICT",
}


def paragraphs(text: str) -> list[str]:
    """Paragraphs and list items of a Markdown text."""
    return re.split(r"\n\s*\n|\n(?=- )", text)


def defined_in(text: str) -> list[str]:
    return [m[1] for p in paragraphs(text) if (m := re.match(rf"- \*\*({ID})\*\* ", p))]


def is_spec_marker(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "spec"
        and isinstance(node.func.value, ast.Attribute)
        and node.func.value.attr == "mark"
    )


def named_in(source: str) -> list[str]:
    """Ids in the ``pytest.mark.spec`` decorators of tests, and in nothing else."""
    out = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        markers = [d for d in node.decorator_list if is_spec_marker(d)]
        assert not markers or node.name.startswith(("test_", "Test")), f"{node.name} is no test but has a spec marker"
        for marker in markers:
            assert isinstance(marker, ast.Call)
            assert marker.args, f"{node.name}: spec marker without an id"
            out += [ast.literal_eval(argument) for argument in marker.args]
    return out


def all_defined() -> list[str]:
    return [name for path in SPECS for name in defined_in(path.read_text(encoding="utf-8"))]


def all_named() -> set[str]:
    return {
        name
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for name in named_in(path.read_text(encoding="utf-8"))
    }


def test_every_id_is_named_by_a_test() -> None:
    missing = sorted(set(all_defined()) - all_named())
    assert not missing, f"specs/ ids that no test names with @pytest.mark.spec: {', '.join(missing)}"


def test_every_named_id_is_defined() -> None:
    unknown = sorted(all_named() - set(all_defined()))
    assert not unknown, f"tests name ids that specs/ does not define: {', '.join(unknown)}"


def test_ids_are_defined_once() -> None:
    double = [name for name, n in Counter(all_defined()).items() if n > 1]
    assert not double


def test_every_id_that_the_source_names_is_defined() -> None:
    defined = set(all_defined())
    for folder in ("ptycho_core", "backends"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            named = set(re.findall(rf"\b{ID}\b", path.read_text(encoding="utf-8")))
            assert named <= defined, f"{path.relative_to(ROOT)} names {sorted(named - defined)}"


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_must_has_an_id(path: Path) -> None:
    for paragraph in paragraphs(path.read_text(encoding="utf-8")):
        if re.search(r"\bMUST\b", paragraph) and "A sentence with MUST is normative" not in paragraph:
            assert re.match(rf"- \*\*{ID}\*\* ", paragraph), f"{path.name}: a MUST without an id: {paragraph[:80]}"
    assert {name.split("-")[0] for name in defined_in(path.read_text(encoding="utf-8"))} == {PREFIX_OF[path.stem[:2]]}


def test_all_specs_are_there() -> None:
    assert [path.stem[:2] for path in SPECS] == sorted(PREFIX_OF)


def test_the_scan_of_tests_sees_decorators_only() -> None:
    source = (
        '@pytest.mark.spec("FM-1", "FM-2")\ndef test_a():\n    "FM-3"\n'
        '@pytest.mark.spec("FM-4")\nclass TestB:\n    pass\n# FM-5\n'
    )
    assert named_in(source) == ["FM-1", "FM-2", "FM-4"]
    with pytest.raises(AssertionError, match="no test"):
        named_in('@pytest.mark.spec("FM-1")\ndef helper():\n    pass\n')
    assert defined_in("text **FM-9** text\n\n- **FM-1** x MUST\n  more\n- **FM-2** y") == ["FM-1", "FM-2"]
