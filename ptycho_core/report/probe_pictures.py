"""Pictures of a probe: through its focus, and of the trials that it was found by; and what the report says of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.probe_guess import ProbeGuess
from ..physics.probe import defocused_planes, mode_powers, windowed_probe
from ..physics.propagation import far_field
from ..text import html_text as escape
from .canvas import FAINT, HELDOUT, INK, TRAIN, Picture, drawn_text, framed, new_figure, place, png_bytes, title
from .parts import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..data.raw import Geometry
    from ..data.run import Run

__all__ = ["ThroughFocus", "draw_probe", "focus_figure", "probe_words", "through_focus", "trials_figure"]

_PLANES = 61
_OUTER_SHARE = 0.98
_FEWEST_PIXELS = 256
_ROOM = 1.25
_COLOURS = (TRAIN, HELDOUT, "#3f8f5b", "#7a4fa3", "#8c6d31", "#b03a5b", "#2f8f9d", "#555f6b")


@dataclass(frozen=True, kw_only=True)
class ThroughFocus:
    """The strongest mode of a probe in planes along the beam.

    Attributes:
        distances_px2: (K,) λz / pixel² of each plane from the sample, positive downstream.
        along_x: (K, n) |P| in the row of the brightest point of each probe's middle, over x.
        along_y: (K, n) the same in its column, over y.
        focus_px2: where the beam is narrowest, by its brightest point.
        at_focus: (n, n) |P| there.
        at_sample: (n, n) |P| at the sample.

    The window is that of the probe; n is N, or less of a large one, whose outer detector pixels have no light.
    """

    distances_px2: NDArray[np.float64]
    along_x: NDArray[np.float64]
    along_y: NDArray[np.float64]
    focus_px2: float
    at_focus: NDArray[np.float64]
    at_sample: NDArray[np.float64]


def _outer_frequency(wave: NDArray[np.complex64]) -> float:
    """Frequency within which 98 % of the light lies, cycles per pixel."""
    N = wave.shape[-1]
    light = np.abs(far_field(wave)) ** 2
    q = np.arange(N) - N // 2
    y, x = np.indices(light.shape) - N // 2
    middle = (float((light.sum(axis=1) * q).sum() / light.sum()), float((light.sum(axis=0) * q).sum() / light.sum()))
    radius = np.hypot(y - middle[0], x - middle[1]).ravel()
    order = np.argsort(radius)
    inside = np.searchsorted(np.cumsum(light.ravel()[order]), _OUTER_SHARE * light.sum())
    reached = float(radius[order[min(int(inside), len(order) - 1)]])
    return max(reached, 1.0) / float(N)


def through_focus(probe: NDArray[np.complex64]) -> ThroughFocus:
    """Propagate the strongest mode of a probe both ways, until its cone is as wide as the window.

    Args:
        probe: (P, N, N) complex64 at the sample.
    """
    wave = probe[int(np.argmax(mode_powers(probe)))]
    N = wave.shape[-1]
    outer = _outer_frequency(wave)
    reach = 0.45 * N / outer
    distances = np.linspace(-reach, reach, _PLANES)
    n = min(N, max(_FEWEST_PIXELS, 2 * math.ceil(_ROOM * outer * N)))
    if n < N:  # what is beyond the light costs minutes and shows nothing
        wave = windowed_probe(wave[None], (N - n) // 2, (N - n) // 2, n)[0]
    small = distances * (n / N) ** 2
    best, at_focus, focus = -1.0, np.zeros((n, n)), 0.0
    for z, plane in zip(distances, defocused_planes(wave, small), strict=True):
        if float(np.abs(plane).max()) > best:
            best, at_focus, focus = float(np.abs(plane).max()), np.abs(plane).astype(np.float64), float(z)
    y, x = np.unravel_index(int(at_focus.argmax()), at_focus.shape)
    slices = [(np.abs(plane[y]), np.abs(plane[:, x])) for plane in defocused_planes(wave, small)]
    return ThroughFocus(
        distances_px2=distances,
        along_x=np.array([row for row, _ in slices], np.float64),
        along_y=np.array([column for _, column in slices], np.float64),
        focus_px2=focus,
        at_focus=at_focus,
        at_sample=np.abs(wave).astype(np.float64),
    )


def _scale(geometry: Geometry) -> tuple[float, float, str, str]:
    """Factors and labels of a length across the beam and of one along it."""
    pixel, wavelength = geometry.pixel_size_m, geometry.wavelength_m
    if pixel is None or wavelength is None:
        return 1.0, 1.0, "object pixels", "from the sample, λz / pixel²"
    return pixel * 1e6, pixel**2 / wavelength * 1e6, "µm", "from the sample, µm"


@Picture
def focus_figure(probe: NDArray[np.complex64], geometry: Geometry) -> Figure:
    """Slices through the beam, the probe at the sample and at the focus, and the power of each mode.

    Args:
        probe: (P, N, N) complex64 at the sample.
        geometry: of the scan; lengths are in metres where it has them.
    """
    beam, powers = through_focus(probe), mode_powers(probe)
    across, along, unit, z_label = _scale(geometry)
    half, z = probe.shape[-1] / 2 * across, beam.distances_px2 * along
    N = beam.at_focus.shape[-1]
    figure = new_figure(4.6, 5.75)
    for number, (slices, name) in enumerate(((beam.along_x, "x"), (beam.along_y, "y"))):
        axes = place(figure, 0.68, 4.17 - 1.62 * number, 3.78, 1.22)
        extent = (float(z[0]), float(z[-1]), half, -half)
        # the root shows a beam that is a hundred times wider than its focus
        axes.imshow(np.sqrt(slices.T), extent=extent, aspect="auto", cmap="magma", interpolation="nearest")
        for place_of, colour in ((0.0, "white"), (beam.focus_px2 * along, "#7fd1ff")):
            axes.axvline(place_of, color=colour, linewidth=1, linestyle="--")
        axes.set_ylabel(f"{name} ({unit})", fontsize=8.5, color=INK)
        if number == 1:
            axes.set_xlabel(z_label, fontsize=9, color=INK)
        else:
            axes.tick_params(labelbottom=False)
        title(axes, f"Along the beam, over {name}")
    y, x = (int(place_of) for place_of in np.unravel_index(int(beam.at_focus.argmax()), (N, N)))
    near = max(4, N // 8)
    closer = np.roll(beam.at_focus, (N // 2 - y, N // 2 - x), (0, 1))[
        N // 2 - near : N // 2 + near, N // 2 - near : N // 2 + near
    ]
    shown = ((beam.at_sample, "At the sample"), (closer, f"At the focus, {N / (2 * near):.0f}×"))
    for number, (plane, name) in enumerate(shown):
        axes = place(figure, 0.12 + 1.5 * number, 0.35, 1.36, 1.36)
        axes.imshow(plane, cmap="magma", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        title(axes, name)
    axes = place(figure, 3.4, 0.5, 1.08, 1.21)
    axes.bar(np.arange(len(powers)) + 1, 100 * powers, width=0.6, color=TRAIN)
    every = max(1, -(-len(powers) // 5))
    axes.set(xticks=np.arange(0, len(powers), every) + 1, xlim=(0.3, max(4, len(powers)) + 0.7))
    framed(axes, "mode", "")
    axes.set_ylim(0, 105)
    title(axes, "Power (%)")
    return figure


def trials_figure(guess: ProbeGuess) -> bytes | None:
    """What every trial explained, over defocus, and over the radius of a hole where those were tried.

    Returns:
        PNG bytes, or None where nothing was tried.
    """
    if not guess.trials:
        return None
    holes = any(trial.tried.get("disc_radius_px") is not None for trial in guess.trials)
    figure = new_figure(4.6, 5.9 if holes else 3.4)
    axes = place(figure, 0.7, 3.3 if holes else 0.5, 3.7, 2.25 if holes else 2.5)
    panels = [(axes, "defocus_px2", "defocus (λz / pixel²)")]
    if holes:
        panels.append((place(figure, 0.7, 0.5, 3.7, 2.2), "disc_radius_px", "radius of a hole (object pixels)"))
    words = list(dict.fromkeys(str(trial.tried["orientation"]) for trial in guess.trials))
    for panel, name, label in panels:
        for number, word in enumerate(words):
            label_of: str | None = drawn_text(word)
            for stage, marker in (("coarse", "o"), ("fine", "^"), ("settle", "s")):
                shown = [
                    (float(trial.tried[name]), 100 * max(trial.explained, -0.05))
                    for trial in guess.trials
                    if trial.tried["orientation"] == word
                    and trial.tried["stage"] == stage
                    and trial.tried.get(name) is not None
                    and math.isfinite(trial.best_misfit)
                ]
                if shown:
                    x, y = zip(*sorted(shown), strict=True)
                    colour = _COLOURS[number % len(_COLOURS)]
                    line = "-" if stage == "coarse" else "none"
                    panel.plot(x, y, marker=marker, markersize=4, linestyle=line, lw=1, color=colour, label=label_of)
                    label_of = None
        framed(panel, label, "held-out misfit explained (%)")
        panel.axhline(0, color=FAINT, linewidth=0.8)
    title(axes, "○ grid, △ closer, □ probe refined")
    if len(words) > 1:
        axes.legend(fontsize=8, framealpha=0.9, edgecolor="none", title="orientation", title_fontsize=8)
    return png_bytes(figure)


def draw_probe(run: Run) -> dict[str, Callable[[], bytes | None]]:
    """File name → what draws it, of a far-field run; a near field has no focus within reach of its window."""
    raw, guess = run.scan.raw, run.probe_guess
    images: dict[str, Callable[[], bytes | None]] = {}
    if not raw.propagation.is_near:
        images["probe_focus.png"] = partial(focus_figure, run.image.probe, raw.geometry)
    if guess is not None:
        images["probe_trials.png"] = partial(trials_figure, guess)
    return images


def probe_words(guess: ProbeGuess | None) -> str:
    """HTML that says where the probe came from; empty where the scan brought one."""
    if guess is None:
        return ""
    items = "".join(f"<li>{escape(text[:1].upper() + text[1:])}.</li>" for text in (*guess.sentences, *guess.doubts))
    best = sorted(guess.trials, key=lambda trial: trial.best_misfit)[:8]
    rows = [
        (
            *_row(trial.tried),
            f"{100 * trial.explained:.1f} %",
            f"{trial.heldout_deviance:.4g}",
            f"{trial.fourier_error:.4f}",
        )
        for trial in best
    ]
    heads = ("Stage", "Orientation", "Tried", "Modes", "Explained", "Held-out deviance", "Fourier error")
    tried = table(rows, heads) if rows else ""
    more = f"<p>The best {len(best)} of {len(guess.trials)} trials.</p>" if rows else ""
    said = escape(guess.describe())
    said = said[:1].upper() + said[1:]
    return f'<section class="card"><p>{said}.</p>{tried}{more}<ul class="notes">{items}</ul></section>'


def _row(values: Mapping[str, Any]) -> tuple[str, str, str, str]:
    radius, defocus = values.get("disc_radius_px"), values.get("defocus_px2")
    what = f"hole of {radius:.3g} px" if radius is not None else f"{values.get('modulus')}, {defocus:.4g} px²"
    return str(values.get("stage")), str(values.get("orientation")), what, str(values.get("modes"))
