"""What the runner has pytest collect; which engine is meant stands in pytest's config."""

from __future__ import annotations

import pytest

from ..protocol import ReconstructionBackend
from .base import load_quietly, once
from .bench import Bench
from .conformance import BackendConformance
from .runner import REQUEST

__all__ = ["TestConformance"]


class TestConformance(BackendConformance):
    """The suite, for the engine that the runner was given."""

    @pytest.fixture
    def engine(self, request: pytest.FixtureRequest) -> ReconstructionBackend:
        """The engine of the request."""
        return once(request, "engine", lambda: load_quietly(request.config.stash[REQUEST].engine))

    @pytest.fixture
    def bench(self, request: pytest.FixtureRequest, engine: ReconstructionBackend) -> Bench:
        """The engine with the settings of the request."""
        given = request.config.stash[REQUEST]
        return once(request, "bench", lambda: Bench(engine, given.settings, given.side))
