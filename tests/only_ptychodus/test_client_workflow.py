"""The engines in the client's own list of workflows: a product and its frames become one with all that was found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_scan import CENTRE_M, PIXEL_M, N, compared, parts, true_probe

pytestmark = pytest.mark.ptychodus


def staged(folder: Path, given: Any) -> Path:
    """A folder ``input`` as ptychodus stages one for others."""
    from ptychodus.api.assemble import AssembledDiffractionData
    from ptychodus.api.geometry import PixelGeometry
    from ptychodus.api.io import save_diffraction_data, save_product

    target = folder / "input"
    target.mkdir(parents=True)
    frames = np.arange(len(given.diffraction_patterns))
    pitch = PixelGeometry(75e-6, 75e-6)
    data = AssembledDiffractionData(frames, given.diffraction_patterns, pitch, given.bad_pixels)
    save_diffraction_data(target / "diffraction.h5", data)
    save_product(target / "product.h5", given.product)
    return target


LIST = """
import json, sys
from ptychodus.api.plugins import PluginRegistry
registry = PluginRegistry.load_plugins()
print(json.dumps([[(p.simple_name, p.display_name) for p in registry.file_based_workflows],
                  sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_the_client_lists_every_engine_that_is_there() -> None:
    done = subprocess.run([sys.executable, "-c", LIST], capture_output=True, text=True, timeout=120, check=True)
    listed, modules = json.loads(done.stdout.splitlines()[-1])
    ours = {simple for simple, display in listed if display.startswith("ptycho-core: ")}
    assert {"PtychoCore_numpy", "PtychoCore_pytorch", "PtychoCore_tensorflow"} <= ours
    assert len(listed) > len(ours)
    assert not {"torch", "tensorflow", "lightning"} & set(modules)


RUN = """
import logging, sys
from pathlib import Path
from typing import Any
from ptychodus.model import ModelCore

with ModelCore(log_level=logging.INFO) as model:
    presenter = model.automation_core.presenter
    presenter.set_current_workflow("PtychoCore_numpy")
    assert presenter.get_current_workflow().startswith("ptycho-core: ")
    folder = Path(sys.argv[1])
    chooser = model.plugin_registry.file_based_workflows
    workflow = chooser.get_current_plugin().strategy
    workflow.execute(model.workflow_api, folder / "input" / "product.h5")
    assert [process.wait(timeout=240) for process in workflow.started] == [0]
    before = len(model.product_core.product_repository)
    workflow.execute(model.workflow_api, folder / "output" / "product.h5")
    assert len(model.product_core.product_repository) == before + 1
print("all of it")
"""


@pytest.mark.spec("PTYD-9")
def test_a_workflow_of_the_running_client_reconstructs_and_loads(tmp_path: Path) -> None:
    guess = (true_probe()[:1] * np.exp(0.2j)).astype(np.complex64)
    given = parts(bad=True, probe=guess)
    staged(tmp_path, given)
    (tmp_path / "input" / "ptycho_core.yaml").write_text("epochs: 4\nrefinement:\n  epochs: 15\n  probe_modes: 2\n")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)], capture_output=True, text=True, timeout=290, check=False
    )
    log = tmp_path / "output" / "ptychodus.log"
    assert "all of it" in done.stdout, done.stderr[-3000:] + (log.read_text() if log.exists() else "")
    from ptychodus.api.io import load_product

    product = load_product(tmp_path / "output" / "product.h5")
    score = compared(product)
    assert score.correlation > 0.97
    assert np.abs(score.shift_px).max() < 0.25
    # it is the product as itself: probe and centre are those that belong to this object
    assert product.probes.get_array().shape[-3:] == (2, N, N)
    geometry = product.object_.get_geometry()
    assert abs(geometry.center_y_m - CENTRE_M[1]) > 3 * PIXEL_M
    assert product.metadata.name == given.product.metadata.name
    assert len(product.losses) > 3
    power = float(np.sum(np.abs(product.probes.get_array()) ** 2))
    assert product.metadata.probe_photon_count == pytest.approx(power, rel=1e-5)
    # all of the light, as it was counted in the good pixels and is expected in the others, by an object near 1
    assert power == pytest.approx(parts().diffraction_patterns.sum(axis=(1, 2)).mean(), rel=0.1)
    assert product.probe_positions.get_indexes().tolist() == given.product.probe_positions.get_indexes().tolist()
    assert (tmp_path / "output" / "ptycho-core" / "report.html").is_file()


def test_a_folder_without_frames_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from ptycho_core_ptychodus.workflow import EngineWorkflow

    target = staged(tmp_path, parts())
    (target / "diffraction.h5").unlink()
    workflow = EngineWorkflow("numpy")
    workflow.execute(None, target / "product.h5")  # type: ignore[arg-type]
    assert "no diffraction.h5 beside it" in caplog.text
    assert not workflow.started
    assert not (tmp_path / "output").exists()


@pytest.mark.spec("PTYD-9")
def test_the_object_of_a_product_with_layers_is_the_product_of_them(caplog: pytest.LogCaptureFixture) -> None:
    from dataclasses import replace

    from client_scan import truth
    from ptychodus.api.object import Object

    from ptycho_core_ptychodus.product_run import scan_of

    given = parts()

    def of_layers(layers: np.ndarray) -> object:
        old = given.product.object_
        spacing = [1e-6] * (len(layers) - 1)
        made = Object(layers, old.get_pixel_geometry(), old.get_center(), spacing)
        return scan_of(replace(given, product=replace(given.product, object_=made)))

    first = truth()
    second = np.exp(0.3j * np.abs(first)).astype(np.complex64)
    raw = of_layers(np.stack([first, second]))
    np.testing.assert_allclose(raw.object_guess.object, first * second, rtol=1e-5)
    assert "2 layers; their product was taken, as of a thin stack" in " ".join(raw.source.assumptions)
    one = of_layers(first[None])
    assert np.array_equal(one.object_guess.object, first)
    assert "layers" not in " ".join(one.source.assumptions)
    spoiled = np.stack([first, second])
    spoiled[1, 4, 5] = np.nan
    assert of_layers(spoiled).object_guess is None
    assert "values that are not finite, so it is left out" in caplog.text


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ("epoch: 4\n", "epoch"),
        ("backend: pytorch\n", "other workflow"),
        ("a: &a [1, 2]\nb: &b [*a, *a]\nc: [" + "*b, " * 9000 + "*b]\n", "aliases"),
    ],
    ids=["unknown", "engine", "bomb"],
)
def test_what_fails_is_in_the_log_and_no_product_is_left(tmp_path: Path, settings: str, word: str) -> None:
    target = staged(tmp_path, parts())
    (target / "ptycho_core.yaml").write_text(settings)
    command = [sys.executable, "-m", "ptycho_core_ptychodus.product_run", str(target), "--engine", "numpy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "output" / "product.h5").exists()
