"""PtychoDataContainer: a scan with a role for each frame, which every stage and engine is handed (specs/10-data).

The roles are given once, by core, and travel with the scan from there: nobody downstream splits again. How an engine
goes over the frames (one by one, in batches, in groups on canvases of their own) is its own business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from ..physics.probe import initial_scale
from ..text import counted
from .probe_guess import ProbeGuess
from .raw import RawData, read_only
from .roles import outlying_frames
from .shown import card, file_name, line, rounded, size

__all__ = ["NO_COUNTS", "OUTLYING", "PtychoDataContainer", "Role", "Statistics", "canvas_of", "integer_corners"]

NO_COUNTS = "no counts"
"""Reason of a frame without any counts in its good pixels: a closed shutter, not a dark sample."""

OUTLYING = "ten times the counts of any other frame"
"""Reason of a frame whose total is far above all others; see ``roles.outlying_frames``."""


class Role(IntEnum):
    """What a frame is for."""

    TRAIN = 0
    """Learned from, and part of the image."""
    HELDOUT = 1
    """Looked at only, to judge: neither the image nor a weight has seen it."""
    UNUSED = 2
    """Not looked at, for a stated reason."""


_WORDS = {Role.TRAIN: "train", Role.HELDOUT: "held out", Role.UNUSED: "unused"}


def integer_corners(positions_px: NDArray[np.float64], N: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Split frame centres into the integer corner of the patch and the rest that the probe carries (FM-2).

    corner = centre − (N−1)/2,  n = floor(corner + ½),  δ = corner − n in [−½, ½).

    Args:
        positions_px: (..., 2) frame centres (y, x), object pixels.
        N: side of a frame.

    Returns:
        n (..., 2) int64 and δ (..., 2) float32.
    """
    corner = np.asarray(positions_px, dtype=np.float64) - (N - 1) / 2
    whole = np.floor(corner + 0.5)
    rest = (corner - whole).astype(np.float32)
    # float32 rounds 0.49999999 up to 0.5, which is outside the half-open interval
    return whole.astype(np.int64), np.minimum(rest, np.nextafter(np.float32(0.5), np.float32(0)))


