"""The NumPy engine keeps the protocol, by the suite that is shipped to everyone's engine."""

from __future__ import annotations

from ptycho_core.testing import BackendConformance


class TestConformance(BackendConformance):
    """Six sweeps over 30 frames."""

    engine_name = "numpy"
