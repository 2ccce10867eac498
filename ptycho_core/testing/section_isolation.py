"""An engine depends on its arguments alone, changes none of them, and leaves the process as it was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..protocol import ProgressEvent, SupportsExpectedCounts, SupportsPhysicsGradient, TrainedModel
from .base import Section, agree, shares_nothing
from .bench import Bench
from .section_physics import image_and_scan
from .section_training import same_training
from .tolerances import REPEATED
from .traces import arrays_in, arrays_of, digest

__all__ = ["IsolationSection"]


def _spoil(arrays: Iterable[Any]) -> None:
    """Overwrite arrays that can be written."""
    for array in arrays:
        if isinstance(array, np.ndarray) and array.flags.writeable:
            array[...] = 77


class IsolationSection(Section):
    """What an engine must not do."""

    def test_inputs_are_not_changed(self, bench: Bench) -> None:
        """Arrays, scan and config that were given are what they were, and read-only arrays do as well."""
        p, engine = bench.problem(), bench.engine
        raw = p.scan(mask=bench.offers.mask, background=bench.offers.background)
        image, scan = image_and_scan(p.obj, p.probe, p.positions_px)
        given = arrays_in(image) | arrays_of(scan)
        before = {name: digest(array) for name, array in given.items()}
        for writeable in (True, False):
            for array in arrays_in(image).values():
                array.flags.writeable = writeable
            if isinstance(engine, SupportsExpectedCounts):
                engine.expected_counts(image, scan, np.arange(len(p.counts)))
            if isinstance(engine, SupportsPhysicsGradient):
                engine.loss_and_gradient(image.object, image.probe, raw, bench.config.loss or "poisson")
            changed = [name for name, array in given.items() if digest(array) != before[name]]
            assert not changed, f"expected_counts or loss_and_gradient changed {', '.join(changed)}, which it was given"
        changed = [what for what in bench.watched.changed if what.startswith(("the scan's", "the config"))]
        assert not changed, f"training or reconstruction changed {', '.join(changed)}, which it was given"

    def test_results_share_nothing_with_the_engine(self, bench: Bench, tmp_path: Path) -> None:
        """A result is memory of nothing that was given; writing into one changes neither the model nor the next one."""
        path, scan = tmp_path / "model.ptycho", bench.other_scan
        bench.engine.save(bench.watched.model, path)
        model = bench.engine.load(path)
        wanted = bench.image(model, scan).object.copy()
        spoilt = bench.image(model, scan)
        given = {f"the scan's {name}": array for name, array in arrays_of(scan).items()}
        shares_nothing(spoilt, given | {"the model's probe": model.probe})
        _spoil(getattr(spoilt, f.name) for f in fields(spoilt))
        agree(bench.image(model, scan).object, wanted, REPEATED, "the image, after one was written into")
        if isinstance(bench.engine, SupportsExpectedCounts):
            p = bench.problem()
            image, bare = image_and_scan(p.obj, p.probe, p.positions_px)
            first = bench.engine.expected_counts(image, bare, np.arange(6))
            counts = first.copy()
            _spoil([first])
            again = bench.engine.expected_counts(image, bare, np.arange(6))
            agree(again, counts, REPEATED, "expected_counts, after a result was spoilt")
        for values in model.history.values():
            values.clear()
        assert all(bench.engine.load(path).history.values()), "two models share one history"

    def test_two_configs_can_be_interleaved(self, bench: Bench) -> None:
        """A training inside another's progress: each ends as it does alone."""
        inner: list[TrainedModel] = []

        def interleave(event: ProgressEvent) -> None:
            if not inner and event.done >= max(1, event.total // 3):
                inner.append(bench.train(bench.other_scan, config=bench.other_config()))

        outer = bench.train(progress=interleave)
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
        changed = [what for what in watched if not what.startswith(("the scan's", "the config"))]
        assert not changed, f"training or reconstruction changed {', '.join(changed)}"
