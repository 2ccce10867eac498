"""Refining in the commands: what ``--refine`` says, the stage itself, and two half-data images of every stage."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..config import TrainingConfig
from ..data.container import Statistics
from ..data.raw import RawData
from ..data.results import Reconstruction, Refined
from ..errors import ConfigError
from .options import Options
from .progress import long_job
from .session import Session

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ..metrics import FourierRingCorrelation

__all__ = ["add_refine_option", "half_data_frc", "refine_same_scan", "start_refining_engine", "with_refine_option"]


def add_refine_option(parser: ArgumentParser) -> None:
    """Add ``--refine``."""
    parser.add_argument(
        "--refine",
        type=str,
        metavar="none|ENGINE[:EPOCHS]",
        help="engine that refines the image, and for how many passes at most; 'auto' is the one that trains, 'none' "
        "leaves the image as it is; short for --refinement.engine and --refinement.epochs (default: auto)",
    )


def with_refine_option(options: Options) -> Options:
    """The options with ``--refine`` in its long form, unless that is given as well.

    Raises:
        ConfigError: EPOCHS is no whole number from 1.
    """
    given = options["refine"]
    if given is None:
        return options
    engine, colon, epochs = given.partition(":")
    if not engine or (colon and not (epochs.isdecimal() and int(epochs) >= 1)):
        raise ConfigError(f"--refine = {given!r}; it must be none, auto or ENGINE, or ENGINE:EPOCHS such as numpy:40.")
    long = {"refinement.engine": engine} | ({"refinement.epochs": int(epochs)} if colon else {})
    return {**long, **options}


def start_refining_engine(config: TrainingConfig, session: Session) -> str | None:
    """Import the engine that will refine, so that what it cannot do is refused before data are read; its name."""
    from ..refinement.facade import refining_engine

    chosen = config.refinement.engine
    with session.stage("start_up"):
        if chosen in ("auto", "none", config.backend):
            return refining_engine(config)
        with session.quiet_start(chosen):
            return refining_engine(config)


def refine_same_scan(
    initial: Reconstruction, raw: RawData, config: TrainingConfig, statistics: Statistics, session: Session
) -> Refined:
    """Refine the image of a scan; a refined image that is worse is discarded, with a notice."""
    from .. import api

    with session.stage("refine"), long_job() as progress:
        return api.refine(initial, raw, config, statistics=statistics, progress=progress)


def half_data_frc(
    raw: RawData, config: TrainingConfig, refiner: str | None, session: Session
) -> tuple[FourierRingCorrelation, FourierRingCorrelation | None]:
    """Train, reconstruct and refine each half of the frames by itself, and correlate the images ring by ring.

    The halves share nothing but the settings and the first probe, so agreement between them is not the network's
    memory of the other half.

    Returns:
        The correlation of the trained images, and of the refined ones where `refiner` names an engine and made both
        halves better.
    """
    from .. import api
    from ..metrics import half_data_frc as correlate
    from ..refinement.image import heldout_frames

    order = np.random.default_rng(config.seed).permutation(raw.n_frames)
    alone = replace(config, nphotons=None, output_dir=None, resume_from=None)
    trained: list[Reconstruction] = []
    refined: list[Reconstruction] = []
    with session.stage("half_data"), warnings.catch_warnings():
        # nothing is held out of a half, which is meant so and no news to the user
        warnings.filterwarnings("ignore", message="no test data")
        for half in (order[: len(order) // 2], order[len(order) // 2 :]):
            part = raw.subset(np.sort(half))
            train, test = part.split(alone.test_fraction, alone.seed, alone.test_split) if refiner else (part, None)
            without = None if test is None else heldout_frames(part, alone)
            with long_job() as progress:
                model = api.train_cdi_model(train, test, alone, progress=progress)["model"]
                image = api.reconstruct(
                    model, part, alone.inference, same_scan=True, without=without, progress=progress
                )
                trained.append(image)
                if refiner is not None:
                    done = api.refine(image, part, alone, statistics=model.statistics, progress=progress)
                    refined += [done.reconstruction] if done.kept else []

        def pair(a: Reconstruction, b: Reconstruction) -> FourierRingCorrelation:
            return correlate(
                a.object,
                a.origin_px,
                b.object,
                b.origin_px,
                first_coverage=a.coverage,
                second_coverage=b.coverage,
                positions_px=raw.positions_px,
            )

        return pair(*trained), pair(*refined) if len(refined) == 2 else None
