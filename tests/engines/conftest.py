"""The engines with a network, one after another: every test of this folder that takes ``engine`` runs for each."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from core.physics_problem import Problem, make_problem
from engine_scans import CONFIG, Settings, train
from frameworks import Framework, Side, framework_of

from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.network_model import NetworkModel
from ptycho_core.plugins.registry import backend_spec, load_backend
from ptycho_core.protocol import ReconstructionBackend
from ptycho_core.testing.tolerances import FLOAT32, FLOAT64

ENGINES = [
    pytest.param("pytorch", marks=pytest.mark.torch),
    pytest.param("tensorflow", marks=pytest.mark.tensorflow),
]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> ReconstructionBackend:
    """An engine as the registry gives it; its framework is imported here and nowhere else in this folder."""
    for name, value in backend_spec(request.param).quiet_environment.items():
        os.environ.setdefault(name, value)  # as the command does
    return load_backend(request.param)


@pytest.fixture(scope="module")
def framework(engine: ReconstructionBackend) -> Framework:
    """What tests say to the engine's framework."""
    return framework_of(engine)


@pytest.fixture(params=["float32", "float64"])
def side(framework: Framework, request: pytest.FixtureRequest) -> Side:
    """The engine's twin of the oracle in one precision."""
    return Side(framework, request.param, FLOAT32 if request.param == "float32" else FLOAT64)


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Inputs that are hard on purpose."""
    return make_problem()


@pytest.fixture(scope="module")
def trained(engine: ReconstructionBackend) -> Callable[..., NetworkModel]:
    """Trainings of a module, each made once: call it with a scan, a config and perhaps a held-out scan."""
    done: dict[tuple[int, Settings, int], tuple[NetworkModel, RawData, RawData | None]] = {}

    def get(raw: RawData, config: Settings = CONFIG, test: RawData | None = None) -> NetworkModel:
        key = (id(raw), config, id(test))
        if key not in done:
            done[key] = (train(engine, raw, config, test), raw, test)  # the scans are kept, so that no id is reused
        return done[key][0]

    return get
