"""Which frames of a recording are used: ``START:STOP:STEP``, or a file with their numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.frames import SubsetFrames
from ...data.recording import Recording
from ...errors import ConfigError, DataError
from ...text import counted
from ..number_table import read_numbers

__all__ = ["chosen_frames"]


def chosen_frames(
    recording: Recording, chosen: str | None, name: str, notes: list[str]
) -> tuple[NDArray[np.int64], Recording]:
    """The recording restricted to some frames, in the order given, and their numbers (n,) in the file.

    Positions go with their frames. Where the file has another number of positions than of frames, they are paired by
    number, as far as the chosen frames have one each.

    Args:
        recording: what was read.
        chosen: ``START:STOP:STEP``, the name of a file with frame numbers, or None for all.
        name: the file, for messages.
        notes: what was done is added here.

    Raises:
        ConfigError: neither a slice nor a file.
        DataError: no frame, one that is not there, or one twice; or frames and positions that cannot be paired.
    """
    M = recording.frames.shape[0]
    positions = recording.positions
    numbers = np.arange(M) if chosen is None else _numbers(chosen, M, name)
    if positions is not None and len(positions) not in (M, len(numbers)):
        K = len(positions)
        if not numbers.max(initial=-1) < K:
            fewer = min(M, K)
            raise DataError(
                f"{name}: {M} frames but {K} positions; every frame needs one. If those at the end are too many, give "
                f"--frames 0:{fewer}; else give the numbers of the frames that belong to the positions (--frames FILE)."
            )
    if chosen is None:
        if positions is not None and len(positions) > M:
            raise DataError(
                f"{name}: {M} frames but {len(positions)} positions; every frame needs exactly one. If those at the "
                f"end are too many, give --frames 0:{M}."
            )
        return numbers, recording
    if positions is not None and (len(positions) != len(numbers) or len(positions) == M):
        positions = positions[numbers]  # one a frame of the file; frames turned round take theirs with them
    elif positions is not None:
        notes.append(f"The {len(positions)} positions belong to the frames that were chosen, in their order.")
    are = "is" if len(numbers) == 1 else "are"
    notes.append(f"{len(numbers)} of {counted(M, 'frame')} {are} used, as given (--frames {chosen}).")
    raster = recording.raster if len(numbers) == M else None
    return numbers, replace(
        recording, frames=SubsetFrames(recording.frames, numbers), positions=positions, raster=raster
    )


def _numbers(chosen: str, M: int, name: str) -> NDArray[np.int64]:
    parts = chosen.split(":")
    if 2 <= len(parts) <= 3 and all(part.strip().lstrip("-").isdigit() or not part.strip() for part in parts):
        start, stop, step = (int(part) if part.strip() else None for part in (*parts, "")[:3])
        if step == 0:
            raise ConfigError(f"frames = {chosen!r}: its step must not be 0.")
        numbers = np.arange(M)[slice(start, stop, step)]
    elif chosen.strip().lstrip("-").isdigit():
        raise ConfigError(f"frames = {chosen!r} is one frame; give START:STOP:STEP, or a file with frame numbers.")
    else:
        numbers = read_numbers(Path(chosen), "frames")
    if not len(numbers):
        raise DataError(f"{name}: --frames {chosen} leaves none of its {M} frames.")
    if numbers.min() < 0 or numbers.max() >= M:
        strange = int(numbers.min() if numbers.min() < 0 else numbers.max())
        raise DataError(f"{name}: --frames {chosen} names frame {strange}; the scan has 0 to {M - 1}.")
    if len(np.unique(numbers)) != len(numbers):
        raise DataError(f"{name}: --frames {chosen} names a frame twice; name each once.")
    return numbers.astype(np.int64)
