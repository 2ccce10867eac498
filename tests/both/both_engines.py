"""What the tests of both engines share: models that nobody trained, trainings step by step, and a strict comparison.

Every scan here has two asymmetric modes, bad pixels, a background and sub-pixel positions. The background is there for
a reason: a solver sweep divides by the predicted amplitude, and in pixels that are dark in data and prediction alike
it multiplies rounding from sweep to sweep. With a few counts everywhere the engines agree to 1e-5 after 24 sweeps; with
five times the light and no background to 1e-3, and neither engine is then nearer to the oracle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from engines.engine_scans import CONFIG, Settings, config_for, held_out_scan, make_scan, train

from ptycho_core.api.score import score
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image, Scored
from ptycho_core.enginekit.network_model import NetworkModel
from ptycho_core.enginekit.weights import initial_weights
from ptycho_core.protocol import ReconstructionBackend

__all__ = [
    "NAMES",
    "assert_alike",
    "hard_scan",
    "losses_of",
    "losses_on",
    "scored",
    "several_scans",
    "steps_apart",
    "untrained",
]

NAMES = ("pytorch", "tensorflow")


def hard_scan(N: int = 16, rows: int = 3, columns: int = 4, **changes: Any) -> RawData:
    """Everything that can be asked of an engine at once, and tame enough to compare by numbers."""
    return make_scan(N, rows, columns, **({"n_modes": 2, "bad": True, "background": 5.0} | changes))


def untrained(raw: RawData, settings: Settings = CONFIG, backend: str = "nobody") -> NetworkModel:
    """A model of which every weight is random, the head too: what it predicts is not just the solver's estimate."""
    rng = np.random.default_rng(3)
    weights = {
        name: (first + (0.02 if "head" in name else 0.05) * rng.normal(size=first.shape)).astype(np.float32)
        for name, first in initial_weights(settings.config, raw.side).items()
    }
    statistics = PtychoDataContainer.of(raw).statistics
    return NetworkModel(
        backend=backend,
        config=settings.config,
        weights=weights,
        statistics=statistics,
        scale=1.1 * statistics.scale,
        probe=(raw.probe * np.exp(0.1j)).astype(np.complex64),
        history={"train_loss": [1.0]},
    )


def losses_of(
    engine: ReconstructionBackend, raw: RawData, config: Settings, test: RawData | None = None
) -> tuple[np.ndarray, NetworkModel]:
    """Loss of every step, and the model."""
    seen: list[float] = []
    model = train(engine, raw, config, test, progress=lambda event: seen.append(event.metrics["loss"]))
    return np.array(seen), model


def several_scans() -> list[PtychoDataContainer]:
    """Two scans to learn from, each with held-out frames, and between them one of held-out frames alone.

    They differ in probe, mask, background and exposure.
    """
    first = PtychoDataContainer.of(hard_scan(), heldout=[1, 5])
    other = make_scan(16, 3, 5, n_modes=2, seed=4, photons=5e3, background=2.0)
    probe = (0.7 * np.roll(other.probe, 1, axis=2) * np.exp(0.4j)).astype(np.complex64)
    second = PtychoDataContainer.of(other.with_probe(probe), heldout=[2], unused={"tired": [7]})
    return [first, held_out_scan(hard_scan(rows=2, columns=3, seed=9, background=3.0), first), second]


def losses_on(
    engine: ReconstructionBackend, scans: list[PtychoDataContainer], config: Settings
) -> tuple[np.ndarray, NetworkModel]:
    """Loss of every step of a training on containers, and the model."""
    seen: list[float] = []
    model = engine.train(scans, *config_for(engine, config), progress=lambda event: seen.append(event.metrics["loss"]))
    return np.array(seen), model


def steps_apart(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], learning_rate: float) -> float:
    """How far the weights of two networks are apart, root mean square, in largest steps of the optimiser.

    Not the largest difference: where an activation is as near to 0 as rounding, two trainings take it for positive or
    not, and single weights part by some tenths of a step. In the case ``plain`` PyTorch started from a probe that is
    off by 1e-6 parts from itself as far as the other engine does.
    """
    assert one.keys() == other.keys()
    return float(np.sqrt(np.mean(np.concatenate([np.ravel(one[n] - other[n]) for n in one]) ** 2))) / learning_rate


def scored(engine: ReconstructionBackend, image: Image, raw: RawData) -> Scored:
    """An image of all frames, scored through the engine's own forward model."""
    return score(image, PtychoDataContainer.of(raw), engine.name, engine)


def assert_alike(
    one: Any,
    other: Any,
    *,
    tolerances: Mapping[str, float] | None = None,
    free: frozenset[str] = frozenset(),
    at: str = "",
) -> None:
    """The same types, fields, keys in their order, lengths, dtypes and shapes all the way down, and the same values.

    Args:
        one: what the first engine gave.
        other: what the second gave.
        tolerances: dotted path → largest difference of the numbers there and below, relative to the largest of them;
            0 elsewhere.
        free: dotted paths where values of one type may differ.
        at: path so far.
    """
    tolerances = tolerances or {}
    more: dict[str, Any] = {"tolerances": tolerances, "free": free}
    if one is other or at in free:
        assert type(one) is type(other), at
        return
    assert type(one) is type(other), f"{at}: {type(one).__name__} and {type(other).__name__}"
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), f"{at}: {one.dtype} {one.shape}"
        _assert_near(one, other, at, tolerances)
    elif dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_alike(getattr(one, field.name), getattr(other, field.name), at=_below(at, field.name), **more)
    elif isinstance(one, Mapping):
        assert list(one) == list(other), f"{at}: {list(one)} and {list(other)}"
        for key in one:
            assert_alike(one[key], other[key], at=_below(at, str(key)), **more)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), at
        numbers = bool(one) and all(type(value) is float for value in (*one, *other))
        if numbers:  # the numbers of a list belong together, like an array's
            _assert_near(np.array(one), np.array(other), at, tolerances)
        else:
            for number, (a, b) in enumerate(zip(one, other, strict=True)):
                assert_alike(a, b, at=_below(at, str(number)), **more)
    elif isinstance(one, float):
        _assert_near(np.array(one), np.array(other), at, tolerances)
    else:
        assert one == other, f"{at}: {one!r} and {other!r}"


def _below(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _assert_near(one: np.ndarray, other: np.ndarray, at: str, tolerances: Mapping[str, float]) -> None:
    parts = at.split(".")
    above = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    limit = next((tolerances[path] for path in above if path in tolerances), 0.0)
    if limit == 0 or not np.issubdtype(one.dtype, np.inexact):
        np.testing.assert_array_equal(one, other, err_msg=at)
    else:
        np.testing.assert_allclose(one, other, rtol=0, atol=limit * float(np.abs(other).max(initial=0)), err_msg=at)
