"""Building ``fault_points.c``, and starting Python with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["built", "environment", "started"]

HERE = Path(__file__).parent


def built(folder: Path) -> Path:
    """The compiled library; the test is skipped where there is nothing to compile it with."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("the places are counted by a preloaded library, for which there is no compiler here")
    library = folder / "fault_points.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "fault_points.c"), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return library


def environment(library: Path | None = None, **more: str) -> dict[str, str]:
    """Variables for a child: one thread, this folder's modules, and the library where one is given."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("FAULT_")}
    # a script's own folder is no place to import from where PYTHONSAFEPATH is set
    paths = os.pathsep.join(filter(None, [str(HERE), found.get("PYTHONPATH")]))
    found |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": paths} | more
    return found if library is None else found | {"LD_PRELOAD": str(library)}


def started(script: str, *arguments: str, library: Path | None = None, before: tuple[str, ...] = ()) -> str:
    """What a script of this folder printed; it must end well."""
    done = subprocess.run(
        [*before, sys.executable, str(HERE / script), *arguments],
        capture_output=True, text=True, env=environment(library), timeout=1500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
