"""A network engine from outside that is watched or stopped while it trains: the contract of ``enginekit`` is enough."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from stub_engines import install

import ptycho_core
from ptycho_core.cli import preview
from ptycho_core.cli.main import main
from ptycho_core.config import TrainingConfig
from ptycho_core.config_mapping import config_from_mapping
from ptycho_core.errors import Cancelled
from ptycho_core.io import write_scan
from ptycho_core.notebook.bar import ProgressBar
from ptycho_core.plugins.generators import with_typed_model
from ptycho_core.runtime import Runtime

FOLDER = Path(__file__).parent / "pixel_engine"
MODULES = {name: (FOLDER / f"{name}.py").read_text(encoding="utf-8") for name in ("pixel_engine", "pixel_generator")}
WORDS = [
    "--backend", "pixel", "--method", "network", "--model.generator", "pixel_mlp", "--group_size", "4",
    "--batch_size", "4", "--learning_rate", "0.02", "--schedule", "constant", "--refine", "none",
    "--test_fraction", "0.2",
]  # fmt: skip
"""2 steps an epoch."""


def lay_out(monkeypatch: pytest.MonkeyPatch, site: Path, **changed: str) -> None:
    site.mkdir()
    install(site, "pixel-engine", {"pixel": "pixel_generator"}, MODULES | changed)
    monkeypatch.syspath_prepend(site)
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The engine as pip lays it out."""
    lay_out(monkeypatch, tmp_path / "site")
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def raw():
    made = ptycho_core.SimulationConfig(
        object="dead_leaves", N=16, grid_shape=(5, 4), step_px=2.7, seed=5, n_modes=2, aberration_rms_rad=0.5
    )
    return ptycho_core.simulate(made).raw


@pytest.fixture
def scan(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scan(tmp_path / "scan.npz", raw)
    return "scan.npz"


def config_of(**changes) -> TrainingConfig:
    settings = {"backend": "pixel", "group_size": 4, "epochs": 3, "schedule": "constant", "learning_rate": 0.02}
    model = {"generator": "pixel_mlp", "hidden": 5, "warm_up": 2}
    more = {"model": model, "seed": 3, "batch_size": 4, "test_fraction": 0.2, "refinement": {"engine": "none"}}
    return config_from_mapping(TrainingConfig, settings | more | changes)


@pytest.mark.spec("BE-39", "BE-40")
@pytest.mark.usefixtures("site")
def test_looking_changes_no_bit_and_what_is_left_is_what_was_shown(raw, tmp_path):
    config = with_typed_model(config_of())
    engine, scan = ptycho_core.load_backend("pixel"), ptycho_core.ensure_container(raw, config)
    shown = {}

    def look(event):
        if event.image is not None:
            shown[event.epoch, event.done] = event.image()
        if event.done == stop_at:
            raise Cancelled("enough")

    stop_at = None
    plain = engine.train([scan], config, Runtime(output_dir=tmp_path / "plain"))
    seen = engine.train([scan], config, Runtime(output_dir=tmp_path / "seen"), progress=look)
    assert list(shown) == [(1, 2), (2, 4), (3, 6)]
    assert seen.history == plain.history
    for name, value in plain.weights.items():
        np.testing.assert_array_equal(seen.weights[name], value)
    last = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("plain", "seen")]
    assert last[0].read_bytes() == last[1].read_bytes()
    stop_at = 5
    with pytest.raises(Cancelled) as caught:
        engine.train([scan], config, progress=look)
    model = caught.value.model
    image = engine.reconstruct(model, scan.with_probe(model.probe), config.inference)
    np.testing.assert_array_equal(image.object, shown[2, 4].object)
    assert not np.array_equal(image.object, shown[1, 2].object)


@pytest.fixture
def press(monkeypatch):
    """Somebody types, and presses Ctrl-C after a step of the training: once, or again while the image is made."""
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)

    def at(done, *, twice=False):
        before = ProgressBar.__call__

        def call(self, event):
            before(self, event)
            if (event.stage == "train" and event.done == done) or (twice and event.stage == "reconstruct"):
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(ProgressBar, "__call__", call)

    return at


