"""Refining in ``run`` and ``demo``: what ``--refine`` says, what is written of it, and what an interruption leaves."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import signal
import sys
import types
from dataclasses import replace

import h5py
import pytest
from stub_engines import offer_only

from ptycho_core.cli import demo
from ptycho_core.cli import main as cli
from ptycho_core.cli.engine_choice import with_engine
from ptycho_core.cli.words import _trial, taken_up
from ptycho_core.errors import BackendUnavailableError
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec

SOLVER = ["--epochs", "1", "--test_fraction", "0.25", "--out", "result"]
QUICK = [*SOLVER, "--method", "network", "--group_size", "4"]


@pytest.fixture
def engines(stub, monkeypatch):
    """The stub, which cannot refine, and the NumPy engine, which can."""
    entries = [
        importlib.metadata.EntryPoint("pytorch", "cli_stub_engine", "ptycho.backends"),
        importlib.metadata.EntryPoint("numpy", "ptycho_backend_numpy.plugin", "ptycho.backends"),
        importlib.metadata.EntryPoint("ptychi", "ptycho_backend_ptychi.plugin", "ptycho.backends"),
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
            "object", "coverage", "probe", "positions_px", "nominal_positions_px", "scale", "figures", "frame_figures"
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
        (["--refine", "numpi"], "unknown engine 'numpi'; installed: numpy, "),
        (["--refine", "numpi"], ". Did you mean 'numpy'?"),
        (["--refine", "pytorch"], "engine 'pytorch': refinement.engine = 'pytorch' is not supported"),
        (["--refinement.probe", "false"], "engine 'pytorch' cannot refine an image"),
    ],
)
def test_what_cannot_be_refined_with_is_refused_before_data_are_read(engines, tmp_path, capsys, words, said):
    assert cli.main(["run", "nowhere.npz", "--measurement", "counts", *QUICK, *words]) == 2
    assert said in capsys.readouterr().err


def test_a_refinement_that_is_worse_is_reported_and_not_shown(engines, scan, tmp_path, monkeypatch, capsys):
    from ptycho_core.api import refine

    def worse(engine, image, *_):
        return replace(image, object=image.object.conj())

    monkeypatch.setattr(refine, "refine_by_steps", worse)
    assert cli.main(["run", str(scan), *QUICK, "--refine", "numpy:2"]) == 0
    summary = summary_of(tmp_path / "result")
    assert [stage["name"] for stage in summary["stages"]] == ["network"]
    assert summary["refinement"]["kept"] is False
    assert any("was discarded: the loss of the validation frames did not fall" in text for text in summary["warnings"])
    assert "was discarded" in capsys.readouterr().err


def test_the_numpy_engine_solves_and_refines_by_itself(engines, scan, tmp_path, capsys):
    words = ["--algorithm", "lsq", "--refinement.epochs", "2", "--threads", "1"]
    assert cli.main(["run", str(scan), *SOLVER, *words]) == 0
    summary = summary_of(tmp_path / "result")
    assert [stage["name"] for stage in summary["stages"]] == ["solver", "refined"]
    assert summary["config"]["algorithm"] == "lsq"
    assert "solved    by numpy, 1 epoch; refined by numpy, 2 epochs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--options", '{"algorithm": "epy"}'], "--options.ptychi.algorithm = 'epy'; allowed: lsqml"),
        (
            ["--options.ptychi.algoritm", "rpie"],
            "there is no setting 'options.ptychi.algoritm'. Did you mean",
        ),
        (["--options", "{numpy: {algorithm: rpie}}"], "engine 'numpy' has none"),
        (["--backend", "numpy", "--options", '{"algorithm": "lsq"}'], "engine 'numpy' has none"),
    ],
)
@pytest.mark.spec("PLUG-10")
def test_options_are_those_of_the_engine(engines, scan, capsys, words, said):
    assert cli.main(["run", str(scan), *SOLVER, "--backend", "ptychi", *words]) == 2
    assert said in capsys.readouterr().err


def test_demo_solves_without_a_framework_and_says_so(engines, monkeypatch, tiny_simulation, tmp_path, capsys):
    monkeypatch.setattr(demo, "demo_simulation", lambda kind, seed: replace(tiny_simulation, object=kind, seed=seed))
    words = ["--epochs", "3", "--refinement.epochs", "2", "--out", "demo"]
    assert cli.main(["demo", *words]) == 0
    out = capsys.readouterr().out
    assert "engine    numpy solves; the fastest on a CPU" in out
    assert "solved    by numpy, 3 epochs; refined by numpy, 2 epochs" in out
    assert summary_of(tmp_path / "demo")["engine"] == "numpy"


def test_an_interruption_while_refining_leaves_the_image_before(engines, scan, tmp_path, monkeypatch, capsys):
    from ptycho_backend_numpy.stepper import NumpyStepper

    step, asked = NumpyStepper.step, []

    def interrupt_once(self, *arguments):
        if not asked:
            asked.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(NumpyStepper, "step", interrupt_once)
    assert cli.main(["run", str(scan), *QUICK, "--refine", "numpy:5", "--half_data_frc"]) == 130
    assert "stopped while refining, 1 of 5; the image so far is in result" in capsys.readouterr().err
    summary = summary_of(tmp_path / "result")
    assert [stage["name"] for stage in summary["stages"]] == ["network"]
    assert summary["refinement"] is None
    assert summary["half_data_frc"] is None
    assert any("no refined image: stopped while refining" in text for text in summary["warnings"])
    assert (tmp_path / "result" / "report.html").is_file()


def test_a_second_interruption_while_refining_leaves_the_model(engines, scan, tmp_path, monkeypatch, capsys):
    from ptycho_backend_numpy.stepper import NumpyStepper

    step = NumpyStepper.step

    def interrupt(self, *arguments):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(NumpyStepper, "step", interrupt)
    assert cli.main(["run", str(scan), *QUICK, "--refine", "numpy:5"]) == 130
    assert "training is done, get the image with: ptycho reconstruct" in capsys.readouterr().err
    assert (tmp_path / "result" / "training" / "model.ptycho").is_file()


def test_a_stranger_is_taken_only_where_no_engine_of_this_project_is(engines, monkeypatch):
    """Though its name comes first."""
    numpy = importlib.metadata.EntryPoint("numpy", "ptycho_backend_numpy.plugin", "ptycho.backends")
    aardvark = importlib.metadata.EntryPoint("aardvark", "aardvark_plugin", "ptycho.backends")
    stranger = types.ModuleType("aardvark_plugin")
    spec = BackendSpec(name="aardvark", factory="aardvark_plugin:Engine", protocol_version=2)
    stranger.ptycho_backend = hookimpl(lambda: spec)
    monkeypatch.setitem(sys.modules, "aardvark_plugin", stranger)
    offer_only(monkeypatch, [aardvark, numpy])
    assert with_engine({})[0]["backend"] == "numpy"
    offer_only(monkeypatch, [aardvark])
    assert with_engine({"epochs": 3}) == (
        {"epochs": 3, "backend": "aardvark"},
        "aardvark solves; the first engine that is installed (--backend names another)",
    )
    with pytest.raises(BackendUnavailableError, match="no engine that trains a network"):
        with_engine({"method": "network"})


def test_what_refining_took_up_unasked_is_said(engines, scan, capsys):
    assert cli.main(["run", str(scan), *SOLVER, "--refinement.epochs", "30", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    gain = r"(lowered|raised) by \d+\.\d % \(\d+\.\d % needed\)"
    said = rf"^added     (nothing|\d more .*|positions); the validation .* trials: mode_2 {gain}, positions {gain}"
    assert re.search(said.replace("_", " "), out, flags=re.MULTILINE), out
    assert taken_up({}) == "nothing"
    assert taken_up({"took_up_modes": 1}) == "1 more probe mode"
    assert taken_up({"took_up_modes": 2, "took_up_positions": 1}) == "2 more probe modes and positions"


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (0.0123, "mode 2 lowered by 1.2 % (0.5 % needed)"),
        (-0.039, "mode 2 raised by 3.9 % (0.5 % needed)"),
        (-0.0002, "mode 2 unchanged (0.5 % needed)"),
        (float("nan"), "mode 2 no figure"),
    ],
)
def test_a_trial_that_made_it_worse_lowered_nothing(gain, said):
    assert _trial("mode_2", {"tried_mode_2_gain": gain, "tried_mode_2_gain_needed": 0.005}) == said


# ---- reconstruct --refine


@pytest.fixture
def trained(engines, scan):
    """A model of the stub, trained on the scan."""
    assert cli.main(["train", str(scan), "--epochs", "1", "--test_fraction", "0.25", "--out", "model"]) == 0
    return ["reconstruct", str(scan), "--model", "model/model.ptycho", "--out", "image"]


@pytest.mark.spec("CMD-20")
@pytest.mark.usefixtures("real_pictures")
def test_the_image_of_a_model_is_refined_as_a_run_does(trained, tmp_path, capsys):
    assert cli.main([*trained, "--same_scan", "--refine", "numpy:5"]) == 0
    summary = summary_of(tmp_path / "image")
    first, refined = summary["stages"]
    assert (first["name"], first["engine"], refined["engine"]) == ("network", "pytorch", "numpy")
    assert refined["figures"]["heldout"]["deviance"] < first["figures"]["heldout"]["deviance"]
    assert summary["frames"]["heldout"] == 6, "those that training held out"
    assert summary["refinement"]["kept"] is True
    assert summary["config"]["refinement"]["epochs"] == 5
    assert summary["verdict"]["sentence"]
    report = (tmp_path / "image" / "report.html").read_text(encoding="utf-8")
    assert "refined" in report
    assert "settings.yaml" in summary["files"], "which make this image again"
    assert "model.ptycho" not in summary["files"]
    assert "\nrefined   " in capsys.readouterr().out


@pytest.mark.spec("CMD-20")
def test_held_out_frames_are_those_of_training_on_the_same_scan_and_no_others(trained, engines):
    (scans, _) = engines.seen[0]
    held = set(scans[0].heldout_frames)
    assert cli.main([*trained, "--same_scan", "--refine", "numpy:2"]) == 0
    _, applied, _ = engines.seen[-1]
    assert set(applied.heldout_frames) == held
    assert cli.main([*trained, "--refine", "none", "--overwrite"]) == 0
    _, applied, _ = engines.seen[-1]
    assert len(applied.heldout_frames) == 0
    assert len(applied.train_frames) == 24


@pytest.mark.spec("CMD-20")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--refine", "auto"], "engine 'pytorch': refinement.engine = 'auto' is not supported"),
        (["--refine", "numpi"], "unknown engine 'numpi'"),
        (["--refine", "numpy:0"], "--refine = 'numpy:0'"),
        (["--refinement.probe", "false"], "--refinement.probe has no effect without --refine"),
        (["--refine", "numpy", "--refinement.epochs", "0"], "epochs = 0"),
    ],
)
def test_what_a_model_s_image_cannot_be_refined_with(trained, tmp_path, capsys, words, said):
    assert cli.main([*trained, *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "image").exists()


@pytest.mark.spec("CMD-20")
def test_settings_of_refining_reach_it(trained, tmp_path):
    (tmp_path / "c.yaml").write_text("refinement: {probe: false, epochs: 9}\n")
    assert cli.main([*trained, "--config", "c.yaml", "--refine", "numpy:3", "--refinement.patience", "2"]) == 0
    refinement = summary_of(tmp_path / "image")["config"]["refinement"]
    assert [refinement[name] for name in ("engine", "epochs", "probe", "patience")] == ["numpy", 3, False, 2]


@pytest.mark.spec("CMD-20")
def test_refining_that_is_interrupted_keeps_the_image_and_says_how_to_go_on(trained, tmp_path, monkeypatch, capsys):
    from ptycho_core.api import refine

    real = refine.refine_by_steps

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(refine, "refine_by_steps", interrupted)
    words = [*trained, "--refine", "numpy:4"]
    assert cli.main(words) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    said = "the image as the model made it is in image; refine it with: "
    assert said in line
    assert [stage["name"] for stage in summary_of(tmp_path / "image")["stages"]] == ["network"]
    monkeypatch.setattr(refine, "refine_by_steps", real)
    again = shlex.split(line.partition(said)[2])
    assert again[0] == "ptycho"
    assert cli.main(again[1:]) == 0
    assert [stage["name"] for stage in summary_of(tmp_path / "image")["stages"]] == ["network", "refined"]


@pytest.mark.spec("CMD-20")
def test_an_image_that_is_interrupted_is_made_with_the_same_line(trained, monkeypatch, capsys, engines):
    real = engines.reconstruct

    def interrupted(self, *arguments, **more):
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, *arguments, **more)

    monkeypatch.setattr(engines, "reconstruct", interrupted)
    assert cli.main(trained) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr(engines, "reconstruct", real)
    assert cli.main(shlex.split(line.partition("make the image with: ")[2])[1:]) == 0
