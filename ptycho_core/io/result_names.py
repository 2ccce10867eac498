"""The names that a result folder is made of: files of a result, what stands beside them, what is there for a while."""

from __future__ import annotations

import re

__all__ = [
    "COMMIT_NAME",
    "IMAGE_NAME",
    "LOG_NAME",
    "PARTIAL_NAME",
    "PICTURE_NAMES",
    "PLAN_NAME",
    "RESULT_NAMES",
    "SETTINGS_NAME",
    "SUMMARY_NAME",
    "TRAINING_NAME",
]

SUMMARY_NAME = "summary.json"
IMAGE_NAME = "reconstruction.h5"
SETTINGS_NAME = "settings.yaml"
LOG_NAME = "ptycho.log"
TRAINING_NAME = "training"
"""Subfolder for checkpoints, the history, the model until the results are complete, and images that were rescued."""

PICTURE_NAMES = frozenset(
    f"{name}.png"
    for name in (
        *("object_amplitude", "object_phase", "probe", "coverage", "losses", "r_map", "patterns", "frc"),
        *("stage_amplitude", "stage_phase", "refinement", "slices", "weights", "moves"),
        *("probe_focus", "probe_trials"),
    )
)
"""Every picture that a result has or had in an earlier version: a name that leaves this list is never removed again."""

RESULT_NAMES = PICTURE_NAMES | {SUMMARY_NAME, "report.html", IMAGE_NAME, "model.ptycho", SETTINGS_NAME}

PLAN_NAME = ".plan.json"
PARTIAL_NAME = re.compile(r"\.partial-(?:[0-9a-f]{32}|[a-z0-9_]{8})")  # the short ones are of version 0.1
COMMIT_NAME = re.compile(r"\.commit-[0-9a-f]{32}")
