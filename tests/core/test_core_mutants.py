"""Core's tests have teeth: with one line of core made wrong, the test named for that mistake fails.

Each mutant is a copy of ``ptycho_core`` with some text replaced, put before the installed one on the path of a fresh
pytest, which runs the one test. A mutant that survives is a bug of the suite.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutant_texts import Mutant, read_mutants

import ptycho_core

TESTS = Path(__file__).resolve().parents[1]
PACKAGE = Path(ptycho_core.__file__).parent
MUTANTS = read_mutants((Path(__file__).parent / "core_mutants.diff").read_text(encoding="utf-8"))
LEAST = 30

BROKEN = re.compile(r"\b(NameError|UnboundLocalError|SyntaxError|IndentationError|ImportError|ModuleNotFoundError)\b")
"""Why a text that cannot run fails, whatever it is asked."""


def run_test(node: str, folder: Path, mutant: Mutant | None = None) -> subprocess.CompletedProcess[str]:
    """Run one test in a fresh pytest, with a mutant of core in place of core."""
    # the folder that a process is started in is no place to import core from
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"}
    if mutant is not None:
        copy = folder / "site" / PACKAGE.name
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        path = copy / mutant.file
        text = path.read_text(encoding="utf-8")
        for old, new in zip(mutant.texts[::2], mutant.texts[1::2], strict=True):
            assert text.count(old) == 1, f"{mutant.file} has {text.count(old)} times: {old}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        environment["PYTHONPATH"] = str(folder / "site")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--tb=short",
        node,
    ]
    return subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_of_core_dies(name, tmp_path):
    mutant = MUTANTS[name]
    done = run_test(mutant.test, tmp_path, mutant)
    assert done.returncode == 1, (
        f"{name} survives {mutant.test}, or it was not run:\n{done.stdout[-2000:]}{done.stderr[-500:]}"
    )
    assert not BROKEN.search(done.stdout), f"{name} is no mistake of that kind, it cannot run:\n{done.stdout[-2000:]}"


@pytest.mark.slow
def test_every_test_that_kills_a_mutant_passes_without_it(tmp_path):
    nodes = sorted({mutant.test for mutant in MUTANTS.values()})
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *nodes]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_there_are_enough_of_them_and_each_names_a_test_that_exists():
    assert len(MUTANTS) >= LEAST
    for name, mutant in MUTANTS.items():
        path, _, test = mutant.test.partition("::")
        function = test.rpartition("::")[2].partition("[")[0]
        assert f"def {function}(" in (TESTS.parent / path).read_text(encoding="utf-8"), name
