"""The verdict on the terminal: the last line of ``run``, and what ``inspect --try`` ends with."""

from __future__ import annotations

import importlib.metadata
import json

import numpy as np
import pytest
from stub_engines import offer_only

from ptycho_core.cli import main as cli
from ptycho_core.data.raw import RawData
from ptycho_core.evaluation.verdict import Circumstances
from ptycho_core.io import write_scan
from ptycho_core.simulation import SimulationConfig, simulate_scan

QUICK = ["--preset", "quick", "--test_fraction", "0.1", "--seed", "1"]


@pytest.fixture(autouse=True)
def _numpy_alone(monkeypatch):
    """The NumPy engine as the only installed one, and no trials."""
    offer_only(monkeypatch, [importlib.metadata.EntryPoint("numpy", "ptycho_backend_numpy.plugin", "ptycho.backends")])
    monkeypatch.setattr("ptycho_core.api.run.diagnose", lambda *args, **keywords: Circumstances())


@pytest.fixture(scope="module")
def measured():
    """A strong object, 13 × 11 frames."""
    config = SimulationConfig(object="dead_leaves", N=32, grid_shape=(13, 11), step_px=3.3, photons=1e5, seed=7)
    return simulate_scan(config).raw


@pytest.fixture
def good(measured, tmp_path):
    write_scan(tmp_path / "good.npz", measured)
    return "good.npz"


@pytest.fixture
def bad(measured, tmp_path):
    """The same with its positions in another order."""
    counts = measured.read_counts(np.arange(measured.n_frames))
    places = np.random.default_rng(0).permutation(measured.positions_px)
    write_scan(tmp_path / "bad.npz", RawData.from_arrays(counts, places, measured.probe))
    return "bad.npz"


@pytest.mark.spec("VERDICT-1", "VERDICT-7")
def test_the_last_line_of_a_run_is_the_verdict_and_its_exit_code_is_that_of_the_job(good, bad, tmp_path, capsys):
    assert cli.main(["run", good, *QUICK, "--out", "result"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("verdict   explained to ")
    assert cli.main(["run", bad, *QUICK, "--out", "other"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("verdict   NOT AN IMAGE: it predicts ")
    kept = json.loads((tmp_path / "other" / "summary.json").read_text())["verdict"]
    assert last == f"verdict   {kept['sentence']}"
    assert "NOT AN IMAGE" in (tmp_path / "other" / "ptycho.log").read_text()


@pytest.mark.spec("VERDICT-7")
def test_inspect_tries_a_scan_when_it_is_asked_to(good, bad, tmp_path, capsys):
    assert cli.main(["inspect", bad]) == 0
    assert "verdict" not in capsys.readouterr().out
    assert cli.main(["inspect", good, "--try"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("verdict   explained to ")
    assert cli.main(["inspect", bad, "--try"]) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("verdict   NOT AN IMAGE: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.npz", "good.npz"], "nothing is written"


@pytest.mark.spec("VERDICT-7")
def test_a_program_gets_the_verdict_as_json(good, bad, capsys):
    assert cli.main(["inspect", good, "--try", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"]["kind"] in ("noise", "above_noise")
    assert cli.main(["inspect", bad, "--try", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["verdict"]["kind"] == "no_image"
    assert cli.main(["inspect", good, "--json"]) == 0
    assert "verdict" not in json.loads(capsys.readouterr().out)


def test_what_cannot_be_read_is_not_tried(tmp_path, capsys):
    (tmp_path / "nonsense.npz").write_bytes(b"no scan")
    assert cli.main(["inspect", "nonsense.npz", "--try"]) == 2
    assert "verdict" not in capsys.readouterr().out
    assert cli.main(["inspect", "nonsense.npz", "--try", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["verdict"] is None


def test_a_probe_without_a_trial_is_refused(good, capsys):
    assert cli.main(["inspect", good, "--probe", "probe.npz"]) == 2
    assert "--probe says something to 'ptycho inspect' with --try only" in capsys.readouterr().err
