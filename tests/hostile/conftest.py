"""Fixtures of the hostile suites."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path

import pytest
import small_results


@pytest.fixture(scope="session")
def sound_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``scan.npz``, ``model.ptycho``, ``solver.ckpt``, ``image.h5`` and ``result/``."""
    folder = tmp_path_factory.mktemp("sound")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        small_results.make_result(folder)
    return folder


@pytest.fixture
def sound(sound_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of these files in the folder of one test, which is the current one."""
    for name in ("scan.npz", "model.ptycho", "solver.ckpt", "image.h5"):
        shutil.copy(sound_files / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path))
    return tmp_path
