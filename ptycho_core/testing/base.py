"""What every section of the suite stands on: the engine named by the class, on its bench, once for the class."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from ..data.results import Image
from ..plugins.registry import backend_spec, load_backend
from ..protocol import ReconstructionBackend
from .bench import Bench, Stopped
from .fresh import Answers, ask_fresh_process
from .tolerances import relative_error
from .traces import arrays_in

__all__ = ["Section", "agree", "load_quietly", "not_offered", "once", "plain_array", "shares_nothing"]

_T = TypeVar("_T")
_MADE = pytest.StashKey[dict[str, Any]]()


def not_offered(what: str) -> None:
    """Skip a test of what an engine need not have, with the reason that the sheet shows."""
    pytest.skip(f"not offered: {what}")


def agree(found: Any, wanted: Any, limit: float, what: str) -> None:
    """Check that two arrays agree to `limit` of the largest magnitude wanted."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape, f"{what} has shape {found.shape}; it must be {wanted.shape}"
    error = relative_error(found, wanted)
    assert error <= limit, f"{what} is off by {error:.2g} of its largest magnitude; allowed: {limit:.2g}"


def plain_array(value: Any, dtype: type, shape: tuple[int, ...], what: str) -> None:
    """Check that a value is a NumPy array and nothing else, of this dtype and shape."""
    assert type(value) is np.ndarray, f"{what} is a {type(value).__name__}; it must be a plain NumPy array"
    given = f"{what} is {value.dtype} {value.shape}; it must be {np.dtype(dtype).name} {shape}"
    assert value.dtype == dtype, given
    assert value.shape == shape, given


def shares_nothing(image: Image, given: Mapping[str, NDArray[Any]]) -> None:
    """Check that no array of an image is memory of what was given."""
    for name, array in arrays_in(image).items():
        for whose, other in given.items():
            assert not np.shares_memory(array, other), f"{name} of the image is memory of {whose}"


def load_quietly(name: str) -> ReconstructionBackend:
    """Load an engine with its quiet variables set meanwhile, as the command sets them, and take them back."""
    added = {k: v for k, v in backend_spec(name).quiet_environment.items() if k not in os.environ}
    os.environ.update(added)
    try:
        return load_backend(name)
    finally:
        for variable in added:
            os.environ.pop(variable, None)


def once(request: pytest.FixtureRequest, name: str, make: Callable[[], _T]) -> _T:
    """Make a thing once for a class of tests, and keep it with the class as this run of pytest has collected it."""
    made = request.node.getparent(pytest.Class).stash.setdefault(_MADE, {})
    if name not in made:
        made[name] = make()
    found: _T = made[name]
    return found


class Section:
    """Base of the sections; a subclass that is collected says which engine is meant.

    Attributes:
        engine_name: name of the engine, as in ``config.backend``.
        settings: what to change in the tiny trainings, as in a YAML file.
        side: N of all scans, for an engine that cannot take 32.
    """

    engine_name: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, Any]] = {}
    side: ClassVar[int] = 32

    @pytest.fixture
    def engine(self, request: pytest.FixtureRequest) -> ReconstructionBackend:
        """The engine, as its users get it by its name.

        Override this to hand in one made otherwise. What is asked of the registry or in another process is asked of the
        engine that is installed by that name, so that one which is not installed fails those tests.
        """
        if not self.engine_name:
            pytest.fail(f"{type(self).__name__}: no engine is selected; set engine_name = 'the engine'", pytrace=False)
        return once(request, "engine", lambda: load_quietly(self.engine_name))

    @pytest.fixture
    def bench(self, request: pytest.FixtureRequest, engine: ReconstructionBackend) -> Bench:
        """The engine with tiny scans and settings it accepts."""
        return once(request, "bench", lambda: Bench(engine, self.settings, self.side))

    @pytest.fixture
    def fresh(self, request: pytest.FixtureRequest, bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Answers:
        """What a process of its own, which only has the bundle, says of it: asked once, since it takes seconds."""
        return once(request, "fresh", lambda: ask_fresh_process(bench, tmp_path_factory.mktemp("fresh")))

    @pytest.fixture
    def stopped(
        self, request: pytest.FixtureRequest, bench: Bench, tmp_path_factory: pytest.TempPathFactory
    ) -> Stopped:
        """A training that was cancelled halfway, with its checkpoint if the engine leaves one."""
        return once(request, "stopped", lambda: bench.stop_halfway(tmp_path_factory.mktemp("stopped")))

    @pytest.fixture(autouse=True)
    def _in_an_empty_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
