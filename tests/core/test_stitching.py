"""Stitching a scan, and binding an object into an image."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from physics_problem import Problem, make_problem

from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.enginekit.stitching import Stitcher, corners_on, make_image, probe_weights
from ptycho_core.errors import BackendError, ConfigError, DataError
from ptycho_core.physics.patches import extract, merge

N = 16


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(N)


def scan(p: Problem) -> PtychoDataContainer:
    """The problem away from the origin; its frame without counts gets one, so that every frame is used."""
    counts = p.counts.copy()
    counts[2, 8, 8] = 1
    raw = RawData.from_arrays(counts, p.positions_px + np.array([-30.0, 100.0]), p.probe, background=p.background)
    return PtychoDataContainer.of(raw, heldout=[4])


def image_of(p: Problem, obj: np.ndarray, **more: Any) -> Image:
    probe = p.probe.astype(np.complex64)
    positions = scan(p).raw.positions_px
    return make_image(obj, np.ones(obj.shape, np.float32), np.array([-30, 100]), probe, 3, positions.copy(), **more)


def pieces(p: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patches that disagree where they overlap, their weights, and their corners in scan coordinates."""
    rng = np.random.default_rng(8)
    patches = extract(p.obj, p.corners, N) + 0.3 * rng.normal(size=(len(p.corners), N, N))
    weights = probe_weights(p.probe.astype(np.complex64), p.rest)
    return patches.astype(np.complex64), weights, p.corners + np.array([-30, 100])


@pytest.mark.spec("DATA-13", "FM-7")
def test_stitching_is_the_weighted_mean_whatever_the_order_and_batches(problem: Problem) -> None:
    patches, weights, corners = pieces(problem)
    wanted = merge(patches.astype(complex), weights, problem.corners, problem.obj.shape)
    raw = scan(problem)
    for order, batch in ((np.arange(6), 6), (np.array([4, 0, 5, 2, 1, 3]), 1), (np.arange(6)[::-1], 4)):
        stitcher = Stitcher.for_scan(raw)
        for start in range(0, 6, batch):
            chosen = order[start : start + batch]
            stitcher.add(patches[chosen], weights[chosen], corners[chosen])
        obj, coverage = stitcher.finish(2.0)
        assert obj.dtype == np.complex64
        assert coverage.dtype == np.float32
        np.testing.assert_allclose(obj, wanted, atol=1e-4)
        total = np.zeros(problem.obj.shape)
        for w, (y, x) in zip(weights, problem.corners, strict=True):
            total[y : y + N, x : x + N] += w
        np.testing.assert_allclose(coverage, total / 2.0, rtol=1e-4)


@pytest.mark.spec("DATA-15", "CONV-1", "CONV-2")
def test_the_origin_is_where_pixel_zero_lies(problem: Problem) -> None:
    raw = scan(problem).raw
    stitcher = Stitcher.for_scan(scan(problem))
    corners, _ = integer_corners(raw.positions_px, N)
    np.testing.assert_array_equal(stitcher.origin_px, [-30, 100])
    assert stitcher.numerator.shape == problem.obj.shape  # taller than wide
    # a bright spot at the centre of frame 1 must be found at that frame's position
    spot = np.zeros((1, N, N), np.complex64)
    spot[0, 7:9, 7:9] = 1
    stitcher.add(spot, np.ones((1, N, N), np.float32), corners[1:2])
    obj, _ = stitcher.finish(1.0)
    y, x = np.nonzero(obj)
    place = stitcher.origin_px + np.array([y.mean(), x.mean()])
    np.testing.assert_allclose(place, raw.positions_px[1], atol=0.5)


@pytest.mark.spec("DATA-13")
@pytest.mark.parametrize("crop", [6, 5, 16])
def test_a_central_crop_uses_the_middle_of_each_patch(problem: Problem, crop: int) -> None:
    patches, weights, corners = pieces(problem)
    stitcher = Stitcher.for_scan(scan(problem), crop)
    stitcher.add(patches, weights, corners)
    obj, coverage = stitcher.finish(1.0)
    inset = (N - crop) // 2
    window = np.zeros((N, N))
    window[inset : inset + crop, inset : inset + crop] = 1
    wanted = merge(patches.astype(complex), weights * window, problem.corners, problem.obj.shape)
    np.testing.assert_allclose(obj, wanted, atol=1e-4)
    assert ((coverage > 0) == (wanted != 0)).all()
    with pytest.raises(ConfigError, match="central_crop_px = 17 is larger than the patches, which are 16×16"):
        Stitcher.for_scan(scan(problem), 17)


@pytest.mark.spec("DATA-14")
def test_non_finite_patches_are_left_out_counted_and_fatal_above_one_per_cent(problem: Problem) -> None:
    raw = scan(problem)
    good = np.ones((1, N, N), np.complex64)
    bad = good.copy()
    bad[0, 3, 4] = np.nan + 0j
    weight = np.ones((1, N, N), np.float32)
    corner = np.array([[-30, 100]])
    stitcher = Stitcher.for_scan(raw)
    for _ in range(99):
        stitcher.add(good, weight, corner)
    stitcher.add(bad, weight, corner)
    obj, coverage = stitcher.finish(1.0)
    assert (stitcher.n_patches, stitcher.n_non_finite) == (100, 1)
    np.testing.assert_array_equal(obj[:N, :N], 1)
    np.testing.assert_array_equal(coverage[:N, :N], 99)
    stitcher.add(bad, weight, corner)
    with pytest.raises(BackendError, match="2 of 101 predicted patches hold NaN or infinite values, more than 1%"):
        stitcher.finish(1.0)
    with pytest.raises(BackendError, match="0 of 0"):
        Stitcher.for_scan(raw).finish(1.0)


