"""What a caller of the facade gets is the same from either engine, but for the engine's name and the last digits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from both_engines import NAMES, assert_alike, hard_scan
from engines.engine_scans import config_for, vary

import ptycho_core
from ptycho_core.data.results import CdiResult, Image

pytestmark = pytest.mark.both

BASE = vary(
    epochs=2, batch_size=3, learning_rate=3e-3, model={"sweeps": 3}, probe_trainable=True, scale_trainable=True,
    schedule="one_cycle", inference={"central_crop_px": 14},
)  # fmt: skip

TOLERANCES = {
    "history": 1e-5,
    "model.history": 1e-5,
    "model.weights": 2e-3,  # biases begin at 0, and one ReLU on the edge shows; test_both_training measures in steps
    "model.probe": 1e-5,
    "model.scale": 1e-5,
    "probe": 1e-5,
    "reconstructed_obj": 1e-4,
    "reconstruction.image.object": 1e-4,
    "reconstruction.image.coverage": 1e-5,
    "reconstruction.image.positions_px": 1e-6,
    "reconstruction.image.stats": 1e-3,  # what was tried, and its gain
    "reconstruction.image.probe": 1e-5,
    "reconstruction.image.scale": 1e-4,
    "reconstruction.train": 1e-4,
    "reconstruction.heldout": 1e-4,
    "reconstruction.frame_sums": 1e-3,
    "reconstruction.examples": 1e-4,
    "reconstruction.scan.probe": 1e-5,
    "reconstruction.scan.raw.probe": 1e-5,
}
"""Of what is computed, relative to the largest; the rest is equal: containers, positions, configs, provenance."""

FREE = frozenset(
    {
        "backend", "model.backend", "config.backend", "model.config.backend", "reconstruction.engine",
        "provenance.config.backend", "provenance.engine.name", "provenance.versions", "provenance.time_utc",
        "provenance.runtime.threads_chosen",
    }
)  # fmt: skip
"""What tells the engine and the moment."""


@pytest.fixture(scope="module")
def scans():
    return hard_scan(), hard_scan(rows=2, columns=3, seed=9)


@pytest.fixture(scope="module")
def results(engines, scans) -> dict[str, CdiResult]:
    """Both engines' results of one call."""
    return {
        name: ptycho_core.run_cdi_example(
            *scans, *config_for(engine, BASE), flip_y=True, transpose=True, do_stitching=True
        )
        for name, engine in engines.items()
    }


@pytest.mark.spec("CDI-2", "BE-14")
def test_results_are_alike_all_the_way_down(results):
    one, other = (results[name].results for name in NAMES)
    assert_alike(dict(one), dict(other), tolerances=TOLERANCES, free=FREE)
    assert (one["backend"], one["model"].backend) == (NAMES[0], NAMES[0])
    assert (other["backend"], other["model"].backend) == (NAMES[1], NAMES[1])


def test_amplitude_and_phase_are_alike(results):
    one, other = (results[name] for name in NAMES)
    assert one.amplitude.dtype == other.amplitude.dtype == np.float32
    assert_alike(one.amplitude, other.amplitude, tolerances={"": 1e-4})
    # the phase of a dark pixel is anything
    bright = other.amplitude > 0.1
    assert bright.mean() > 0.5
    turn = np.angle(np.exp(1j * (one.phase - other.phase)))
    assert np.abs(turn[bright]).max() < 1e-3
    assert one.phase.dtype == other.phase.dtype == np.float32


def test_provenance_differs_in_the_engine_only(results):
    one, other = (results[name].results["provenance"] for name in NAMES)
    assert {**one["engine"], "name": ""} == {**other["engine"], "name": ""}
    shared = one["versions"].keys() & other["versions"].keys()
    assert "numpy" in shared
    assert all(one["versions"][name] == other["versions"][name] for name in shared)
    assert one["versions"].keys() - shared == {"torch", "lightning"}
    assert other["versions"].keys() - shared in ({"tensorflow"}, {"tensorflow_cpu"})


