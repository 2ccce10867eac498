"""An engine depends on its arguments alone, changes none of them, and leaves the process as it was."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import warnings
from collections.abc import Iterable
from dataclasses import fields

# `random` and `numpy.random` are looked at here, to see that an engine leaves them alone; nothing is drawn from them
from random import getstate
from typing import Any

import numpy as np
from numpy.random import get_state
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer
from ..errors import Cancelled
from ..protocol import ProgressEvent, SupportsPhysicsGradient, TrainedModel
from .base import Section, agree
from .bench import Bench
from .tolerances import REPEATED
from .section_training import same_training

__all__ = ["IsolationSection"]


def _digest(arrays: Iterable[NDArray[Any]]) -> list[str]:
    return [hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays]


def _arrays_of(data: PtychoDataContainer) -> dict[str, NDArray[Any]]:
    """Every array that a container and its scan hold, counts included."""
    raw = data.raw
    found = {f.name: getattr(data, f.name) for f in fields(data)} | {f.name: getattr(raw, f.name) for f in fields(raw)}
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    return arrays | {"counts": raw.frames.read(np.arange(raw.n_frames))}


def _process_state() -> dict[str, Any]:
    """Whatever of the process an engine could have changed."""
    return {
        "the global random state of Python": getstate(),
        "the global random state of NumPy": [str(part) for part in get_state()],
        "NumPy's error settings": np.geterr(),
        "NumPy's print options": np.get_printoptions(),
        "the warning filters": list(warnings.filters),
        "the root logger's handlers": list(logging.root.handlers),
        "the root logger's level": logging.root.level,
        "the handler of SIGINT": signal.getsignal(signal.SIGINT),
        "the handler of SIGTERM": signal.getsignal(signal.SIGTERM),
        "the environment": dict(os.environ),
        "the current folder": os.getcwd(),
    }


def _spoil(arrays: Iterable[Any]) -> None:
    """Overwrite arrays that can be written."""
    for array in arrays:
        if isinstance(array, np.ndarray) and array.flags.writeable:
            array[...] = 77


class IsolationSection(Section):
    """What an engine must not do."""

    def test_inputs_are_not_changed(self, bench: Bench) -> None:
        """Arrays, groups and config that were given are what they were, and read-only arrays do as well."""
        p, engine = bench.problem(), bench.engine
        raw = p.scan(mask=bench.offers.mask, background=bench.offers.background)
        for writeable in (True, False):
            arrays = [p.obj.astype(np.complex64), p.probe.astype(np.complex64), p.positions_px.copy()]
            for array in arrays:
                array.flags.writeable = writeable
            before = _digest(arrays)
            engine.simulate(*arrays)
            assert _digest(arrays) == before, "simulate changed an array it was given"
            if isinstance(engine, SupportsPhysicsGradient):
                engine.loss_and_gradient(arrays[0], arrays[1], raw, bench.config.loss)
                assert _digest(arrays) == before, "loss_and_gradient changed an array it was given"
        groups, laid_out = bench.groups(bench.other_scan), bench.lay_out(bench.other_scan)
        held = {**_arrays_of(groups), **{f"laid out {k}": v for k, v in _arrays_of(laid_out).items()}}
        before = _digest(held.values())
        config = bench.other_config()
        described = repr(config)
        model = engine.train(groups, None, config)
        engine.reconstruct(model, laid_out, config.inference)
        again = {**_arrays_of(groups), **{f"laid out {k}": v for k, v in _arrays_of(laid_out).items()}}
        changed = [name for name, a, b in zip(held, before, _digest(again.values()), strict=True) if a != b]
        assert not changed, f"training or reconstruction changed {', '.join(changed)} of the container it was given"
        assert repr(config) == described, "training changed the config"

    def test_results_share_nothing_with_the_engine(self, bench: Bench) -> None:
        """Whoever writes into a result changes neither the model nor the next result."""
        model = bench.train(bench.other_scan, bench.other_config())
        wanted = bench.image(model, bench.other_scan).object.copy()
        spoilt = bench.image(model, bench.other_scan)
        _spoil(getattr(spoilt, f.name) for f in fields(spoilt))
        agree(bench.image(model, bench.other_scan).object, wanted, REPEATED, "the image, after one was written into")
        p = bench.problem()
        obj, probe = p.obj.astype(np.complex64), p.probe.astype(np.complex64)
        first = bench.engine.simulate(obj, probe, p.positions_px)
        counts = first.copy()
        _spoil([first])
        agree(bench.engine.simulate(obj, probe, p.positions_px), counts, REPEATED, "simulate, after a result was spoilt")
        history = bench.other_model.history
        for values in model.history.values():
            values.clear()
        assert all(history.values()), "two models share one history"

    def test_two_configs_can_be_interleaved(self, bench: Bench) -> None:
        """A training inside another's progress: each ends as it does alone."""
        inner: list[TrainedModel] = []

        def interleave(event: ProgressEvent) -> None:
            if not inner and event.done >= max(1, event.total // 3):
                inner.append(bench.train(bench.other_scan, bench.other_config()))

        outer = bench.train(bench.scan, test=bench.held_out, progress=interleave)
        same_training(outer, bench.model, bench, "with another training inside it")
        assert inner, "progress was never called"
        for name, values in bench.other_model.history.items():
            agree(inner[0].history[name], values, REPEATED, f"inside another training: history[{name!r}]")
        images = [bench.image(model, bench.other_scan).object for model in (inner[0], bench.other_model)]
        agree(*images, REPEATED, "inside another training: the object")

    def test_the_process_is_left_as_it_was(self, bench: Bench) -> None:
        """Random states, settings of NumPy, warnings, logging, signals, environment and folder are untouched."""

        def stop(event: ProgressEvent) -> None:
            raise Cancelled

        _ = bench.model  # whatever a first training sets up once is there already
        before = _process_state()
        bench.image(bench.train(bench.other_scan, bench.other_config()), bench.other_scan)
        try:
            bench.train(bench.other_scan, progress=stop)
        except Cancelled:
            pass
        after = _process_state()
        changed = [what for what, value in before.items() if after[what] != value]
        assert not changed, f"training changed {', '.join(changed)}"
