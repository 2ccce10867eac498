"""Extraction, accumulation and merging on the integer grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from physics_problem import complex_noise, make_problem, smooth_probe

from ptycho_core.enginekit.stitching import probe_weights
from ptycho_core.errors import DataError
from ptycho_core.physics.patches import accumulate, check_inside, extract, merge


@pytest.mark.spec("FM-1")
@given(
    N=st.sampled_from([3, 5, 8]),
    extra=st.tuples(st.integers(0, 6), st.integers(0, 9)),
    n=st.integers(1, 7),
    seed=st.integers(0, 999),
)
@settings(max_examples=40, deadline=None)
def test_extract_and_accumulate_are_an_adjoint_pair(N: int, extra: tuple[int, int], n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (N + extra[0], N + extra[1])
    corners = rng.integers(0, [extra[0] + 1, extra[1] + 1], size=(n, 2))
    corners[0], corners[-1] = (0, extra[1]), (extra[0], 0)  # the very edges
    obj, patches = complex_noise(rng, *shape), complex_noise(rng, n, N, N)
    left = np.vdot(extract(obj, corners, N), patches)
    right = np.vdot(obj, accumulate(patches, corners, shape))
    assert left == pytest.approx(right, rel=1e-12, abs=1e-12)


@pytest.mark.spec("FM-1", "CONV-1")
def test_extract_reads_the_window_at_the_corner() -> None:
    obj = np.arange(7 * 5).reshape(7, 5) * (1 + 1j)
    patches = extract(obj, np.array([[4, 0], [1, 2]]), 3)
    np.testing.assert_array_equal(patches[0], obj[4:7, 0:3])
    np.testing.assert_array_equal(patches[1], obj[1:4, 2:5])
    patches[:] = 0
    assert obj[4, 1] != 0  # a copy, not a view


@pytest.mark.spec("FM-1")
def test_accumulate_adds_where_patches_overlap_or_repeat() -> None:
    corners = np.array([[0, 1], [0, 1], [1, 0]])
    out = accumulate(np.ones((3, 2, 2), dtype=np.complex64), corners, (3, 4))
    np.testing.assert_array_equal(out, [[0, 2, 2, 0], [1, 3, 2, 0], [1, 1, 0, 0]])
    assert out.dtype == np.complex64


@pytest.mark.spec("FM-1", "DATA-14")
@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (5, 0), (0, 3)])
def test_a_patch_that_leaves_the_object_is_refused(corner: tuple[int, int]) -> None:
    corners = np.array([[0, 0], corner])
    with pytest.raises(DataError, match=r"do not fit the object of shape \(7, 5\); enlarge it, no patch is clipped"):
        extract(np.zeros((7, 5)), corners, 3)
    with pytest.raises(DataError, match="no patch is clipped"):
        accumulate(np.zeros((2, 3, 3)), corners, (7, 5))
    check_inside(np.array([[4, 2]]), 3, (7, 5))


def test_no_patches_are_no_error() -> None:
    none = np.zeros((0, 2), dtype=np.int64)
    assert extract(np.ones((4, 5), complex), none, 3).shape == (0, 3, 3)
    np.testing.assert_array_equal(accumulate(np.zeros((0, 3, 3)), none, (4, 5)), np.zeros((4, 5)))


@pytest.mark.spec("FM-7")
def test_patches_of_one_object_merge_to_it_and_are_cut_out_again() -> None:
    problem = make_problem()
    corners = problem.corners[:2]  # two opposite corners of the object: the other two stay dark
    patches = extract(problem.obj, corners, 16)
    weights = probe_weights(problem.probe.astype(np.complex64), problem.rest[:2])
    merged = merge(patches, weights, corners, problem.obj.shape)
    np.testing.assert_allclose(extract(merged, corners, 16), patches, rtol=1e-5)
    np.testing.assert_array_equal(merged[-3:, :3], 0)
    np.testing.assert_array_equal(merged[:3, -3:], 0)


@pytest.mark.spec("FM-7")
def test_merge_is_the_weighted_mean() -> None:
    patches = np.array([[[2 + 1j]], [[6 - 3j]]])
    weights = np.array([[[3.0]], [[1.0]]])
    merged = merge(patches, weights, np.array([[0, 1], [0, 1]]), (1, 3))
    np.testing.assert_allclose(merged, [[0, 3.0 + 0.0j, 0]])


@pytest.mark.spec("FM-7")
def test_weights_are_the_shifted_intensity_of_all_modes() -> None:
    probe = smooth_probe(16).astype(np.complex64)
    weights = probe_weights(probe, np.array([[0.0, 0.0], [0.0, 0.4], [0.4, 0.0]], np.float32))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights[0], np.sum(np.abs(probe) ** 2, axis=0), rtol=1e-4, atol=1e-5)
    x, y = np.arange(16)[None, :], np.arange(16)[:, None]

    def centre(w: np.ndarray) -> tuple[float, float]:
        return float((w * y).sum() / w.sum()), float((w * x).sum() / w.sum())

    assert centre(weights[1])[1] - centre(weights[0])[1] == pytest.approx(0.4, abs=0.02)
    assert centre(weights[2])[0] - centre(weights[0])[0] == pytest.approx(0.4, abs=0.02)
