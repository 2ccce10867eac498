"""Curves of a run, as PNG bytes: how well frames are explained epoch by epoch, losses, ring correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .canvas import FAINT, HELDOUT, INK, TRAIN, Picture, carry, drawn_text, framed, new_figure, place, title
from .values import curve_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ..data.findings import FourierRingCorrelation

__all__ = ["epochs_figure", "epochs_told", "frc_figure", "losses_figure"]

_COLOURS = (TRAIN, HELDOUT, "#3f8f5b", "#7a4fa3", "#8c6d31")
_ROLES = {"train": ("training", TRAIN, "o"), "test": ("held out", HELDOUT, "D")}
_MEASURES = {
    "deviance": ("reduced deviance", "1: all that noise allows"),
    "fourier_error": ("Fourier error", "shot noise alone"),
}


def epochs_told(history: Mapping[str, Sequence[float]]) -> str:
    """What a history tells of each epoch: ``deviance``, ``fourier_error``, or ``loss`` where it has neither."""
    known = [m for m in _MEASURES if any(np.isfinite(history.get(f"{role}_{m}", ())).any() for role in _ROLES)]
    return known[0] if known else "loss"


@Picture
def epochs_figure(history: Mapping[str, Sequence[float]], heading: str, floor: float | None = None) -> Figure:
    """How well the frames were explained after each epoch, the held-out ones in front, beside what noise allows.

    Args:
        history: name → one value an epoch; see :func:`epochs_told`.
        heading: of the figure.
        floor: what noise alone makes of the figure, drawn where it is given; 1 for a deviance.
    """
    measure = epochs_told(history)
    if measure == "loss":
        return losses_figure.figure(history, heading)
    label, floor_name = _MEASURES[measure]
    floor = 1.0 if measure == "deviance" else floor
    figure = new_figure(4.6, 3.55)
    axes = place(figure, 0.7, 0.5, 3.75, 2.5)
    axes.set_title(drawn_text(heading), loc="left", fontsize=10, color=INK, pad=22)
    framed(axes, "epoch", label)
    shown: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for role, (name, colour, marker) in _ROLES.items():
        values = np.asarray(history.get(f"{role}_{measure}", ()), dtype=float)
        if not np.isfinite(values).any():
            continue
        epochs = np.arange(1, len(values) + 1, dtype=float)
        shown[name] = (epochs, values)
        wide, front = (1.5, 3.0) if role == "test" else (1.0, 2.0)
        axes.plot(epochs, values, color=colour, marker=marker, markersize=3, label=name, linewidth=wide, zorder=front)
    everything = np.concatenate([values for _, values in shown.values()])
    if (everything[np.isfinite(everything)] > 0).all():
        _log_axis(axes, everything, floor)
    if floor is not None and np.isfinite(floor):
        axes.axhline(floor, color=INK, linewidth=1.0, linestyle="dashed", label=floor_name)
    _whole_epochs(axes)
    _legend_above(axes)
    carry(figure, curve_values(axes, "epoch", shown))
    return figure


def _legend_above(axes: Axes) -> None:
    """A legend in one row between title and axes, where no curve can be."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 0.985), ncols=3, fontsize=8, frameon=False,
        borderaxespad=0.2, columnspacing=1.2, handlelength=1.8,
    )  # fmt: skip


