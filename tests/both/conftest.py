"""Both engines with a network, side by side in one process."""

from __future__ import annotations

import os

import pytest
from both_engines import NAMES

from ptycho_core.plugins.registry import backend_spec, load_backend
from ptycho_core.protocol import ReconstructionBackend


@pytest.fixture(scope="session")
def engines() -> dict[str, ReconstructionBackend]:
    """Name → engine; the frameworks are imported here and nowhere else in this folder."""
    loaded = {}
    for name in NAMES:
        for variable, value in backend_spec(name).quiet_environment.items():
            os.environ.setdefault(variable, value)  # as the command does
        loaded[name] = load_backend(name)
    return loaded
