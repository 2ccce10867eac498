"""The tensorflow engine keeps the protocol, by the suite that is shipped to everyone's engine."""

from __future__ import annotations

import pytest

from ptycho_core.testing import BackendConformance

pytestmark = pytest.mark.tensorflow


class TestConformance(BackendConformance):
    """Two epochs of a narrow network on 20 frames."""

    engine_name = "tensorflow"
