"""The tensorflow engine keeps the protocol, by the suite that is shipped to everyone's engine."""

from __future__ import annotations

import pytest

from ptycho_core.testing import BackendConformance

pytestmark = pytest.mark.tensorflow


@pytest.mark.spec("BE-19", "BE-22", "BE-23")
class TestConformance(BackendConformance):
    """Three epochs of a narrow network on 30 frames."""

    engine_name = "tensorflow"
