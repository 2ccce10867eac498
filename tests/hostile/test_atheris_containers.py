"""The atheris target runs: some hundred inputs to every parser, where atheris is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.hostile
HERE = Path(__file__).parent


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="not installed in this environment: atheris")
def test_a_few_hundred_inputs_find_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "atheris_containers.py", "all", "-runs=600", "-seed=7"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.fspath(HERE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "DONE" in done.stderr or "Done 600 runs" in done.stderr
    assert not list(tmp_path.iterdir()), "an input was kept"
