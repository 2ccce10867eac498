"""The client's scans as ours: its exported files, and what it hands over in memory.

Its positions are pixels of its object's array, with (0, 0) at the centre of the first pixel and the centre of a frame
at (N−1)/2: our scan coordinates as they are. Its frames are detector intensities, which are read as counts.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho_core import ObjectGuess, RawData, Source, read_scan
from ptycho_core.errors import DataError

__all__ = ["ClientFrames", "ClientScan", "merged", "same_product"]

logger = logging.getLogger("ptycho_core_ptychodus")

_SAME_PX = 1e-6


class ClientFrames:
    """Frames (M, N, N, 1), of a scan that stays where it is: what the client multiplies and hands back.

    Attributes:
        scan: whose frames they are.
        shape: (M, N, N, 1), or (M, N, N) of the plain stack.
    """

    def __init__(self, scan: ClientScan, *, channels: bool = True) -> None:
        self.scan = scan
        M, N = scan.raw.n_frames, scan.raw.side
        self.shape: tuple[int, ...] = (M, N, N, 1) if channels else (M, N, N)

    def __len__(self) -> int:
        """M."""
        return self.shape[0]

    def __mul__(self, factor: float) -> ClientFrames:
        """The same frames: amplitudes are in units of the counts, and ``intensity_scale`` is 1.

        Raises:
            DataError: another factor; counts that are no counts have another noise.
        """
        if float(factor) != 1.0:
            raise DataError(
                f"the frames are multiplied by {factor!r}; they are amplitudes of counts already, so it is 1."
            )
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Counts (M, N, N), or amplitudes (M, N, N, 1), read now."""
        counts = self.scan.raw.read_counts(np.arange(len(self)))
        values = np.sqrt(counts)[..., None] if len(self.shape) == 4 else counts
        return values if dtype is None else values.astype(dtype)


class ClientScan:
    """A scan in the client's words.

    Attributes:
        raw: the scan.
        grid: (H, W) of the client's object array, whose pixels positions are counted in; None where it does not say.
    """

    def __init__(self, raw: RawData, grid: tuple[int, int] | None) -> None:
        self.raw = raw
        self.grid = grid

    @classmethod
    def from_file(cls, path: Path | str) -> ClientScan:
        """Read what the client's exporter wrote; what looks odd in it is logged.

        Raises:
            DataError: no usable scan.
        """
        raw = read_scan(Path(path), measurement="counts")
        for text in raw.source.warnings:
            logger.warning("%s: %s", path, text)
        return cls(raw, None if raw.object_guess is None else _shape(raw.object_guess.object))

    @classmethod
    def from_arrays(
        cls,
        patterns: ArrayLike,
        positions_px: ArrayLike,
        probe: ArrayLike,
        object_guess: NDArray[np.complex64] | None = None,
    ) -> ClientScan:
        """A scan from the client's memory.

        Args:
            patterns: (M, N, N) counts.
            positions_px: (M, 2) frame centres (y, x), pixels of the client's object array.
            probe: (P, N, N), (N, N) or (N, N, 1) complex.
            object_guess: (H, W) complex, the client's object array.

        Raises:
            DataError: no usable scan.
        """
        modes = np.asarray(probe)
        if modes.ndim == 3 and modes.shape[2] == 1 != modes.shape[1]:
            modes = modes[..., 0]
        guess = None
        if object_guess is not None:
            values = np.asarray(object_guess, np.complex64)
            guess = ObjectGuess(object=values, origin_px=np.zeros(2)) if np.isfinite(values).all() else None
        raw = RawData.from_arrays(
            np.asarray(patterns),
            positions_px,
            modes,
            object_guess=guess,
            source=Source(
                dialect="ptychodus",
                assumptions=("what ptychodus hands over are counts",),
            ),
        )
        return cls(raw, None if object_guess is None else _shape(np.asarray(object_guess)))

    @property
    def diff3d(self) -> ClientFrames:
        """(M, N, N) counts."""
        return ClientFrames(self, channels=False)

    @property
    def probeGuess(self) -> NDArray[np.complex64] | None:
        """(P, N, N) complex64, or None."""
        return self.raw.probe

    @property
    def objectGuess(self) -> NDArray[np.complex64] | None:
        """(H, W) complex64, or None."""
        return None if self.raw.object_guess is None else self.raw.object_guess.object

    @property
    def xcoords(self) -> NDArray[np.float64]:
        """(M,) pixels."""
        return self.raw.positions_px[:, 1]

    @property
    def ycoords(self) -> NDArray[np.float64]:
        """(M,) pixels."""
        return self.raw.positions_px[:, 0]


def _shape(array: NDArray[Any]) -> tuple[int, int]:
    height, width = array.shape
    return int(height), int(width)


def same_product(one: ClientScan, two: ClientScan) -> bool:
    """Whether two scans were exported from one product: they share its object, its probe and its mask."""

    def equal(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
        return a is b is None or (a is not None and b is not None and np.array_equal(a, b))

    return (
        one.raw.side == two.raw.side
        and equal(one.objectGuess, two.objectGuess)
        and equal(one.raw.probe, two.raw.probe)
        and equal(one.raw.mask, two.raw.mask)
    )


def merged(train: ClientScan, test: ClientScan) -> tuple[RawData, NDArray[np.int64]]:
    """One scan of two parts of a product, and which of its frames only the second part has: they are held out.

    A frame is in both where position and counts are the same.
    """
    from ptycho_core.data.frames import ConcatenatedFrames, SubsetFrames

    known = _signatures(train.raw)
    new = np.array([i for i, mark in enumerate(_marks(test.raw)) if mark not in known], dtype=np.int64)
    if len(new) == 0:
        return train.raw, new
    M = train.raw.n_frames
    frames = ConcatenatedFrames((train.raw.frames, SubsetFrames(test.raw.frames, new)))
    raw = replace(
        train.raw,
        frames=frames,
        positions_px=np.concatenate([train.raw.positions_px, test.raw.positions_px[new]]),
        frame_numbers=np.arange(M + len(new)),
        frame_totals=np.concatenate([train.raw.frame_totals, test.raw.frame_totals[new]]),
    )
    return raw, np.arange(M, M + len(new))


def _marks(raw: RawData) -> list[tuple[float, ...]]:
    rounded = np.round(raw.positions_px / _SAME_PX).astype(np.int64)
    return [(int(y), int(x), float(total)) for (y, x), total in zip(rounded, raw.frame_totals, strict=True)]


def _signatures(raw: RawData) -> set[tuple[float, ...]]:
    return set(_marks(raw))
