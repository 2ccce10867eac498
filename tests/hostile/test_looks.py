"""What only looks is never worth a run: pictures, the report, and a process that ends while it draws."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from result_judge import judged

from ptycho_core.cli.main import main
from ptycho_core.enginekit import tracking
from ptycho_core.io.reconstruction_file import read_reconstruction
from ptycho_core.report import figures, plots
from ptycho_core.report import write as report
from ptycho_core.runtime import Runtime

pytestmark = pytest.mark.hostile

RUN = ["--backend", "numpy", "--epochs", "1", "--refinement.engine", "none", "--despite_findings"]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    assert main(["simulate", "--out", str(path), "--N", "16", "--n_frames", "20", "--seed", "3"]) == 0
    return path


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that take no time."""
    for module, names in (
        (figures, ("amplitude_figure", "phase_figure", "probe_figure", "coverage_figure")),
        (plots, ("losses_figure", "r_map_figure", "patterns_figure")),
        (report, ()),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *given: b"\x89PNG" + bytes(40))
    monkeypatch.setattr("ptycho_core.report.probe_pictures.focus_figure", lambda *given: b"\x89PNG" + bytes(40))


def fail(*given: object) -> bytes:
    raise KeyError("no such\ncolour")


@pytest.mark.usefixtures("blank")
@pytest.mark.spec("RES-10")
@pytest.mark.parametrize(
    ("module", "name", "picture"),
    [
        (figures, "phase_figure", "object_phase.png"),
        (figures, "probe_figure", "probe.png"),
        (plots, "patterns_figure", "patterns.png"),
    ],
)
def test_a_picture_that_fails_costs_itself(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, module, name: str, picture: str
) -> None:
    out = tmp_path / "result"
    monkeypatch.setattr(module, name, fail)
    assert main(["run", str(scan), *RUN, "--out", str(out)]) == 0
    assert judged(out, {}) == "an unknown run"
    assert not (out / picture).exists()
    assert len(list(out.glob("*.png"))) == 7
    sentence = f"{picture} could not be drawn (KeyError: 'no such\\ncolour')"
    assert f"note: {sentence}" in capsys.readouterr().err
    assert sentence in json.loads((out / "summary.json").read_text())["warnings"]
    page = (out / "report.html").read_text()
    assert ": could not be drawn." in page
    assert f"{picture} could not be drawn (KeyError:" in page  # among the warnings of the page


@pytest.mark.usefixtures("blank")
@pytest.mark.spec("RES-10")
@pytest.mark.parametrize("broken", ["render_report", "object_view", "both pages"])
def test_a_report_that_fails_costs_a_page(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, broken: str
) -> None:
    out = tmp_path / "result"
    monkeypatch.setattr(*((figures, "object_view") if broken == "object_view" else (report, "render_report")), fail)
    if broken == "both pages":
        monkeypatch.setattr(report, "render_short_report", fail)
    assert main(["run", str(scan), *RUN, "--out", str(out)]) == 0
    assert judged(out, {}) == "an unknown run"
    assert read_reconstruction(out / "reconstruction.h5").object.size
    assert "reconstruction.h5 is whole" in capsys.readouterr().err
    assert (out / "report.html").exists() == (broken != "both pages")
    if broken != "both pages":
        page = (out / "report.html").read_text()
        assert "The whole report could not be made (KeyError" in page
        assert '"deviance":' in page.replace("&quot;", '"')


@pytest.mark.spec("RES-10")
@pytest.mark.parametrize("ending", ["kill", "an exception of ours", "interrupt"])
def test_an_image_outlives_what_comes_after_it(scan: Path, tmp_path: Path, ending: str) -> None:
    """A process that ends while the report is drawn leaves the image: the next command, or itself, puts it away."""
    out = tmp_path / "result"
    assert main(["run", str(scan), *RUN, "--out", str(out)]) == 0
    known = {json.loads((out / "summary.json").read_text())["run_id"]: "old"}
    how = {
        "kill": f"os.kill(os.getpid(), {int(signal.SIGKILL)})",
        "an exception of ours": "raise OSError(28, 'No space left on device')",
        "interrupt": "raise KeyboardInterrupt",
    }[ending]
    code = (
        "import os, sys\nfrom ptycho_core.cli.main import main\nfrom ptycho_core.report import write as report\n"
        f"def looks(folder, run):\n    {how}\n"
        "report.write_looks = looks\nsys.exit(main(sys.argv[1:]))\n"
    )
    command = ["run", str(scan), *RUN, "--out", str(out), "--overwrite", "--seed", "9"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == {"kill": -signal.SIGKILL, "an exception of ours": 2, "interrupt": 130}[ending]
    assert judged(out, known) == "old"
    assert main(["run", str(scan), *RUN, "--out", str(out)]) == 2  # there is a result; the command does look, though
    assert judged(out, known) == "old"
    (rescued,) = (out / "training").glob("reconstruction-*.h5")
    assert read_reconstruction(rescued).config["seed"] == 9
    assert not [name for name in os.listdir(out) if name.startswith(".")]


@pytest.mark.parametrize("pixel_size_m", [1e308, 1e-320, 5e-324])
def test_a_pixel_of_no_sample_has_a_bar_in_pixels(pixel_size_m: float) -> None:
    assert figures.scale_bar(90.0, pixel_size_m) == (20.0, "20 px")


def test_a_tracker_that_fails_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two trackers one fails at its second epoch, and one when it is opened: the training goes on with the rest."""
    told: list[tuple[str, object]] = []

    class Tracker:
        def __init__(self, folder: Path) -> None:
            told.append(("opened", folder))

        def log(self, figures: Mapping[str, float], step: int) -> None:
            if step == 2:
                raise OSError(28, "No space left on device")
            told.append(("log", step))

        def close(self, status: str) -> None:
            told.append(("close", status))

    def unopened(folder: Path) -> Tracker:
        raise RuntimeError("database or disk is full")

    monkeypatch.setattr(tracking, "_KINDS", {"tensorboard": Tracker, "mlflow": unopened})
    runtime = Runtime(output_dir=tmp_path, loggers=("tensorboard", "mlflow"))
    with pytest.warns(UserWarning, match=r"mlflow got no more figures \(RuntimeError: database or disk is full\)"):
        trackers = tracking.Trackers(runtime)
    with trackers:
        trackers.log({"loss": 1.0}, 1)
        with pytest.warns(UserWarning, match=r"tensorboard got no more figures \(OSError.*No space left"):
            trackers.log({"loss": 1.0}, 2)
        trackers.log({"loss": 1.0}, 3)
    assert told == [("opened", tmp_path), ("log", 1)]
