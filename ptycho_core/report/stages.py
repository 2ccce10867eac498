"""The part of a report that puts the images made on the way beside each other: by a network, and refined."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..data.results import Refined
from ..data.run import Stage
from ..io.reconstruction_file import figures_of
from ..text import html_text as escape
from . import figures, plots

__all__ = ["draw_stages", "stage_pictures", "stage_summaries", "stages_table"]


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
    stages: tuple[Stage, ...], refined: Refined | None, pixel_size_m: float | None
) -> dict[str, Callable[[], bytes]]:
    """File name → what draws the first stage and the losses of refining; empty where there was one stage only."""
    if len(stages) < 2:
        return {}
    first = stages[0].scored.image

    def draw(figure: Callable[[figures.ObjectView, float | None], bytes]) -> bytes:
        return figure(figures.object_view(first.object, first.coverage), pixel_size_m)

    images: dict[str, Callable[[], bytes]] = {
        "stage_amplitude.png": partial(draw, figures.amplitude_figure),
        "stage_phase.png": partial(draw, figures.phase_figure),
    }
    if refined is not None and any(len(values) for values in refined.history.values()):
        images["refinement.png"] = partial(plots.losses_figure, refined.history)
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
        psnr = "" if c is None else f"{c.amplitude_psnr_db:.1f} / {c.phase_psnr_db:.1f} dB, "
        cells.append("–" if c is None else f"{psnr}correlation {c.correlation:.4f}")
    if halved:
        frc = stage.half_data_frc
        cells.append("–" if frc is None else f"{frc.half_period_px(frc.cutoff_one_seventh):.2f} px")
    return cells


def stages_table(stages: tuple[Stage, ...], refined: Refined | None) -> str:
    """HTML: one row a stage, and in words what refining did; an empty text where nothing was refined."""
    if len(stages) < 2:
        sentence = refinement_sentence(refined)
        return f'<section class="card"><p>{escape(sentence)}</p></section>' if sentence else ""
    scored = any(stage.comparison is not None for stage in stages)
    halved = any(stage.half_data_frc is not None for stage in stages)
    header = ["Image", "Engine", "Deviance", "held out", "R-factor", "held out", "Probe modes", "Time"]
    header += ["Against the truth"] if scored else []
    header += ["Half period at FRC 1/7"] if halved else []
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(stage, scored, halved))}</tr>" for stage in stages
    )
    head = "".join(f'<th scope="col" style="width:auto">{escape(cell)}</th>' for cell in header)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<section class="card">{table}<p>{escape(refinement_sentence(refined))}</p></section>'


def refinement_sentence(refined: Refined | None) -> str:
    """What refining did, in words."""
    if refined is None:
        return ""
    epochs = max((len(values) for values in refined.history.values()), default=0)
    text = f"Refined by engine {refined.engine} in {epochs} passes over the frames. "
    if "test_loss" in refined.history:
        text += "The held-out frames decided when to stop, and which state is shown. "
    if not refined.kept:
        text += f"The refined image was discarded: {refined.note}. "
    if refined.positions is not None:
        text += f"Scan positions {refined.positions.describe()}. "
    return text.strip()


def stage_pictures(images: Mapping[str, bytes]) -> list[tuple[str, str, str]]:
    """(file name, alternative text, caption) of the pictures that there are, in the order of a page."""
    known = {
        "stage_phase.png": ("Phase before refining", "The image that refining began with, shown as the one above."),
        "stage_amplitude.png": ("Amplitude before refining", "Its amplitude."),
        "refinement.png": (
            "Losses of refining against epochs",
            "Loss of the frames refined on and of the held-out frames. A Poisson loss has no natural zero: only its "
            "fall counts.",
        ),
    }
    return [(name, alt, caption) for name, (alt, caption) in known.items() if name in images]