def _log_axis(axes: Axes, values: NDArray[np.float64], floor: float | None) -> None:
    """A logarithmic axis with a few plain numbers on it, that ends where the values do."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    low = min(low, floor) if floor is not None and np.isfinite(floor) and floor > 0 else low
    axes.set_yscale("log")
    axes.set_ylim(low * 0.93, high * 1.08)
    steps = (1, 2, 3, 4, 5, 6, 8) if high / low < 8 else (1, 2, 5) if high / low < 200 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=30))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.tick_params(which="both", labelsize=8)


def _whole_epochs(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(which="both", labelsize=8)


@Picture
def losses_figure(history: Mapping[str, Sequence[float]], heading: str = "Losses") -> Figure:
    """Every loss of the history against the epoch, on a log scale unless one is not positive."""
    figure = new_figure(4.6, 3.35)
    axes = place(figure, 0.95, 0.5, 3.5, 2.5)
    title(axes, heading)
    framed(axes, "epoch", "loss (per measured count)")
    names = sorted((n for n in history if "loss" in n and len(history[n])), key=lambda n: (n != "train_loss", n))
    curves = {n: np.asarray(history[n], dtype=float) for n in names}
    if not any(np.isfinite(v).any() for v in curves.values()):
        axes.text(0.5, 0.5, "no losses were recorded", transform=axes.transAxes, ha="center", color=FAINT, fontsize=9)
        return figure
    positive = all((v[np.isfinite(v)] > 0).all() for v in curves.values())
    if positive:
        _log_axis(axes, np.concatenate(list(curves.values())), None)
    shown = {}
    for (name, values), colour in zip(curves.items(), _COLOURS * len(curves), strict=False):
        epochs = np.arange(1, len(values) + 1)
        label = {"train_loss": "training", "test_loss": "held out"}.get(name, drawn_text(name))
        shown[label] = (epochs, values)
        axes.plot(epochs, values, color=colour, linewidth=1.4, marker="o", markersize=2.5, label=label)
    _whole_epochs(axes)
    axes.legend(loc="best", fontsize=8, framealpha=0.9, edgecolor="none")
    carry(figure, curve_values(axes, "epoch", shown))
    return figure


@Picture
def frc_figure(curves: Mapping[str, FourierRingCorrelation], pixel_size_m: float | None = None) -> Figure:
    """Fourier ring correlations against spatial frequency, with the half-bit curve first and the fixed thresholds.

    Args:
        curves: by name.
        pixel_size_m: side of an object pixel, for a second axis of half periods in nm; None labels it in pixels.
    """
    figure = new_figure(4.6, 3.75)
    axes = place(figure, 0.6, 0.5, 3.7, 2.55)
    title(axes, "Fourier ring correlation")
    axes.title.set_position((0, 1.12))
    framed(axes, "spatial frequency (cycles per object pixel)", "correlation")
    finest = max(curves.values(), key=lambda c: len(c.frequency))
    axes.plot(finest.frequency, finest.half_bit, color=INK, linewidth=1.1, linestyle="dashed", label="half-bit")
    shown: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for (name, curve), colour in zip(curves.items(), _COLOURS * len(curves), strict=False):
        shown[drawn_text(name)] = (curve.frequency, curve.correlation)
        axes.plot(curve.frequency, curve.correlation, color=colour, linewidth=1.5, label=drawn_text(name))
        if 0 < curve.cutoff_half_bit < curve.frequency[-1]:
            height = float(np.interp(curve.cutoff_half_bit, curve.frequency, curve.correlation))
            axes.plot(curve.cutoff_half_bit, height, marker="o", color=colour, markersize=5)
    shown["half-bit"] = (finest.frequency, finest.half_bit)
    for level, name in ((0.5, "½"), (1 / 7, "1/7")):
        axes.axhline(level, color=FAINT, linewidth=0.8, linestyle="dotted")
        axes.text(0.505, level, name, fontsize=8, color=FAINT, va="center", ha="left")
    axes.set(xlim=(0, 0.5), ylim=(-0.05, 1.05))
    _half_periods(axes, pixel_size_m)
    axes.legend(loc="lower left", fontsize=8, frameon=True, framealpha=0.9, edgecolor="none")
    carry(figure, curve_values(axes, "cycles per pixel", shown))
    return figure


def _half_periods(axes: Axes, pixel_size_m: float | None) -> None:
    """A scale on top that says the half period of each frequency."""
    at = [0.05, 0.1, 0.2, 0.3, 0.5]
    top = axes.secondary_xaxis("top")
    pixel = 1.0 if pixel_size_m is None else pixel_size_m * 1e9
    top.set_xticks(at, [f"{0.5 / f * pixel:.3g}" for f in at])
    top.tick_params(labelsize=8, colors=INK, width=0.6, length=3)
    top.set_xlabel(f"half period ({'object pixels' if pixel_size_m is None else 'nm'})", fontsize=8.5, color=INK)
    top.spines["top"].set(linewidth=0.6, edgecolor=FAINT)