@pytest.mark.spec("NOTE-5", "BE-40")
@pytest.mark.usefixtures("site")
def test_at_a_console_a_stopped_network_is_an_image_like_any(raw, press, tmp_path):
    press(7)
    with pytest.warns(UserWarning, match=r"interrupted while training, after 7 of 80\); the image is that of the netw"):
        done = ptycho_core.run(raw, config_of(epochs=40), out=tmp_path / "out")
    assert [stage.name for stage in done.stages] == ["network"]
    assert done.verdict is not None
    assert len(done.history["train_loss"]) == len(done.history["test_loss"]) == 3
    checkpoint = tmp_path / "out" / "training" / "checkpoints" / "interrupted.ckpt"
    assert repr(str(checkpoint)) in done.warnings[-1]
    assert done.folder is None
    assert not (tmp_path / "out" / "summary.json").exists()
    # the best of its epochs, as a training that is no longer would have made it
    best = int(np.argmin(done.history["test_loss"])) + 1
    whole = ptycho_core.run(raw, config_of(epochs=best), observer=ptycho_core.Observer())
    np.testing.assert_array_equal(done.image.object, whole.image.object)
    # it can be put away, and the training gone on with
    kept = ptycho_core.load_run(done.save(tmp_path / "kept").folder)
    np.testing.assert_array_equal(kept.image.object, done.image.object)
    on = ptycho_core.run(raw, config_of(epochs=5), Runtime(resume_from=checkpoint), observer=ptycho_core.Observer())
    straight = ptycho_core.run(raw, config_of(epochs=5), observer=ptycho_core.Observer())
    np.testing.assert_array_equal(on.image.object, straight.image.object)


@pytest.mark.spec("NOTE-5")
@pytest.mark.usefixtures("site")
def test_in_its_last_step_the_training_is_whole_and_nothing_follows_its_image(raw, press, tmp_path):
    press(6)
    more = {"refinement": {"engine": "numpy", "epochs": 3, "positions": False}}
    with pytest.warns(UserWarning, match=r"training was whole when it was to stop \(.*after 6 of 6\); nothing follows"):
        done = ptycho_core.run(raw, config_of(**more), out=tmp_path / "out", half_data=True)
    assert [stage.name for stage in done.stages] == ["network"]
    assert done.refined is None
    assert done.stages[0].half_data_frc is None
    assert len(done.history["train_loss"]) == 3
    assert done.folder == tmp_path / "out", "its results are written"
    whole = ptycho_core.run(raw, config_of(), observer=ptycho_core.Observer())
    np.testing.assert_array_equal(done.image.object, whole.image.object)
    with pytest.warns(UserWarning, match=r"training was whole when it was to stop \(.*after 6 of 6\)$"):
        model = ptycho_core.train(raw, config_of(), out=tmp_path / "model")
    assert len(model.history["train_loss"]) == 3
    assert (tmp_path / "model" / "model.ptycho").is_file()


@pytest.mark.usefixtures("site")
def test_a_wish_of_a_program_in_the_last_step_of_a_training_is_met(raw, tmp_path):
    """Once, as a progress may have it: of the image's own training, and of that of a half."""
    wishes, seen = [6], []

    def once(event):
        seen.append(event.stage)
        if event.stage == "train" and event.done == event.total and seen.count("train") >= wishes[0]:
            wishes[0] = 10**6
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough") as caught:
        ptycho_core.run(raw, config_of(), out=tmp_path / "out", half_data=True, progress=once)
    assert caught.value.results_path == str(tmp_path / "out")
    assert len(caught.value.run.history["train_loss"]) == 3
    n_image = seen.count("reconstruct")
    wishes[0], seen[:] = 7, []
    with pytest.raises(Cancelled, match="enough") as caught:
        ptycho_core.run(raw, config_of(), half_data=True, progress=once)
    assert seen.count("reconstruct") == n_image, "of the half no image was made"
    assert "no half-data FRC: enough" in caught.value.run.warnings


@pytest.mark.usefixtures("site")
def test_the_model_of_a_training_whose_image_is_stopped_is_handed_over(raw):
    def stop(event):
        if event.stage == "reconstruct":
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough") as caught:
        ptycho_core.run(raw, config_of(), progress=stop)
    assert len(caught.value.model.history["train_loss"]) == 3


@pytest.mark.spec("NOTE-5", "BE-40")
@pytest.mark.usefixtures("site")
def test_in_its_first_epoch_it_has_a_checkpoint_only(raw, press, tmp_path):
    press(1)
    with pytest.raises(Cancelled, match=r"there is no model of it yet; to go on, .*interrupted\.ckpt") as caught:
        ptycho_core.run(raw, config_of(), out=tmp_path / "out")
    assert Path(caught.value.checkpoint_path).is_file()


@pytest.mark.spec("NOTE-5")
@pytest.mark.usefixtures("site")
def test_the_second_press_ends_it_at_once(raw, press):
    press(5, twice=True)
    with pytest.warns(UserWarning, match="training was stopped"), pytest.raises(KeyboardInterrupt):
        ptycho_core.run(raw, config_of(epochs=40))


