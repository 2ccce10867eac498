"""Groups: the samples of a network, drawn anew for each epoch from the training frames of one or more scans.

A group is C neighbouring frames on a canvas of their own. The groups of an epoch are the cells of a partition of the
training frames, drawn for that epoch, so that every training frame is in one of them, and groups that grow from seed
frames to their neighbours. Everything here is decided by the config's seed and the number of the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer, integer_corners
from ..data.raw import read_only
from ..errors import ConfigError, DataError
from .grouping import fields_of, grow_groups, partition_frames

__all__ = ["Batch", "GroupDraw", "Groups", "groups_an_epoch", "heldout_groups", "partition_of"]


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Some frames of a scan in groups, each with its own canvas. Counts of a group are read when asked for.

    Attributes:
        scan: the scan.
        frame_indices: (B, C) int64 frames of each group, numbers in ``scan.raw``.
        counted: (B, C) bool, False where a slot only fills its group up (a partition of frames that C does not divide).
        corners_px: (B, C, 2) int64 integer corner (y, x) of each patch on its group's canvas, ≥ 0.
        subpixel_px: (B, C, 2) float32 rest (y, x) in [−½, ½), carried by the probe.
        canvas_origin_px: (B, 2) int64 integer corner of the canvas in scan coordinates.
        canvas_shape: (B, 2) int64 canvas height and width.
    """

    scan: PtychoDataContainer
    frame_indices: NDArray[np.int64]
    counted: NDArray[np.bool_]
    corners_px: NDArray[np.int64]
    subpixel_px: NDArray[np.float32]
    canvas_origin_px: NDArray[np.int64]
    canvas_shape: NDArray[np.int64]

    @classmethod
    def of(
        cls, scan: PtychoDataContainer, frame_indices: NDArray[np.int64], counted: NDArray[np.bool_] | None = None
    ) -> Groups:
        """Lay out the canvas of each group.

        Args:
            scan: the scan.
            frame_indices: (B, C) frames of each group.
            counted: (B, C), default all True.

        Raises:
            DataError: an index that is no frame, or arrays of other shapes.
        """
        raw, given = scan.raw, frame_indices.shape
        if len(given) != 2 or 0 in given or frame_indices.min() < 0 or frame_indices.max() >= raw.n_frames:
            raise DataError(f"group indices {given} must be (B, C) numbers of the scan's {raw.n_frames} frames.")
        if counted is not None and counted.shape != given:
            raise DataError(f"counted has shape {counted.shape}; it must be that of the group indices, {given}.")
        whole, rest = integer_corners(raw.positions_px[frame_indices], raw.side)
        origin = whole.min(axis=1)
        corners = whole - origin[:, None]
        counted = np.ones(given, dtype=bool) if counted is None else counted
        return cls(
            scan=scan,
            frame_indices=read_only(frame_indices.astype(np.int64)),
            counted=read_only(counted.astype(bool)),
            corners_px=read_only(corners),
            subpixel_px=read_only(rest),
            canvas_origin_px=read_only(origin),
            canvas_shape=read_only(corners.max(axis=1) + raw.side),
        )

    @property
    def n_groups(self) -> int:
        """B, the number of groups."""
        return len(self.frame_indices)

    @property
    def group_size(self) -> int:
        """C, the frames in a group."""
        return int(self.frame_indices.shape[1])

    def read_counts(self, groups: int | NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (C, N, N) of one group, or (b, C, N, N) of b groups, float32."""
        frames, raw = self.frame_indices[groups], self.scan.raw
        return raw.read_counts(frames).reshape(*frames.shape, raw.side, raw.side)


def partition_of(scan: PtychoDataContainer, frames: NDArray[np.int64], group_size: int) -> Groups:
    """Some frames (n,) of a scan in compact groups, each frame counted exactly once; see :func:`partition_frames`.

    Args:
        scan: the scan.
        frames: (n,) frame numbers.
        group_size: C; fewer where there are fewer frames.
    """
    C, positions = min(group_size, len(frames)), scan.raw.positions_px[frames]
    indices, counted = _cells(positions, fields_of(positions, scan.raw.side, C), C)
    return Groups.of(scan, frames[indices], counted)


def _cells(
    positions: NDArray[np.float64], fields: Sequence[NDArray[np.int64]], C: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The partition of each field; see :func:`partition_frames`."""
    parts = [(field, *partition_frames(positions[field], C)) for field in fields]
    return np.concatenate([field[cells] for field, cells, _ in parts]), np.concatenate([part[2] for part in parts])


def heldout_groups(scan: PtychoDataContainer, config: TrainingConfig) -> Groups | None:
    """The held-out frames of a scan in groups, or None where it has none; they are the same in every epoch.

    The held-out loss of a network is the mean over frames, of all scans, each in the group where it is ``counted``.
    """
    frames = scan.heldout_frames
    return partition_of(scan, frames, config.group_size) if len(frames) else None


def groups_an_epoch(fields: Sequence[int], config: TrainingConfig, name: str = "the scan") -> int:
    """B, the groups that an epoch draws from a scan: as asked for, or so many that a training frame is in about two.

    Args:
        fields: training frames in each of its fields; see :func:`fields_of`.
        config: ``group_size`` and ``n_groups``.
        name: of the scan, for the errors.

    Raises:
        ConfigError: more frames in a group than there are, or fewer groups than hold every frame.
    """
    C, asked, n_frames = config.group_size, config.n_groups, sum(fields)
    if n_frames < C:
        raise ConfigError(f"group_size = {C}, but {name} has {n_frames} training frames; choose at most {n_frames}.")
    if asked is None:
        return math.ceil(2 * n_frames / C)
    least = sum(math.ceil(n / C) for n in fields)
    if asked < least:
        raise ConfigError(
            f"n_groups = {asked}, but the {n_frames} training frames of {name} need at least {least} groups of {C}, so "
            f"that each is in one; raise n_groups, leave it out ({math.ceil(2 * n_frames / C)} groups), or train on "
            "fewer frames (n_subsample)."
        )
    return asked


def _name_of(number: int, scan: PtychoDataContainer, n_scans: int) -> str:
    """What a scan is called in an error: by its file, or by its number where there are several."""
    return scan.raw.source.path or ("the scan" if n_scans == 1 else f"scan {number}")


@dataclass(frozen=True)
class Batch:
    """Groups of one scan that an optimiser step takes.

    Attributes:
        epoch: number of the epoch.
        scan: number of the scan.
        groups: (b,) int64 numbers of the groups among those of that scan and epoch.
    """

    epoch: int
    scan: int
    groups: NDArray[np.int64]


class GroupDraw:
    """The training groups of some scans, epoch by epoch.

    Args:
        scans: all with training frames.
        config: ``group_size``, ``n_groups`` (in an epoch, for each scan), ``neighbor_pool_size``, ``batch_size``,
            ``seed``.

    Attributes:
        scans: as given.
        n_groups: groups that an epoch draws from each scan.

    Raises:
        ConfigError: see :func:`groups_an_epoch`.
    """

    def __init__(self, scans: Sequence[PtychoDataContainer], config: TrainingConfig) -> None:
        assert config.batch_size is not None  # a config of a network says it
        self.scans, self.config, self.batch_size = tuple(scans), config, config.batch_size
        self._fields = [
            fields_of(scan.raw.positions_px[scan.train_frames], scan.raw.side, config.group_size) for scan in scans
        ]
        self.n_groups = tuple(
            groups_an_epoch([len(field) for field in self._fields[number]], config, _name_of(number, scan, len(scans)))
            for number, scan in enumerate(scans)
        )
        self._drawn: dict[int, tuple[int, Groups]] = {}

    def groups(self, epoch: int, scan: int = 0) -> Groups:
        """The groups of a scan in an epoch; the last epoch asked for is kept."""
        kept = self._drawn.get(scan)
        if kept is None or kept[0] != epoch:
            kept = (epoch, self._draw(epoch, scan))
            self._drawn[scan] = kept
        return kept[1]

    def _draw(self, epoch: int, scan: int) -> Groups:
        """Cells of a partition, then groups from seeds: as many as asked for."""
        data, config, n_groups = self.scans[scan], self.config, self.n_groups[scan]
        frames, C = data.train_frames, config.group_size
        positions = data.raw.positions_px[frames]
        rng = np.random.default_rng([config.seed, epoch, scan])
        turn = rng.uniform(0, np.pi)  # cells of another epoch are cut along other directions
        turned = positions @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        cells, _ = _cells(turned, self._fields[scan], C)
        cells = cells[rng.permutation(len(cells))]
        grown = grow_groups(positions, C, n_groups - len(cells), config.neighbor_pool_size, rng)
        return Groups.of(data, frames[np.concatenate([cells, grown])])

    def steps_an_epoch(self, world_size: int = 1) -> int:
        """Optimiser steps in an epoch; a step takes ``batch_size`` groups of one scan on each device."""
        stride = self.batch_size * world_size
        return sum(math.ceil(n / stride) for n in self.n_groups)

    def batches(self, epoch: int, *, rank: int = 0, world_size: int = 1, first_batch: int = 0) -> Iterator[Batch]:
        """Batches of an epoch in an order that seed and epoch decide, so that a resumed run sees the same batches.

        With several devices each takes its share of every batch's groups; the last groups of a scan are repeated so
        that all make the same number of steps.

        Args:
            epoch: number of the epoch.
            rank: number of this device.
            world_size: number of devices.
            first_batch: batches to leave out at the start.
        """
        stride = self.batch_size * world_size
        rng = np.random.default_rng([self.config.seed, epoch])
        parts: list[tuple[int, NDArray[np.int64]]] = []
        for scan, n in enumerate(self.n_groups):
            order = rng.permutation(n)
            if world_size > 1:
                order = np.resize(order, math.ceil(n / stride) * stride)
            parts += [(scan, order[start : start + stride]) for start in range(0, n, stride)]
        for number in (
            rng.permutation(len(parts))[first_batch:] if len(self.n_groups) > 1 else range(first_batch, len(parts))
        ):
            scan, groups = parts[number]
            yield Batch(epoch, scan, groups[rank::world_size].astype(np.int64))
