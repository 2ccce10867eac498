"""What training writes and imports, in processes of its own: nothing that was not asked for."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from torch_scans import make_scan, train, vary

from ptycho_core.errors import ConfigError

pytestmark = pytest.mark.torch

HERE = Path(__file__).parent
TRACKERS = ("tensorboard", "tensorboardX", "mlflow", "wandb", "comet_ml", "neptune")


def run(folder: Path, body: str) -> subprocess.CompletedProcess:
    """Run a script that can train, and check that it ends well."""
    script = folder / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = {[str(HERE.parent), str(HERE)]!r}\n"
        "from pathlib import Path\n"
        "from torch_scans import *\n"
        "if __name__ == '__main__':\n"
        "    scan = make_scan(rows=3, columns=4)\n"
        "    held_out = make_scan(rows=2, columns=3, seed=9)\n"
        + "".join(f"    {line}\n" for line in body.strip().splitlines())
    )
    done = subprocess.run(
        [sys.executable, script.name], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_written_without_a_folder_and_no_tracker_imported(tmp_path):
    done = run(
        tmp_path,
        f"""
train(scan, vary(weight_average=0.5, early_stopping_patience=3), held_out)
train(scan, vary(output_dir=Path("out")), held_out)
for name in {TRACKERS!r}:
    print(name, name in sys.modules)
""",
    )
    assert done.stdout.splitlines() == [f"{name} False" for name in TRACKERS]
    assert done.stderr == ""
    assert files(tmp_path) == {"script.py", "out/history.csv", "out/checkpoints/best.ckpt", "out/checkpoints/last.ckpt"}


def test_history_has_every_epoch(tmp_path):
    scan = make_scan(rows=3, columns=4)
    model = train(scan, vary(epochs=3, output_dir=tmp_path), make_scan(rows=2, columns=3, seed=9))
    head, *rows = (tmp_path / "history.csv").read_text().splitlines()
    assert head.split(",") == ["epoch", "train_loss", "test_loss", "learning_rate"]
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3"]
    for column, name in enumerate(head.split(",")[1:], 1):
        assert [float(row.split(",")[column]) for row in rows] == pytest.approx(model.history[name], rel=1e-8)


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    scan = make_scan(rows=3, columns=4)
    model = train(scan, vary(output_dir=tmp_path, loggers=("tensorboard", "tensorboard")))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (tmp_path / "tensorboard").glob("events.*")
    read = EventAccumulator(str(events)).Reload()
    assert [event.value for event in read.Scalars("train_loss")] == pytest.approx(model.history["train_loss"], rel=1e-6)


@pytest.mark.slow
def test_mlflow(tmp_path):
    for needed in ("mlflow", "sqlalchemy", "alembic"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    done = run(
        tmp_path,
        """
model = train(scan, vary(output_dir=Path("out"), loggers=("mlflow",)))
from mlflow import MlflowClient
client = MlflowClient(f"sqlite:///{Path('out/mlflow.db').resolve()}")
experiment = client.get_experiment_by_name("ptycho")
(found,) = client.search_runs([experiment.experiment_id])
values = [m.value for m in client.get_metric_history(found.info.run_id, "train_loss")]
print(max(abs(a - b) for a, b in zip(values, model.history["train_loss"], strict=True)) < 1e-6)
""",
    )
    assert done.stdout.splitlines()[-1] == "True"
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(
    ("name", "missing"),
    [("mlflow", "mlflow"), ("mlflow", "sqlalchemy"), ("mlflow", "alembic"), ("tensorboard", "tensorboard")],
)
def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch, name, missing):
    for module in ("mlflow", "sqlalchemy", "alembic"):
        monkeypatch.setitem(sys.modules, module, None if module == missing else sys)
    if name == "tensorboard":
        of_lightning = importlib.import_module("lightning.fabric.loggers.tensorboard")
        monkeypatch.setattr(of_lightning, "_TENSORBOARD_AVAILABLE", False)
        monkeypatch.setattr(of_lightning, "_TENSORBOARDX_AVAILABLE", False)
    with pytest.raises(ConfigError, match=rf"'{name}' needs a package that is not installed .*ptycho-core\[{name}\]"):
        train(make_scan(rows=2, columns=3), vary(output_dir=tmp_path, loggers=(name,)))
    assert list(tmp_path.iterdir()) == []


def test_trackers_need_a_folder():
    with pytest.raises(ConfigError, match=r"loggers = \['tensorboard'\], but output_dir is None.*set output_dir"):
        train(make_scan(rows=2, columns=3), vary(loggers=("tensorboard",)))