@pytest.mark.spec("DATA-14")
@pytest.mark.parametrize("corner", [(-31, 100), (-30, 99), (-16, 100), (-30, 107)])
def test_patches_of_another_scan_are_refused_not_clipped(problem: Problem, corner: tuple[int, int]) -> None:
    stitcher = Stitcher.for_scan(scan(problem))
    with pytest.raises(BackendError, match="leave the canvas of shape"):
        stitcher.add(np.ones((1, N, N), np.complex64), np.ones((1, N, N), np.float32), np.array([corner]))


@pytest.mark.spec("DATA-14")
def test_the_canvas_holds_held_out_frames_and_not_the_unused(problem: Problem) -> None:
    raw = scan(problem).raw
    corners, _ = integer_corners(raw.positions_px, N)
    low = np.flatnonzero(corners[:, 0] > np.median(corners[:, 0]))
    others = np.delete(np.arange(6), low)
    one = Stitcher.for_scan(PtychoDataContainer.of(raw, heldout=low))
    two = Stitcher.for_scan(PtychoDataContainer.of(raw, unused={"blank": low}))
    np.testing.assert_array_equal(one.origin_px + one.denominator.shape, corners.max(axis=0) + N)
    np.testing.assert_array_equal(two.origin_px + two.denominator.shape, corners[others].max(axis=0) + N)
    assert one.denominator.shape[0] > two.denominator.shape[0]


@pytest.mark.spec("DATA-13")
def test_memory_does_not_grow_with_the_number_of_patches(problem: Problem) -> None:
    patches, weights, corners = pieces(problem)

    def peak(rounds: int) -> int:
        stitcher = Stitcher.for_scan(scan(problem))
        tracemalloc.start()
        for _ in range(rounds):
            stitcher.add(patches, weights, corners)
        stitcher.finish(1.0)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(200) < 1.2 * peak(2)


@pytest.mark.spec("DATA-14", "CONV-9")
def test_a_non_finite_object_is_an_error(problem: Problem) -> None:
    obj = problem.obj.astype(np.complex64)
    obj[3, 3] = np.inf
    with pytest.raises(BackendError, match="the reconstructed object holds NaN or infinite"):
        image_of(problem, obj)


@pytest.mark.spec("BE-34")
def test_an_image_has_the_types_of_the_contract_and_shares_nothing_with_its_scan(problem: Problem) -> None:
    data, obj = scan(problem), problem.obj.astype(np.complex64)
    image = image_of(problem, obj, stats={"dropped_patches": 2})
    assert image.origin_px.dtype == np.float64
    np.testing.assert_array_equal(image.origin_px, [-30.0, 100.0])
    np.testing.assert_array_equal(image.positions_px, data.raw.positions_px)
    np.testing.assert_array_equal(image.probe, data.probe)
    assert isinstance(image.scale, float)
    assert image.stats == {"dropped_patches": 2}
    assert not np.shares_memory(image.probe, problem.probe)
    made = make_image(obj, np.ones(obj.shape, np.float32), np.array([-30, 100]), data.probe, 1, data.raw.positions_px)
    assert not np.shares_memory(made.probe, data.probe)
    assert not np.shares_memory(made.positions_px, data.raw.positions_px)
    # what could not be written before cannot be written now, and what could, can
    assert (made.probe.flags.writeable, data.probe.flags.writeable) == (False, False)
    assert image.probe.flags.writeable


@pytest.mark.spec("BE-6")
def test_frames_have_their_corners_on_an_image() -> None:
    """In the order asked for, off the grid, at an origin below zero; one that leaves the image is refused."""
    probe = np.ones((2, 4, 4), np.complex64)
    positions = np.array([[-5.5, 3.5], [-4.25, 5.8], [-1.5, 6.5]])
    obj = np.ones((8, 7), np.complex64)
    image = make_image(obj, np.ones((8, 7), np.float32), np.array([-7, 2]), probe, 1.0, positions)
    corners, rest = corners_on(image, np.array([2, 0, 1]))
    np.testing.assert_array_equal(corners, [[4, 3], [0, 0], [1, 2]])
    np.testing.assert_allclose(rest, [[0, 0], [0, 0], [0.25, 0.3]], atol=1e-6)
    assert corners_on(image, np.zeros(0, np.int64))[0].shape == (0, 2)
    for beyond in ([-6.5, 3.5], [-5.5, 2.5], [-0.5, 3.5], [-5.5, 7.5]):
        moved = replace(image, positions_px=np.array([beyond] * 3))
        with pytest.raises(DataError, match="do not fit the object"):
            corners_on(moved, np.array([1]))
