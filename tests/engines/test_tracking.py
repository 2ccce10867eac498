"""What training writes, says and imports: nothing that was not asked for."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from pathlib import Path

import pytest
from engine_scans import image_of, lay_out, make_scan, patches_of, train, untrained, vary
from engine_scripts import run

from ptycho_core.errors import ConfigError

TRACKERS = ("tensorboard", "tensorboardX", "mlflow", "wandb", "comet_ml", "neptune")


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4)


@pytest.fixture(scope="module")
def held_out():
    return make_scan(rows=2, columns=3, seed=9)


GREETING = re.compile(
    r"WARNING: All log messages before absl::|I\d{4} .* port\.cc:\d+\] oneDNN custom operations are on\."
)
"""What TensorFlow says when it is imported on a processor for which it uses oneDNN. It does so before it reads how much
it may say, so that only the command, which owns its process, can keep it off the terminal."""


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_written_without_a_folder_and_no_tracker_imported(engine, tmp_path):
    """Nor is anything said, from the import of the framework on, but for its own greeting at its import."""
    done = run(
        engine.name,
        tmp_path,
        f"""
print("loaded", file=sys.stderr)
train(engine, scan, vary(weight_average=0.5, early_stopping_patience=3), held_out)
model = train(engine, scan, vary(output_dir=Path("out")), held_out)
image_of(engine, model, scan)
print(sorted(set({TRACKERS!r}) & (set(sys.modules) - at_start)))
""",
    )
    assert done.stdout == "[]\n"
    said = done.stderr.splitlines()
    assert [line for line in said[: said.index("loaded")] if not GREETING.match(line)] == []
    assert said[said.index("loaded") :] == ["loaded"]
    assert files(tmp_path) == {"script.py", "out/history.csv", "out/checkpoints/best.ckpt", "out/checkpoints/last.ckpt"}


def test_training_warns_of_nothing(scan, engine, held_out, capfd, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(engine, scan, vary(output_dir=tmp_path), held_out)
    assert [str(w.message) for w in caught] == []
    assert capfd.readouterr() == ("", "")


def test_many_jobs_in_one_process_say_nothing(scan, engine, caplog, capfd):
    """As in a notebook, where a loop over models or settings is nothing strange."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for width in range(1, 7):
            config = vary(epochs=1, batch_size=12, model={"width": width, "sweeps": 1})
            model = untrained(engine, scan, config)
            image_of(engine, model, scan)
            patches_of(engine, model, lay_out(scan))
            train(engine, scan, config)
    assert [record.getMessage() for record in caplog.records] == []
    assert capfd.readouterr() == ("", "")


def test_history_has_every_epoch(scan, engine, held_out, tmp_path):
    model = train(engine, scan, vary(epochs=3, output_dir=tmp_path), held_out)
    head, *rows = (tmp_path / "history.csv").read_text().splitlines()
    assert head.split(",") == ["epoch", "train_loss", "test_loss", "learning_rate"]
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3"]
    for column, name in enumerate(head.split(",")[1:], 1):
        assert [float(row.split(",")[column]) for row in rows] == pytest.approx(model.history[name], rel=1e-8)


def test_tensorboard(scan, engine, held_out, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    config = vary(output_dir=tmp_path, loggers=("tensorboard", "tensorboard"))
    model = train(engine, scan, config, held_out)
    (events,) = (tmp_path / "tensorboard").glob("events.*")
    read = EventAccumulator(str(events)).Reload()
    for name in ("train_loss", "test_loss"):
        if name in read.Tags()["scalars"]:
            found = [event.value for event in read.Scalars(name)]
        else:  # how TensorFlow 2 keeps a scalar
            found = [float(make_ndarray(event.tensor_proto)) for event in read.Tensors(name)]
        assert found == pytest.approx(model.history[name], rel=1e-6)


@pytest.mark.slow
def test_mlflow(engine, tmp_path):
    for needed in ("mlflow", "sqlalchemy", "alembic"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    done = run(
        engine.name,
        tmp_path,
        """
model = train(engine, scan, vary(output_dir=Path("out"), loggers=("mlflow",)))
from mlflow import MlflowClient
client = MlflowClient(f"sqlite:///{Path('out/mlflow.db').resolve()}")
experiment = client.get_experiment_by_name("ptycho")
(found,) = client.search_runs([experiment.experiment_id])
values = [m.value for m in client.get_metric_history(found.info.run_id, "train_loss")]
print(found.info.status)
print(max(abs(a - b) for a, b in zip(values, model.history["train_loss"], strict=True)) < 1e-6)
""",
    )
    assert done.stdout.splitlines()[-2:] == ["FINISHED", "True"]
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(
    ("name", "missing"),
    [("mlflow", "mlflow"), ("mlflow", "sqlalchemy"), ("mlflow", "alembic"), ("tensorboard", "tensorboard")],
)
def test_a_tracker_that_is_not_installed(scan, engine, tmp_path, monkeypatch, name, missing):
    for module in ("mlflow", "sqlalchemy", "alembic", "tensorboard"):
        monkeypatch.setitem(sys.modules, module, None if module == missing else sys)
    steps = []
    with pytest.raises(ConfigError, match=rf"'{name}' needs a package that is not installed .*ptycho-core\[{name}\]"):
        train(engine, scan, vary(output_dir=tmp_path, loggers=(name,)), progress=steps.append)
    assert steps == []


def test_trackers_need_a_folder(scan, engine):
    with pytest.raises(ConfigError, match=r"loggers = \['tensorboard'\], but output_dir is None.*set output_dir"):
        train(engine, scan, vary(loggers=("tensorboard",)))
