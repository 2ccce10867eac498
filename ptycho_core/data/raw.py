"""RawData: one scan as measured, validated once, units and axis order fixed (specs/10-data)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from ..physics.propagation import check_sampling
from ..stopping import safe_point
from ..text import counted, one_line, storable
from .frames import FrameSource, SubsetFrames
from .geometry import RADIATIONS, Geometry
from .propagation import FAR_FIELD, Propagation
from .raw_checks import (
    MAX_CANVAS_PX,
    check_canvas,
    check_counts,
    checked_background,
    checked_frames,
    checked_mask,
    checked_positions,
    checked_probe,
    read_only,
)
from .roles import draw_heldout, draw_subsample
from .shown import card, file_name, length, line, plot, size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "MAX_CANVAS_PX",
    "RADIATIONS",
    "SIDES",
    "SIDES_IN_WORDS",
    "Geometry",
    "ObjectGuess",
    "RawData",
    "Source",
    "read_only",
]

SIDES = range(8, 4097, 2)
"""Sides N of a frame that a scan may have; what an engine takes of them it says itself."""

SIDES_IN_WORDS = f"even, from {SIDES[0]} to {SIDES[-1]}"
"""The same for messages."""

_CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a scan came from and what was assumed in reading it.

    Its texts are somebody else's words: they are kept as texts that only show (``ptycho_core.text``).

    Attributes:
        path: file, or None for arrays; as the operating system knows it, so that a name that is no UTF-8 is made to
            show where it is shown.
        dialect: name of the reader.
        measurement: what the stored frames are, ``amplitude`` or ``counts``.
        assumptions: one sentence each, for people.
        warnings: what looked odd, one sentence each.
        details: anything else worth keeping, plain JSON data (for a simulation: what was drawn, with the seed).
    """

    path: str | None = None
    dialect: str = "arrays"
    measurement: str = "counts"
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("dialect", "measurement"):
            object.__setattr__(self, name, one_line(getattr(self, name)))
        for name in ("assumptions", "warnings"):
            object.__setattr__(self, name, tuple(one_line(str(text)) for text in getattr(self, name)))
        object.__setattr__(self, "details", storable(self.details))


@dataclass(frozen=True, kw_only=True)
class ObjectGuess:
    """An object to start from or to compare with: `object` (H, W) complex64, `origin_px` (2,) float64 (y, x)."""

    object: NDArray[np.complex64]
    origin_px: NDArray[np.float64]

    def __repr__(self) -> str:
        """One line, without the array."""
        return line("ObjectGuess", size(self.object.shape), f"origin (y, x) {self.origin_px.tolist()} px")


