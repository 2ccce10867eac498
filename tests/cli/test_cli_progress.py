"""What a long job shows while it works: pictures, and what it works on (CMD-17, CMD-19); lines are test_cli_beat's."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image as Picture

from ptycho_core.api import machine
from ptycho_core.cli import main as cli
from ptycho_core.cli import preview
from ptycho_core.cli.session import Session
from ptycho_core.data.results import Image
from ptycho_core.plugins.registry import LoadedBackend, backend_spec, load_backend, load_described
from ptycho_core.protocol import ProgressEvent
from ptycho_core.runtime import Runtime

# ---- pictures


def object_of(folder: str) -> np.ndarray:
    with h5py.File(Path(folder) / "reconstruction.h5") as file:
        return file["entry/object"][()]


@pytest.mark.spec("CMD-19", "BE-39")
def test_a_picture_every_few_epochs_that_changes_no_bit(scan, monkeypatch, capsys):
    written: list[tuple[str, bytes]] = []
    real = preview.write_bytes
    monkeypatch.setattr(preview, "write_bytes", lambda path, png: (written.append((str(path), png)), real(path, png)))
    words = ["run", str(scan), "--backend", "numpy", "--epochs", "5", "--refine", "numpy:7"]
    assert cli.main([*words, "--preview", "2", "--out", "with"]) == 0
    assert "preview   with/training/preview.png, every 2 epochs" in capsys.readouterr().out
    assert [path for path, _ in written] == ["with/training/preview.png"] * 7  # 2, 4, 5 and 2, 4, 6, 7
    assert len({png for _, png in written}) > 4
    assert Path("with/training/preview.png").read_bytes() == written[-1][1]
    assert cli.main([*words, "--out", "without"]) == 0
    assert np.array_equal(object_of("with"), object_of("without"))
    assert not Path("without/training/preview.png").exists()


@pytest.mark.spec("CMD-19")
def test_images_of_half_the_frames_are_not_shown(scan, monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(preview, "write_bytes", lambda path, png: shown.append(str(path)))
    words = ["run", str(scan), "--backend", "numpy", "--epochs", "3", "--refine", "none", "--half_data_frc"]
    assert cli.main([*words, "--preview", "1", "--out", "r"]) == 0
    assert len(shown) == 3


@pytest.mark.spec("CMD-19")
def test_a_picture_that_cannot_be_written_costs_a_line(scan, monkeypatch, capsys):
    def full(path: Path, png: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preview, "write_bytes", full)
    words = ["run", str(scan), "--backend", "numpy", "--epochs", "3", "--refine", "none"]
    assert cli.main([*words, "--preview", "1", "--out", "r"]) == 0
    err = capsys.readouterr().err
    assert err.count("the preview was not written ([Errno 28] No space left on device)") == 1


@pytest.mark.spec("CMD-19")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--preview", "0"], "--preview = '0'; it must be a whole number of epochs, from 1"),
        (["run", "--preview", "x"], "--preview = 'x'"),
        (
            ["train", "--preview", "2", "--devices", "2"],
            "--preview 2: a network on several devices shows no image while it trains; leave --preview out",
        ),
        (
            ["run", "--preview", "2", "--method", "network", "--devices", "2", "--refine", "none"],
            "a network on several devices shows no image while it trains, and nothing is refined",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused_before_data_are_read(words, said, capsys):
    assert cli.main([words[0], "gone.npz", *words[1:], "--backend", "pytorch"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.spec("CMD-19")
def test_an_engine_that_says_it_shows_nothing_is_refused(monkeypatch, capsys, stub):
    from dataclasses import replace

    import cli_stub_engine

    spec = replace(cli_stub_engine.ptycho_backend(), capabilities=cli_stub_engine.StubEngine.capabilities)
    monkeypatch.setattr(cli_stub_engine, "ptycho_backend", cli_stub_engine.hookimpl(lambda: spec))
    assert cli.main(["run", "gone.npz", "--preview", "1", "--backend", "pytorch"]) == 2
    assert "engine 'pytorch' shows no image while it works, and" in capsys.readouterr().err


def test_the_picture_is_the_phase_beside_the_amplitude():
    y, x = np.mgrid[:60, :90]
    obj = ((1 + (x > 45)) * np.exp(0.5j * (y > 30))).astype(np.complex64)
    coverage = np.ones((60, 90), np.float32)
    coverage[:5] = 0
    image = Image(
        object=obj, coverage=coverage, origin_px=np.zeros(2), probe=np.ones((1, 8, 8), np.complex64), scale=1.0,
        positions_px=np.zeros((3, 2)),
    )  # fmt: skip
    import io

    grey = np.asarray(Picture.open(io.BytesIO(preview.preview_png(image))))
    width = (grey.shape[1] - 8) // 2
    phase, amplitude = grey[:, :width].astype(float), grey[:, -width:].astype(float)
    inner = slice(8, -8)
    assert amplitude[inner, width // 4].mean() < 60 < 200 < amplitude[inner, -width // 4].mean()
    assert np.ptp(np.median(phase[inner], axis=1)) > np.ptp(np.median(phase[inner], axis=0)) + 60


# ---- what it works on


@pytest.mark.spec("CMD-17")
def test_the_device_is_said_before_the_work(scan, capsys):
    assert cli.main(["run", str(scan), "--backend", "numpy", "--epochs", "1", "--refine", "none"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^device    numpy, (up to \d+ threads|1 thread), \d+ GB memory free$", out, re.MULTILINE)
    assert out.index("\nscan ") < out.index("\ndevice ") < out.index("\nsolver ")
    assert cli.main(["run", str(scan), "--backend", "numpy", "--threads", "2", "--epochs", "1", "--out", "two"]) == 0
    assert "device    numpy, 2 threads, " in capsys.readouterr().out


class _OnDevice:
    name = "numpy"
    capabilities = backend_spec("numpy").capabilities

    def device_words(self, runtime: Runtime) -> str:
        return "cuda:1 (NVIDIA H100), 80 GB" if runtime.accelerator == "cuda" else ""


@pytest.mark.spec("CMD-17")
def test_an_engine_names_its_device(monkeypatch):
    monkeypatch.setattr(machine, "memory_left", lambda: 24_400_000_000)
    engine = LoadedBackend(_OnDevice(), backend_spec("numpy"), "x 1")  # type: ignore[arg-type]
    assert machine.machine_words([(engine, Runtime(accelerator="cuda"))]) == "numpy on cuda:1 (NVIDIA H100), 80 GB"
    assert machine.machine_words([(engine, Runtime(threads=1))]) == "numpy, 1 thread, 24 GB memory free"
    two = [(engine, Runtime(threads=1)), (load_described(backend_spec("numpy"), "x"), Runtime(threads=1))]
    assert machine.machine_words(two) == "numpy, 1 thread, 24 GB memory free"
    two[1] = (two[1][0], Runtime(threads=2))
    assert machine.machine_words(two) == "numpy, 1 thread, 24 GB memory free; numpy, 2 threads, 24 GB memory free"
    monkeypatch.setattr(machine, "memory_left", lambda: None)
    assert machine.machine_words([(engine, Runtime(threads=3))]) == "numpy, 3 threads"


@pytest.mark.spec("CMD-17")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("pytorch", marks=pytest.mark.torch),
        pytest.param("ptychi", marks=pytest.mark.ptychi),
    ],
)
def test_engines_of_ours_say_nothing_of_the_processor(name):
    assert load_backend(name).device_words(Runtime(accelerator="cpu")) == ""  # type: ignore[attr-defined]


def test_the_stage_that_a_command_is_in():
    session = Session()
    with session.stage("train"):
        assert session.doing == "train"
        with session.stage("save", finishes=True):
            assert session.doing == "save"
        assert session.doing == "train"
    assert session.doing == ""


# ---- engines of ours


@pytest.mark.spec("BE-39")
@pytest.mark.parametrize(
    "name",
    [
        "numpy",
        pytest.param("pytorch", marks=pytest.mark.torch),
        pytest.param("tensorflow", marks=pytest.mark.tensorflow),
        pytest.param("ptychi", marks=pytest.mark.ptychi),
    ],
)
def test_an_engine_that_says_so_shows_its_image_and_changes_nothing(name, scan):
    from ptycho_core import RefinementConfig, TrainingConfig
    from ptycho_core.api.run import run

    assert backend_spec(name).capabilities.preview
    config = TrainingConfig(backend=name, epochs=2, test_fraction=0.2, refinement=RefinementConfig(epochs=2))
    shown: list[tuple[str, np.ndarray]] = []

    def look(event: ProgressEvent) -> None:
        if event.stage in ("train", "refine"):
            assert event.image is not None
            image = event.image()
            assert image.coverage.shape == image.object.shape
            shown.append((event.stage, image.object))

    # TensorFlow keeps the threads that the tests before this one have given it, and adds in no fixed order with several
    tensorflow = name == "tensorflow"
    runtime = Runtime(threads=None if tensorflow else 1)
    seen = run(scan, config, runtime, progress=look)
    unseen = run(scan, config, runtime)
    assert [stage for stage, _ in shown] == ["train", "train", "refine", "refine"]
    largest = np.abs(unseen.image.object).max()
    assert np.abs(seen.image.object - unseen.image.object).max() <= (1e-4 * largest if tensorflow else 0.0)
    assert np.abs(shown[0][1] - shown[1][1]).max() > 1e-3 * largest
