"""``ptycho orient`` and ``--orientation auto``: from positions that lie the wrong way to the option that mends them."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest

from ptycho_core.api import prepare
from ptycho_core.cli import main as cli
from ptycho_core.cli.progress import Reporter
from ptycho_core.config import TrainingConfig
from ptycho_core.data.orientation import inverse_of, orient_scan, oriented, turned
from ptycho_core.data.probe_guess import ProbeGuess
from ptycho_core.errors import Cancelled
from ptycho_core.io import read_scan, write_scan
from ptycho_core.notebook.bar import LABELS
from ptycho_core.physics.probe import probe_from_mean_pattern
from ptycho_core.simulation import SimulationConfig, simulate_scan


@pytest.fixture(scope="module")
def raw():
    config = SimulationConfig(object="dead_leaves", N=32, grid_shape=(10, 7), step_px=3.6, photons=2e5, seed=8)
    return simulate_scan(config).raw


@pytest.fixture
def wrong(tmp_path, raw):
    """The scan in a file, its positions exchanged and then negated in y."""
    write_scan(tmp_path / "scan.npz", oriented(raw, "transpose+flip_y"))
    return "scan.npz"


RIGHT = inverse_of("transpose+flip_y")


@pytest.mark.spec("FIND-6")
def test_the_table_names_the_winner_and_the_option(wrong, capsys):
    assert cli.main(["orient", wrong]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.endswith("best") or "  0." in line]
    assert len(rows) == 8
    assert rows[0].startswith(f"{RIGHT} ")
    assert rows[0].endswith("best")
    assert not any(row.endswith("best") for row in rows[1:])
    assert f"give         --orientation {RIGHT}" in out
    assert "tried on     64 frames, 13 of them held out" in out
    assert "centre       zero frequency at (16, 16)" in out


@pytest.mark.spec("FIND-6")
@pytest.mark.parametrize(
    ("given", "give"),
    [((), f"--orientation {RIGHT}"), (("--orientation", "flip_x"), f"--orientation {RIGHT}"),
     (("--orientation", "flip_x+transpose"), None), (("--orientation", "transpose"), f"--orientation {RIGHT}")],
)  # fmt: skip
def test_json_and_the_option_to_give_in_place_of_what_was_given(wrong, capsys, given, give):
    assert cli.main(["orient", wrong, "--json", *given]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["certain"]
    assert found["give"] == give
    assert len(found["trials"]) == 8
    assert found["trials"][0]["tried"]["orientation"] == found["orientation"]
    assert found["centre"]["centre_px"] == [16, 16]
    if give:
        assert cli.main(["orient", wrong, "--json", *shlex.split(give)]) == 0
        assert json.loads(capsys.readouterr().out)["orientation"] == "none"


@pytest.mark.spec("FIND-6")
def test_auto_reads_the_scan_in_the_orientation_that_it_finds(wrong, raw, capsys, tmp_path):
    assert cli.main(["convert", wrong, "right.h5", "--orientation", "auto"]) == 0
    said = capsys.readouterr().out
    assert f"orient    --orientation {RIGHT} explains the frames better" in said
    right = read_scan(tmp_path / "right.h5")
    moved = right.positions_px - right.positions_px.mean(axis=0)
    np.testing.assert_allclose(moved, raw.positions_px - raw.positions_px.mean(axis=0), atol=1e-9)
    assert cli.main(["orient", "right.h5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["give"] is None


def test_a_run_keeps_what_was_found(wrong, tmp_path):
    quick = ["--epochs", "2", "--refinement.engine", "none", "--backend", "numpy"]
    assert cli.main(["run", wrong, "--orientation", "auto", *quick, "--out", "result"]) == 0
    summary = (tmp_path / "result" / "summary.json").read_text()
    details = json.loads(summary)["provenance"]["data"]["details"]["orientation"]
    assert details["orientation"] == RIGHT
    assert details["certain"]


def test_a_turned_scan_needs_its_turn_first(raw, tmp_path, capsys):
    write_scan(tmp_path / "turned.npz", turned(oriented(raw, "flip_y"), -126.0))
    assert cli.main(["orient", "turned.npz", "--rotate", "126", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["give"] == "--rotate 126 --orientation flip_y"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.npz"], "no such file"),
        (["scan.npz", "--orientation", "auto"], "leave it out"),
        (["scan.npz", "--sweeps", "0"], "sweeps"),
        (["scan.npz", "--sweeps", "many"], "must be a whole number"),
        (["scan.npz", "--orientation", "sideways"], "transpose, flip_y and flip_x"),
        (["scan.npz", "--engine", "nosuch"], "nosuch"),
    ],
)
def test_what_it_refuses(wrong, capsys, arguments, said):
    assert cli.main(["orient", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_example_runs(tmp_path, raw, capsys):
    assert cli.main(["orient", "--help"]) == 0
    example = shlex.split(capsys.readouterr().out.partition("\nexample:\n")[2].replace("\\\n", " ").strip())
    counts = raw.read_counts(np.arange(raw.n_frames))
    probe = raw.probe[0]
    x, y = raw.positions_px[:, 1], raw.positions_px[:, 0]
    np.savez(tmp_path / "scan.npz", diff3d=np.sqrt(counts), xcoords=x, ycoords=y, probeGuess=probe)
    assert cli.main(example[1:]) == 0


@pytest.mark.spec("FIND-7")
@pytest.mark.parametrize(
    ("given", "allowed"),
    [((), 8), (("--orientation", "none"), 1), (("--orientation", "transpose"), 1), (("--rotate", "12"), 1)],
)
def test_what_was_said_of_the_orientation_is_not_searched_for_with_a_missing_probe(
    tmp_path, raw, monkeypatch, given, allowed
):
    write_scan(tmp_path / "bare.npz", replace(raw, probe=None, probe_calibrated=False, object_guess=None))
    searched = []

    def found(scan, *, orientations, **more):
        searched.append(orientations)
        return ProbeGuess(probe=probe_from_mean_pattern(scan.mean_pattern()), how="mean pattern")

    monkeypatch.setattr(prepare, "find_probe", found)
    assert cli.main(["run", "bare.npz", "--preset", "quick", "--out", "done", *given]) == 0
    assert [len(words) for words in searched] == [allowed]


def test_a_scan_that_was_moved_in_python_is_left_as_it_lies(raw, monkeypatch):
    searched = []

    def found(scan, *, orientations, **more):
        searched.append(orientations)
        return ProbeGuess(probe=probe_from_mean_pattern(scan.mean_pattern()), how="mean pattern")

    monkeypatch.setattr(prepare, "find_probe", found)
    bare = replace(raw, probe=None, probe_calibrated=False, object_guess=None)
    for moved in (oriented(bare, "flip_y"), turned(bare, 30.0), orient_scan(bare, flip_x=True), bare):
        prepare.ensure_container(moved, TrainingConfig())
    assert [len(words) for words in searched] == [1, 1, 1, 8]


@pytest.mark.spec("FIND-6")
def test_finding_the_orientation_before_a_run_can_be_stopped(wrong, raw, monkeypatch, capsys):
    def stopped(self, event):
        raise Cancelled(f"stopped while {LABELS[event.stage]}")

    monkeypatch.setattr(Reporter, "__call__", stopped)
    assert cli.main(["run", wrong, "--orientation", "auto", "--preset", "quick"]) == 130
    assert "stopped while trying orientations" in capsys.readouterr().err
