"""The forward model and the losses of the pty-chi engine against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ptychi_scans import N, container, make_object, make_probe

from ptycho_backend_ptychi import physics
from ptycho_backend_ptychi.library import inside
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.errors import DataError
from ptycho_core.physics import likelihood
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.plugins.registry import load_backend

pytestmark = pytest.mark.ptychi
CPU = torch.device("cpu")


def an_image(obj, probe, positions, origin=(0, 0), scale=1.0):
    return Image(
        object=obj.astype(np.complex64),
        coverage=np.ones(obj.shape, np.float32),
        origin_px=np.array(origin, np.float64),
        probe=probe,
        scale=scale,
        positions_px=np.asarray(positions, np.float64),
    )


def a_scan(positions, probe, **more):
    """Frames of ones: the counts play no part in a forward model."""
    return container(RawData.from_arrays(np.ones((len(positions), N, N), np.float32), positions, probe, **more))


@pytest.mark.spec("BE-6")
@pytest.mark.parametrize(("n_modes", "level"), [(1, 0.0), (3, 0.7)])
def test_it_expects_what_the_oracle_does(n_modes, level):
    """At the positions, the corner and the scale of the image, which are not those of the scan."""
    rng = np.random.default_rng(0)
    obj = rng.normal(size=(60, 41)) + 1j * rng.normal(size=(60, 41))
    corners = np.stack([rng.integers(0, 60 - N + 1, 30), rng.integers(0, 41 - N + 1, 30)], axis=1)
    rest = rng.uniform(-0.5, 0.5, (30, 2))
    rest[:4] = [[-0.5, 0.4999], [-0.5, -0.5], [0.0, -0.5], [0.49999, 0.0]]
    positions = corners + rest + (N - 1) / 2
    background = rng.uniform(0, level, (N, N)) if level else None
    scan = a_scan(positions + 0.3, 2 * make_probe(1), background=background)
    frames = np.array([17, 3, 2, 0, 29, 11])
    made = an_image(obj, make_probe(n_modes), positions + np.array([-70, 900]), origin=(-70, 900), scale=1.7)
    expected = expected_counts(
        extract(obj, corners[frames], N), make_probe(n_modes), rest[frames], 1.7, scan.raw.background
    )
    found = load_backend("ptychi").expected_counts(made, scan, frames)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_a_half_is_never_rounded_to_another_pixel():
    rng = np.random.default_rng(2)
    corners = rng.integers(0, 3000, (4000, 2))
    rest = np.where(rng.random((4000, 2)) < 0.5, -0.5, np.nextafter(np.float32(0.5), np.float32(0)))
    offset = np.array([1500, 1501])
    found = physics.to_library_positions(corners, rest, offset)
    np.testing.assert_array_equal(torch.round(torch.as_tensor(found)).numpy(), corners - offset)
    np.testing.assert_allclose(found - (corners - offset), rest, atol=3e-4)


def test_every_mode_is_shifted_and_the_adjoint_is_the_adjoint():
    class Stub:
        """What the two functions read of a reconstructor."""

        class forward_model:
            get_probe_grid_position_data = staticmethod(lambda: (None, None, residual))

        class parameter_group:
            class object:
                class options:
                    patch_interpolation_method = "fourier"

    generator = torch.Generator().manual_seed(0)
    residual = torch.rand(5, 2, generator=generator) - 0.5
    a, b = (torch.randn(5, 3, N, N, dtype=torch.complex64, generator=generator) for _ in range(2))
    with inside(CPU):
        forward = physics._shift_modes(residual, a, "fourier", adjoint=False)
        backward = physics.adjoint_shift(Stub, torch.arange(5), b, first_mode_only=True)
        alone = physics._shift_modes(residual, a[:, 2:], "fourier", adjoint=False)
    left, right = torch.vdot(forward.flatten(), b.flatten()), torch.vdot(a.flatten(), backward.flatten())
    assert abs(left - right) < 1e-4 * abs(left)
    torch.testing.assert_close(forward[:, 2:], alone)
    assert not torch.allclose(forward[:, 1], a[:, 1], atol=1e-2)


@pytest.mark.spec("BE-7")
@pytest.mark.parametrize("loss", ["amplitude_loss", "poisson_loss"])
def test_losses_are_those_of_the_oracle(loss):
    rng = np.random.default_rng(3)
    rate, counts = rng.gamma(1.0, 5.0, (4, N, N)), rng.poisson(4.0, (4, N, N)).astype(np.float64)
    rate[0, :2] = 0
    mask = rng.random((N, N)) > 0.2
    for good in (None, mask):
        expected = getattr(likelihood, loss)(rate, counts, good, 17.0)
        torch_mask = None if good is None else torch.as_tensor(good)
        found = getattr(physics, loss)(torch.as_tensor(rate), torch.as_tensor(counts), torch_mask, 17.0)
        assert found == pytest.approx(expected, rel=1e-9)


def test_the_size_of_a_probe_and_of_a_batch():
    """A disc lights its own area: in a field 20 times as large, ten such frames light half of it."""
    flat = np.zeros((2, N, N), np.complex64)
    flat[0, 4:12, 5:9] = 3j
    assert physics.root_mean_square(flat) == pytest.approx(3 * np.sqrt(32 / (2 * N * N)))
    side = np.sqrt(32.0)
    corners = np.array([[0.0, 0.0], [3 * side, 4 * side]])
    assert physics.frames_that_overlap(flat, corners, 0.5) == pytest.approx(10.0)


def test_a_patch_that_leaves_the_object_is_refused():
    positions = np.array([[20.0, 20.0], [6.0, 20.0]])
    made = an_image(make_object(), make_probe(), positions)
    scan, engine = a_scan(positions, make_probe()), load_backend("ptychi")
    assert engine.expected_counts(made, scan, np.array([0])).shape == (1, N, N)
    with pytest.raises(DataError, match="do not fit the object"):
        engine.expected_counts(made, scan, np.array([0, 1]))
