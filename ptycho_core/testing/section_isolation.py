"""An engine depends on its arguments alone, changes none of them, and leaves the process as it was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..plugins.returned import check_reconstruction
from ..protocol import ProgressEvent, SupportsPhysicsGradient, TrainedModel
from .base import Section, agree, shares_nothing
from .bench import Bench
from .section_training import same_training
from .tolerances import REPEATED
from .traces import arrays_of, digest

__all__ = ["IsolationSection"]


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
        obj, probe, positions = p.obj.astype(np.complex64), p.probe.astype(np.complex64), p.positions_px.copy()
        arrays: tuple[NDArray[Any], ...] = (obj, probe, positions)
        before = [digest(array) for array in arrays]
        for writeable in (True, False):
            for array in arrays:
                array.flags.writeable = writeable
            engine.simulate(obj, probe, positions)
            assert [digest(array) for array in arrays] == before, "simulate changed an array it was given"
            if isinstance(engine, SupportsPhysicsGradient):
                engine.loss_and_gradient(obj, probe, raw, bench.config.loss)
                assert [digest(array) for array in arrays] == before, "loss_and_gradient changed an array it was given"
        changed = [what for what in bench.watched.changed if what.startswith(("train.", "data.", "the config"))]
        assert not changed, f"training or reconstruction changed {', '.join(changed)}, which it was given"

    def test_results_share_nothing_with_the_engine(self, bench: Bench, tmp_path: Path) -> None:
        """A result is memory of nothing that was given; writing into one changes neither the model nor the next one."""
        path = tmp_path / "model.ptycho"
        bench.engine.save(bench.watched.model, path)
        model = bench.engine.load(path)
        wanted = bench.image(model, bench.other_scan).object.copy()
        laid_out = bench.lay_out(bench.other_scan)
        spoilt = check_reconstruction(
            bench.engine.reconstruct(model, laid_out, bench.config.inference), laid_out, bench.engine.name, 0.0
        )
        given = {f"the scan's {name}": array for name, array in arrays_of(laid_out).items()}
        shares_nothing(spoilt, given | {"the model's probe": model.probe})
        _spoil(getattr(spoilt, f.name) for f in fields(spoilt))
        agree(bench.image(model, bench.other_scan).object, wanted, REPEATED, "the image, after one was written into")
        p = bench.problem()
        obj, probe = p.obj.astype(np.complex64), p.probe.astype(np.complex64)
        first = bench.engine.simulate(obj, probe, p.positions_px)
        counts = first.copy()
        _spoil([first])
        agree(
            bench.engine.simulate(obj, probe, p.positions_px), counts, REPEATED, "simulate, after a result was spoilt"
        )
        for values in model.history.values():
            values.clear()
        assert all(bench.engine.load(path).history.values()), "two models share one history"

    def test_two_configs_can_be_interleaved(self, bench: Bench) -> None:
        """A training inside another's progress: each ends as it does alone."""
        inner: list[TrainedModel] = []

        def interleave(event: ProgressEvent) -> None:
            if not inner and event.done >= max(1, event.total // 3):
                inner.append(bench.train(bench.other_scan, bench.other_config()))

        outer = bench.train(bench.scan, test=bench.held_out, progress=interleave)
        same_training(outer, bench.model, bench, "with another training inside it")
        assert inner, "progress was never called"
        for name, values in bench.watched.model.history.items():
            agree(inner[0].history[name], values, REPEATED, f"inside another training: history[{name!r}]")
        found = bench.image(inner[0], bench.other_scan).object
        agree(found, bench.watched.image.object, REPEATED, "inside another training: the object")

    def test_the_process_is_left_as_it_was(self, bench: Bench) -> None:
        """Random states, NumPy's settings, warnings, logging, signals, environment and folder are untouched."""
        watched = bench.watched.changed
        assert not bench.first_training_changed, f"the first training changed {', '.join(bench.first_training_changed)}"
        changed = [what for what in watched if not what.startswith(("train.", "data.", "the config"))]
        assert not changed, f"training or reconstruction changed {', '.join(changed)}"
