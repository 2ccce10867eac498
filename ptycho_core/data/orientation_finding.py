"""What was found of a scan's orientation: the trials, the winner, and what it can not be told from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .orientation import composed, matrix_of
from .trials import Trial

if TYPE_CHECKING:
    from .probe_guess import ProbeGuess

__all__ = ["HALF_TURN", "OrientationFinding"]

HALF_TURN = "flip_y+flip_x"
"""The turn by 180°, which with the twin of the probe explains far fields as well: conj O(−r), conj P(−r)."""


@dataclass(frozen=True, kw_only=True)
class OrientationFinding:
    """Which orientation explains the frames of a scan best, and how far that can be told (FIND-2, FIND-3).

    Attributes:
        orientation: the word to use; where the winner cannot be told from the orientation that the scan was read in,
            that is kept.
        certain: whether the winner was told from all others.
        alike: the words that the frames cannot tell apart, the winner first; one where it is certain.
        trials: one for each word that was tried, of the same frames, best first; ``tried["orientation"]`` is the word.
        needed: held-out deviance a frame that a word had to gain on the runner-up to be told from it.
        gained: what the winner gained on the runner-up.
        n_frames: frames of the region that was tried on; `n_heldout` of them judged.
        n_heldout: see there.
        how: ``trials``, ``shadow`` (the frames' motion told it) or ``none`` (nothing could be tried).
        reasons: why it cannot be told, or what else was found, one sentence each.
        rotate_deg: turn of the positions that the frames' motion shows besides, degrees, or None.
        probe_follows: whether a given probe explains the frames better when it is turned as the positions are: then the
            frames are flipped against both.
        probe: what was found with it, of a scan that has no probe; it belongs to `orientation`.
        seconds: wall-clock time.
    """

    orientation: str
    certain: bool
    alike: tuple[str, ...]
    trials: tuple[Trial, ...] = ()
    needed: float = 0.0
    gained: float = 0.0
    n_frames: int = 0
    n_heldout: int = 0
    how: str = "trials"
    reasons: tuple[str, ...] = ()
    rotate_deg: float | None = None
    probe_follows: bool = False
    probe: ProbeGuess | None = None
    seconds: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether another orientation than the one the scan was read in explains it better, beyond doubt."""
        return "none" not in self.alike

    @property
    def twins(self) -> bool:
        """Whether what cannot be told apart is a pair that differs by a turn of 180°."""
        return len(self.alike) == 2 and composed(self.alike[0], HALF_TURN) == self.alike[1]

    def trial_of(self, word: str) -> Trial | None:
        """The trial of a word, or None where it was not tried."""
        return next((trial for trial in self.trials if trial.tried.get("orientation") == word), None)

    def option(self, read_with: Mapping[str, str] | None = None) -> str | None:
        """What to give to read the scan in this orientation; None where what was given already is right.

        Args:
            read_with: ``source.details["read_with"]`` of the scan that was tried: the orientation found comes on top of
                the one that it was read in.
        """
        given = read_with or {}
        before, turned = given.get("orientation", "none"), float(given.get("rotate_deg", 0.0))
        word = composed(before, self.orientation)
        # a turn after an orientation is a turn before it, the other way where that one mirrors
        turn = turned + (self.rotate_deg or 0.0) * round(float(np.linalg.det(matrix_of(before))))
        if self.orientation == "none" and not self.rotate_deg:
            return None
        options = [f"--rotate {turn:.4g}"] if turn else []
        options += [f"--orientation {word}"] if word != "none" or not options else []
        return " ".join(options)

    def describe(self, read_with: Mapping[str, str] | None = None) -> str:
        """One sentence for people: what to do, with figures.

        Args:
            read_with: see :meth:`option`.
        """
        if self.how == "none":
            return f"the orientation cannot be told: {self.reasons[0]}"
        if self.how == "shadow":
            return "; ".join(self.reasons)
        best, stored = self.trials[0], self.trial_of("none")
        figures = f"held-out deviance {best.heldout_deviance:.4g}, Fourier error {best.fourier_error:.4f}"
        if len(self.alike) > 1 and not self.twins:
            words = "all eight" if len(self.alike) == len(self.trials) else ", ".join(self.alike)
            return f"the scan cannot tell its orientation ({words} are alike): {figures} at best"
        if stored is None or not self.changes:
            text = f"positions fit the frames as they are: {figures}"
            if len(self.trials) > 1:
                second = next(t for t in self.trials if t.tried["orientation"] not in self.alike)
                text += f"; next best {second.heldout_deviance:.4g}, {second.fourier_error:.4f}"
        else:
            text = (
                f"{self.option(read_with)} explains the frames better: {figures}, as they are "
                f"{stored.heldout_deviance:.4g}, {stored.fourier_error:.4f}"
            )
        return f"{text}; a turn by 180° cannot be told" if self.twins else text

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "orientation": self.orientation,
            "certain": self.certain,
            "alike": list(self.alike),
            "trials": [trial.to_mapping() for trial in self.trials],
            "needed": self.needed,
            "gained": self.gained,
            "n_frames": self.n_frames,
            "n_heldout": self.n_heldout,
            "how": self.how,
            "reasons": list(self.reasons),
            "rotate_deg": self.rotate_deg,
            "probe_follows": self.probe_follows,
            "probe": None if self.probe is None else self.probe.describe(),
            "seconds": self.seconds,
        }
