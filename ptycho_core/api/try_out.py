"""A quick solve of a scan, or of a piece of a large one, to see whether there will be an image: ``try_out``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..config import TrainingConfig
from ..config_mapping import config_from_mapping
from ..data.raw import RawData
from ..data.run import Run
from ..presets import preset
from ..protocol import Progress, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from .observe import Observer
from .prepare import ensure_raw
from .run import run
from .trials import region_of

__all__ = ["MOST_FRAMES", "try_out"]

MOST_FRAMES = 400
"""Frames that are solved, at most: a compact piece of a larger scan tells as much, in seconds."""

HELDOUT_SHARE = 0.1
"""Part of the frames that is held out: more than in a run, since the verdict is all that is wanted."""


def try_out(
    scan: RawData | Path | str,
    runtime: Runtime = DEFAULT_RUNTIME,
    *,
    despite_findings: bool = False,
    progress: Progress = no_progress,
    observer: Observer | None = None,
) -> Run:
    """Solve a scan as the preset ``quick`` does, and give the verdict on it; nothing is written.

    Args:
        scan: the scan; of more than :data:`MOST_FRAMES` frames a compact piece is taken.
        runtime: what does the work.
        despite_findings: see :func:`ptycho_core.run`.
        progress: called after each step; it may raise ``Cancelled``.
        observer: who watches.

    Returns:
        The run; its ``verdict`` is what it was made for.

    Raises:
        PtychoError: as :func:`ptycho_core.run`.
    """
    watcher = observer or Observer()
    raw = ensure_raw(scan)
    if raw.n_frames > MOST_FRAMES:
        all_frames = raw.n_frames
        raw = region_of(raw, among=np.arange(all_frames), most=MOST_FRAMES).raw
        watcher.notice(f"tried on {raw.n_frames} neighbouring frames of {all_frames}")
    settings = preset("quick") | {"test_fraction": HELDOUT_SHARE}
    config = config_from_mapping(TrainingConfig, settings)
    return run(
        raw, config, runtime, despite_findings=despite_findings, progress=progress, observer=watcher, title="trial"
    )
