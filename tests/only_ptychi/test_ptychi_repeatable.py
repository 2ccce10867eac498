"""One question, one answer: what of pty-chi would differ from run to run, and so could not be resumed."""

from __future__ import annotations

import numpy as np
import pytest
from ptychi_scans import CPU

from ptycho_backend_ptychi import library

pytestmark = pytest.mark.ptychi


def points():
    import torch

    rng = np.random.default_rng(3)
    return torch.arange(0.0, 4.0), torch.tensor(np.concatenate([[0.0], -np.sort(rng.random(3))]), dtype=torch.float32)


def test_the_line_through_correlations_is_the_least_squares_line():
    x, y = points()
    found = library._fitted(x, y)
    assert found.dtype == y.dtype
    np.testing.assert_allclose(found.numpy(), np.polyfit(x.double().numpy(), y.double().numpy(), 1), rtol=1e-6)
    np.testing.assert_allclose(found.numpy(), library._polyfit(x, y).numpy(), rtol=1e-5)
    assert len(library._fitted(x, y, deg=2)) == 3


def test_it_is_asked_inside_pty_chi_only():
    import torch
    from ptychi import maths
    from ptychi.reconstructors import lsqml

    before = maths.polyfit
    with library.inside(torch.device(CPU.accelerator)):
        assert lsqml.pmath.polyfit is library._fitted
    assert maths.polyfit is before is library._polyfit
