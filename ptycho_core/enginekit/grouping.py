"""Groups of neighbouring frames: the samples a network is trained on, and the partition used for reconstruction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

__all__ = ["fields_of", "grow_groups", "partition_frames"]


def _check_group_size(group_size: int, M: int) -> None:
    if group_size < 1:
        raise ConfigError(f"group_size = {group_size}; it must be at least 1.")
    if group_size > M:
        raise ConfigError(f"group_size = {group_size}, but the scan has {M} frames; choose at most {M}.")


def _seed_frames(M: int, n_groups: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Frames that groups grow from: every frame once before any is used again."""
    rounds = [rng.permutation(M) for _ in range(-(-n_groups // M))]
    return np.concatenate([np.zeros(0, np.int64), *rounds])[:n_groups].astype(np.int64)


def grow_groups(
    positions_px: NDArray[np.float64],
    group_size: int,
    n_groups: int,
    neighbor_pool_size: int | None,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Make groups that grow from seed frames: each is a seed frame, in column 0, and C−1 of its neighbours.

    Args:
        positions_px: (M, 2) float64 frame centres (y, x), object pixels.
        group_size: C.
        n_groups: B. More than M repeats seeds, after every frame has been one.
        neighbor_pool_size: K, the nearest frames (the seed not counted) among which C−1 are drawn; None takes the
            C−1 nearest.
        rng: draws seeds and neighbours.

    Returns:
        (B, C) int64 frame numbers; no frame twice in a group.

    Raises:
        ConfigError: C below 1 or above M, or K < C−1.
    """
    from scipy.spatial import cKDTree

    M = len(positions_px)
    _check_group_size(group_size, M)
    seeds, wanted = _seed_frames(M, n_groups, rng), group_size - 1
    if neighbor_pool_size is not None and neighbor_pool_size < wanted:
        raise ConfigError(f"neighbor_pool_size = {neighbor_pool_size} is smaller than group_size − 1 = {wanted}.")
    pool = min(wanted if neighbor_pool_size is None else neighbor_pool_size, M - 1)
    if pool == 0 or not n_groups:
        return np.broadcast_to(seeds[:, None], (n_groups, group_size)).copy()
    _, near = cKDTree(positions_px).query(positions_px[seeds], k=pool + 1)
    near = near.astype(np.int64)
    # Frames at the very same position tie, and the seed need not come first, or come at all: put it out of the pool.
    itself = near == seeds[:, None]
    itself[~itself.any(axis=1), -1] = True
    near = near[~itself].reshape(len(seeds), pool)
    if pool > wanted:
        drawn = np.argpartition(rng.random(near.shape), wanted - 1, axis=1)[:, :wanted] if wanted else near[:, :0]
        near = np.take_along_axis(near, np.sort(drawn, axis=1), axis=1)
    return np.concatenate([seeds[:, None], near], axis=1)


def fields_of(positions_px: NDArray[np.float64], gap_px: float, least: int) -> list[NDArray[np.int64]]:
    """Divide frames into fields that lie apart, so that no group spans the empty ground between two.

    Frames are cut at the widest gap along y or x, again and again, while a gap is wide enough and leaves enough frames
    on both sides. Fewer frames, a stray one say, stay with a field: they cannot make a group of their own.

    Args:
        positions_px: (M, 2) float64 frame centres (y, x), object pixels.
        gap_px: gaps wider than this divide; N, where patches on both sides do not overlap.
        least: frames that a field has, at least, where there are so many.

    Returns:
        Frame numbers (n,) int64 of each field, in order; all frames where nothing divides them.
    """
    stack = [np.arange(len(positions_px), dtype=np.int64)]
    fields: list[NDArray[np.int64]] = []
    while stack:
        members = stack.pop()
        widest, found = gap_px, None
        for axis in (0, 1):
            order = members[np.argsort(positions_px[members, axis], kind="stable")]
            # the gap before frame n of the order, for every n that leaves enough on both sides
            gaps = np.diff(positions_px[order, axis])[least - 1 : len(order) - least]
            if gaps.size and gaps.max() > widest:
                widest, cut = float(gaps.max()), least + int(gaps.argmax())
                found = [order[cut:], order[:cut]]
        if found is None:
            fields.append(np.sort(members))
        else:
            stack += found
    return fields


def partition_frames(positions_px: NDArray[np.float64], group_size: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Divide all frames into compact groups so that each frame counts exactly once.

    Frames are halved along the longer side of their bounding box until a group's worth is left. When C does not divide
    M, the last group of a box is filled up with its nearest frames from outside, which are there but do not count.

    Args:
        positions_px: (M, 2) float64 frame centres (y, x), object pixels.
        group_size: C.

    Returns:
        (B, C) int64 frame numbers and (B, C) bool, True where that slot counts; B = ceil(M / C).

    Raises:
        ConfigError: C below 1 or above M.
    """
    from scipy.spatial import cKDTree

    M = len(positions_px)
    _check_group_size(group_size, M)
    stack = [np.arange(M, dtype=np.int64)]
    leaves: list[NDArray[np.int64]] = []
    while stack:
        members = stack.pop()
        if len(members) <= group_size:
            leaves.append(members)
            continue
        axis = int(np.argmax(np.ptp(positions_px[members], axis=0)))
        order = members[np.argsort(positions_px[members, axis], kind="stable")]
        cut = group_size * max(1, round(len(members) / group_size / 2))
        stack += [order[cut:], order[:cut]]
    indices = np.empty((len(leaves), group_size), dtype=np.int64)
    counted = np.ones((len(leaves), group_size), dtype=bool)
    tree = cKDTree(positions_px)
    for row, members in enumerate(leaves):
        n = len(members)
        indices[row, :n] = members
        if n < group_size:
            _, near = tree.query(positions_px[members].mean(axis=0), k=min(M, group_size + n))
            indices[row, n:] = near[~np.isin(near, members)][: group_size - n]
            counted[row, n:] = False
    return indices, counted
