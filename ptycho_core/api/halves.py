"""Two images from two halves of the frames, which share nothing but the settings and the first probe."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.results import Image, Scored
from ..data.roles import draw_heldout
from ..protocol import Progress
from .refine import refine
from .stages import Engines, Heard, image_of, of_model, train_on

if TYPE_CHECKING:
    from ..data.findings import FourierRingCorrelation

__all__ = ["half_data_frc", "half_scans"]

_OTHER_HALF = "in the other half"


def _nobody(text: str) -> None:
    """Hear what is said of a half, which nobody is shown."""


def half_scans(
    scan: PtychoDataContainer, config: TrainingConfig, *, hold_out: bool
) -> tuple[tuple[PtychoDataContainer, TrainingConfig], tuple[PtychoDataContainer, TrainingConfig]]:
    """Divide the used frames of a scan in two, each half with a seed of its own.

    The seed decides first weights, groups, batches and held-out frames, so that the halves agree on nothing by chance.

    Args:
        scan: the scan.
        config: ``seed``, and ``test_fraction`` and ``test_split`` of a half.
        hold_out: whether frames of each half are held out, to know when to stop refining.

    Returns:
        Two pairs of a half and the settings to train on it with.
    """
    used, raw = scan.used_frames, scan.with_probe(scan.probe).raw
    order = np.random.default_rng(config.seed).permutation(used)
    seeds = np.random.SeedSequence([config.seed, len(used)]).generate_state(2)
    halves = []
    for part, seed in zip((order[: len(order) // 2], order[len(order) // 2 :]), seeds, strict=True):
        frames = np.sort(part)
        settings = replace(config, seed=int(seed), nphotons=None, n_subsample=None)
        heldout = np.zeros(0, np.int64)
        if hold_out:
            positions = scan.raw.positions_px[frames]
            heldout = frames[draw_heldout(positions, config.test_fraction, int(seed), config.test_split)]
        unused = {**scan.unused, _OTHER_HALF: np.setdiff1d(used, frames)}
        halves.append((PtychoDataContainer.of(raw, heldout=heldout, unused=unused), settings))
    return halves[0], halves[1]


def half_data_frc(
    scan: PtychoDataContainer, engines: Engines, progress: Progress
) -> tuple[FourierRingCorrelation, FourierRingCorrelation | None]:
    """Train, reconstruct and refine each half of the frames by itself, and correlate the images ring by ring.

    Returns:
        The correlation of the trained images, and of the refined ones where refining made both halves better.
    """
    from ..evaluation.metrics import half_data_frc as correlate

    refiner, config = engines.refiner, engines.config
    runtime = replace(engines.runtime, output_dir=None, resume_from=None, loggers=())
    trained: list[Scored] = []
    refined: list[Scored] = []
    for half, settings in half_scans(scan, config, hold_out=refiner is not None):
        heard = Heard(progress)
        model = train_on(engines.trainer, [half], settings, runtime, heard)
        if heard.wish is not None:  # in the last step: nobody wants an image of a half by itself
            raise heard.wish
        same = of_model(half, model)
        image = image_of(engines.trainer.backend, model, same, settings.inference, runtime, progress)
        trained.append(image)
        if refiner is not None:
            done = refine(image, settings, runtime, backend=refiner.backend, tell=_nobody, progress=progress)
            refined += [done.best] if done.kept else []

    def pair(a: Image, b: Image) -> FourierRingCorrelation:
        return correlate(
            a.object,
            a.origin_px,
            b.object,
            b.origin_px,
            first_coverage=a.coverage,
            second_coverage=b.coverage,
            positions_px=scan.raw.positions_px[scan.used_frames],
        )

    both = pair(refined[0].image, refined[1].image) if len(refined) == 2 else None
    return pair(trained[0].image, trained[1].image), both
