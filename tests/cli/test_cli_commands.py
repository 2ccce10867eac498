"""Each command from its arguments to its files and exit code, with a stub engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest
from stub_engines import offer_only

from ptycho_core.api import run as api_run
from ptycho_core.cli import demo
from ptycho_core.cli import main as cli
from ptycho_core.errors import CollapseError, EvaluationError
from ptycho_core.io.result_folder import verify_result
from ptycho_core.report import write as report
from ptycho_core.simulation import simulate_scan

FILES = {"report.html", "reconstruction.h5", "summary.json", "model.ptycho", "object_phase.png", "ptycho.log"}
QUICK = ["--epochs", "2", "--group_size", "4", "--test_fraction", "0.25"]


@pytest.fixture
def small_demo(monkeypatch, tiny_simulation):
    monkeypatch.setattr(demo, "demo_simulation", lambda kind, seed: replace(tiny_simulation, object=kind, seed=seed))


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def names(folder):
    return {path.name for path in folder.iterdir()}


# ---- run


@pytest.mark.usefixtures("real_pictures")
def test_run_writes_everything(stub, scan, tmp_path, capsys):
    assert cli.main(["run", str(scan), *QUICK, "--out", "result", "--seed", "3"]) == 0
    folder = tmp_path / "result"
    assert names(folder) >= FILES | {"training"}
    assert not [name for name in names(folder) if name.startswith(".")], "nothing temporary is left"
    assert verify_result(folder) == []
    summary = summary_of(folder)
    assert summary["frames"] == {"train": 18, "heldout": 6, "unused": 0, "all": 24}
    assert summary["config"]["epochs"] == 2
    stages = {"start_up", "read", "check", "train", "save", "reconstruct", "verdict", "report"}
    assert set(summary["seconds"]) == stages | {"total"}
    assert summary["seconds"]["total"] >= sum(v for k, v in summary["seconds"].items() if k != "total") - 0.01
    assert summary["seconds"]["report"] > 0.1, "the report's own time is in the summary"
    assert summary["peak_memory_bytes"] > 20e6
    assert summary["versions"]["python"].startswith("3.")
    assert summary["provenance"]["command"][:2] == ["run", str(scan)]
    out, figures = capsys.readouterr().out, summary["figures"]
    for role in ("train", "heldout"):
        assert f"R-factor {figures[role]['r_factor']:.4f} (noise {figures[role]['r_factor_floor']:.4f})" in out
        assert f"Fourier error {figures[role]['fourier_error']:.5f}" in out
        assert f"deviance {figures[role]['deviance']:.4g}" in out


def test_one_split_serves_training_and_image(stub, scan, tmp_path):
    assert cli.main(["run", str(scan), *QUICK, "--out", "result"]) == 0
    ((trained,), config), (model, data, inference) = stub.seen
    for runtime in stub.runtimes:
        assert runtime.output_dir == (tmp_path / "result" / "training").relative_to(tmp_path)
    assert (len(trained.train_frames), len(trained.heldout_frames)) == (18, 6)
    np.testing.assert_array_equal(data.role, trained.role)
    assert data.statistics == trained.statistics, "the constants are those of the training frames"
    assert model.config is config
    assert inference == config.inference
    with h5py.File(tmp_path / "result" / "reconstruction.h5") as file:
        np.testing.assert_array_equal(file["entry/role"][()], trained.role)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("scan.npz", "scan-ptycho"), ("scan.0001.npz", "scan.0001-ptycho"), ("scan.0002.npz", "scan.0002-ptycho")],
)
def test_default_folder_is_named_after_the_whole_scan(stub, scan, tmp_path, name, folder):
    scan.rename(tmp_path / name)
    assert cli.main(["run", name, *QUICK]) == 0
    assert (tmp_path / folder / "report.html").is_file()


def test_a_finished_result_is_replaced_only_when_asked(stub, scan, tmp_path, capsys):
    assert cli.main(["run", str(scan), *QUICK, "--out", "r"]) == 0
    first = summary_of(tmp_path / "r")["run_id"]
    assert cli.main(["run", str(scan), *QUICK, "--out", "r"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert summary_of(tmp_path / "r")["run_id"] == first
    assert cli.main(["run", str(scan), *QUICK, "--out", "r", "--overwrite"]) == 0
    assert summary_of(tmp_path / "r")["run_id"] != first
    assert verify_result(tmp_path / "r") == []


@pytest.mark.parametrize("name", ["reconstruction.h5", "summary.json", "report.html", "model.ptycho", "frc.png"])
def test_the_input_is_never_what_is_replaced(stub, scan, tmp_path, capsys, name):
    """Whatever it is called, and though a summary beside it claims that it is a file of an earlier result."""
    folder = tmp_path / "r"
    folder.mkdir()
    given = folder / name
    given.write_bytes(scan.read_bytes())
    if name != "summary.json":
        (folder / "summary.json").write_text(json.dumps({"schema_version": 1, "files": [name, "report.html"]}))
    before = given.read_bytes()
    assert cli.main(["run", str(given), *QUICK, "--out", "r", "--overwrite"]) == 2
    assert "choose another folder" in capsys.readouterr().err
    assert given.read_bytes() == before


def test_a_scan_beside_the_results_stays(stub, scan, tmp_path):
    folder = tmp_path / "r"
    folder.mkdir()
    scan.rename(folder / "scan.npz")
    (folder / "summary.json").write_text(json.dumps({"schema_version": 1, "files": ["scan.npz", "report.html"]}))
    before = (folder / "scan.npz").read_bytes()
    assert cli.main(["run", "r/scan.npz", *QUICK, "--out", "r", "--overwrite"]) == 0
    assert (folder / "scan.npz").read_bytes() == before
    assert verify_result(folder) == []


@pytest.mark.parametrize(
    "arguments",
    [["gone.npz"], ["scan.npz", "--measurement", "amplitude"], ["scan.npz", "--schedule", "cosine"], ["."]],
)
def test_a_refused_command_leaves_no_folder(stub, scan, tmp_path, arguments):
    before = names(tmp_path)
    assert cli.main(["run", *arguments]) == 2
    assert names(tmp_path) == before


def test_what_inspect_warns_of_is_told_in_every_command(stub, scan, tmp_path, capsys):
    from ptycho_core.io import read_scan, write_scan

    raw = read_scan(scan)
    counts = raw.read_counts(np.arange(raw.n_frames))
    counts[5] *= 40  # a frame that does not fit the others
    write_scan(tmp_path / "odd.npz", type(raw).from_arrays(counts, raw.positions_px, raw.probe))
    assert cli.main(["inspect", "odd.npz"]) == 0
    warned = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if line.startswith("WARNING")]
    assert warned
    assert cli.main(["run", "odd.npz", *QUICK, "--out", "r"]) == 0
    assert cli.main(["train", "odd.npz", *QUICK, "--out", "m"]) == 0
    assert cli.main(["reconstruct", "--model", "m/model.ptycho", "odd.npz", "--out", "i"]) == 0
    shown = capsys.readouterr().err
    for folder in ("r", "m", "i"):
        assert set(warned) <= set(summary_of(tmp_path / folder)["warnings"])
    assert all(f"note: {text}" in shown for text in warned)


def test_zero_frequency_at_the_corner_is_refused_and_gaps_of_the_detector_are_masked(stub, scan, tmp_path, capsys):
    from ptycho_core.io import read_scan

    raw = read_scan(scan)
    counts = raw.read_counts(np.arange(raw.n_frames)).astype(np.uint32)
    y, x = raw.positions_px.T
    arrays = {"diffraction": counts, "xcoords": x + 0.5, "ycoords": y + 0.5, "probeGuess": raw.probe[0]}
    gaps = counts.copy()
    gaps[:, 14:16, :] = 2**32 - 1
    np.savez(tmp_path / "gaps.npz", measurement=np.array("counts"), **(arrays | {"diffraction": gaps}))
    assert cli.main(["run", "gaps.npz", *QUICK, "--out", "masked"]) == 0
    assert summary_of(tmp_path / "masked")["dropped"]["masked pixels"] == 64
    capsys.readouterr()
    cornered = np.fft.ifftshift(counts, axes=(1, 2))
    np.savez(tmp_path / "corner.npz", measurement=np.array("counts"), **(arrays | {"diffraction": cornered}))
    assert cli.main(["run", "corner.npz", *QUICK, "--out", "r"]) == 2
    error = capsys.readouterr().err
    assert "--despite_findings" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r").exists()
    assert cli.main(["run", "corner.npz", *QUICK, "--out", "r", "--despite_findings"]) == 0
    assert summary_of(tmp_path / "r")["warnings"], "going on does not silence them"


def test_probe_of_another_file_is_used(stub, scan, tmp_path):
    probe = np.random.default_rng(0).normal(size=(2, 32, 32, 2)) @ np.array([1, 1j])
    np.savez(tmp_path / "probe.npz", probeGuess=probe.astype(np.complex64))
    assert cli.main(["run", str(scan), *QUICK, "--probe", "probe.npz", "--out", "result"]) == 0
    np.testing.assert_allclose(stub.seen[0][0][0].probe, probe, rtol=1e-5)
    with h5py.File(tmp_path / "result" / "reconstruction.h5") as file:
        assert file["entry/probe"].shape == (2, 32, 32)


def test_n_subsample_and_region_split(stub, scan, tmp_path):
    arguments = ["--n_subsample", "12", "--test_split", "region", "--group_size", "4", "--epochs", "1"]
    assert cli.main(["run", str(scan), *arguments, "--test_fraction", "0.25", "--out", "r"]) == 0
    summary = summary_of(tmp_path / "r")
    assert summary["frames"] == {"train": 9, "heldout": 3, "unused": 12, "all": 24}
    assert summary["dropped"] == {"frames: not drawn by n_subsample": 12}


@pytest.mark.usefixtures("stub")
def test_an_extra_that_fails_does_not_cost_the_image(scan, tmp_path, monkeypatch):
    def fail(*_):
        raise EvaluationError("the two halves show nothing in common")

    monkeypatch.setattr(api_run, "half_data_frc", fail)
    assert cli.main(["run", str(scan), *QUICK, "--out", "r", "--half-data-frc"]) == 0
    summary = summary_of(tmp_path / "r")
    assert summary["half_data_frc"] is None
    assert "no half-data FRC: the two halves show nothing in common" in " ".join(summary["warnings"])


@pytest.mark.usefixtures("real_pictures")
def test_half_data_frc_trains_each_half_alone(stub, scan, tmp_path):
    assert cli.main(["run", str(scan), *QUICK, "--out", "r", "--half-data-frc"]) == 0
    _, *trainings = [item for item in stub.seen if len(item) == 2]
    (first,), one = trainings[0]
    (second,), other = trainings[1]
    halves = [set(first.used_frames), set(second.used_frames)]
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == set(range(24))
    assert one.seed != other.seed, "two halves that share first weights agree on them"
    assert all(runtime.output_dir is None for runtime in stub.runtimes[2:]), "only the whole is checkpointed"
    summary = summary_of(tmp_path / "r")
    assert summary["half_data_frc"]["cutoff_one_seventh"] > 0
    assert not any("no test data" in text for text in summary["warnings"])
    assert "half_data" in summary["seconds"]
    assert cli.main(["run", str(scan), *QUICK, "--out", "r", "--overwrite"]) == 0
    assert "frc.png" not in names(tmp_path / "r"), "a picture of the earlier run only is taken away"


def test_notices_are_one_line_and_part_of_the_result(stub, scan, tmp_path, capsys):
    assert cli.main(["run", str(scan), *QUICK, "--nphotons", "5", "--nepochs", "1", "--out", "r"]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert sum("nphotons = 5" in note for note in notes) == 1
    assert sum("say 'epochs'" in note for note in notes) == 1
    warnings = summary_of(tmp_path / "r")["warnings"]
    assert {note.removeprefix("note: ") for note in notes} <= set(warnings)
    assert "nphotons = 5" in (tmp_path / "r" / "ptycho.log").read_text()


def test_a_failed_report_leaves_the_earlier_result_whole(stub, scan, tmp_path, monkeypatch, capsys):
    assert cli.main(["run", str(scan), *QUICK, "--out", "r"]) == 0
    folder = tmp_path / "r"
    kept = ("report.html", "reconstruction.h5", "summary.json", "model.ptycho", "object_phase.png")
    before = {name: (folder / name).read_bytes() for name in kept}
    monkeypatch.setattr(report, "write_summary", lambda folder, run: 1 / 0)
    assert cli.main(["run", str(scan), *QUICK, "--epochs", "1", "--out", "r", "--overwrite"]) == 1
    assert {name: (folder / name).read_bytes() for name in kept} == before
    assert not [name for name in names(folder) if name.startswith(".")]
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "ZeroDivisionError" in error[0]
    assert "--debug" in error[0]
    assert "ptycho.log" in error[0]
    assert verify_result(folder) == []
    assert "Traceback" in (folder / "ptycho.log").read_text()


def test_debug_shows_the_traceback(stub, scan, monkeypatch, capsys):
    monkeypatch.setattr(stub, "fail_with", RuntimeError("engine fault"))
    assert cli.main(["run", str(scan), *QUICK, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_collapse_is_the_users_to_act_on(stub, scan, monkeypatch, capsys):
    monkeypatch.setattr(stub, "fail_with", CollapseError("the object became constant; lower the learning rate"))
    assert cli.main(["run", str(scan), *QUICK]) == 2
    assert capsys.readouterr().err == "ptycho: the object became constant; lower the learning rate\n"


def test_disk_full_is_the_environment(stub, scan, monkeypatch, capsys):
    monkeypatch.setattr(stub, "fail_with", OSError(28, "No space left on device"))
    assert cli.main(["run", str(scan), *QUICK]) == 2
    assert "No space left" in capsys.readouterr().err


# ---- interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_says_how_to_go_on(stub, scan, tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr(stub, "interrupt_at", 1)
    monkeypatch.setattr(stub, "interrupt_with", number)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    given = ["run", str(scan), *QUICK, "--out", "my result", "--resume-from=old.ckpt"]
    assert cli.main(given) == 130
    error = capsys.readouterr().err
    command = shlex.split(error.partition("go on with: ")[2])
    checkpoint = "my result/training/last.json"
    assert command == ["ptycho", *given[:-1], "--resume_from", checkpoint]
    assert (tmp_path / checkpoint).is_file()
    assert not (tmp_path / "my result" / "summary.json").exists()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    monkeypatch.setattr(stub, "interrupt_at", None)
    assert cli.main(command[1:]) == 0
    assert str(stub.runtimes[-2].resume_from) == checkpoint


def test_interrupted_image_leaves_the_model(stub, scan, tmp_path, monkeypatch, capsys):
    def stop(self, *args, **kwargs):
        raise KeyboardInterrupt

    whole = stub.reconstruct
    monkeypatch.setattr(stub, "reconstruct", lambda self, *_, progress: stop(self))
    given = ["--measurement=counts", "--probe", str(scan)]
    assert cli.main(["run", str(scan), *QUICK, *given, "--out", "r"]) == 130
    command = shlex.split(capsys.readouterr().err.partition("get the image with: ")[2])
    assert command[-3:] == given
    monkeypatch.setattr(stub, "reconstruct", whole)
    assert cli.main(command[1:]) == 0


def test_signal_after_the_last_step_keeps_the_model(stub, scan, monkeypatch, capsys):
    whole = stub.train

    def train(self, scans, config, runtime, *, progress):
        model = whole(self, scans, config, runtime, progress=progress)
        os.kill(os.getpid(), signal.SIGTERM)
        return model

    monkeypatch.setattr(stub, "train", train)
    assert cli.main(["run", str(scan), *QUICK]) == 130
    assert "get the image with: ptycho reconstruct" in capsys.readouterr().err


def test_a_framework_that_leaves_the_process_was_interrupted(stub, scan, monkeypatch, capsys):
    def train(self, scans, config, runtime, *, progress):
        os.kill(os.getpid(), signal.SIGTERM)
        raise SystemExit(1)

    monkeypatch.setattr(stub, "train", train)
    assert cli.main(["run", str(scan), *QUICK]) == 130


def test_second_signal_stops_at_once(stub, scan, monkeypatch, capsys):
    def train(self, scans, config, runtime, *, progress):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal did not stop it")

    monkeypatch.setattr(stub, "train", train)
    assert cli.main(["run", str(scan), *QUICK]) == 130
    assert "interrupted" in capsys.readouterr().err


# ---- train and reconstruct


def test_train_then_reconstruct(stub, scan, tmp_path):
    assert cli.main(["train", str(scan), *QUICK, "--out", "m"]) == 0
    assert names(tmp_path / "m") == {"model.ptycho", "settings.yaml", "training", "ptycho.log", "summary.json"}
    assert zipfile.is_zipfile(tmp_path / "m" / "model.ptycho")
    assert summary_of(tmp_path / "m")["kind"] == "model"
    model = ["--model", "m/model.ptycho"]
    assert cli.main(["reconstruct", *model, str(scan), "--out", "r", "--frames_at_once", "8"]) == 0
    _, data, _ = stub.seen[-1]
    assert stub.runtimes[-1].frames_at_once == 8
    assert names(tmp_path / "r") >= FILES - {"model.ptycho"}
    summary = summary_of(tmp_path / "r")
    assert summary["frames"] == {"train": 24, "heldout": 0, "unused": 0, "all": 24}
    assert summary["figures"]["heldout"] is None
    assert summary["provenance"]["model"] == "m/model.ptycho"
    assert data.statistics.n_frames == 24, "another scan's constants are its own"
    assert cli.main(["reconstruct", *model, str(scan), "--out", "s", "--same_scan"]) == 0
    assert stub.seen[-1][1].statistics.n_frames == 18, "those of the training frames"


def test_several_scans_are_one_training(stub, scan, tmp_path, tiny_simulation):
    from ptycho_core.io import write_scan

    write_scan(tmp_path / "second.npz", simulate_scan(replace(tiny_simulation, seed=8)).raw)
    assert cli.main(["train", str(scan), "second.npz", *QUICK, "--out", "m"]) == 0
    ((first, second), _), *_ = stub.seen
    assert first.raw.source.path == str(scan)
    assert second.raw.source.path == "second.npz"
    assert len(second.heldout_frames) == 6


def test_the_default_folder_of_reconstruct_is_not_that_of_train(stub, scan, tmp_path):
    assert cli.main(["train", str(scan), *QUICK]) == 0
    assert cli.main(["reconstruct", "--model", "scan-ptycho/model.ptycho", str(scan)]) == 0
    assert (tmp_path / "scan-image" / "report.html").is_file()


def test_reconstruct_uses_the_scans_probe_else_the_bundles(stub, scan, tmp_path, tiny_simulation):
    from ptycho_core.io import write_scan

    assert cli.main(["train", str(scan), *QUICK, "--out", "m"]) == 0
    other = simulate_scan(replace(tiny_simulation, seed=6)).raw
    write_scan(tmp_path / "with.npz", other)
    write_scan(tmp_path / "without.npz", replace(other, probe=None))
    for name in ("with", "without"):
        assert cli.main(["reconstruct", "--model", "m/model.ptycho", f"{name}.npz", "--out", name]) == 0
    with_probe, without = (item[1].probe for item in stub.seen[-2:])
    np.testing.assert_array_equal(with_probe, other.probe)
    np.testing.assert_array_equal(without, stub.seen[0][0][0].probe)


# ---- demo


def test_demo_scores_against_its_truth(stub, small_demo, tmp_path, capsys):
    assert cli.main(["demo", "--object", "dead_leaves", "--seed", "2", "--out", "d", *QUICK]) == 0
    summary = summary_of(tmp_path / "d")
    assert summary["comparison"]["correlation"] > 0.5
    assert summary["provenance"]["source"]["simulation"]["config"]["seed"] == 2
    out = capsys.readouterr().out
    assert "engine    pytorch" in out
    assert "amplitude PSNR" in out


def test_demo_without_an_engine(monkeypatch, capsys):
    offer_only(monkeypatch, [])
    assert cli.main(["demo"]) == 2
    assert "pip install 'ptycho-core[torch]'" in capsys.readouterr().err


def test_every_demo_object_can_be_simulated():
    for kind in demo.OBJECTS:
        assert demo.demo_simulation(kind, 7).seed == 7
        assert demo.demo_simulation(kind, 7).object == kind
    assert demo.demo_simulation("texture", 0).frame_count == 1764
    assert demo.demo_simulation("lines", 0).frame_count == 441


# ---- simulate, inspect, compare, backends


def test_simulate_repeats_by_seed(tmp_path):
    tiny = ["--N", "32", "--grid_shape", "[4,3]", "--step_px", "4.5"]
    for name, seed in (("a.npz", "1"), ("b.npz", "1"), ("c.npz", "2"), ("d.h5", "1")):
        assert cli.main(["simulate", *tiny, "--seed", seed, "--out", name]) == 0
    from ptycho_core.io import read_scan

    a, b, c, d = (read_scan(name) for name in ("a.npz", "b.npz", "c.npz", "d.h5"))
    frames = np.arange(12)
    np.testing.assert_array_equal(a.read_counts(frames), b.read_counts(frames))
    np.testing.assert_array_equal(a.read_counts(frames), d.read_counts(frames))
    assert not np.array_equal(a.read_counts(frames), c.read_counts(frames))


def test_simulate_refuses_another_suffix(capsys, tmp_path):
    assert cli.main(["simulate", "--out", "scan.txt"]) == 2
    assert ".npz" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_inspect(scan, tmp_path, capsys):
    assert cli.main(["inspect", str(scan)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^n frames +24$", text, flags=re.MULTILINE)
    assert re.search(r"^ok +24 frames of 32×32", text, flags=re.MULTILINE)
    assert not re.search(r"^ +mean_counts ", text, flags=re.MULTILINE)
    assert cli.main(["inspect", str(scan), "--verbose"]) == 0
    assert re.search(r"^ +mean_counts +[\d.e+]+$", capsys.readouterr().out, flags=re.MULTILINE)
    assert cli.main(["inspect", str(scan), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"]
    with np.load(scan) as file:
        np.savez("unsaid.npz", **{name: file[name] for name in file.files if name != "measurement"})
    assert cli.main(["inspect", "unsaid.npz"]) == 2
    capsys.readouterr()
    assert cli.main(["inspect", "unsaid.npz", "--measurement", "counts"]) == 0
    assert "assumed  The file does not say" in capsys.readouterr().out
    (tmp_path / "bad.npz").write_bytes(scan.read_bytes()[:900])
    assert cli.main(["inspect", "bad.npz"]) == 2
    assert "ERROR" in capsys.readouterr().out


def test_compare(stub, scan, tmp_path, capsys):
    assert cli.main(["run", str(scan), *QUICK, "--out", "r"]) == 0
    estimate = str(tmp_path / "r" / "reconstruction.h5")
    capsys.readouterr()
    assert cli.main(["compare", estimate, "--truth", str(scan), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["is_truth"] is True
    assert 0.5 < scores["scores"][estimate]["correlation"] < 1
    with h5py.File(estimate) as file:
        np.savez("plain.npz", object=file["entry/object"][()] * 3j, origin_px=file["entry/object"].attrs["origin_px"])
    assert cli.main(["compare", estimate, "plain.npz", "--json"]) == 0
    pair = json.loads(capsys.readouterr().out)["scores"]
    assert list(pair) == [estimate], "without a truth A is scored against B"
    assert pair[estimate]["correlation"] == pytest.approx(1, abs=1e-4), "scale and global phase are removed"
    assert cli.main(["compare", estimate, "plain.npz", "--truth", str(scan)]) == 0
    table = capsys.readouterr().out
    row = next(line for line in table.splitlines() if line.startswith("correlation"))
    assert len(row.split()) == 5, "two columns of figures"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.npz"], "--truth"),
        (["gone.h5", "scan.npz"], "gone.h5: no such file"),
        (["text.h5", "scan.npz"], "text.h5: neither a reconstruction"),
        (["real.npz", "scan.npz"], "must be complex (H, W)"),
    ],
)
def test_compare_refuses(scan, tmp_path, capsys, arguments, said):
    (tmp_path / "text.h5").write_text("no")
    np.savez("real.npz", object=np.ones((9, 9)))
    assert cli.main(["compare", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_backends_lists_states(monkeypatch, capsys):
    from ptycho_core.plugins import registry

    status = registry.BackendStatus(
        name="x", title="X", distribution="x 1", state="missing", detail="not installed: xyz", install="pip install xyz"
    )
    monkeypatch.setattr(registry, "available_backends", lambda: [status])
    assert cli.main(["backends"]) == 0
    text = capsys.readouterr().out
    assert "missing" in text
    assert "not installed: xyz" in text
    assert "pip install xyz" in text
    assert cli.main(["backends", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backends"][0]["state"] == "missing"


# ---- errors, messages, start-up


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "Did you mean 'run'"),
        (["--debug", "run"], "stands before the command"),
        (["run"], "arguments are required: DATA"),
        (["run", "gone.npz"], "gone.npz"),
        (["run", "scan.npz", "--backend", "pytorhc"], "Did you mean 'pytorch'"),
        (["run", "scan.npz", "--measurement", "amplitude"], "amplitude"),
        (["run", "scan.npz", "--loggers", "[mlflow]"], "mlflow"),
        (["run", "scan.npz", "--out", "scan.npz/x"], "cannot be written"),
        (["run", "scan.npz", "--test_fraction", "0.9", "--n_subsample", "99"], "99"),
        (["reconstruct", "--model", "gone.ptycho", "scan.npz"], "gone.ptycho"),
        (["reconstruct", "scan.npz"], "--model"),
        (["inspect", "scan.npz", "--jsno"], "Did you mean '--json'"),
    ],
)
def test_wrong_input_is_one_line_and_2(stub, scan, capsys, arguments, said):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert error.count("\n") == 1


def test_wrong_config_is_refused_before_data_are_read(stub, tmp_path, capsys):
    assert cli.main(["run", str(tmp_path / "gone.npz"), "--schedule", "cosine"]) == 2
    assert "cosine" in capsys.readouterr().err


def test_missing_engine(monkeypatch, scan, capsys):
    import importlib.metadata

    from ptycho_core.plugins import registry

    real = importlib.metadata.EntryPoint("pytorch", "ptycho_backend_torch.plugin", "ptycho.backends")
    offer_only(monkeypatch, [real])
    monkeypatch.setattr(registry, "is_missing", lambda module: True)
    assert cli.main(["run", str(scan), "--backend", "pytorch"]) == 2
    error = capsys.readouterr().err
    assert "PyTorch backend selected" in error
    assert "pip install" in error
    assert cli.main(["run", str(scan)]) == 2
    error = capsys.readouterr().err
    assert "no engine that solves is installed; install one with: pip install" in error
    assert "pytorch is missing: not installed: torch, lightning" in error
    assert error.count("\n") == 1


def test_logging_and_warnings_are_put_back(stub, scan):
    import logging
    import warnings

    before = logging.getLogger().handlers[:], logging.getLogger().level, warnings.filters[:], warnings.showwarning
    level = logging.getLogger("ptycho_core").level
    assert cli.main(["run", str(scan), *QUICK, "--verbose"]) == 0
    after = logging.getLogger().handlers[:], logging.getLogger().level, warnings.filters[:], warnings.showwarning
    assert after == before
    assert logging.getLogger("ptycho_core").level == level


def test_verbose_says_more(stub, scan, capsys):
    assert cli.main(["run", str(scan), *QUICK]) == 0
    quiet = capsys.readouterr().err
    assert cli.main(["run", str(scan), *QUICK, "--verbose", "--overwrite"]) == 0
    assert quiet == ""
    assert "train 1/2" in capsys.readouterr().err


COMMANDS = (
    "demo",
    "run",
    "train",
    "reconstruct",
    "simulate",
    "convert",
    "export",
    "inspect",
    "orient",
    "compare",
    "backends",
    "readers",
    "conform",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, capsys):
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"\nexample:\n  ptycho {command}" in text
    assert cli.main([command, "--help-all"]) == 0
    assert f"\nexample:\n  ptycho {command}" in capsys.readouterr().out


def test_example_of_every_command_runs(stub, small_demo, tmp_path, monkeypatch, capsys, tiny_simulation):
    """Run the line that --help shows, in an order in which each finds the files of those before it."""
    from ptycho_core.io import write_scan

    examples = {}
    for command in COMMANDS:
        cli.main([command, "--help"])
        example = capsys.readouterr().out.partition("\nexample:\n")[2]
        examples[command] = shlex.split(example.replace("\\\n", " ").strip())
    # a tiny amplitude scan where the examples have the reader's own, and tiny frames in the simulation
    assert cli.main(["simulate", *examples["simulate"][2:], "--N", "32"]) == 0
    raw = simulate_scan(tiny_simulation).raw
    write_scan(tmp_path / "scan.npz", raw)
    counts = raw.read_counts(np.arange(raw.n_frames))
    with np.load("scan.npz") as file:
        arrays = {name: file[name] for name in file.files}
    key = next(name for name, value in arrays.items() if value.shape == counts.shape)
    np.savez("scan.npz", **{**arrays, key: np.sqrt(counts), "measurement": np.array("amplitude")})
    (tmp_path / "settings.yaml").write_text("group_size: 4\nnepochs: 1\n")
    for command in ("inspect", "convert", "backends", "conform", "demo", "run", "export", "train", "reconstruct"):
        assert cli.main(examples[command][1:]) == 0, command
    (tmp_path / "other").mkdir()
    (tmp_path / "image" / "reconstruction.h5").rename(tmp_path / "other" / "reconstruction.h5")
    assert cli.main(examples["compare"][1:]) == 0


def python(*code):
    return subprocess.run([sys.executable, *code], capture_output=True, text=True, timeout=60, check=False)


def test_version_help_and_nothing():
    done = python("-m", "ptycho_core.cli", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("ptycho 0")
    assert python("-m", "ptycho_core.cli").returncode == 2
    assert all(command in python("-m", "ptycho_core.cli", "--help").stdout for command in COMMANDS)


def test_listing_engines_imports_no_framework():
    code = (
        "import sys; from ptycho_core.cli.main import main; code = main(['backends']); main(['run', '--help']);"
        "heavy = {'torch', 'lightning', 'tensorflow', 'matplotlib', 'h5py', 'scipy'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy or code else 0)"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_closed_pipe_is_no_error(scan):
    command = f"{shlex.quote(sys.executable)} -m ptycho_core.cli run --help | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_a_near_field_is_read_as_one_where_the_file_does_not_say(stub, tmp_path, capsys, tiny_simulation, monkeypatch):
    from ptycho_core.io import read_scan

    raw = simulate_scan(replace(tiny_simulation, fresnel_number=0.05)).raw
    y, x = raw.positions_px.T + 0.5
    arrays = {"diffraction": raw.read_counts(np.arange(24)), "xcoords": x, "ycoords": y, "probeGuess": raw.probe[0]}
    np.savez("silent.npz", measurement=np.array("counts"), **arrays)
    assert not read_scan("silent.npz").propagation.is_near
    assert cli.main(["inspect", "silent.npz"]) in (0, 2)
    assert "near field, Fresnel" not in capsys.readouterr().out
    assert cli.main(["inspect", "silent.npz", "--propagation", "near_field:0.05"]) == 0
    assert "ear field, Fresnel number 0.05" in capsys.readouterr().out
    monkeypatch.setattr(stub, "capabilities", replace(stub.capabilities, propagations=("far_field", "near_field")))
    assert cli.main(["run", "silent.npz", *QUICK, "--propagation", "near_field:0.05", "--despite_findings"]) == 0
    assert "near field, Fresnel number 0.05" in capsys.readouterr().out
    assert stub.seen[0][0][0].raw.propagation.fresnel_number == 0.05
    assert cli.main(["run", "silent.npz", *QUICK, "--propagation", "near_field"]) == 2
    assert "must be far_field, or near_field:F" in capsys.readouterr().err
