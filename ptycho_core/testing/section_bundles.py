"""Saving and loading: the same image in another process, and refusal of what is not the engine's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ..bundle import read_bundle, write_bundle
from ..errors import ArchiveError, PtychoError
from .base import Section, agree
from .bench import Bench
from .fresh import Answers
from .tolerances import SAME_IMAGE

__all__ = ["BundleSection"]

_STRANGER = "engine_from_elsewhere"


class BundleSection(Section):
    """What becomes of a model outside this process."""

    def test_a_bundle_gives_the_same_image_in_a_fresh_process(self, bench: Bench, fresh: Answers) -> None:
        """Saved here, loaded and reconstructed in a process that knows only the file: the same image and history."""
        assert not fresh.fault, f"the other process could not use the bundle: {fresh.fault.strip().splitlines()[-1]}"
        assert fresh.image is not None
        agree(fresh.image, bench.reconstruction.object, SAME_IMAGE, "the object in the other process")
        here = bench.reconstruction.scale
        assert fresh.scale == pytest.approx(here, rel=1e-6), f"scale = {fresh.scale:.8g} there and {here:.8g} here"
        history = {name: list(values) for name, values in bench.model.history.items()}
        assert fresh.history == history, f"the history there is {fresh.history}"

    def test_a_bundle_says_what_it_is(self, bench: Bench, tmp_path: Path) -> None:
        """A saved model is a bundle of this engine's name, with the config, probe and statistics it was trained to."""
        path = tmp_path / "model.ptycho"
        assert bench.engine.save(bench.model, path) is None  # type: ignore[func-returns-value]
        bundle = read_bundle(path)
        assert bundle.backend == bench.engine.name, f"the bundle says it is of engine {bundle.backend!r}"
        expected = None if bench.config.model is None else bench.config.model.generator
        assert bundle.generator == expected, f"the bundle says generator {bundle.generator!r}; it must be {expected!r}"
        np.testing.assert_array_equal(bundle.probe, bench.model.probe)
        assert bundle.statistics == bench.model.statistics
        assert (bundle.config.seed, bundle.config.loss) == (bench.config.seed, bench.config.loss)

    def test_a_foreign_bundle_is_refused_by_name(self, bench: Bench, tmp_path: Path) -> None:
        """A solver's bundle of another engine is an ArchiveError that names that engine and this one."""
        own, path = tmp_path / "own.ptycho", tmp_path / "foreign.ptycho"
        bench.engine.save(bench.model, own)
        weights = {"something": np.ones((2, 3), np.float32)}
        write_bundle(
            path, replace(read_bundle(own), backend=_STRANGER, generator=None, weights=weights, forward_model="")
        )
        with pytest.raises(ArchiveError) as caught:
            bench.engine.load(path)
        for name in (_STRANGER, bench.engine.name):
            assert name in str(caught.value), f"the refusal does not name {name!r}: {caught.value}"

    def test_a_bundle_with_other_weights_is_refused(self, bench: Bench, tmp_path: Path) -> None:
        """A bundle of this engine without its weights is an ArchiveError, not a model made of something else."""
        own, path = tmp_path / "own.ptycho", tmp_path / "empty.ptycho"
        bench.engine.save(bench.model, own)
        write_bundle(path, replace(read_bundle(own), weights={"something": np.ones((2, 3), np.float32)}))
        with pytest.raises(ArchiveError):
            bench.engine.load(path)

    @pytest.mark.parametrize("fault", ["cut", "text", "missing"])
    def test_a_damaged_bundle_is_refused(self, bench: Bench, tmp_path: Path, fault: str) -> None:
        """Half a bundle, a text and no file at all are errors of this package that name the file."""
        path = tmp_path / f"{fault}.ptycho"
        if fault == "cut":
            bench.engine.save(bench.model, path)
            path.write_bytes(path.read_bytes()[:-200])
        if fault == "text":
            path.write_text("no bundle")
        with pytest.raises(PtychoError, match=f"{fault}.ptycho"):
            bench.engine.load(path)
