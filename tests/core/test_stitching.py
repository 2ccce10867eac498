"""Stitching a scan, and scoring an object against every frame."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from physics_problem import Problem, make_problem, smooth_probe

from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.errors import BackendError, ConfigError
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract, merge
from ptycho_core.stitching import Stitcher, finish_reconstruction, probe_weights

N = 16


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(N)


def scan(p: Problem, *, calibrated: bool = False, background: bool = True) -> RawData:
    return RawData.from_arrays(
        p.counts,
        p.positions_px + np.array([-30.0, 100.0]),
        p.probe,
        probe_calibrated=calibrated,
        mask=p.mask,
        background=p.background if background else None,
    )


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
    raw = scan(problem)
    stitcher = Stitcher.for_scan(raw)
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


@pytest.mark.spec("FM-11", "DATA-16")
@pytest.mark.parametrize("calibrated", [False, True])
def test_the_r_factor_is_that_of_the_final_object(problem: Problem, calibrated: bool) -> None:
    raw = scan(problem, calibrated=calibrated, background=False)
    data = PtychoDataContainer.for_reconstruction(raw, 4)
    obj, probe = problem.obj.astype(np.complex64), problem.probe.astype(np.complex64)
    origin = np.array([-30, 100])
    coverage = np.ones(obj.shape, np.float32)
    done = finish_reconstruction(obj, coverage, origin, probe, 3.0, data, dropped={"patches": 2})
    corners, rest = integer_corners(raw.positions_px, N)
    root = np.sqrt(expected_counts(extract(obj, corners - origin, N), probe, rest, 3.0))[:, problem.mask]
    measured = np.sqrt(problem.counts)[:, problem.mask]
    gain = float((root * measured).sum() / (root**2).sum())
    misfit = ((gain * root - measured) ** 2).sum(axis=1)
    assert done.r_factor == pytest.approx(misfit.sum() / (measured**2).sum(), rel=1e-5)
    np.testing.assert_allclose(done.frame_misfit, misfit, rtol=1e-4)
    np.testing.assert_allclose(done.frame_totals, raw.frame_totals, rtol=1e-6)
    assert done.scale == pytest.approx(3.0 if calibrated else 3.0 * gain**2, rel=1e-6)
    chosen = np.array([0, 3])
    assert done.r_factor_of(chosen) == pytest.approx(misfit[chosen].sum() / (measured[chosen] ** 2).sum(), rel=1e-4)
    assert np.isnan(done.r_factor_of(np.array([2])))
    assert done.dropped == {"frames_without_counts": 1, "masked_pixels": int((~problem.mask).sum()), "patches": 2}
    np.testing.assert_array_equal(done.origin_px, [-30.0, 100.0])
    np.testing.assert_array_equal(done.positions_px, raw.positions_px)
    np.testing.assert_array_equal(done.nominal_positions_px, raw.positions_px)


@pytest.mark.spec("FM-11")
def test_the_r_factor_does_not_see_the_scale_and_prefers_the_truth(problem: Problem) -> None:
    p = problem
    rate = expected_counts(extract(p.obj, p.corners, N), p.probe, p.rest, 2.0)
    raw = RawData.from_arrays(rate, p.positions_px, p.probe, mask=p.mask)
    data = PtychoDataContainer.for_reconstruction(raw, 3)
    obj, probe = p.obj.astype(np.complex64), p.probe.astype(np.complex64)
    coverage = np.ones(obj.shape, np.float32)
    origin = np.zeros(2, np.int64)
    right = finish_reconstruction(obj, coverage, origin, probe, 0.01, data)
    assert right.r_factor < 1e-10
    assert right.scale == pytest.approx(2.0, rel=1e-5)
    for wrong in (obj.conj(), np.roll(obj, 1, axis=0), np.ones_like(obj)):
        assert finish_reconstruction(wrong, coverage, origin, probe, 0.01, data).r_factor > 1e-3


@pytest.mark.spec("FM-11")
def test_a_background_enters_the_score(problem: Problem) -> None:
    p = problem
    rate = expected_counts(extract(p.obj, p.corners, N), p.probe, p.rest, 2.0, p.background)
    coverage = np.ones(p.obj.shape, np.float32)
    scores = []
    for level in (p.background, None):
        raw = RawData.from_arrays(rate, p.positions_px, p.probe, background=level)
        data = PtychoDataContainer.for_reconstruction(raw, 3)
        args = (p.obj.astype(np.complex64), coverage, np.zeros(2, np.int64), p.probe.astype(np.complex64), 2.0, data)
        scores.append(finish_reconstruction(*args).r_factor)
    assert scores[0] < 1e-10 < 1e-3 < scores[1]


@pytest.mark.spec("DATA-14")
def test_a_non_finite_object_is_an_error(problem: Problem) -> None:
    raw = scan(problem)
    obj = problem.obj.astype(np.complex64)
    obj[3, 3] = np.inf
    with pytest.raises(BackendError, match="NaN or infinite"):
        finish_reconstruction(
            obj, np.ones(obj.shape, np.float32), np.array([-30, 100]), smooth_probe(N).astype(np.complex64), 1.0,
            PtychoDataContainer.for_reconstruction(raw, 3),
        )  # fmt: skip


@pytest.mark.spec("FM-11")
def test_the_score_does_not_depend_on_chunks(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    data = PtychoDataContainer.for_reconstruction(scan(problem), 4)
    obj = problem.obj.astype(np.complex64)
    args = (obj, np.ones(obj.shape, np.float32), np.array([-30, 100]), problem.probe.astype(np.complex64), 1.0, data)
    whole = finish_reconstruction(*args)
    monkeypatch.setattr("ptycho_core.stitching._CHUNK_FRAMES_BYTES", 1)
    single = finish_reconstruction(*args)
    assert single.r_factor == pytest.approx(whole.r_factor, rel=1e-12)
    np.testing.assert_allclose(single.frame_misfit, whole.frame_misfit, rtol=1e-9)
