"""What is wrong is told before a framework is imported: settings, options, the scan, hardware (CMD-13)."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import cli_stub_engine
import numpy as np
import pytest
from stub_engines import install_stub, offer_only

from ptycho_core.api.machine import refuse_absent
from ptycho_core.cli.main import main
from ptycho_core.errors import BackendProtocolError, ConfigError
from ptycho_core.plugins import registry
from ptycho_core.protocol import BackendSpec

WRONG = {
    "a file that is not there": (["run", "gone.npz"], "no such file"),
    "a second file that is not there": (["train", "scan.npz", "gone.npz"], "no such file"),
    "a measurement that nobody says": (["run", "unsaid.npz"], "--measurement amplitude|counts"),
    "no scan": (["run", "words.npz"], "words.npz"),
    "one frame of nothing": (["run", "dark.npz"], "dark.npz"),
    "an unknown device": (["run", "scan.npz", "--accelerator", "gpu"], "accelerator = 'gpu' is not supported"),
    "a precision that it lacks": (["run", "scan.npz", "--precision", "64"], "precision = '64' is not supported"),
    "an unknown generator": (["run", "scan.npz", "--model.generator", "unet"], "'unet' is not supported; allowed"),
    "an option of its own that it lacks": (["run", "scan.npz", "--options.pytorch.x", "3"], "engine 'pytorch'"),
    "a setting out of range": (["run", "scan.npz", "--epochs", "0"], "epochs = 0"),
    "an unknown option": (["run", "scan.npz", "--epoch", "1"], "unknown option --epoch"),
    "a crop larger than its frames": (
        ["run", "scan.npz", "--method", "network", "--inference.central_crop_px", "64"],
        "central_crop_px = 64",
    ),
}


@pytest.fixture
def files(scan, tmp_path):
    """Scans that are wrong, beside one that is right."""
    with np.load(scan) as file:
        arrays = {name: file[name] for name in file.files}
    unsaid = {name: value for name, value in arrays.items() if name != "measurement"}
    np.savez(tmp_path / "unsaid.npz", **unsaid)
    frames = next(name for name, value in arrays.items() if value.ndim == 3 and value.dtype.kind in "uif")
    np.savez(tmp_path / "dark.npz", **{**arrays, frames: 0 * arrays[frames]})
    (tmp_path / "words.npz").write_text("no scan")


def write_case(folder: Path, name: str) -> list[str]:
    return [*WRONG[name][0], "--backend", "pytorch"]


@pytest.fixture
def told(monkeypatch):
    """The stub engine, whose plugin says what it can do; its factory is a module that must not be imported."""
    spec = BackendSpec(
        name="pytorch",
        factory="engine_that_must_not_start:Engine",
        protocol_version=2,
        capabilities=cli_stub_engine.StubEngine.capabilities,
    )
    offer_only(monkeypatch, [importlib.metadata.EntryPoint("pytorch", "cli_stub_engine", "ptycho.backends")])
    monkeypatch.setattr(cli_stub_engine, "ptycho_backend", cli_stub_engine.hookimpl(lambda: spec))
    started: list[str] = []
    real = importlib.import_module

    def watched(name: str, package: str | None = None) -> object:
        if name == "engine_that_must_not_start":
            started.append(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", watched)
    return started


@pytest.mark.spec("CMD-13")
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_a_line_and_no_engine_is_imported(name, files, told, tmp_path, capsys):
    arguments, said = WRONG[name]
    assert main([*arguments, "--backend", "pytorch"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len([line for line in error.splitlines() if line.startswith("ptycho: ")]) == 1
    assert told == []
    assert not [path for path in tmp_path.iterdir() if path.is_dir()], "nothing was made"


@pytest.mark.spec("CMD-13")
def test_a_right_command_line_does_import_it(files, told, capsys):
    """Else none of the others could fail."""
    assert main(["run", "scan.npz", "--backend", "pytorch"]) == 1
    assert told == ["engine_that_must_not_start"]


@pytest.mark.spec("CMD-13")
def test_a_model_is_not_applied_to_a_file_that_is_not_there(stub, scan, monkeypatch, capsys):
    assert main(["train", str(scan), "--epochs", "1", "--out", "model"]) == 0
    loaded: list[str] = []
    monkeypatch.setattr("ptycho_core.api.models.load_described", lambda *a: loaded.append("engine"))
    assert main(["reconstruct", "--model", "model/model.ptycho", "gone.npz"]) == 2
    assert "no such file" in capsys.readouterr().err
    assert loaded == []


_PROCESS = """
import json, sys
from ptycho_core.cli.main import main
found = {}
for name, arguments in json.loads(sys.argv[1]).items():
    code = main(arguments)
    found[name] = [code, sorted(m for m in ("torch", "tensorflow", "lightning", "ptychi") if m in sys.modules)]
print("FOUND" + json.dumps(found))
"""


@pytest.mark.spec("CMD-13")
@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("pytorch", marks=pytest.mark.torch),
        pytest.param("tensorflow", marks=pytest.mark.tensorflow),
        pytest.param("ptychi", marks=pytest.mark.ptychi),
    ],
)
def test_no_framework_is_there_when_an_engine_of_ours_is_refused(engine, files, tmp_path):
    cases = {name: [*arguments, "--backend", engine] for name, (arguments, _) in WRONG.items() if "own" not in name}
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS, json.dumps(cases)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.partition("FOUND")[2])
    assert found == {name: [2, []] for name in cases}, done.stderr


@pytest.mark.parametrize(
    ("accelerator", "platform", "files_there", "said"),
    [
        ("cuda", "linux", [], "no driver for a GPU was found"),
        ("cuda", "linux", ["dev/nvidiactl"], ""),
        ("cuda", "linux", ["dev/kfd"], ""),
        ("cuda", "linux", ["proc/driver/nvidia/version"], ""),
        ("cuda", "darwin", [], "its GPU is called mps"),
        ("cuda", "win32", [], ""),
        ("mps", "linux", [], "the GPU of a Mac"),
        ("mps", "darwin", [], ""),
        ("auto", "linux", [], ""),
        ("cpu", "linux", [], ""),
    ],
)
def test_hardware_that_a_machine_cannot_have(tmp_path, accelerator, platform, files_there, said):
    for name in files_there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if not said:
        refuse_absent(accelerator, "eng", root=tmp_path, platform=platform)
        return
    with pytest.raises(
        ConfigError, match=f"engine 'eng': accelerator = '{accelerator}' is not available here: .*{said}"
    ):
        refuse_absent(accelerator, "eng", root=tmp_path, platform=platform)


@pytest.mark.spec("PLUG-17")
def test_an_engine_that_can_something_else_than_its_plugin_says_is_refused(tmp_path, monkeypatch):
    stated = dataclasses.replace(cli_stub_engine.StubEngine.capabilities, mask=False)
    spec = BackendSpec(name="pytorch", factory="cli_stub_engine:StubEngine", protocol_version=2, capabilities=stated)
    with pytest.raises(BackendProtocolError, match=r"capabilities\.mask is True in the engine and False in its"):
        registry.load_described(spec, "dist 1")
    same = dataclasses.replace(spec, capabilities=cli_stub_engine.StubEngine.capabilities)
    assert registry.load_described(same, "dist 1").name == "pytorch"


@pytest.mark.spec("PLUG-17")
def test_a_plugin_that_says_something_else_than_capabilities_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    install_stub(tmp_path, "odd", capabilities="everything")
    with pytest.raises(BackendProtocolError, match="capabilities is a str; it must be a Capabilities, or None"):
        registry.backend_spec("odd")
