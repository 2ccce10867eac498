"""Trackers that a runtime asks for, fed with the figures of an epoch; none is imported otherwise, and no framework."""

from __future__ import annotations

import importlib
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ..errors import ConfigError
from ..runtime import Runtime

__all__ = ["Trackers", "check_trackers"]

_MODULES = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),  # MLflow's small package comes without its database
}


def check_trackers(runtime: Runtime) -> None:
    """Refuse trackers that cannot be used, before anything is computed.

    Raises:
        ConfigError: trackers without a folder to write to, or one that is not installed.
    """
    if runtime.loggers and runtime.output_dir is None:
        raise ConfigError(
            f"loggers = {list(runtime.loggers)}, but output_dir is None, which writes nothing; set output_dir."
        )
    for name in runtime.loggers:
        try:
            for module in _MODULES[name]:
                importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"loggers = {list(runtime.loggers)}: {name!r} needs a package that is not installed "
                f"({str(error).splitlines()[0]}). "
                f"Run: pip install 'ptycho-core[{name}]', or leave it out."
            ) from error


class _Tracker(Protocol):
    def log(self, figures: Mapping[str, float], step: int) -> None: ...
    def close(self, status: str) -> None: ...


class _TensorBoard:
    """An event file, written record by record: what TensorBoard and the frameworks have for it loads a framework."""

    def __init__(self, folder: Path) -> None:
        self._event: Any = importlib.import_module("tensorboard.compat.proto.event_pb2").Event
        self._summary: Any = importlib.import_module("tensorboard.compat.proto.summary_pb2").Summary
        records = importlib.import_module("tensorboard.summary.writer.record_writer")
        own = folder / "tensorboard"
        own.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._writer: Any = records.RecordWriter((own / name).open("wb"))
        self._write(file_version="brain.Event:2")

    def _write(self, **content: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **content).SerializeToString())
        self._writer.flush()

    def log(self, figures: Mapping[str, float], step: int) -> None:
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._write(step=step, summary=self._summary(value=values))

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


_KINDS: dict[str, Callable[[Path], _Tracker]] = {"tensorboard": _TensorBoard, "mlflow": _MlFlow}


class Trackers:
    """The trackers of a training, open as a context; :func:`check_trackers` says whether they can be.

    A tracker that fails, on a full disk or for whatever reason of its own, is told of in a warning and left out from
    there on: what it keeps is in the history too, and no training ends for it.
    """

    def __init__(self, runtime: Runtime, *, wanted: bool = True) -> None:
        self._trackers: dict[str, _Tracker] = {}
        if runtime.output_dir is not None and wanted:
            for name in dict.fromkeys(runtime.loggers):
                with self._costing_only(name):
                    self._trackers[name] = _KINDS[name](runtime.output_dir)

    @contextmanager
    def _costing_only(self, name: str) -> Iterator[None]:
        """Leave a tracker out whose part of the block fails."""
        try:
            yield
        except Exception as error:  # a database, a protocol, a disk: each raises its own kind
            self._trackers.pop(name, None)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            warnings.warn(
                f"{name} got no more figures ({reason}); the training goes on, its history is in the results",
                UserWarning,
                stacklevel=3,
            )

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._costing_only(name):
                tracker.close("FINISHED" if error is None else "FAILED")

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Pass the figures of an epoch on."""
        for name, tracker in list(self._trackers.items()):
            with self._costing_only(name):
                tracker.log(figures, step)
