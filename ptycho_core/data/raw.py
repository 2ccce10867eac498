"""RawData: one scan as measured, validated once, units and axis order fixed (specs/10-data)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from ..physics.propagation import check_sampling, wavelength_m
from .frames import ArrayFrames, FrameSource, SubsetFrames
from .propagation import FAR_FIELD, Propagation
from .roles import draw_heldout, draw_subsample

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

MAX_CANVAS_PX = 2**28
"""Most object pixels that the positions of a scan may span: complex64, 2 GiB; a larger canvas is refused unread."""

RADIATIONS = ("photon", "electron")
"""What a beam may be made of."""

_MOST_EMPTY = 1000
"""Times that a canvas may be larger than all frames together: two fields of a sample lie apart, not a world apart."""

_SMALL_CANVAS_PX = 2**22
"""A canvas that is allowed to any scan."""

_FAR_AWAY = 10.0  # times what nine tenths of the frames and a frame's side span: nothing that a scan does
_CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The instrument, as far as it is known.

    Attributes:
        energy_eV: energy of a photon, or kinetic energy of an electron, electronvolts.
        distance_m: sample to detector, metres.
        detector_pixel_size_m: side of a detector pixel of the frames (a binned one where they are binned), metres.
        pixel_size_m: side of an object pixel, metres.
        radiation: ``photon`` or ``electron``.
    """

    energy_eV: float | None = None
    distance_m: float | None = None
    detector_pixel_size_m: float | None = None
    pixel_size_m: float | None = None
    radiation: str = "photon"

    def __post_init__(self) -> None:
        if self.radiation not in RADIATIONS:
            raise DataError(f"radiation = {self.radiation!r}; allowed: {', '.join(RADIATIONS)}.")

    @property
    def wavelength_m(self) -> float | None:
        """Wavelength, metres, where the energy is known."""
        return None if self.energy_eV is None else wavelength_m(self.energy_eV, self.radiation)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a scan came from and what was assumed in reading it.

    Attributes:
        path: file, or None for arrays.
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


