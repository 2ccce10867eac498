"""``settings.yaml`` of ``ptycho reconstruct``: it repeats the image, and says of which model (CMD-23)."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptycho_core.cli import main as cli
from ptycho_core.cli.applying import with_applied
from ptycho_core.cli.options import parse
from ptycho_core.cli.reconstruct import build_parser
from ptycho_core.io.plain_yaml import read_yaml
from ptycho_core.io.result_folder import verify_result

HOW = ["--measurement", "counts", "--mask", "mask.npy", "--frames", "0:22:1", "--despite-findings"]


def object_of(folder: str) -> np.ndarray:
    with h5py.File(Path(folder) / "reconstruction.h5") as file:
        return file["entry/object"][()]


def settings_in(folder: str) -> dict:
    found = read_yaml(Path(folder, "settings.yaml").read_text(encoding="utf-8"), "settings.yaml")
    assert isinstance(found, dict)
    return found


@pytest.fixture
def model(unsaid) -> str:
    """A solved image of the scan, which does not say what its frames are; and how it was read."""
    words = ["--backend", "numpy", "--epochs", "3", "--refine", "none", "--test_fraction", "0.2", "--seed", "4"]
    assert cli.main(["run", unsaid, *HOW, *words, "--out", "solved"]) == 0
    return "solved/model.ptycho"


@pytest.mark.spec("CMD-23")
@pytest.mark.parametrize(
    "words",
    [
        ["--same_scan"],
        ["--same_scan", "--refine", "numpy:3", "--refinement.probe_modes", "2", "--refinement.positions", "true"],
    ],
    ids=["made", "refined"],
)
def test_it_makes_the_same_image_again(model, words, capsys):
    first = ["reconstruct", "unsaid.npz", *HOW, "--model", model, *words, "--precision", "64", "--out", "first"]
    assert cli.main(first) == 0, capsys.readouterr().err
    assert verify_result("first") == []
    assert "\nmodel     " not in "\n" + capsys.readouterr().out, "who types it knows it"
    again = ["reconstruct", "unsaid.npz", "--config", "first/settings.yaml", "--out", "again"]
    assert cli.main(again) == 0, capsys.readouterr().err
    said = "for the scan that it was made from (--same_scan), as first/settings.yaml says"
    assert f"model     solved/model.ptycho, {said}\n" in capsys.readouterr().out
    assert np.array_equal(object_of("first"), object_of("again"))
    one, two = (json.loads(Path(name, "summary.json").read_text()) for name in ("first", "again"))
    assert one["figures"] == two["figures"]
    assert one["config"] == two["config"]
    assert [stage["name"] for stage in one["stages"]] == [stage["name"] for stage in two["stages"]]
    assert one["runtime"]["precision"] == two["runtime"]["precision"] == "64"
    text = [Path(name, "settings.yaml").read_text().partition("apply:")[2] for name in ("first", "again")]
    assert text[0] == text[1]


@pytest.mark.spec("CMD-23")
def test_of_another_scan_a_network_makes_the_same_image_again(stub, scan, capsys):
    """What a network is applied by is in it too: how many passes, and the engine."""
    assert cli.main(["train", str(scan), "--epochs", "1", "--test_fraction", "0.25", "--out", "m"]) == 0
    shutil.copy(scan, "other.npz")
    words = ["--inference.central_crop_px", "20", "--frames", "0:20:1"]
    assert cli.main(["reconstruct", "other.npz", "--model", "m/model.ptycho", *words, "--out", "first"]) == 0
    said = settings_in("first")
    assert said["apply"] == {
        "model": "m/model.ptycho",
        "sha256": hashlib.sha256(Path("m/model.ptycho").read_bytes()).hexdigest(),
        "backend": "pytorch",
        "same_scan": False,
    }
    assert said["inference"]["central_crop_px"] == 20
    assert "refinement" not in said, "nothing was refined"
    assert said["reading"] == {"frames": "0:20:1"}
    given = ["other.npz", "--config", "first/settings.yaml"]
    assert with_applied(parse(build_parser(), given))["backend"] == "pytorch", "whoever the bundle is of"
    assert with_applied(parse(build_parser(), [*given, "--backend", "tensorflow"]))["backend"] == "tensorflow"
    assert cli.main(["reconstruct", *given, "--out", "again"]) == 0
    assert np.array_equal(object_of("first"), object_of("again"))
    two = json.loads(Path("again/summary.json").read_text())
    assert two["config"]["inference"]["central_crop_px"] == 20
    assert two["frames"]["all"] == 20
    assert two["config"]["refinement"]["engine"] == "none", "what training would have refined is not what was done"
    assert "settings.yaml" in Path("first/report.html").read_text(encoding="utf-8")


@pytest.mark.spec("CMD-23")
def test_a_file_that_names_no_model_says_how_the_given_one_is_applied(stub):
    Path("s.yaml").write_text("apply: {same_scan: true, backend: numpy}\n")
    found = with_applied(parse(build_parser(), ["scan.npz", "--config", "s.yaml", "--model", "m.ptycho"]))
    assert (found["model"], found["same_scan"], found["backend"]) == ("m.ptycho", True, "numpy")


@pytest.mark.spec("CMD-23")
def test_another_model_under_its_name_is_told(model, capsys):
    words = ["reconstruct", "unsaid.npz", *HOW, "--same_scan"]
    assert cli.main([*words, "--model", model, "--out", "first"]) == 0
    assert cli.main(["run", "unsaid.npz", *HOW, "--epochs", "2", "--refine", "none", "--out", "second"]) == 0
    shutil.copy(model, "moved.ptycho")
    moved = ["unsaid.npz", "--config", "first/settings.yaml", "--model", "moved.ptycho"]
    assert with_applied(parse(build_parser(), moved))["same_scan"] is True, "it is the same model"
    shutil.copy("second/model.ptycho", model)
    capsys.readouterr()
    again = ["reconstruct", "unsaid.npz", "--config", "first/settings.yaml", "--out", "again"]
    assert cli.main(again) == 2
    err = capsys.readouterr().err
    assert "first/settings.yaml: apply.model = 'solved/model.ptycho' is another file now" in err
    assert "give --model solved/model.ptycho to apply it all the same" in err
    assert not Path("again").exists()
    assert cli.main([*again, "--model", model]) == 0
    assert not np.array_equal(object_of("first"), object_of("again")), "else the comparisons say nothing"
    assert settings_in("again")["apply"]["same_scan"] is False, "that was said of the model that is gone"


@pytest.mark.spec("CMD-23")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("apply: 3\n", "'apply' must hold 'name: value' settings: model, sha256, backend, same_scan."),
        ("apply: {modell: m}\n", "apply has no setting 'modell'. Did you mean 'model'?"),
        ("apply: {model: 3}\n", "apply.model = 3; it must be the path of a model bundle."),
        ("apply: {model: ''}\n", "apply.model = ''; it must be the path"),
        ("apply: {model: m, same_scan: 1}\n", "apply.same_scan = 1; it must be true or false."),
        ("apply: {model: m, backend: [numpy]}\n", "apply.backend = ['numpy']; it must be the name of an engine."),
    ],
)
def test_what_is_wrong_in_it_is_told_by_the_name_of_the_file(stub, text, said, capsys):
    Path("c.yaml").write_text(text)
    assert cli.main(["reconstruct", "gone.npz", "--config", "c.yaml"]) == 2
    assert f"c.yaml: {said}" in capsys.readouterr().err


def test_no_model_is_told_and_a_gone_one_by_whoever_reads_it(stub, capsys):
    assert cli.main(["reconstruct", "gone.npz"]) == 2
    assert "no model is named; give --model BUNDLE" in capsys.readouterr().err
    Path("c.yaml").write_text("apply: {model: gone.ptycho, sha256: abc}\n")
    assert cli.main(["reconstruct", "gone.npz", "--config", "c.yaml"]) == 2
    assert "gone.ptycho: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "train", "demo"])
def test_other_commands_say_whose_settings_they_are(stub, command, capsys):
    Path("c.yaml").write_text("apply: {model: m}\n")
    assert cli.main([command, *([] if command == "demo" else ["gone.npz"]), "--config", "c.yaml"]) == 2
    assert "c.yaml: 'apply' has no effect here: the file is for 'ptycho reconstruct'" in capsys.readouterr().err
