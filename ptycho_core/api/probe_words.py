"""What a search for a probe says to people: what was found, and what to doubt."""

from __future__ import annotations

import numpy as np

from ..data.probe_guess import ProbeGuess, part_words
from ..data.raw import RawData
from ..physics.lattice import scan_lattice
from ..text import counted

__all__ = ["doubts_of", "lattice_sentence", "sentences_of"]


def sentences_of(guess: ProbeGuess, raw: RawData) -> tuple[str, ...]:
    """What was found and assumed, one sentence each.

    Args:
        guess: the guess, but for its sentences.
        raw: the scan.
    """
    said = []
    if guess.aperture is not None:
        a = guess.aperture
        stop = f", central stop of radius {a.inner_radius:.3g} px" if a.inner_radius else ""
        said.append(
            f"the mean pattern shows a bright field of radius {a.radius:.3g} detector px{stop}, centred at "
            f"({a.centre[0]:.4g}, {a.centre[1]:.4g}), with {100 * a.share:.0f} % of the counts (above "
            f"{a.threshold:.3g} a pixel)"
        )
    if guess.how == "lens":
        assert guess.defocus_px2 is not None
        said.append(
            f"the scan brought no probe; one was found from the mean pattern with a defocus of {guess.defocus_px2:.4g} "
            f"square object pixels{_in_metres(guess.defocus_px2, raw)}, by {counted(len(guess.trials), 'trial')}"
        )
        other = "the sign of the defocus follows from the orientation as it was read"
        if guess.orientation != "none":
            other = "of the two, a sample downstream of the focus was taken"
        said.append(
            "a turn of all positions by 180° together with the other sign of the defocus explains a far field equally "
            f"well (the twin: conj P(−r), conj O(−r)); {other}"
        )
    elif guess.how == "disc":
        said.append(
            f"the scan brought no probe; it is explained best by a disc of radius {guess.disc_radius_px:.3g} object "
            f"pixels at the sample, by {counted(len(guess.trials), 'trial')}"
        )
    else:
        said.append("the scan brought no probe; one was estimated from the mean pattern, in focus")
    if guess.orientation != "none":
        said.append(f"positions were brought to orientation {guess.orientation}, which was found with the probe")
    return tuple(said)


def _in_metres(defocus_px2: float, raw: RawData) -> str:
    """A defocus in metres, where energy and pixel are known."""
    wavelength, pixel = raw.geometry.wavelength_m, raw.geometry.pixel_size_m
    if wavelength is None or pixel is None:
        return ""
    return f" ({defocus_px2 * pixel**2 / wavelength * 1e6:.4g} µm)"


def lattice_sentence(raw: RawData) -> str | None:
    """What is ambiguous in a raster scan, or None where positions lie on no lattice."""
    lattice = scan_lattice(raw.positions_px)
    if lattice is None:
        return None
    a, b = (f"({row[0]:.3g}, {row[1]:.3g})" for row in lattice)
    return (
        f"positions lie on a lattice with steps {a} and {b} object pixels: what repeats with it in the object cannot "
        "be told from the probe, and may show as a pattern at the scan step; jitter the positions of the next scan"
    )


def doubts_of(guess: ProbeGuess, raw: RawData, words: tuple[str, ...]) -> tuple[str, ...]:
    """What a user should know before trusting it, one sentence each.

    Args:
        guess: the guess, but for its doubts.
        raw: the scan.
        words: orientations that were allowed.
    """
    found = []
    if guess.trials and not guess.convincing:
        best = max((trial.explained for trial in guess.trials if np.isfinite(trial.explained)), default=0.0)
        ways = "" if len(words) > 1 else ", search the orientation too (--orientation auto)"
        found.append(
            "no probe was found that explains frames it has not seen: the best of "
            f"{counted(len(guess.trials), 'trial')} explains {part_words(best)} of their misfit, which chance or "
            f"a wrong orientation does as well; give the probe (--probe FILE or aperture(…)){ways}, or check "
            "positions and units"
        )
    if (lattice := lattice_sentence(raw)) is not None:
        found.append(lattice)
    return tuple(found)