@dataclass(frozen=True, kw_only=True)
class RawData:
    """One scan: frames, where each was taken, and what is known of the probe and the detector.

    Construct it with :meth:`from_arrays` or :func:`ptycho_core.io.read_scan`; both validate.

    Attributes:
        frames: source of (M, N, N) float32 photon counts. In the far field zero frequency is at pixel (N/2, N/2);
            in the near field pixel (y, x) of a frame is pixel (y, x) of the object's window.
        positions_px: (M, 2) float64 frame centres (y, x), object pixels.
        probe: (P, N, N) complex64 incoherent modes, or None.
        probe_calibrated: whether |F(probe · object)|² is in photons already, so that the intensity scale is 1, fixed.
        mask: (N, N) bool, True = good pixel, or None when all are good.
        background: (N, N) float32 expected background counts, or None.
        object_guess: an object given with the scan, or None.
        geometry: the instrument.
        propagation: how waves get from the object to the detector.
        source: provenance.
        frame_numbers: (M,) int64 number of each frame in the file it came from.
        frame_totals: (M,) float64 counts in the good pixels of each frame; NaN for one that was not looked at.
        looked_at: (n,) int64 frames that were looked at, of a scan that was read to be inspected; None for all.
    """

    frames: FrameSource
    positions_px: NDArray[np.float64]
    probe: NDArray[np.complex64] | None
    probe_calibrated: bool
    mask: NDArray[np.bool_] | None
    background: NDArray[np.float32] | None
    object_guess: ObjectGuess | None
    geometry: Geometry
    source: Source
    frame_numbers: NDArray[np.int64]
    frame_totals: NDArray[np.float64]
    propagation: Propagation = FAR_FIELD
    looked_at: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        """One line: what it is and how large, never an array."""
        seen = "" if self.looked_at is None else f"{self.n_looked_at} of them looked at"
        modes = "no probe" if self.probe is None else f"probe {size(self.probe.shape)}"
        pixel = length(self.geometry.pixel_size_m)
        return line(
            "RawData", file_name(self.source.path),
            f"{counted(self.n_frames, 'frame')} of {self.side}×{self.side}", seen,
            f"positions over {size(tuple(int(n) for n in np.ptp(self.positions_px, axis=0)))} px", modes,
            f"object pixel {pixel}" if pixel else "", str(self.propagation), self.source.dialect,
        )  # fmt: skip

    def _repr_html_(self) -> str:
        """The same for a notebook, with small pictures; at most 64 frames are read for them."""
        return card(self)

    def plot(self, kind: str = "positions") -> Figure:
        """A figure of the scan.

        Args:
            kind: ``positions``, the frame centres; ``mean``, the mean pattern of all frames; ``frames``, some of them;
                ``probe``; ``focus``, the probe along the beam.

        Returns:
            a figure of matplotlib; lengths are in metres where the object pixel is known.

        Raises:
            ConfigError: another kind, or one that this scan has not; the message lists those it has.
        """
        return plot(self, kind)

    @classmethod
    def from_arrays(
        cls,
        counts: ArrayLike | FrameSource,
        positions_px: ArrayLike,
        probe: ArrayLike | None = None,
        *,
        probe_calibrated: bool = False,
        mask: ArrayLike | None = None,
        background: ArrayLike | None = None,
        object_guess: ObjectGuess | None = None,
        geometry: Geometry | None = None,
        propagation: Propagation = FAR_FIELD,
        source: Source | None = None,
        frame_numbers: ArrayLike | None = None,
        look_at: ArrayLike | None = None,
    ) -> RawData:
        """Validate arrays (or a lazy source of frames) and bind them into a scan.

        Args:
            counts: (M, N, N) photon counts ≥ 0, laid out as in the class; or a FrameSource, read in chunks.
            positions_px: (M, 2) frame centres (y, x), object pixels.
            probe: (N, N) or (P, N, N) complex, or None.
            probe_calibrated: see the class.
            mask: (N, N), True = good; values of bad pixels are ignored and may be anything.
            background: (N, N) expected counts ≥ 0.
            object_guess: an object on the same pixel grid.
            geometry: the instrument.
            propagation: how waves get from the object to the detector.
            source: provenance.
            frame_numbers: (M,) number of each frame in its file; None counts them from 0.
            look_at: (n,) frames whose counts are read and checked; None looks at all, once. Fewer are for inspecting a
                scan too large to read: nothing can be reconstructed of it then.

        Raises:
            DataError: anything that is not a usable scan; the message says what was found and the fix.
        """
        source = source or Source()
        name = source.path or "scan"
        frames = checked_frames(counts, name)
        M, N = frames.shape[:2]
        numbers = np.arange(M) if frame_numbers is None else np.array(frame_numbers)
        positions = checked_positions(positions_px, M, name)
        if N not in SIDES:
            raise DataError(f"{name}: frames are {N}×{N}; N must be {SIDES_IN_WORDS}. Crop or pad them.")
        check_canvas(positions, N, numbers, name)
        check_sampling(propagation, N, name)
        known = geometry or Geometry()
        known.check(name)
        raw = cls(
            frames=frames,
            positions_px=positions,
            mask=checked_mask(mask, N, name),
            background=checked_background(background, N, name),
            probe=checked_probe(probe, N, name),
            probe_calibrated=probe_calibrated,
            object_guess=object_guess,
            geometry=known,
            propagation=propagation,
            source=source,
            frame_numbers=read_only(numbers.astype(np.int64)),
            frame_totals=np.zeros(M),
            looked_at=None if look_at is None else read_only(np.array(look_at, dtype=np.int64)),
        )
        return replace(raw, frame_totals=read_only(_scan_totals(raw, name)))

    @property
    def n_frames(self) -> int:
        """M, the number of frames."""
        return self.frames.shape[0]

    @property
    def side(self) -> int:
        """N, the side of a frame in pixels."""
        return self.frames.shape[1]

    def read_counts(self, frame_indices: ArrayLike) -> NDArray[np.float32]:
        """Read frames: (n,) indices → (n, N, N) float32 counts, bad pixels set to 0."""
        counts = self.frames.read(np.asarray(frame_indices, dtype=np.int64).ravel())
        if self.mask is not None:
            counts[:, ~self.mask] = 0.0
        return counts

    def chunks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Iterate over the frames looked at, in order, as (indices (n,), counts (n, N, N)), 32 MiB at most at a time.

        They are all of a scan that was not merely read to be inspected.
        """
        step = max(1, _CHUNK_BYTES // (4 * self.side**2))
        chosen = np.arange(self.n_frames) if self.looked_at is None else self.looked_at
        for start in range(0, len(chosen), step):
            safe_point()
            indices = chosen[start : start + step].astype(np.int64)
            yield indices, self.read_counts(indices)

    @property
    def n_looked_at(self) -> int:
        """Number of frames that were looked at."""
        return self.n_frames if self.looked_at is None else len(self.looked_at)

    def mean_pattern(self) -> NDArray[np.float64]:
        """Mean counts of each detector pixel over the frames, (N, N) float64."""
        total = np.zeros((self.side, self.side))
        for _, counts in self.chunks():
            total += counts.sum(axis=0, dtype=np.float64)
        return total / self.n_looked_at

    def subset(self, indices: ArrayLike) -> RawData:
        """Return the scan restricted to some frames, in the order given; counts are not copied.

        Args:
            indices: (n,) frame numbers, or (M,) bool, True for the frames to keep.

        Raises:
            DataError: no frame, or one that the scan does not have.
        """
        name = self.source.path or "scan"
        given = np.asarray(indices).ravel()
        if given.dtype == bool:
            if len(given) != self.n_frames:
                raise DataError(f"{name}: a selection of {len(given)} flags, but the scan has {self.n_frames} frames.")
            given = np.flatnonzero(given)
        chosen = given.astype(np.int64)
        if len(chosen) == 0:
            raise DataError(f"{name}: a subset of no frames.")
        if chosen.min() < 0 or chosen.max() >= self.n_frames:
            raise DataError(
                f"{name}: frames {chosen.min()} to {chosen.max()} asked for; the scan has 0 to {self.n_frames - 1}."
            )
        # a view of a view is a view of the scan itself, so that two views can be told to be of one scan
        view = self.frames
        frames = (
            SubsetFrames(view.base, view.numbers[chosen])
            if isinstance(view, SubsetFrames)
            else SubsetFrames(view, chosen)
        )
        return replace(
            self,
            frames=frames,
            positions_px=read_only(self.positions_px[chosen]),
            frame_numbers=read_only(self.frame_numbers[chosen]),
            frame_totals=read_only(self.frame_totals[chosen]),
            looked_at=None if self.looked_at is None else np.flatnonzero(np.isin(chosen, self.looked_at)),
        )

    def subsample(self, n_frames: int, seed: int) -> RawData:
        """Return `n_frames` frames drawn without replacement by the seed, kept in scan order.

        Raises:
            ConfigError: no frame asked for, or more than there are.
        """
        return self.subset(draw_subsample(self.n_frames, n_frames, seed))

    def split(self, test_fraction: float, seed: int, how: str = "random") -> tuple[RawData, RawData | None]:
        """Split by frames into (train, test); no frame is in both.

        Args:
            test_fraction: fraction of the frames in test; 0 gives (self, None).
            seed: decides the frames (``random``) or the corner of the region (``region``).
            how: ``random``, or ``region``: the frames nearest to one frame of the scan, so that test pixels are unseen.

        Raises:
            ConfigError: nothing would be left to train on, a fraction below 0, or an unknown way to split.
        """
        heldout = draw_heldout(self.positions_px, test_fraction, seed, how)
        if not len(heldout):
            return self, None
        return self.subset(np.setdiff1d(np.arange(self.n_frames), heldout)), self.subset(heldout)

    def with_probe(self, probe: ArrayLike, *, calibrated: bool = False) -> RawData:
        """Return the scan with another probe, (N, N) or (P, N, N)."""
        checked = checked_probe(probe, self.side, self.source.path or "scan")
        return replace(self, probe=checked, probe_calibrated=calibrated)


def _scan_totals(raw: RawData, name: str) -> NDArray[np.float64]:
    """Read every frame once, refuse impossible counts, and return the total of each frame."""
    totals = np.full(raw.n_frames, np.nan)
    for indices, counts in raw.chunks():
        check_counts(indices, counts, name)
        totals[indices] = counts.sum(axis=(1, 2), dtype=np.float64)
    if not np.nansum(totals):
        which = "every frame" if raw.looked_at is None else f"the {raw.n_looked_at} frames looked at"
        raise DataError(f"{name}: every good pixel of {which} is zero; there is nothing to reconstruct.")
    return totals
