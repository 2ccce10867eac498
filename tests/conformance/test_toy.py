"""The toy engine keeps the protocol, by the suite that is shipped to everyone's engine."""

from __future__ import annotations

import importlib.metadata

import pytest

from ptycho_core.testing import BackendConformance

pytestmark = [
    pytest.mark.plugin,
    pytest.mark.skipif(
        "toy" not in importlib.metadata.entry_points(group="ptycho.backends").names,
        reason="the toy engine is not installed: pip install tests/plugins/toy_engine",
    ),
]


class TestConformance(BackendConformance):
    """Six sweeps over 30 frames."""

    engine_name = "toy"
