"""The client as a command: ``ptychodus --batch train`` and ``--batch reconstruct`` on folders as it lays them out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from client_scan import compared, exported, libraries, parts
from test_client_workflow import staged

pytestmark = pytest.mark.ptychodus

SETTINGS = """
import sys
from pathlib import Path
from ptychodus.model import ModelCore
with ModelCore() as model:
    model.processing_core.algorithm_parameter.set_value("ptychopinn_pinn")
    assert model.processing_core.algorithm_parameter.get_value() == "ptychopinn_pinn"
    model.ptychopinn_reconstructor_library.training_settings.nepochs.set_value(6)
    model.settings_registry.save_settings(Path(sys.argv[1]))
"""


def ptychodus(*arguments: object) -> str:
    command = [sys.executable, "-m", "ptychodus", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    return said


def test_training_and_reconstructing_in_batch_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTYCHO_BACKEND", "numpy")
    given = parts()
    folder = staged(tmp_path, given)
    exported(next(iter(libraries()[0])), folder, given, given)
    subprocess.run([sys.executable, "-c", SETTINGS, str(folder / "settings.ini")], timeout=120, check=True)
    said = ptychodus("--batch", "train", "-i", folder, "-o", tmp_path / "trained")
    assert "engine numpy (named by PTYCHO_BACKEND)" in said
    (tmp_path / "trained" / "wts.h5.zip").rename(folder / "model.zip")
    ptychodus("--batch", "reconstruct", "-i", folder, "-o", tmp_path / "made")
    from ptychodus.api.io import load_product

    (made,) = (tmp_path / "made").glob("product*.h5")
    score = compared(load_product(made))
    assert score.correlation > 0.97
    assert np.abs(score.shift_px).max() < 0.25
