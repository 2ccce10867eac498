"""What was found of a scan's probe: the aperture, the defocus, every trial, and how far it is to be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..text import counted
from .shown import line
from .trials import Trial

__all__ = ["Aperture", "ProbeGuess", "ProbeTrial", "part_words"]


@dataclass(frozen=True, kw_only=True)
class Aperture:
    """The bright field, as the mean pattern shows it; detector pixels (PROBE-1).

    Attributes:
        radius: of the disc of the same area as bright field and central stop together.
        inner_radius: of the central stop; 0 where there is none.
        threshold: counts of a pixel above which it belongs to the bright field.
        centre: (y, x) of the bright field; zero frequency is at (N/2, N/2).
        share: part of the counts that lies in the bright field.
    """

    radius: float
    inner_radius: float
    threshold: float
    centre: tuple[float, float]
    share: float

    @property
    def kind(self) -> str:
        """``annulus`` or ``disc``."""
        return "annulus" if self.inner_radius > 0 else "disc"


@dataclass(frozen=True, kw_only=True)
class ProbeTrial(Trial):
    """A trial of a probe, judged against an object that is not there (PROBE-2).

    An image that is drawn back towards a flat object, O = ō + a (O − ō), loses the noise that it has fitted faster than
    what it has found, so that of a wrong probe nothing is left, and of a right one some part is always better than
    nothing, at any dose.

    Attributes:
        kept: a, the part of the image's contrast at which the held-out frames are explained best; 0: it found nothing.
        best_misfit: deviance of the held-out frames a frame with that part; trials of probes are ranked by it.
        null_misfit: the same of no object at all: the better of every frame as the mean of those learned from, and as
            the trial's probe makes it of a flat object.
        floor: the same that noise alone would leave.
        trust: how many standard errors of the held-out frames the gain, null less best, is above 0.
    """

    kept: float
    best_misfit: float
    null_misfit: float
    floor: float
    trust: float

    @property
    def gain(self) -> float:
        """What the image explains of a held-out frame beyond an object that is not there, deviance."""
        return self.null_misfit - self.best_misfit if math.isfinite(self.best_misfit) else 0.0

    @property
    def explained(self) -> float:
        """The same as a part of what there is to explain, null less floor."""
        room = self.null_misfit - self.floor
        return self.gain / room if room > 0 and math.isfinite(room) else 0.0


@dataclass(frozen=True, kw_only=True)
class ProbeGuess:
    """A probe to start from, and where it came from (PROBE-1 … PROBE-6).

    Attributes:
        probe: (P, N, N) complex64 modes.
        how: ``lens`` (aperture and defocus), ``disc`` (a hole in the sample's plane), ``mean pattern`` (its root, in
            focus: nothing better was found), ``near field`` (the mean pattern propagated back).
        aperture: the bright field, or None for a near field.
        defocus_px2: wavelength × distance behind the focus in square object pixels, or None where there is none.
        disc_radius_px: radius of the hole at the sample, object pixels, or None.
        orientation: word of ``data.orientation.ORIENTATIONS`` that the positions must be brought to for it; ``none``
            where no other was tried.
        convincing: whether the held-out frames are explained better with it than chance allows.
        explained: part of the held-out misfit of no object, above the noise, that the last trial explains.
        trials: all, in order; see :class:`ProbeTrial`.
        sentences: what was found and assumed, for people.
        doubts: what a user should know before trusting it, for people.
        seconds: wall-clock time that finding it took.
    """

    probe: NDArray[np.complex64]
    how: str
    aperture: Aperture | None = None
    defocus_px2: float | None = None
    disc_radius_px: float | None = None
    orientation: str = "none"
    convincing: bool = False
    explained: float = 0.0
    trials: tuple[ProbeTrial, ...] = ()
    sentences: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    seconds: float = 0.0

    def __repr__(self) -> str:
        """One line, without the probe."""
        return line("ProbeGuess", self.describe())

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for a JSON file, all but the probe."""
        return {
            "how": self.how,
            "convincing": self.convincing,
            "explained": self.explained,
            "orientation": self.orientation,
            "defocus_px2": self.defocus_px2,
            "disc_radius_px": self.disc_radius_px,
            "aperture": None if self.aperture is None else {**asdict(self.aperture), "kind": self.aperture.kind},
            "modes": len(self.probe),
            "sentences": list(self.sentences),
            "doubts": list(self.doubts),
            "seconds": round(self.seconds, 3),
            "trials": [_plain(trial.to_mapping()) for trial in self.trials],
        }

    def describe(self) -> str:
        """One line for people."""
        if self.how == "lens":
            what = f"behind a lens, defocus {self.defocus_px2:.4g} px²"
        elif self.how == "disc":
            what = f"a disc of radius {self.disc_radius_px:.3g} px at the sample"
        else:
            what = f"from the {self.how}"
        more = f", {part_words(self.explained, 0)} of the misfit explained" if self.trials else ""
        turn = f", positions {self.orientation}" if self.orientation != "none" else ""
        doubt = "" if self.convincing or not self.trials else "; not convincing"
        return f"{what}{turn}; {counted(len(self.trials), 'trial')} in {self.seconds:.1f} s{more}{doubt}"


def part_words(part: float, digits: int = 1) -> str:
    """A part of a misfit that is explained, in words: one that grew is not explained by less than nothing."""
    text = f"{max(100 * part, 0.0):.{digits}f}"
    return f"{text} %" if float(text) > 0 else "nothing"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if not isinstance(value, float) or math.isfinite(value) else None for name, value in values.items()
    }
