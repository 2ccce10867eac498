"""The cheap look at a scan's orientation that ``inspect`` takes: a check like those of ``inspection``, with a solver.

``inspection`` knows no engine, so that whoever calls it hands this check in (``inspect_scan(…, further=…)``). A run
does not take it beforehand: where its image explains held-out frames badly, the verdict asks for it (``api.diagnose``).
"""

from __future__ import annotations

from ..config import TrainingConfig
from ..data.raw import RawData
from ..errors import BackendError
from ..inspection.facts import Facts
from ..inspection.finding import Finding
from .orient import diagnose_orientation

__all__ = ["check_orientation"]

LARGEST_SIDE = 160
"""Side of frames above which trials take longer than looking should."""


def check_orientation(raw: RawData, facts: Facts) -> list[Finding]:
    """Whether another orientation than the stored one explains the frames better, by six sweeps each (FIND-8).

    About a second on 64 frames of 64×64. Nothing for a near field, which the frames' motion tells, nor without a probe.

    Args:
        raw: the scan.
        facts: figures of it; the deviance that each orientation leaves of held-out frames is added.
    """
    if raw.probe is None or raw.propagation.is_near:
        return []
    if raw.looked_at is not None or raw.side > LARGEST_SIDE:
        return [Finding("note", "The scan is too large to try orientations while looking: 'ptycho orient' does.")]
    try:
        found = diagnose_orientation(raw, TrainingConfig())
    except BackendError as error:
        return [Finding("note", f"Orientations could not be tried: {error}")]
    if found.trials:
        facts.figures["orientation_deviance"] = {
            str(trial.tried["orientation"]): trial.heldout_deviance for trial in found.trials
        }
    if found.how == "none":
        return [Finding("note", f"{_sentence(found.describe())}.")]
    if found.changes:
        said = found.describe(raw.source.details.get("read_with"))
        return [Finding("warning", f"Positions do not fit the frames as they are read: {said}.")]
    return [Finding("ok" if found.certain or found.twins else "note", f"{_sentence(found.describe())}.")]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
