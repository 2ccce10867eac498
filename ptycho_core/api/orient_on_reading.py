"""Reading a scan in the orientation that trials find, with frames that a run holds out left alone (FIND-6, FIND-7)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.orientation import oriented, oriented_probe
from ..data.orientation_finding import OrientationFinding
from ..data.raw import RawData
from ..data.roles import draw_heldout, draw_subsample
from ..protocol import Progress, ReconstructionBackend, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from .orient import find_orientation

__all__ = ["learned_from", "with_found_orientation"]


def learned_from(raw: RawData, config: TrainingConfig) -> NDArray[np.int64]:
    """The frames (n,) of a scan that a run with a config learns from: not those that it holds out or leaves out."""
    drawn = np.arange(raw.n_frames)
    if config.n_subsample is not None:
        drawn = draw_subsample(raw.n_frames, config.n_subsample, config.seed)
    held = draw_heldout(raw.positions_px[drawn], config.test_fraction, config.seed, config.test_split)
    return np.setdiff1d(drawn, drawn[held])


def with_found_orientation(
    raw: RawData,
    *,
    frames: NDArray[np.int64] | None = None,
    engine: str | ReconstructionBackend = "numpy",
    runtime: Runtime = DEFAULT_RUNTIME,
    progress: Progress = no_progress,
) -> tuple[RawData, OrientationFinding]:
    """A scan in the orientation that explains its frames best: what ``--orientation auto`` does.

    Args:
        raw: the scan, as it was read.
        frames: see :func:`~ptycho_core.api.orient.find_orientation`, and :func:`learned_from`.
        engine: see there.
        runtime: see there.
        progress: see there.

    Returns:
        The scan, with the probe that was found where it has none, and the finding, which stands in
        ``source.details["orientation"]`` and among the assumptions. Where the orientation as read is not told from the
        best, it is kept.

    Raises:
        DataError: no usable scan.
        BackendError: the engine is unknown, missing or broken.
    """
    found = find_orientation(raw, frames=frames, engine=engine, runtime=runtime, progress=progress)
    out, guess = oriented(raw, found.orientation), found.probe
    said = found.describe(raw.source.details.get("read_with"))
    notes = [f"orientation {found.orientation} was found: {said}"]
    details = {**out.source.details, "orientation": found.to_mapping()}
    if found.probe_follows and raw.probe is not None:
        out = out.with_probe(oriented_probe(raw.probe, found.orientation), calibrated=raw.probe_calibrated)
        notes += found.reasons
    if guess is not None and guess.convincing:
        out = out.with_probe(guess.probe)
        notes += guess.sentences
        details["probe"] = guess.to_mapping()
    source = replace(out.source, assumptions=(*out.source.assumptions, *notes), details=details)
    return replace(out, source=source), found
