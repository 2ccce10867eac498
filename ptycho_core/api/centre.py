"""Where zero frequency lies in a scan's frames: candidates from the mean pattern, tried by a few sweeps (FIND-5)."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.frames import ArrayFrames
from ..data.raw import RawData, read_only
from ..data.trials import Trial
from ..errors import DataError
from ..io.centre import CentreEstimate, estimate_centre
from ..physics.forward import mode_intensity
from ..physics.propagation import far_field
from ..protocol import Progress, ProgressEvent, ReconstructionBackend, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from .contest import hold_contest
from .orient import FIRST_FRAMES, LEAST_FRAMES, SWEEPS, trial_region
from .prepare import ensure_raw
from .trials import Region, TrialPlan, stepping_engine

__all__ = ["CentreFinding", "find_centre"]


@dataclass(frozen=True, kw_only=True)
class CentreFinding:
    """Where zero frequency lies.

    Attributes:
        centre_px: (y, x) pixel of the frames as they are; where it is not told from the middle, that is kept.
        certain: whether the winner was told from all other candidates.
        alike: the candidates that are not told apart, the winner first, as ``y,x``.
        estimate: what the mean pattern says.
        trials: one for each candidate, best first; empty without a probe, when the estimate is all there is.
        seconds: wall-clock time.
    """

    centre_px: tuple[float, float]
    certain: bool
    alike: tuple[str, ...]
    estimate: CentreEstimate
    trials: tuple[Trial, ...] = ()
    seconds: float = 0.0

    def describe(self) -> str:
        """One sentence for people."""
        if not self.trials and self.certain:
            names = ", ".join(self.estimate.candidates)
            return f"zero frequency at ({self.alike[0].replace(',', ', ')}): all candidates ({names}) are that pixel"
        if not self.trials:
            return self.estimate.describe()
        y, x = self.centre_px
        best = self.trials[0]
        text = (
            f"zero frequency at ({y:.0f}, {x:.0f}): held-out deviance {best.heldout_deviance:.4g}, Fourier error "
            f"{best.fourier_error:.4f}"
        )
        if not self.certain:
            return f"{text}; {' and '.join(self.alike)} are not told apart"
        return text + "".join(f"; next best {t.tried['centre']} {t.heldout_deviance:.4g}" for t in self.trials[1:2])

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "centre_px": list(self.centre_px),
            "certain": self.certain,
            "alike": list(self.alike),
            "candidates": {name: list(place) for name, place in self.estimate.candidates.items()},
            "symmetry": self.estimate.symmetry,
            "trials": [trial.to_mapping() for trial in self.trials],
            "seconds": self.seconds,
        }


def find_centre(
    scan: RawData,
    *,
    sweeps: int = SWEEPS,
    engine: str | ReconstructionBackend = "numpy",
    runtime: Runtime = DEFAULT_RUNTIME,
    progress: Progress = no_progress,
) -> CentreFinding:
    """Find the pixel of zero frequency of a far-field scan.

    Candidates are the middle (N/2), the centre of mass and the centre of symmetry of the mean pattern, and where the
    far field of the given probe fits it. With a probe each is tried by a few sweeps with that probe fixed, on the
    pixels that all of them see; a shift costs a phase ramp that neither a fixed probe has nor a flat object. Without a
    probe the estimate stands: a probe made of the mean pattern has the ramp in it.

    Args:
        scan: the scan.
        sweeps: of each trial.
        engine: that makes the sweeps.
        runtime: what does the work.
        progress: told of each trial, as stage ``centre``.

    Returns:
        The finding.

    Raises:
        DataError: a near field, which has no zero frequency in its frames; too few frames; a dark scan.
        BackendError: the engine is unknown, missing or broken.
    """
    began, raw = time.perf_counter(), ensure_raw(scan)
    name = raw.source.path or "scan"
    if raw.propagation.is_near:
        raise DataError(f"{name}: it is a {raw.propagation}; its frames are images and have no centre to find.")
    expected = None if raw.probe is None else mode_intensity(far_field(raw.probe))
    estimate = estimate_centre(raw.mean_pattern(), raw.mask, probe_intensity=expected, name=name)
    places = _whole_places(estimate, raw.side)
    if raw.probe is None or len(places) < 2 or raw.n_frames < LEAST_FRAMES:
        certain = len(places) < 2
        return CentreFinding(
            centre_px=estimate.centre_px, certain=certain, alike=tuple(map(_name, places)), estimate=estimate
        )
    region = trial_region(raw, None, FIRST_FRAMES)
    done = itertools.count(1)
    contest = hold_contest(
        _variants(region, places),
        region.heldout,
        "centre",
        plan=TrialPlan(epochs=sweeps),
        engine=stepping_engine(engine),
        runtime=runtime,
        after_each=lambda: progress(ProgressEvent(stage="centre", done=next(done), total=len(places))),
    )
    alike, middle = contest.alike, _name((raw.side // 2, raw.side // 2))
    winner = middle if middle in alike else alike[0]
    y, x = winner.split(",")
    return CentreFinding(
        centre_px=(float(y), float(x)),
        certain=len(alike) == 1,
        alike=(winner, *(word for word in alike if word != winner)),
        estimate=estimate,
        trials=tuple(contest.trials[word] for word in contest.ranked),
        seconds=time.perf_counter() - began,
    )


def _name(place: tuple[int, int]) -> str:
    return f"{place[0]},{place[1]}"


def _whole_places(estimate: CentreEstimate, N: int) -> list[tuple[int, int]]:
    """The candidates to whole pixels, each once, none so far off that less than half a frame would be left."""
    rounded = [(round(y), round(x)) for y, x in estimate.candidates.values()]
    near = [place for place in rounded if max(abs(place[0] - N // 2), abs(place[1] - N // 2)) <= N // 4]
    return list(dict.fromkeys(near))


def _variants(region: Region, places: list[tuple[int, int]]) -> dict[str, RawData]:
    """The region with each place moved to N/2, on the detector's pixels that stay in the frame for all of them."""
    raw, N = region.raw, region.raw.side
    shifts = [(N // 2 - y, N // 2 - x) for y, x in places]
    counts = raw.read_counts(np.arange(raw.n_frames))
    good = np.ones((N, N), bool) if raw.mask is None else raw.mask.copy()
    for axis in (0, 1):
        up, down = (max(0, *(sign * shift[axis] for shift in shifts)) for sign in (1, -1))
        line = np.zeros(N, bool)
        line[down : N - up] = True
        good &= line[:, None] if axis == 0 else line[None]
    out = {}
    for place, shift in zip(places, shifts, strict=True):
        out[_name(place)] = _shifted(raw, counts, good, shift)
    return out


def _shifted(raw: RawData, counts: NDArray[np.float32], good: NDArray[np.bool_], shift: tuple[int, int]) -> RawData:
    mask = np.roll(good, shift, (0, 1))
    moved = np.where(mask, np.roll(counts, shift, (1, 2)), np.float32(0))
    background = None if raw.background is None else read_only(np.roll(raw.background, shift, (0, 1)))
    return replace(
        raw,
        frames=ArrayFrames(read_only(moved)),
        mask=read_only(mask),
        background=background,
        frame_totals=read_only(moved.sum(axis=(1, 2), dtype=np.float64)),
    )