@pytest.mark.parametrize("do_stitching", [False, True])
def test_without_a_test_scan_the_same_is_missing(engines, scans, do_stitching):
    one, other = (
        _without_test(config_for(engine, vary(BASE, epochs=1)), scans[0], do_stitching) for engine in engines.values()
    )
    missing = ["test_container", "checkpoint_path"]
    if do_stitching:  # the image is then of the scan that was trained on
        assert_alike(one.amplitude, other.amplitude, tolerances={"": 1e-4})
    else:
        assert one.amplitude is one.phase is other.amplitude is other.phase is None
        missing += ["reconstructed_obj", "reconstruction"]
    assert_alike(dict(one.results), dict(other.results), tolerances=TOLERANCES, free=FREE)
    assert [name for name, value in one.results.items() if value is None] == missing


def _without_test(config: Any, scan: Any, do_stitching: bool) -> CdiResult:
    with pytest.warns(UserWarning, match="no test data"):
        return ptycho_core.run_cdi_example(scan, None, *config, do_stitching=do_stitching)


def test_progress_tells_the_same_steps(engines, scans):
    """The same stages, counts and names of figures, also while the image is made and refined."""
    told = []
    for engine in engines.values():
        events: list = []
        config = config_for(engine, vary(BASE, epochs=1))
        ptycho_core.run_cdi_example(*scans, *config, do_stitching=True, progress=events.append)
        told.append([(e.stage, e.done, e.total, sorted(e.metrics)) for e in events])
    assert told[0] == told[1]
    assert {stage for stage, *_ in told[0]} == {"train", "reconstruct", "refine"}


def test_a_folder_changes_the_same_fields(engines, scans, tmp_path: Path):
    out = [
        ptycho_core.train_cdi_model(*scans, *config_for(engine, vary(BASE, epochs=1, output_dir=tmp_path)))
        for engine in engines.values()
    ]
    assert_alike(dict(out[0]), dict(out[1]), tolerances=TOLERANCES, free=FREE)
    assert out[0]["checkpoint_path"] == tmp_path / "checkpoints" / "last.ckpt"


# ---- the comparison itself

SAMPLE = {
    "history": {"train_loss": [1.0, 2.0]},
    "reconstruction": Image(
        object=np.ones((2, 3), np.complex64), coverage=np.ones((2, 3), np.float32), origin_px=np.zeros(2),
        probe=np.ones((1, 2, 2), np.complex64), scale=1.0, positions_px=np.zeros((1, 2)),
        stats={"dropped_non_finite_patches": 3},
    ),
    "folder": Path("a"),
    "names": ("a", "b"),
}  # fmt: skip


def changed(**fields: Any) -> dict:
    return {**SAMPLE, "reconstruction": dataclasses.replace(SAMPLE["reconstruction"], **fields)}


@pytest.mark.parametrize(
    "other",
    [
        {**SAMPLE, "history": {"train_loss": [1.0, 2.001]}},
        {**SAMPLE, "history": {"train_loss": [1.0, 2.0, 3.0]}},
        {**SAMPLE, "history": {"train_loss": [1.0, 2]}},
        {**SAMPLE, "history": {"train_loss": np.array([1.0, 2.0])}},
        {**SAMPLE, "history": {}},
        dict(reversed(SAMPLE.items())),
        {**SAMPLE, "more": None},
        {**SAMPLE, "folder": "a"},
        {**SAMPLE, "names": ["a", "b"]},
        {**SAMPLE, "names": ("a", "c")},
        changed(object=np.ones((2, 3), np.complex128)),
        changed(object=np.ones((3, 2), np.complex64)),
        changed(object=np.full((2, 3), 1.001, np.complex64)),
        changed(origin_px=np.full(2, 1e-9)),
        changed(scale=np.float64(1.0)),
        changed(stats={"dropped_non_finite_patches": 4}),
        changed(scale=float("nan")),
    ],
)
def test_a_difference_is_noticed(other):
    limits = {"history": 1e-4, "reconstruction.object": 1e-4, "reconstruction.scale": 1e-4}
    assert_alike(SAMPLE, changed(object=np.full((2, 3), 1.00001, np.complex64)), tolerances=limits)
    with pytest.raises(AssertionError):
        assert_alike(SAMPLE, other, tolerances=limits)


def test_a_free_value_must_still_have_its_type():
    free = frozenset({"names"})
    assert_alike(SAMPLE, {**SAMPLE, "names": ("z",)}, free=free)
    with pytest.raises(AssertionError, match="names"):
        assert_alike(SAMPLE, {**SAMPLE, "names": None}, free=free)