def canvas_of(positions_px: NDArray[np.float64], N: int) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """The smallest canvas that holds the patches of some frames.

    Args:
        positions_px: (J, 2) frame centres (y, x), object pixels; J ≥ 1.
        N: side of a frame.

    Returns:
        (2,) int64 integer corner (y, x) of the canvas in scan coordinates, and its shape (H, W).
    """
    corners, _ = integer_corners(positions_px, N)
    origin = corners.min(axis=0)
    height, width = corners.max(axis=0) - origin + N
    return origin, (int(height), int(width))


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Constants of the training frames, reused unchanged at inference.

    Attributes:
        mean_counts: mean counts in the good pixels of a frame; the divisor of every loss.
        n_frames: frames they were measured on.
        scale: s that training starts from: see ``physics.probe.initial_scale``; 1 for a calibrated probe.
    """

    mean_counts: float
    n_frames: int
    scale: float

    @classmethod
    def of(cls, raw: RawData, frames: NDArray[np.int64] | None = None) -> Statistics:
        """Measure them on some frames (n,) of a scan that has a probe, or on all.

        Raises:
            DataError: no probe, or no counts in any of the frames.
        """
        name = raw.source.path or "scan"
        if raw.probe is None:
            raise DataError(f"{name}: no probe; initialise one before measuring statistics.")
        totals = raw.frame_totals if frames is None else raw.frame_totals[frames]
        mean_counts = float(totals.mean()) if len(totals) else 0.0
        if mean_counts == 0:
            raise DataError(f"{name}: no frame has counts; choose other frames.")
        known = (raw.probe, raw.mask, raw.background, raw.propagation)
        scale = 1.0 if raw.probe_calibrated else initial_scale(mean_counts, *known)
        return cls(mean_counts=mean_counts, n_frames=len(totals), scale=scale)


@dataclass(frozen=True, kw_only=True)
class PtychoDataContainer:
    """A scan, and what each of its frames is for. Make one with :meth:`of`; frames are referred to, not copied.

    Attributes:
        raw: the scan.
        role: (M,) int8, a :class:`Role` for each frame.
        unused: reason → (n,) int64 frames that are not used for it; every unused frame has one reason.
        probe: (P, N, N) complex64 probe to start from.
        statistics: constants of the training frames.
        probe_guess: where the probe came from, if the scan brought none and it was found from the training frames.
    """

    raw: RawData
    role: NDArray[np.int8]
    unused: Mapping[str, NDArray[np.int64]]
    probe: NDArray[np.complex64]
    statistics: Statistics
    probe_guess: ProbeGuess | None = None

    def __repr__(self) -> str:
        """One line: what it is and how large, never an array."""
        roles = (f"{len(self.frames(role))} {word}" for role, word in _WORDS.items() if len(self.frames(role)))
        return line(
            "PtychoDataContainer", file_name(self.raw.source.path), " + ".join(roles),
            f"of {counted(self.raw.n_frames, 'frame')} of {self.raw.side}×{self.raw.side}",
            f"probe {size(self.probe.shape)}", f"mean counts {rounded(self.statistics.mean_counts)}",
        )  # fmt: skip

    def _repr_html_(self) -> str:
        """The same for a notebook, with small pictures; see :class:`RawData`."""
        return card(self)

    @classmethod
    def of(
        cls,
        raw: RawData,
        *,
        heldout: ArrayLike = (),
        unused: Mapping[str, ArrayLike] | None = None,
        train: ArrayLike | None = None,
        statistics: Statistics | None = None,
    ) -> PtychoDataContainer:
        """Give each frame its role; those without counts or with far too many are unused, whatever is asked of them.

        Args:
            raw: the scan; it must have a probe (see ``physics.probe``).
            heldout: (n,) frames that are looked at only.
            unused: reason → (n,) frames that are left out.
            train: (n,) frames that are learned from; None takes all others.
            statistics: of the experiment that the scan belongs to; measured on the training frames when None, or, where
                a scan has none, on the held-out ones.

        Raises:
            DataError: no probe, a number that is no frame, a frame with two roles or without any, or no frame to use.
        """
        name, M = raw.source.path or "scan", raw.n_frames
        if raw.probe is None:
            raise DataError(f"{name}: no probe; initialise one before giving frames their roles.")
        if raw.looked_at is not None:
            raise DataError(f"{name}: only {raw.n_looked_at} of its {M} frames were looked at; read it with read_scan.")
        role = np.full(M, Role.TRAIN if train is None else -1, np.int8)
        reasons = {reason: _frames(frames, M, name) for reason, frames in (unused or {}).items()}
        given = [("held out", Role.HELDOUT, _frames(heldout, M, name))]
        given += [(f"unused ({reason})", Role.UNUSED, frames) for reason, frames in reasons.items()]
        if train is not None:
            given.append(("trained on", Role.TRAIN, _frames(train, M, name)))
        _refuse_two_roles([(words, frames) for words, _, frames in given], M, name)
        for _, what, frames in given:
            role[frames] = what
        if (role < 0).any():
            raise DataError(
                f"{name}: {(role < 0).sum()} of {M} frames have no role (first: frame {int((role < 0).argmax())}); say "
                "which are trained on, held out, or unused and why."
            )
        reasons = {reason: frames for reason, frames in reasons.items() if len(frames)}
        _refuse_blank_reasons(reasons, name)
        known = {NO_COUNTS: np.flatnonzero(raw.frame_totals == 0), OUTLYING: outlying_frames(raw.frame_totals)}
        for reason, frames in known.items():
            more = frames[role[frames] != Role.UNUSED].astype(np.int64)
            role[more] = Role.UNUSED
            reasons |= {reason: np.union1d(reasons.get(reason, more), more)} if len(more) else {}
        used = np.flatnonzero(role == Role.TRAIN)
        used = used if len(used) else np.flatnonzero(role == Role.HELDOUT)
        if not len(used):
            raise DataError(f"{name}: none of its {M} frames can be used: {_told(reasons)}.")
        return cls(
            raw=raw,
            role=read_only(role),
            unused={reason: read_only(frames) for reason, frames in reasons.items()},
            probe=raw.probe,
            statistics=statistics or Statistics.of(raw, used),
        )

    def frames(self, *roles: Role) -> NDArray[np.int64]:
        """Numbers (n,) of the frames with one of some roles, in scan order."""
        return np.flatnonzero(np.isin(self.role, roles)).astype(np.int64)

    @property
    def train_frames(self) -> NDArray[np.int64]:
        """Numbers (n,) of the frames that are learned from and make the image."""
        return self.frames(Role.TRAIN)

    @property
    def heldout_frames(self) -> NDArray[np.int64]:
        """Numbers (n,) of the frames that only judge."""
        return self.frames(Role.HELDOUT)

    @property
    def used_frames(self) -> NDArray[np.int64]:
        """Numbers (n,) of the frames that are trained on or held out."""
        return self.frames(Role.TRAIN, Role.HELDOUT)

    def canvas(self) -> tuple[NDArray[np.int64], tuple[int, int]]:
        """Corner (2,) and shape (H, W) of the smallest canvas that holds every used frame; see :func:`canvas_of`."""
        return canvas_of(self.raw.positions_px[self.used_frames], self.raw.side)

    def with_probe(self, probe: NDArray[np.complex64]) -> PtychoDataContainer:
        """The same frames with the same roles and statistics, and another probe (P, N, N) to start from."""
        raw = self.raw.with_probe(probe, calibrated=self.raw.probe_calibrated)
        assert raw.probe is not None
        return replace(self, raw=raw, probe=raw.probe)

    def dropped(self) -> dict[str, int]:
        """How many frames are unused, by reason, and how many pixels are masked; only what there is any of."""
        out = {f"frames: {reason}": len(frames) for reason, frames in self.unused.items()}
        masked = 0 if self.raw.mask is None else int((~self.raw.mask).sum())
        return out | ({"masked pixels": masked} if masked else {})

    def checked(self) -> PtychoDataContainer:
        """Check a container that came from a caller, and return it as it is.

        Raises:
            DataError: a field is not as specs/10-data says; the message names it, what it is and what it must be.
        """
        raw, name = self.raw, self.raw.source.path or "scan"
        M, N = raw.n_frames, raw.side
        P = len(self.probe) if np.ndim(self.probe) == 3 else 1
        wanted: dict[str, tuple[type, tuple[int, ...]]] = {
            "role": (np.int8, (M,)),
            "probe": (np.complex64, (P, N, N)),
        }
        for field, (dtype, shape) in wanted.items():
            value: Any = getattr(self, field)
            if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
                given = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
                raise DataError(
                    f"{name}: container.{field} is {given}; it must be {np.dtype(dtype).name} {shape}. "
                    "Make containers with PtychoDataContainer.of."
                )
        strange = ~np.isin(self.role, list(Role))
        if strange.any():
            raise DataError(
                f"{name}: container.role holds {int(self.role[strange][0])}; allowed: "
                f"{', '.join(f'{int(role)} ({role.name.lower()})' for role in Role)}."
            )
        told = {reason: _frames(frames, M, name) for reason, frames in self.unused.items()}
        _refuse_blank_reasons(told, name)
        _refuse_two_roles([(f"unused ({reason})", frames) for reason, frames in told.items()], M, name)
        listed = np.sort(np.concatenate([np.zeros(0, np.int64), *told.values()]))
        if not np.array_equal(listed, self.frames(Role.UNUSED)):
            raise DataError(
                f"{name}: container.role calls {len(self.frames(Role.UNUSED))} frames unused, and container.unused "
                f"gives reasons for {len(listed)}; each unused frame needs one reason, and no other frame has any."
            )
        if not len(self.used_frames):
            raise DataError(f"{name}: none of its {M} frames can be used: {_told(told)}.")
        if not isinstance(self.statistics, Statistics):
            raise DataError(f"{name}: container.statistics is a {type(self.statistics).__name__}, not a Statistics.")
        return self


def _frames(given: ArrayLike, M: int, name: str) -> NDArray[np.int64]:
    """Sorted numbers (n,) of frames.

    Raises:
        DataError: numbers that are no frames.
    """
    numbers = np.asarray(given)
    if not numbers.size:
        return np.zeros(0, np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise DataError(
            f"{name}: frames are named by {numbers.dtype} {numbers.shape}; they must be whole numbers (n,)."
        )
    if numbers.min() < 0 or numbers.max() >= M:
        raise DataError(f"{name}: frames {numbers.min()} to {numbers.max()} are named; the scan has 0 to {M - 1}.")
    return np.unique(numbers).astype(np.int64)


def _refuse_blank_reasons(reasons: Mapping[str, NDArray[np.int64]], name: str) -> None:
    for reason, frames in reasons.items():
        if not isinstance(reason, str) or not reason.strip():
            raise DataError(
                f"{name}: {counted(len(frames), 'frame is', 'frames are')} unused for the reason {reason!r}; it "
                "must be a text that says why."
            )


def _refuse_two_roles(given: Sequence[tuple[str, NDArray[np.int64]]], M: int, name: str) -> None:
    seen = np.zeros(M, bool)
    for number, (what, frames) in enumerate(given):
        both = frames[seen[frames]]
        if len(both):
            frame = int(both[0])
            other = next(words for words, earlier in given[:number] if frame in earlier)
            raise DataError(
                f"{name}: frame {frame} is {other} and {what} ({len(both)} frames are both); a frame has one role."
            )
        seen[frames] = True


def _told(reasons: Mapping[str, NDArray[np.int64]]) -> str:
    return ", ".join(f"{len(frames)} {reason}" for reason, frames in reasons.items()) or "there are none"
