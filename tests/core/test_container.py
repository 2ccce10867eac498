"""PtychoDataContainer: the canvas of each group, lazy counts, statistics of the training split."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from physics_problem import complex_noise, smooth_probe

from ptycho_core.data.container import PtychoDataContainer, Statistics
from ptycho_core.data.raw import RawData
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.physics.forward import far_field
from ptycho_core.physics.patches import extract

M, N = 23, 16


@pytest.fixture
def raw(rng: np.random.Generator) -> RawData:
    positions = rng.uniform([-20.3, 5], [40, 30], size=(M, 2))
    counts = rng.poisson(4.0, size=(M, N, N)).astype(np.float32)
    return RawData.from_arrays(counts, positions, smooth_probe(N))


@pytest.mark.spec("DATA-11", "CONV-2")
@pytest.mark.parametrize("kind", ["training", "reconstruction"])
def test_origin_corner_and_rest_give_back_every_position(raw: RawData, kind: str) -> None:
    if kind == "training":
        container = PtychoDataContainer.for_training(raw, 5, n_groups=31, neighbor_pool_size=7, seed=3)
    else:
        container = PtychoDataContainer.for_reconstruction(raw, 5)
    place = container.canvas_origin_px[:, None] + container.corners_px + container.subpixel_px + (N - 1) / 2
    np.testing.assert_allclose(place, raw.positions_px[container.frame_indices], atol=1e-6)
    assert container.subpixel_px.min() >= -0.5
    assert container.subpixel_px.max() < 0.5


@pytest.mark.spec("DATA-11")
def test_a_canvas_is_the_smallest_that_holds_its_group(raw: RawData) -> None:
    container = PtychoDataContainer.for_training(raw, 4, seed=1)
    np.testing.assert_array_equal(container.corners_px.min(axis=1), 0)
    np.testing.assert_array_equal(container.corners_px.max(axis=1) + N, container.canvas_shape)
    assert (container.canvas_shape[:, 0] != container.canvas_shape[:, 1]).any()
    for b in range(container.n_groups):
        height, width = container.canvas_shape[b]
        extract(np.zeros((height, width)), container.corners_px[b], N)  # refuses a patch that leaves it


@pytest.mark.spec("DATA-11", "DATA-3")
def test_counts_are_read_when_asked_for(raw: RawData) -> None:
    container = PtychoDataContainer.for_training(raw, 4, n_groups=M, seed=1)
    everything = raw.read_counts(np.arange(M))
    np.testing.assert_array_equal(container.read_group_counts(3), everything[container.frame_indices[3]])
    several = container.read_group_counts(np.array([5, 0, 5]))
    assert several.shape == (3, 4, N, N)
    np.testing.assert_array_equal(several, everything[container.frame_indices[[5, 0, 5]]])
    assert (container.n_groups, container.group_size) == (M, 4)


@pytest.mark.spec("DATA-10")
def test_a_partition_counts_every_frame_once(raw: RawData) -> None:
    container = PtychoDataContainer.for_reconstruction(raw, 6)
    assert sorted(container.frame_indices[container.counted].tolist()) == list(range(M))
    assert not container.counted.all()
    assert PtychoDataContainer.for_training(raw, 6).counted.all()


@pytest.mark.spec("DATA-2")
def test_arrays_are_read_only(raw: RawData) -> None:
    container = PtychoDataContainer.for_reconstruction(raw, 6)
    names = ("frame_indices", "counted", "corners_px", "subpixel_px", "canvas_origin_px", "canvas_shape", "probe")
    for name in names:
        with pytest.raises(ValueError, match="read-only"):
            getattr(container, name)[...] = 0


@pytest.mark.spec("DATA-11")
def test_types_are_those_of_the_contract(raw: RawData) -> None:
    container = pickle.loads(pickle.dumps(PtychoDataContainer.for_reconstruction(raw, 6)))
    wanted: dict[str, tuple[Any, tuple[int, ...]]] = {
        "frame_indices": (np.int64, (4, 6)),
        "counted": (np.bool_, (4, 6)),
        "corners_px": (np.int64, (4, 6, 2)),
        "subpixel_px": (np.float32, (4, 6, 2)),
        "canvas_origin_px": (np.int64, (4, 2)),
        "canvas_shape": (np.int64, (4, 2)),
        "probe": (np.complex64, (2, N, N)),
    }
    for name, (dtype, shape) in wanted.items():
        value = getattr(container, name)
        assert (value.dtype, value.shape) == (dtype, shape), name


@pytest.mark.spec("DATA-12")
def test_statistics_are_those_of_the_training_split(raw: RawData) -> None:
    train, test = raw.split(0.3, 1)
    assert test is not None
    trained = PtychoDataContainer.for_training(train, 4)
    assert trained.statistics == Statistics.of(train)
    assert trained.statistics.n_frames == train.n_frames
    held_out = PtychoDataContainer.for_reconstruction(test, 4, statistics=trained.statistics)
    assert held_out.statistics is trained.statistics
    assert Statistics.of(test) != trained.statistics
    # repeats in the groups do not move the mean
    assert PtychoDataContainer.for_training(train, 4, n_groups=3, seed=9).statistics == trained.statistics


@pytest.mark.spec("DATA-12", "FM-6")
def test_a_calibrated_probe_has_scale_one(raw: RawData) -> None:
    assert raw.probe is not None
    calibrated = raw.with_probe(raw.probe, calibrated=True)
    assert Statistics.of(calibrated).scale == 1.0
    assert Statistics.of(calibrated).mean_counts == Statistics.of(raw).mean_counts
    assert Statistics.of(raw).scale != 1.0
    # the scale undoes any factor of the probe
    assert Statistics.of(raw.with_probe(3 * raw.probe)).scale == pytest.approx(Statistics.of(raw).scale / 9, rel=1e-6)


@pytest.mark.spec("CONV-9")
def test_impossible_containers_are_refused(raw: RawData, rng: np.random.Generator) -> None:
    bare = RawData.from_arrays(abs(complex_noise(rng, 4, N, N)), rng.uniform(0, 9, (4, 2)))
    with pytest.raises(DataError, match="no probe; initialise one before making groups"):
        PtychoDataContainer.for_training(bare, 2)
    with pytest.raises(DataError, match="no probe"):
        Statistics.of(bare)
    for indices in (np.array([[0, M]]), np.array([[-1, 0]]), np.array([1, 2]), np.zeros((0, 3), np.int64)):
        with pytest.raises(DataError, match=r"must be \(B, C\) numbers of the scan's 23 frames"):
            PtychoDataContainer.from_groups(raw, indices)
    with pytest.raises(DataError, match=r"counted has shape \(1, 3\)"):
        PtychoDataContainer.from_groups(raw, np.array([[0, 1]]), np.ones((1, 3), bool))
    with pytest.raises(ConfigError, match="group_size = 24"):
        PtychoDataContainer.for_training(raw, 24)


@pytest.mark.spec("CONV-9")
def test_statistics_of_empty_frames_are_refused(rng: np.random.Generator) -> None:
    counts = rng.poisson(4.0, size=(4, N, N)).astype(np.float32)
    counts[2] = 0
    raw = RawData.from_arrays(counts, rng.uniform(0, 9, (4, 2)), smooth_probe(N))
    with pytest.raises(DataError, match="all 1 frames are empty"):
        Statistics.of(raw.subset([2]))


@pytest.mark.spec("FM-6")
def test_the_scale_starts_from_the_counts_above_the_background() -> None:
    rng = np.random.default_rng(8)
    counts = rng.poisson(9.0, (6, 16, 16)).astype(np.float32)
    probe = rng.standard_normal((2, 16, 16)) + 1j * rng.standard_normal((2, 16, 16))
    mask = rng.random((16, 16)) > 0.2
    level = rng.random((16, 16))
    raw = RawData.from_arrays(counts, rng.random((6, 2)) * 30, probe, mask=mask, background=level)
    lit = np.sum(np.abs(far_field(raw.probe)) ** 2, axis=0)
    power = lit.sum()
    expected = (counts[:, mask].sum() / 6 - level[mask].sum()) / lit[mask].sum()
    assert Statistics.of(raw).scale == pytest.approx(expected, rel=1e-6)
    drowned = RawData.from_arrays(counts, rng.random((6, 2)) * 30, probe, background=level + 100)
    assert Statistics.of(drowned).scale == pytest.approx(0.01 * counts.sum() / 6 / power, rel=1e-6)
