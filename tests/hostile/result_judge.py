"""Which whole result lies in a folder, as a program sees it that knows nothing of how this one writes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

__all__ = ["NAMES", "judged", "leftovers"]

NAMES = {
    "summary.json", "report.html", "reconstruction.h5", "model.ptycho", "settings.yaml", "object_amplitude.png",
    "object_phase.png",
    "probe.png", "coverage.png", "losses.png", "r_map.png", "patterns.png", "frc.png", "stage_amplitude.png",
    "stage_phase.png", "refinement.png", "slices.png", "weights.png", "moves.png",
    "probe_focus.png", "probe_trials.png",
}  # fmt: skip
"""What files of a result are called, written down a second time."""

BESIDE = {"training", "ptycho.log"}


def judged(folder: Path, known: dict[str, str]) -> str:
    """The word for the result in a folder, ``none``, or what is wrong with it.

    Args:
        folder: to look into; nothing but plain reading is done.
        known: run id → word.
    """
    there = {name for name in os.listdir(folder) if name in NAMES and os.path.exists(folder / name)}
    if not there:
        return "none"
    if "summary.json" not in there:
        return f"no summary beside {sorted(there)}"
    summary = json.loads((folder / "summary.json").read_bytes())
    files = summary["files"]
    if there - {"summary.json"} != files.keys():
        return f"listed {sorted(files)}, found {sorted(there)}"
    wrong = [
        name
        for name, entry in files.items()
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != entry["sha256"]
        or (folder / name).stat().st_size != entry["bytes"]
    ]
    return f"other bytes in {wrong}" if wrong else known.get(summary["run_id"], "an unknown run")


def leftovers(folder: Path) -> list[str]:
    """Whatever is in a folder, or in ``training`` below it, that is neither of a result nor beside one."""
    found = [name for name in os.listdir(folder) if name not in NAMES | BESIDE or (folder / name).is_symlink()]
    training = folder / "training"
    return found + ([name for name in os.listdir(training) if name.startswith(".")] if training.is_dir() else [])
