"""Training: a scan is solved and refined (or a network trained on it), and what was learned goes into an archive."""

from __future__ import annotations

import logging
import math
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
_LOSSES = ("loss", "train_loss", "test_loss")


@dataclass(frozen=True)
class Learned:
    """What training gave.

    Attributes:
        archive: for the client's model file.
        scored: the image of the training scan, with its figures.
        history: ``train_loss`` and, with held-out frames, ``test_loss``: one value an epoch of training.
    """

    archive: Archive
    scored: Scored
    history: Mapping[str, list[float]]


@contextmanager
def logged() -> Iterator[None]:
    """Put the warnings of a block into the log, which the client shows; that no test scan is given is no news here."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        if not str(warning.message).startswith("no test data"):
            logger.warning("%s", warning.message)


def tell_progress() -> Callable[[ProgressEvent], None]:
    """A listener that logs how far a job is, every few seconds and at its end."""
    said_at = -math.inf

    def tell(event: ProgressEvent) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= _EVERY_S or event.done == event.total:
            said_at = time.monotonic()
            losses = "".join(f", {name} {event.metrics[name]:.5g}" for name in _LOSSES if name in event.metrics)
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
            "the test data are of another product than the training data, so they cannot judge this image; frames of "
            "the training data are held out instead"
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
) -> Learned:
    """Train by the client's settings.

    Args:
        train: the scan to learn from.
        test: frames to judge by, or None.
        job: what is to be done.
        client: the client's configs, plain, which reconstructing needs again.

    Raises:
        PtychoError: see ``ptycho_core.run_cdi_example``.
    """
    if train.raw.probe is None:
        raise DataError("the training data have no probe; give the product one, and export them again.")
    logger.info("training with ptycho-core: %s", job.why)
    data = _data(train, test)
    with logged():
        result = run_cdi_example(data, None, job.config, job.runtime, do_stitching=True, progress=tell_progress())
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
        positions_px=np.array((data if isinstance(data, RawData) else data.raw).positions_px),
        grid=train.grid,
        client=dict(client),
    )
    return Learned(archive, scored, model.history)
