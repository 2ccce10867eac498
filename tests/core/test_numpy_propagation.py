"""The numpy engine's way to the detector against the oracle, in both layouts and both precisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from physics_problem import complex_noise, make_problem

from ptycho_backend_numpy import physics as twin
from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.physics import forward as oracle
from ptycho_core.physics import propagation as ways
from ptycho_core.physics.patches import extract
from ptycho_core.testing.tolerances import FLOAT32, FLOAT64, relative_error

WAYS = (FAR_FIELD, Propagation("near_field", 0.21), Propagation("near_field", 0.21, 0.9))


@pytest.mark.spec("BE-7", "FM-4", "FM-23")
@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize(("dtype", "limits"), [(np.complex64, FLOAT32), (np.complex128, FLOAT64)])
def test_to_the_detector_and_back(rng: np.random.Generator, how: Propagation, dtype: Any, limits: Any) -> None:
    waves = complex_noise(rng, 3, 2, 18, 18).astype(dtype)
    before = waves.copy()
    arrived, back = ways.propagate(waves, how), ways.propagate_adjoint(waves, how)
    there = twin.Propagator(how, 18, dtype, threads=1)
    found = there.to_detector(waves)
    for value, wanted in (
        (twin.propagate(waves, how), arrived),
        (twin.propagate_adjoint(waves, how), back),
        (there.stored_layout(found), arrived),
        (found, there.detector_layout(arrived)),
        (there.from_detector(there.detector_layout(waves)), back),
        (there.to_detector(waves.copy(), overwrite=True), found),
        (there.from_detector(there.detector_layout(waves).copy(), overwrite=True), back),
    ):
        assert value.dtype == dtype
        assert relative_error(value, wanted) < limits["wave"]
    np.testing.assert_array_equal(waves, before)


@pytest.mark.spec("BE-7", "FM-5", "FM-23")
@pytest.mark.parametrize("how", WAYS, ids=str)
def test_rates(how: Propagation) -> None:
    problem = make_problem()
    patches, rest = extract(problem.obj, problem.corners, 16), problem.rest
    wanted = oracle.expected_counts(patches, problem.probe, rest, problem.scale, problem.background, how)
    single = patches.astype(np.complex64), problem.probe.astype(np.complex64)
    found = twin.expected_counts(*single, rest, problem.scale, problem.background, how)
    assert found.dtype == np.float32
    assert relative_error(found, wanted) < FLOAT32["rate"]
    waves = twin.exit_waves(*single, rest)
    assert relative_error(twin.rate_of_waves(waves, problem.scale, problem.background, how), wanted) < FLOAT32["rate"]
