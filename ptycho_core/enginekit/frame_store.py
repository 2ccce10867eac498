"""The counts of a scan, brought once into an engine's own arrays where they fit, and read ahead where they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer

__all__ = ["KEPT_BYTES", "FrameStore", "filled"]

KEPT_BYTES = 2**30
"""Counts of a scan that are kept in memory unless an engine says otherwise: a quarter of a million frames of 32²."""

_BLOCK_BYTES = 32 * 2**20
"""Counts that are read from the scan at once while it is brought in."""

_AHEAD = 2
"""Batches that are read ahead at most: the one that is asked for now, and the next."""


def _empty(block: Any, shape: tuple[int, ...]) -> Any:
    return np.empty(shape, block.dtype)


def filled(blocks: Iterator[Any], n: int, empty: Callable[[Any, tuple[int, ...]], Any] = _empty) -> Any:
    """One array of consecutive blocks, each put in its place and let go: a join would hold all of them twice.

    Args:
        blocks: arrays (m, …), n rows together.
        n: rows of the array.
        empty: (block, shape) → an array like a block that may be written to.
    """
    kept, start = None, 0
    for block in blocks:
        if kept is None:
            kept = empty(block, (n, *block.shape[1:]))
        kept[start : start + len(block)] = block
        start += len(block)
    return kept


def _rows(kept: Any, rows: NDArray[np.int64]) -> Any:
    return kept[rows]


class FrameStore:
    """Counts by frame, as an engine wants them.

    It holds the functions it is given: they must not hold the stepper, which would then live on after it is dropped,
    with all counts.

    Args:
        scan: the scan; its used frames are handed out.
        convert: makes the engine's array of counts (n, N, N) float32, on its device and in its layout.
        budget_bytes: float32 counts that may be kept; 0 keeps none.
        join: makes one array of the engine's arrays of consecutive blocks and of how many frames they hold. Each block
            is made when it is asked for, so that :func:`filled` takes little more memory than what is kept.
        pick: takes some rows, (n,) int64, of the kept array.
    """

    def __init__(
        self,
        scan: PtychoDataContainer,
        convert: Callable[[NDArray[np.float32]], Any],
        budget_bytes: int = KEPT_BYTES,
        *,
        join: Callable[[Iterator[Any], int], Any] = filled,
        pick: Callable[[Any, NDArray[np.int64]], Any] = _rows,
    ) -> None:
        self._raw, self._convert, self._join, self._pick = scan.raw, convert, join, pick
        self._used = scan.used_frames
        self.keeps = 4 * len(self._used) * scan.raw.side**2 <= budget_bytes
        self._kept: Any = None
        self._row = np.full(scan.raw.n_frames, -1, np.int64)
        self._row[self._used] = np.arange(len(self._used))
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: dict[bytes, Future[NDArray[np.float32]]] = {}

    def prepare(self, frames: NDArray[np.int64]) -> None:
        """Start to read some frames (n,) in the background, unless all are kept; the next that are asked for."""
        if self.keeps:
            return
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, "frames")
        self._ahead[frames.tobytes()] = self._reader.submit(self._raw.read_counts, frames)
        while len(self._ahead) > _AHEAD:  # frames that were announced and never asked for are let go
            self._ahead.pop(next(iter(self._ahead))).cancel()

    def get(self, frames: NDArray[np.int64]) -> Any:
        """The counts of some frames (n,), as :meth:`prepare` announced them or any others."""
        if self.keeps:
            if self._kept is None:
                step = max(1, _BLOCK_BYTES // (4 * self._raw.side**2))
                blocks = (self._used[start : start + step] for start in range(0, len(self._used), step))
                converted = (self._convert(self._raw.read_counts(block)) for block in blocks)
                self._kept = self._join(converted, len(self._used))
            return self._pick(self._kept, self._row[frames])
        ahead = self._ahead.pop(frames.tobytes(), None)
        return self._convert(self._raw.read_counts(frames) if ahead is None else ahead.result())