@dataclass(frozen=True, kw_only=True)
class ObjectGuess:
    """An object to start from or to compare with: `object` (H, W) complex64, `origin_px` (2,) float64 (y, x)."""

    object: NDArray[np.complex64]
    origin_px: NDArray[np.float64]


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view of an array that cannot be written through."""
    array = array.view() if array.flags.owndata or array.base is not None else array
    array.flags.writeable = False
    return array


def _checked_positions(positions: ArrayLike, M: int, name: str) -> NDArray[np.float64]:
    try:
        if np.iscomplexobj(positions):
            raise TypeError("complex")
        out = np.array(positions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: positions_px must be numbers of shape (M, 2), (y, x) in object pixels.") from error
    if out.ndim != 2 or out.shape[1] != 2:
        raise DataError(f"{name}: positions_px has shape {out.shape}; it must be (M, 2), each row (y, x).")
    if len(out) != M:
        raise DataError(f"{name}: {M} frames but {len(out)} positions; every frame needs exactly one position.")
    bad = ~np.isfinite(out).all(axis=1)
    if bad.any():
        first = int(bad.argmax())
        raise DataError(f"{name}: {bad.sum()} positions are not finite (first: frame {first}); remove those frames.")
    span = np.ptp(out, axis=0)
    if M > 1 and not span.any():
        raise DataError(f"{name}: all {M} positions are the same point; ptychography needs a scan.")
    if M > 1 and span.max() < 1e-2:
        raise DataError(
            f"{name}: positions span {span.max():.3g} pixels; by their size they are metres. "
            "Divide them by the object pixel size and pass pixels."
        )
    return read_only(out)


def _check_canvas(positions: NDArray[np.float64], N: int, numbers: NDArray[Any], name: str) -> None:
    """Refuse positions that span more than an object can be, before anything is allocated for one.

    Raises:
        DataError: they do; the frame that lies farthest from the others is named.
    """
    height, width = (float(extent) + N for extent in np.ptp(positions, axis=0))
    frames_px = min(len(positions) * N**2, MAX_CANVAS_PX // _MOST_EMPTY)
    allowed = max(_MOST_EMPTY * frames_px, _SMALL_CANVAS_PX)
    away = np.abs(positions - np.median(positions, axis=0)).max(axis=1)
    frame = int(away.argmax())
    usual = float(np.quantile(away, 0.9)) + N
    lost = away > _FAR_AWAY * usual
    if lost.any() and lost.sum() <= max(1, len(away) // 50):
        raise DataError(
            f"{name}: frame {int(numbers[frame])} lies {away[frame]:.4g} object pixels from the middle of all; nine "
            f"tenths of the frames lie within {usual:.4g} of it: the position of {int(lost.sum())} frames cannot be "
            "right. Leave them out (--frames), or correct them."
        )
    if height * width <= allowed:
        return
    raise DataError(
        f"{name}: positions span {height - N:.4g} × {width - N:.4g} object pixels, an object of {height * width:.3g} "
        f"pixels; at most {allowed} are allowed for {len(positions)} frames of {N}×{N}. Frame {int(numbers[frame])} "
        f"lies farthest, {away[frame]:.4g} pixels from the middle of all, whose median distance is "
        f"{float(np.median(away)):.4g}: leave it out (--frames), or correct the unit of the positions "
        "(--position_unit) or the pixel size."
    )


def _checked_probe(probe: ArrayLike | None, N: int, name: str) -> NDArray[np.complex64] | None:
    if probe is None:
        return None
    out = np.array(probe)
    if out.ndim == 2:
        out = out[None]
    if out.ndim != 3 or out.shape[1:] != (N, N):
        raise DataError(
            f"{name}: the probe has shape {np.shape(probe)} but frames are {N}×{N}; it must be ({N}, {N}) or "
            f"(P, {N}, {N}). Crop or pad it (in the far field, resample it) or leave it out to have one estimated."
        )
    if not np.issubdtype(out.dtype, np.number):
        raise DataError(f"{name}: the probe holds {out.dtype} values; it must hold complex numbers.")
    out = out.astype(np.complex64)
    if not np.isfinite(out).all():
        raise DataError(f"{name}: the probe holds NaN or infinite values.")
    if not out.any():
        raise DataError(f"{name}: the probe is zero everywhere; leave it out to have one estimated from the data.")
    return read_only(out)


def _checked_plane(plane: ArrayLike | None, N: int, name: str, what: str, dtype: type) -> NDArray[Any] | None:
    if plane is None:
        return None
    try:
        if np.iscomplexobj(plane):
            raise TypeError("complex values")
        out: NDArray[Any] = np.array(plane, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: the {what} must be real numbers of shape ({N}, {N}): {error}.") from error
    if out.shape != (N, N):
        raise DataError(f"{name}: the {what} has shape {out.shape} but frames are {N}×{N}.")
    return read_only(out)


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
        if isinstance(counts, (np.ndarray, list, tuple)) or not hasattr(counts, "read"):
            try:
                values = np.asarray(counts)
            except ValueError as error:
                raise DataError(f"{name}: frames must be one array (M, N, N): {error}.") from error
            if not np.issubdtype(values.dtype, np.number) and values.dtype != bool:
                raise DataError(f"{name}: frames hold {values.dtype} values; they must be real numbers.")
            if np.iscomplexobj(values):
                raise DataError(f"{name}: frames are complex; a detector records counts. Pass |wave|² in photons.")
            frames: FrameSource = ArrayFrames(read_only(values.copy() if values.flags.writeable else values))
        else:
            frames = counts  # type: ignore[assignment]
        if len(frames.shape) != 3 or frames.shape[1] != frames.shape[2]:
            raise DataError(f"{name}: frames have shape {frames.shape}; they must be (M, N, N).")
        M, N = frames.shape[:2]
        if M == 0:
            raise DataError(f"{name}: no frames.")
        numbers = np.arange(M) if frame_numbers is None else np.array(frame_numbers)
        positions = _checked_positions(positions_px, M, name)
        if N not in SIDES:
            raise DataError(f"{name}: frames are {N}×{N}; N must be {SIDES_IN_WORDS}. Crop or pad them.")
        _check_canvas(positions, N, numbers, name)
        check_sampling(propagation, N, name)
        good = _checked_plane(mask, N, name, "mask", bool)
        if good is not None and not good.any():
            raise DataError(f"{name}: the mask hides every pixel (True means good; is it inverted?).")
        level = _checked_plane(background, N, name, "background", np.float32)
        if level is not None and not (np.isfinite(level).all() and (level >= 0).all()):
            raise DataError(f"{name}: the background must be finite expected counts ≥ 0.")
        raw = cls(
            frames=frames,
            positions_px=positions,
            probe=_checked_probe(probe, N, name),
            probe_calibrated=probe_calibrated,
            mask=good,
            background=level,
            object_guess=object_guess,
            geometry=geometry or Geometry(),
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
        checked = _checked_probe(probe, self.side, self.source.path or "scan")
        return replace(self, probe=checked, probe_calibrated=calibrated)


def _scan_totals(raw: RawData, name: str) -> NDArray[np.float64]:
    """Read every frame once, refuse impossible counts, and return the total of each frame."""
    totals = np.full(raw.n_frames, np.nan)
    for indices, counts in raw.chunks():
        if not np.isfinite(counts).all():
            frame = int(indices[~np.isfinite(counts).all(axis=(1, 2))][0])
            raise DataError(
                f"{name}: frame {frame} holds NaN or infinite counts; mask those pixels (--mask auto), or leave the "
                "frame out (--frames)."
            )
        if counts.min() < 0:
            frame = int(indices[counts.min(axis=(1, 2)) < 0][0])
            raise DataError(
                f"{name}: frame {frame} holds negative counts ({counts.min():.4g}); counts are ≥ 0. "
                "Mask those pixels (--mask auto), leave the frame out (--frames), or undo the background subtraction "
                "and pass the background instead (--background)."
            )
        totals[indices] = counts.sum(axis=(1, 2), dtype=np.float64)
    if not np.nansum(totals):
        which = "every frame" if raw.looked_at is None else f"the {raw.n_looked_at} frames looked at"
        raise DataError(f"{name}: every good pixel of {which} is zero; there is nothing to reconstruct.")
    return totals
