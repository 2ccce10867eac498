"""Trackers that a config asks for; none is imported otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import tensorflow as tf

from ptycho_core.runtime import Runtime

__all__ = ["Trackers"]


class _Tracker(Protocol):
    def log(self, figures: Mapping[str, float], step: int) -> None: ...
    def close(self, status: str) -> None: ...


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        self._writer = tf.summary.create_file_writer(str(folder / "tensorboard"))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        with self._writer.as_default():
            for name, value in figures.items():
                tf.summary.scalar(name, value, step)
        self._writer.flush()

    def close(self, status: str) -> None:
        self._writer.close()


class _MlFlow:
    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        known: Any = self._client.get_experiment_by_name("ptycho")
        location = (folder / "mlflow-artifacts").resolve().as_uri()
        experiment = known.experiment_id if known else self._client.create_experiment("ptycho", location)
        self._run = self._client.create_run(experiment).info.run_id

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self, status: str) -> None:
        self._client.set_terminated(self._run, status)


_KINDS = {"tensorboard": _TensorBoard, "mlflow": _MlFlow}


class Trackers:
    """The trackers of a training, open as a context; ``check_trackers`` says whether they can be."""

    def __init__(self, runtime: Runtime) -> None:
        self._trackers: list[_Tracker] = []
        if runtime.output_dir is not None:
            self._trackers = [_KINDS[name](runtime.output_dir) for name in dict.fromkeys(runtime.loggers)]

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tracker in self._trackers:
            tracker.close("FINISHED" if error is None else "FAILED")

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Pass the figures of an epoch on."""
        for tracker in self._trackers:
            tracker.log(figures, step)
