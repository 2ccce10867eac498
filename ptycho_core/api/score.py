"""Scoring: what core finds with an image, the same for every engine, on the state that is returned (FM-11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer
from ..data.results import Image, Scored, typical_frames
from ..enginekit.stitching import corners_on
from ..errors import BackendError, BackendProtocolError, DataError
from ..physics.forward import exit_waves, rate_of_waves, weighted_waves
from ..physics.merit import SUMS, Figures, frame_sums, gain_squared
from ..physics.patches import extract
from ..plugins.guard import engine_at_work
from ..plugins.returned import check_counts
from ..protocol import ReconstructionBackend, SupportsExpectedCounts

__all__ = ["Forward", "forward_of", "heldout_loss", "oracle_counts", "score"]

_CHUNK_BYTES = 48 * 2**20

Forward = Callable[[Image, PtychoDataContainer, NDArray[np.int64]], NDArray[Any]]
"""The forward model of an image: expected counts (n, N, N) of some frames (n,)."""

_DROPPED = "dropped_"
"""How the names of an image's stats begin that count what the engine left out."""


def oracle_counts(image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]) -> NDArray[np.float64]:
    """λ (n, N, N) of some frames (n,) by the oracle: a thin object, modes as intensities, weighted by frame (FM-5).

    Raises:
        DataError: a frame leaves the image.
    """
    corners, rest = corners_on(image, frames)
    waves = exit_waves(extract(image.object, corners, scan.raw.side), image.probe, rest)
    weights = None if image.mode_weights is None else image.mode_weights[frames]
    return rate_of_waves(weighted_waves(waves, weights), image.scale, scan.raw.background, scan.raw.propagation)


def forward_of(image: Image, backend: ReconstructionBackend | None) -> Forward:
    """The forward model that explains an image.

    Raises:
        BackendError: only that of an engine does, which is not at hand.
        BackendProtocolError: that engine has none.
    """
    alone = image.forward_model
    if alone and (backend is None or backend.name != alone):
        given = "no engine is" if backend is None else f"engine '{backend.name}' is"
        raise BackendError(
            f"the image is explained by the forward model of engine '{alone}' alone, and {given} given to score it; "
            f"score it with backend = load_backend({alone!r})."
        )
    if not isinstance(backend, SupportsExpectedCounts):
        if alone:
            raise BackendProtocolError(
                f"engine '{alone}': its image says that only its own forward model explains it, and it has none; it "
                "must have expected_counts, or leave forward_model empty."
            )
        return oracle_counts
    engine = backend

    def ask(image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]) -> NDArray[Any]:
        with engine_at_work(backend.name, "expected_counts"):
            return check_counts(engine.expected_counts(image, scan, frames), scan, frames, backend.name)

    return ask


def _chunks(image: Image, frames: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Frames in parts whose waves take a bounded memory."""
    step = max(1, _CHUNK_BYTES // (16 * image.probe.shape[-1] ** 2 * len(image.probe) * 3))
    return [frames[start : start + step] for start in range(0, len(frames), step)]


def _gain_squared(image: Image, scan: PtychoDataContainer, forward: Forward) -> float:
    """g² of the training frames, or of the held-out ones where nothing was trained on."""
    raw, good = scan.raw, 1.0 if scan.raw.mask is None else scan.raw.mask
    level = 0.0 if raw.background is None else float(np.sum(good * raw.background.astype(np.float64)))
    frames = scan.train_frames if len(scan.train_frames) else scan.heldout_frames
    expected = sum(
        float(np.sum(good * forward(image, scan, part).astype(np.float64))) for part in _chunks(image, frames)
    )
    measured = float(raw.frame_totals[frames].sum())
    background = level * len(frames)
    if measured <= background:
        raise DataError(
            f"{raw.source.path or 'scan'}: its background accounts for {background:.6g} counts of {len(frames)} "
            f"frames, which hold {measured:.6g}; nothing is left to set the scale of an image by. Give the right "
            "background, or leave it out."
        )
    if not expected > background:
        raise BackendError(
            f"the image of {raw.source.path or 'the scan'} expects no light in its {len(frames)} frames "
            f"({expected - background:.6g} counts above the background, measured {measured - background:.6g}); it has "
            "no scale."
        )
    return gain_squared(expected, measured, background)


def _examples(
    image: Image, scan: PtychoDataContainer, forward: Forward, sums: NDArray[np.float64]
) -> dict[int, NDArray[Any]]:
    """Expected counts (N, N) of the typical frames, for whoever draws them beside the measured ones."""
    frames = np.array(sorted(set(typical_frames(sums).values())), np.int64)
    return dict(zip(frames.tolist(), forward(image, scan, frames), strict=True)) if len(frames) else {}


def score(image: Image, scan: PtychoDataContainer, engine: str, backend: ReconstructionBackend | None = None) -> Scored:
    """Absorb the gain of an image in its scale, and find its figures of merit (FM-11).

    Args:
        image: of the scan.
        scan: with the role of each frame; unused frames are not looked at.
        engine: name of the engine that made the image.
        backend: that engine, whose own forward model is asked where it has one; None asks the oracle.

    Returns:
        The scored image. Its scale is that of `image` times g² = Σ(k − b) / Σ(λ − b) over the training frames; g is 1
        for a calibrated probe.

    Raises:
        DataError: the image is of another scan, or the background accounts for every count.
        BackendError: the engine's forward model failed, broke the protocol, or expects no light; or the image needs
            the forward model of an engine that is not given.
    """
    if len(image.positions_px) != scan.raw.n_frames or image.probe.shape[-1] != scan.raw.side:
        raise DataError(
            f"{scan.raw.source.path or 'scan'}: it has {scan.raw.n_frames} frames of {scan.raw.side}×{scan.raw.side}, "
            f"but the image was made from {len(image.positions_px)} frames with a probe of "
            f"{image.probe.shape[-1]}×{image.probe.shape[-1]}; score it with the scan it was made from."
        )
    forward = forward_of(image, backend)
    if not scan.raw.probe_calibrated:
        image = replace(image, scale=image.scale * _gain_squared(image, scan, forward))
    sums = np.zeros((scan.raw.n_frames, len(SUMS)))
    for frames in _chunks(image, scan.used_frames):
        sums[frames] = frame_sums(forward(image, scan, frames), scan.raw.read_counts(frames), scan.raw.mask)
    left_out = {
        name.removeprefix(_DROPPED).replace("_", " "): int(value)
        for name, value in image.stats.items()
        if name.startswith(_DROPPED) and isinstance(value, int) and value
    }
    held = scan.heldout_frames
    return Scored(
        image=image,
        engine=engine,
        scan=scan,
        train=Figures.of(sums[scan.train_frames]),
        heldout=Figures.of(sums[held]) if len(held) else None,
        frame_sums=sums,
        dropped=scan.dropped() | left_out,
        examples=_examples(image, scan, forward, sums),
    )


def heldout_loss(scored: Scored, loss: str) -> float:
    """Loss of the held-out frames, of the training frames where none are held out, up to a constant of the data.

    Args:
        scored: the image.
        loss: ``poisson`` or ``amplitude``.
    """
    frames = scored.scan.heldout_frames if len(scored.scan.heldout_frames) else scored.scan.train_frames
    column = SUMS.index("deviance" if loss == "poisson" else "sq_error")
    return float(scored.frame_sums[frames, column].sum())
