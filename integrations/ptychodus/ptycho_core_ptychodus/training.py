"""Training: a scan is solved and refined (or a network trained on it), and what was learned goes into an archive."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptycho_core import ProgressEvent, PtychoDataContainer, RawData, Scored, run_cdi_example
from ptycho_core.errors import DataError

from .archive import Archive, bundle_of
from .scans import ClientScan, merged, same_product
from .settings import Job

__all__ = ["Learned", "learn", "logged", "said_of", "tell_progress"]

logger = logging.getLogger("ptycho_core_ptychodus")

_EVERY_S = 5.0

Epochs = Callable[[int, Mapping[str, float]], None]
"""Told of each finished epoch of a training: its number from 0, and its losses."""


@dataclass(frozen=True)
class Learned:
    """What training gave.

    Attributes:
        archive: for the client's model file.
        scored: the image of the training scan, with its figures.
    """

    archive: Archive
    scored: Scored


@contextmanager
def logged() -> Iterator[None]:
    """Put the warnings of a block into the log, which the client shows."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        logger.warning("%s", warning.message)


def tell_progress(epochs: Epochs | None = None) -> Callable[[ProgressEvent], None]:
    """A listener that logs how far a job is, every few seconds, and tells of epochs."""
    last = [-_EVERY_S, -1.0]

    def tell(event: ProgressEvent) -> None:
        now, epoch = time.monotonic(), float(event.metrics.get("epoch", -1.0))
        if epochs is not None and event.stage == "train" and "train_loss" in event.metrics and epoch != last[1]:
            last[1] = epoch
            epochs(int(epoch), event.metrics)
        if now - last[0] >= _EVERY_S or event.done == event.total:
            last[0] = now
            losses = "".join(f", {name} {event.metrics[name]:.5g}" for name in ("train_loss", "test_loss") if name in event.metrics)
            logger.info("%s: %d of %d%s", event.stage, event.done, event.total, losses)

    return tell


def said_of(scored: Scored) -> str:
    """The figures of an image in a line."""
    figures = f"R {scored.train.fourier_error:.4f}"
    if scored.heldout is not None:
        figures += f" (held-out frames {scored.heldout.fourier_error:.4f})"
    return f"{figures}, {scored.image.probe.shape[0]} probe modes, engine {scored.engine}"


def _data(train: ClientScan, test: ClientScan | None) -> RawData | PtychoDataContainer:
    """What to train on: frames that only the test data have are held out, where they are of the same product."""
    if test is None:
        return train.raw
    if not same_product(train, test):
        logger.warning(
            "the test data are of another product than the training data, so they cannot judge this image; frames of the "
            "training data are held out instead"
        )
        return train.raw
    raw, heldout = merged(train, test)
    if len(heldout) == 0:
        logger.info("every test frame is a training frame too, so a twentieth of the training frames is held out")
        return raw
    return PtychoDataContainer.of(raw, heldout=heldout)


def learn(
    train: ClientScan,
    test: ClientScan | None,
    job: Job,
    client: Mapping[str, Any],
    epochs: Epochs | None = None,
) -> Learned:
    """Train by the client's settings.

    Args:
        train: the scan to learn from.
        test: frames to judge by, or None.
        job: what is to be done.
        client: the client's configs, plain, which reconstructing needs again.
        epochs: told of each epoch.

    Raises:
        PtychoError: see ``ptycho_core.run_cdi_example``.
    """
    if train.raw.probe is None:
        raise DataError("the training data have no probe; give the product one, and export them again.")
    logger.info("training with ptycho-core: %s", job.why)
    with logged():
        result = run_cdi_example(
            _data(train, test), None, job.config, job.runtime, do_stitching=True, progress=tell_progress(epochs)
        )
    scored, model = result.results["reconstruction"], result.results["model"]
    assert scored is not None
    logger.info("trained: %s", said_of(scored))
    archive = Archive(
        bundle=bundle_of(model),
        config=model.config,
        network=model.config.method == "network",
        probe=scored.image.probe,
        probe_guess=train.raw.probe,
        mask=train.raw.mask,
        positions_px=np.asarray(train.raw.positions_px),
        grid=train.grid,
        client=dict(client),
    )
    return Learned(archive, scored)