# ---- the command


@pytest.mark.spec("CMD-19", "BE-39")
@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("command", ["run", "train"])
def test_the_command_writes_the_picture_every_few_epochs_and_changes_no_bit(scan, command, monkeypatch, capsys):
    written = []
    real = preview.write_bytes
    monkeypatch.setattr(preview, "write_bytes", lambda path, png: (written.append(png), real(path, png)))
    words = [command, scan, *WORDS, "--epochs", "5"]
    words = words if command == "run" else [word for word in words if word not in ("--refine", "none")]
    assert main([*words, "--preview", "2", "--out", "with"]) == 0, capsys.readouterr().err
    assert "preview   with/training/preview.png, every 2 epochs" in capsys.readouterr().out
    assert len(written) == 3  # 2, 4, 5
    assert Path("with/training/preview.png").read_bytes() == written[-1]
    assert written[0] != written[-1]
    assert main([*words, "--out", "without"]) == 0
    one, other = (ptycho_core.load_model(f"{folder}/model.ptycho").weights for folder in ("with", "without"))
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value)


@pytest.mark.spec("CMD-19")
@pytest.mark.usefixtures("site")
def test_the_last_epoch_is_shown_where_patience_ends_it(raw, scan, capsys):
    events = []
    config = with_typed_model(config_of(epochs=60, learning_rate=0.5, early_stopping_patience=1))
    engine, container = ptycho_core.load_backend("pixel"), ptycho_core.ensure_container(raw, config)
    model = engine.train([container], config, progress=events.append)
    made = len(model.history["train_loss"])
    assert made < 60, "or this test tests nothing"
    assert [event.total for event in events] == [*[120] * (2 * made - 1), 2 * made]
    assert (events[-1].done, events[-1].epoch) == (2 * made, made)
    words = [*WORDS, "--epochs", "60", "--learning_rate", "0.5", "--early_stopping_patience", "1"]
    assert main(["run", scan, *words, "--preview", "59", "--out", "r"]) == 0, capsys.readouterr().err
    assert len(ptycho_core.load_model("r/model.ptycho").history["train_loss"]) < 59
    assert Path("r/training/preview.png").is_file()


@pytest.mark.spec("CMD-19")
def test_an_engine_that_offers_none_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    source = MODULES["pixel_engine"].replace(" preview=True,", "")
    assert source != MODULES["pixel_engine"]
    lay_out(monkeypatch, tmp_path / "site", pixel_engine=source)
    assert main(["run", "gone.npz", *WORDS, "--preview", "2"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ptycho: --preview 2: engine 'pixel' shows no image while it works, and nothing is refined;")


@pytest.mark.spec("CMD-19")
@pytest.mark.usefixtures("site")
def test_an_engine_that_promises_and_shows_none_is_told_of(scan, tmp_path, monkeypatch, capsys):
    import pixel_engine

    loop = pixel_engine.Training
    monkeypatch.setattr(pixel_engine, "Training", lambda *given: loop(*given[:6]))
    assert main(["run", scan, *WORDS, "--epochs", "2", "--preview", "1", "--out", "r"]) == 0
    assert capsys.readouterr().err.count("--preview: the engine shows no image while training") == 1


@pytest.mark.spec("CMD-19")
@pytest.mark.usefixtures("site")
def test_a_picture_that_an_engine_fails_to_make_costs_a_line_and_a_stop_stops_it(scan, monkeypatch, capsys):
    import pixel_engine

    def full(model, *given):
        if len(model.history["train_loss"]) < 3:
            raise RuntimeError("out of memory on the device")
        return scanned(model, *given)

    scanned = pixel_engine.PixelScan
    monkeypatch.setattr(pixel_engine, "PixelScan", full)
    assert main(["run", scan, *WORDS, "--epochs", "3", "--preview", "1", "--out", "r"]) == 0
    assert capsys.readouterr().err.count("the preview was not written (out of memory on the device)") == 1
    assert Path("r/training/preview.png").is_file()

    def pressed(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        return scanned(*given)

    monkeypatch.setattr(pixel_engine, "PixelScan", pressed)
    assert main(["run", scan, *WORDS, "--epochs", "3", "--preview", "1", "--out", "s"]) == 130
    err = capsys.readouterr().err
    assert "ptycho: stopped while the preview was made" in err
    assert Path("s/training/checkpoints/interrupted.ckpt").is_file()
    assert not Path("s/training/preview.png").exists()
