"""The pty-chi engine keeps the protocol, by the suite that is shipped to everyone's engine."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from ptycho_core.testing import BackendConformance

pytestmark = pytest.mark.ptychi


class TestConformance(BackendConformance):
    """Six sweeps over 30 frames, in batches small enough that their order, and so the seed, decides something."""

    engine_name = "ptychi"
    settings: ClassVar[dict[str, Any]] = {"options": {"batch_frames": 4}}
