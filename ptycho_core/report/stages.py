"""The part of a report that puts the images made on the way beside each other: by a network, and refined."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from ..data.findings import Comparison
from ..data.results import Refined
from ..data.run import Stage
from ..io.reconstruction_file import figures_of
from ..text import counted
from ..text import html_text as escape
from . import figures, plots
from .parts import decibels, half_period_words, table

__all__ = ["draw_stages", "refinement_sentence", "stage_summaries", "stages_table"]


def stage_summaries(stages: tuple[Stage, ...]) -> list[dict[str, Any]]:
    """Plain data of each stage for ``summary.json``."""
    return [
        {
            "name": stage.name,
            "engine": stage.scored.engine,
            "figures": figures_of(stage.scored),
            "probe_modes": len(stage.scored.image.probe),
            "scale": stage.scored.image.scale,
            "seconds": round(stage.seconds, 3),
            "comparison": None if stage.comparison is None else stage.comparison.to_mapping(),
            "half_data_frc": None if stage.half_data_frc is None else stage.half_data_frc.to_mapping(),
        }
        for stage in stages
    ]


def draw_stages(
    stages: tuple[Stage, ...],
    refined: Refined | None,
    pixel_size_m: float | None,
    before: figures.ObjectView | None,
    floor: float | None,
) -> dict[str, Callable[[], bytes]]:
    """File name → what draws the image before refining, and the epochs of refining; empty where there were none.

    Args:
        stages: of the run.
        refined: what refining gave.
        pixel_size_m: side of an object pixel, metres, or None.
        before: how the first image is shown, on the scale of the result.
        floor: Fourier error that noise alone makes.
    """
    images: dict[str, Callable[[], bytes]] = {}
    if len(stages) > 1 and before is not None:
        images["stage_amplitude.png"] = partial(
            figures.amplitude_figure, before, pixel_size_m, "Amplitude before refining"
        )
        images["stage_phase.png"] = partial(figures.phase_figure, before, pixel_size_m, "Phase before refining")
    if refined is not None and any(len(values) for values in refined.history.values()):
        images["refinement.png"] = partial(plots.epochs_figure, refined.history, "Refining", floor)
    return images


def _cells(stage: Stage, scored: bool, halved: bool) -> list[str]:
    train, held = stage.scored.train, stage.scored.heldout
    cells = [
        stage.name,
        stage.scored.engine,
        f"{train.deviance:.4g}",
        "–" if held is None else f"{held.deviance:.4g}",
        f"{train.r_factor:.4f}",
        "–" if held is None else f"{held.r_factor:.4f}",
        str(len(stage.scored.image.probe)),
        f"{stage.seconds:.1f} s",
    ]
    if scored:
        c = stage.comparison
        cells.append("–" if c is None else f"{_psnrs(c)}, correlation {c.correlation:.4f}")
    if halved:
        frc = stage.half_data_frc
        cells.append("–" if frc is None else half_period_words(frc.half_period_px(frc.cutoff_half_bit)))
    return cells


def _psnrs(c: Comparison) -> str:
    """The PSNR of amplitude and phase, with one unit where both are numbers."""
    if math.isfinite(c.amplitude_psnr_db) and math.isfinite(c.phase_psnr_db):
        return f"{c.amplitude_psnr_db:.1f} / {c.phase_psnr_db:.1f} dB"
    return f"{decibels(c.amplitude_psnr_db, 1)} / {decibels(c.phase_psnr_db, 1)}"


def stages_table(stages: tuple[Stage, ...], refined: Refined | None) -> str:
    """HTML: one row a stage, and in words what refining did; an empty text where nothing was refined."""
    if len(stages) < 2:
        sentence = refinement_sentence(refined)
        return f'<section class="card"><p>{escape(sentence)}</p></section>' if sentence else ""
    scored = any(stage.comparison is not None for stage in stages)
    halved = any(stage.half_data_frc is not None for stage in stages)
    header = ["Image", "Engine", "Deviance", "held out", "R-factor", "held out", "Probe modes", "Time"]
    header += ["Against the truth"] if scored else []
    header += ["Half period at half-bit"] if halved else []
    rows = [_cells(stage, scored, halved) for stage in stages]
    sentence = escape(refinement_sentence(refined))
    return f'<section class="card">{table(rows, header)}<p>{sentence}</p></section>'


def refinement_sentence(refined: Refined | None) -> str:
    """What refining did, in words."""
    if refined is None:
        return ""
    epochs = max((len(values) for values in refined.history.values()), default=0)
    text = f"Refined by engine {refined.engine} in {counted(epochs, 'pass', 'passes')} over the frames. "
    if "test_loss" in refined.history:
        text += "The held-out frames decided when to stop, and which state is shown. "
    if not refined.kept:
        text += f"The refined image was discarded: {refined.note}. "
    if refined.positions is not None:
        text += f"Scan positions {refined.positions.describe()}. "
    return text.strip()
