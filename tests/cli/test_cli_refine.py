"""Refining in ``run`` and ``demo``: what ``--refine`` says, what is written of it, and what an interruption leaves."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import sys
import types
from dataclasses import replace

import h5py
import pytest
from stub_engines import offer_only

from ptycho_core.cli import demo
from ptycho_core.cli import main as cli
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec

SOLVER = ["--epochs", "1", "--test_fraction", "0.25", "--out", "result"]
QUICK = [*SOLVER, "--group_size", "4"]


@pytest.fixture
def engines(stub, monkeypatch):
    """The stub, which cannot refine, and the NumPy engine, which can."""
    entries = [
        importlib.metadata.EntryPoint("pytorch", "cli_stub_engine", "ptycho.backends"),
        importlib.metadata.EntryPoint("numpy", "ptycho_backend_numpy.plugin", "ptycho.backends"),
    ]
    offer_only(monkeypatch, entries)
    monkeypatch.setattr(stub, "disturbance", 0.3)  # an image that there is something to refine in
    return stub


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.usefixtures("engines", "real_pictures")
def test_both_images_are_written_and_the_refined_one_is_the_result(scan, tmp_path, capsys):
    assert cli.main(["run", str(scan), *QUICK, "--refine", "numpy:4"]) == 0
    folder = tmp_path / "result"
    summary, out = summary_of(folder), capsys.readouterr().out
    first, refined = summary["stages"]
    assert (first["name"], first["engine"], refined["name"], refined["engine"]) == (
        "network", "pytorch", "refined", "numpy"
    )  # fmt: skip
    assert refined["figures"] == summary["figures"]
    assert refined["figures"]["heldout"]["deviance"] < first["figures"]["heldout"]["deviance"]
    assert summary["refinement"]["kept"] is True
    assert len(summary["refinement"]["history"]["test_loss"]) == 4
    assert summary["seconds"]["refine"] > 0
    with h5py.File(folder / "reconstruction.h5") as file:
        network = file["entry/stages/network"]
        assert json.loads(file["entry/figures"].asstr()[()]) == summary["figures"]
        assert json.loads(network["figures"].asstr()[()]) == first["figures"]
        assert len(file["entry/refinement/test_loss"]) == 4
        assert network["object"].attrs["origin_px"].shape == (2,)
        assert (network["object"][()] != file["entry/object"][()]).any()
        assert set(network) == {
            "object", "coverage", "probe", "positions_px", "nominal_positions_px", "scale", "figures"
        }  # fmt: skip
    page = (folder / "report.html").read_text()
    assert "From network to refined" in page
    for stage in (first, refined):
        assert f"<td>{stage['figures']['train']['r_factor']:.4f}</td>" in page
        assert f"{stage['name']:<10}deviance {stage['figures']['train']['deviance']:.4g}" in out
    for name in ("stage_amplitude.png", "stage_phase.png", "refinement.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words", [["--refine", "none"], []])
def test_without_an_engine_that_refines_there_is_one_image(engines, scan, tmp_path, words):
    assert cli.main(["run", str(scan), *QUICK, *words]) == 0
    summary = summary_of(tmp_path / "result")
    assert [stage["name"] for stage in summary["stages"]] == ["network"]
    assert summary["refinement"] is None
    with h5py.File(tmp_path / "result" / "reconstruction.h5") as file:
        assert "stages" not in file["entry"]


def test_positions_are_refined_when_asked(engines, scan, tmp_path, capsys):
    words = ["--refine", "numpy:3", "--refinement.positions", "true", "--refinement.probe_modes", "2"]
    assert cli.main(["run", str(scan), *QUICK, *words]) == 0
    summary = summary_of(tmp_path / "result")
    assert summary["refinement"]["positions"]["rms_px"] > 0
    assert summary["probe_modes"] == 2
    assert "positions moved by" in capsys.readouterr().out
    with h5py.File(tmp_path / "result" / "reconstruction.h5") as file:
        assert (file["entry/positions_px"][()] != file["entry/nominal_positions_px"][()]).any()


def test_half_data_of_both_images(engines, scan, tmp_path):
    assert cli.main(["run", str(scan), *QUICK, "--refine", "numpy:2", "--half_data_frc"]) == 0
    summary = summary_of(tmp_path / "result")
    frcs = [stage["half_data_frc"] for stage in summary["stages"]]
    assert frcs[1] == summary["half_data_frc"]
    assert frcs[0] != frcs[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--refine", "numpy:many"], "--refine = 'numpy:many'; it must be none, auto or ENGINE"),
        (["--refine", ":3"], "--refine = ':3'"),
        (["--refine", "numpi"], "unknown engine 'numpi'; installed: numpy, pytorch. Did you mean 'numpy'?"),
        (["--refine", "pytorch"], "engine 'pytorch': refinement.engine = 'pytorch' is not supported"),
        (["--refinement.probe", "false"], "engine 'pytorch' cannot refine an image"),
    ],
)
def test_what_cannot_be_refined_with_is_refused_before_data_are_read(engines, tmp_path, capsys, words, said):
    assert cli.main(["run", "nowhere.npz", "--measurement", "counts", *QUICK, *words]) == 2
    assert said in capsys.readouterr().err


def test_a_refinement_that_is_worse_is_reported_and_not_shown(engines, scan, tmp_path, monkeypatch, capsys):
    from ptycho_backend_numpy.backend import NumpyBackend

    def worse(self, image, scan, config, *, progress):
        return replace(image, object=image.object.conj())

    monkeypatch.setattr(NumpyBackend, "refine", worse)
    assert cli.main(["run", str(scan), *QUICK, "--refine", "numpy:2"]) == 0
    summary = summary_of(tmp_path / "result")
    assert [stage["name"] for stage in summary["stages"]] == ["network"]
    assert summary["refinement"]["kept"] is False
    assert any("was discarded: the held-out frames are explained no better" in text for text in summary["warnings"])
    assert "was discarded" in capsys.readouterr().err


def test_the_numpy_engine_trains_and_refines_by_itself(engines, scan, tmp_path):
    words = ["--backend", "numpy", "--options", '{"algorithm": "lsq"}', "--refinement.epochs", "2"]
    assert cli.main(["run", str(scan), *SOLVER, *words]) == 0
    summary = summary_of(tmp_path / "result")
    assert [stage["name"] for stage in summary["stages"]] == ["solver", "refined"]
    assert summary["config"]["options"] == {
        "engine": "numpy", "algorithm": "lsq", "batch_frames": None, "threads": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--backend", "numpy", "--options", '{"algorithm": "epie"}'],
            "NumpyOptions.algorithm = 'epie'; allowed: rpie",
        ),
        (["--backend", "numpy", "--options", '{"algoritm": "lsq"}'], "NumpyOptions has no field 'algoritm'"),
        (["--options", '{"algorithm": "lsq"}'], "engine 'pytorch' has none"),
    ],
)
@pytest.mark.spec("PLUG-10")
def test_options_are_those_of_the_engine(engines, scan, capsys, words, said):
    assert cli.main(["run", str(scan), *QUICK, *words]) == 2
    assert said in capsys.readouterr().err


def test_demo_takes_the_numpy_engine_where_there_is_no_other_and_says_so(
    engines, monkeypatch, tiny_simulation, tmp_path, capsys
):
    monkeypatch.setattr(demo, "demo_simulation", lambda kind, seed: replace(tiny_simulation, object=kind, seed=seed))
    entry = importlib.metadata.EntryPoint("numpy", "ptycho_backend_numpy.plugin", "ptycho.backends")
    offer_only(monkeypatch, [entry])
    words = ["--epochs", "3", "--refinement.epochs", "2", "--out", "demo"]
    assert cli.main(["demo", *words]) == 0
    assert "engine    numpy (no framework is installed: solver sweeps, without a network)" in (capsys.readouterr().out)
    assert summary_of(tmp_path / "demo")["engine"] == "numpy"


def test_an_interruption_while_refining_leaves_the_image_before(engines, scan, tmp_path, monkeypatch, capsys):
    from ptycho_backend_numpy import gradient

    call, asked = gradient.NumpyGradient.__call__, []

    def interrupt_once(self, *arguments):
        if not asked:
            asked.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return call(self, *arguments)

    monkeypatch.setattr(gradient.NumpyGradient, "__call__", interrupt_once)
    assert cli.main(["run", str(scan), *QUICK, "--refine", "numpy:5", "--half_data_frc"]) == 130
    assert "stopped while refining, 1 of 5; the image so far is in result" in capsys.readouterr().err
    summary = summary_of(tmp_path / "result")
    assert [stage["name"] for stage in summary["stages"]] == ["network"]
    assert summary["refinement"] is None
    assert summary["half_data_frc"] is None
    assert any("no refined image: stopped while refining" in text for text in summary["warnings"])
    assert (tmp_path / "result" / "report.html").is_file()


def test_a_second_interruption_while_refining_leaves_the_model(engines, scan, tmp_path, monkeypatch, capsys):

    from ptycho_backend_numpy import gradient

    call = gradient.NumpyGradient.__call__

    def interrupt(self, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return call(self, *arguments)

    monkeypatch.setattr(gradient.NumpyGradient, "__call__", interrupt)
    assert cli.main(["run", str(scan), *QUICK, "--refine", "numpy:5"]) == 130
    assert "training is done, get the image with: ptycho reconstruct" in capsys.readouterr().err
    assert (tmp_path / "result" / "training" / "model.ptycho").is_file()


@pytest.mark.parametrize("losses", [("poisson", "amplitude"), ("amplitude",)])
def test_demo_prefers_an_engine_of_this_project_and_a_loss_it_has(
    engines, monkeypatch, tiny_simulation, tmp_path, losses
):
    """A stranger whose name comes first is not taken for the default, and is not asked for what it does not offer."""
    from cli_stub_engine import StubEngine

    monkeypatch.setattr(demo, "demo_simulation", lambda kind, seed: replace(tiny_simulation, object=kind, seed=seed))
    entries = [
        importlib.metadata.EntryPoint("aardvark", "aardvark_plugin", "ptycho.backends"),
        importlib.metadata.EntryPoint("numpy", "ptycho_backend_numpy.plugin", "ptycho.backends"),
    ]
    stranger = types.ModuleType("aardvark_plugin")
    spec = BackendSpec(name="aardvark", factory="aardvark_plugin:Engine", protocol_version=2)
    stranger.ptycho_backend = hookimpl(lambda: spec)
    offers = replace(StubEngine.capabilities, generators=(), losses=losses)
    stranger.Engine = type("Engine", (StubEngine,), {"name": "aardvark", "capabilities": offers})
    monkeypatch.setitem(sys.modules, "aardvark_plugin", stranger)
    offer_only(monkeypatch, entries)
    assert demo._installed_engine("pytorch") == "numpy"
    offer_only(monkeypatch, entries[:1])
    assert demo._installed_engine("pytorch") == "aardvark"
    chosen = demo._training_config({"config": None}, "aardvark", offers)
    assert chosen.loss == losses[0]
    assert chosen.backend == "aardvark"
