"""The part of a report that puts the images made on the way beside each other: by a network, and refined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import report_figures as figures
from . import report_plots as plots
from .data.results import Reconstruction, Refined

if TYPE_CHECKING:
    from .metrics import Comparison, FourierRingCorrelation

__all__ = ["STAGE_FILES", "Stage", "draw_stages", "stage_pictures", "stage_summaries", "stages_table"]

STAGE_FILES = ("stage_amplitude.png", "stage_phase.png", "refinement.png")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """An image made on the way to the result, or the result.

    Attributes:
        name: ``network`` or ``solver`` for what was trained, ``refined`` for what refining made of it.
        engine: engine that made it.
        reconstruction: the image.
        seconds: wall-clock seconds it took, training included.
        comparison: score against the truth, or None.
        half_data_frc: correlation of two images of this stage from half of the frames each, or None.
    """

    name: str
    engine: str
    reconstruction: Reconstruction
    seconds: float
    comparison: Comparison | None = None
    half_data_frc: FourierRingCorrelation | None = None

    def heldout_r_factor(self, heldout: NDArray[np.int64] | None) -> float | None:
        """R-factor of the held-out frames (n,), or None without any."""
        if heldout is None or not len(heldout):
            return None
        r = self.reconstruction.r_factor_of(heldout)
        return r if np.isfinite(r) else None


def stage_summaries(stages: tuple[Stage, ...], heldout: NDArray[np.int64] | None) -> list[dict[str, Any]]:
    """Plain data of each stage for ``summary.json``."""
    return [
        {
            "name": stage.name,
            "engine": stage.engine,
            "r_factor": stage.reconstruction.r_factor,
            "r_factor_heldout": stage.heldout_r_factor(heldout),
            "probe_modes": len(stage.reconstruction.probe),
            "seconds": round(stage.seconds, 3),
            "comparison": None if stage.comparison is None else stage.comparison.to_mapping(),
            "half_data_frc": None if stage.half_data_frc is None else stage.half_data_frc.to_mapping(),
        }
        for stage in stages
    ]


def draw_stages(stages: tuple[Stage, ...], refined: Refined | None, pixel_size_m: float | None) -> dict[str, bytes]:
    """File name → PNG of the first stage and of the losses of refining; empty where there was one stage only."""
    if len(stages) < 2:
        return {}
    first = stages[0].reconstruction
    view = figures.object_view(first.object, first.coverage)
    images = {
        "stage_amplitude.png": figures.amplitude_figure(view, pixel_size_m),
        "stage_phase.png": figures.phase_figure(view, pixel_size_m),
    }
    if refined is not None and any(len(values) for values in refined.history.values()):
        images["refinement.png"] = plots.losses_figure(refined.history)
    return images


def _cells(stage: Stage, heldout: NDArray[np.int64] | None, scored: bool, halved: bool) -> list[str]:
    held = stage.heldout_r_factor(heldout)
    cells = [
        stage.name,
        stage.engine,
        f"{stage.reconstruction.r_factor:.4f}",
        "–" if held is None else f"{held:.4f}",
        str(len(stage.reconstruction.probe)),
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


def stages_table(stages: tuple[Stage, ...], refined: Refined | None, heldout: NDArray[np.int64] | None) -> str:
    """HTML: one row a stage, and in words what refining did; an empty text where nothing was refined."""
    if len(stages) < 2:
        sentence = refinement_sentence(refined)
        return f'<section class="card"><p>{escape(sentence)}</p></section>' if sentence else ""
    scored = any(stage.comparison is not None for stage in stages)
    halved = any(stage.half_data_frc is not None for stage in stages)
    header = ["Image", "Engine", "R-factor", "R of held-out frames", "Probe modes", "Time"]
    header += ["Against the truth"] if scored else []
    header += ["Half period at FRC 1/7"] if halved else []
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(stage, heldout, scored, halved))}</tr>"
        for stage in stages
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
