"""What ``ptycho new-engine`` writes, built and installed by pip, keeps the protocol as it is written."""

from __future__ import annotations

import importlib.metadata

import pytest

from ptycho_core.testing import BackendConformance

pytestmark = [
    pytest.mark.plugin,
    pytest.mark.skipif(
        "fresh_engine" not in importlib.metadata.entry_points(group="ptycho.backends").names,
        reason="what 'ptycho new-engine fresh_engine' writes is not installed: pip install fresh-engine",
    ),
]


class TestConformance(BackendConformance):
    """Six sweeps over 30 frames."""

    engine_name = "fresh_engine"
