"""Generators: weights by their canonical names, and what a first prediction is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch_scans import CONFIG, make_scan, vary

from ptycho_backend_torch import physics
from ptycho_backend_torch.generators import GENERATORS
from ptycho_backend_torch.lightning_module import PtychoModule, load_weights
from ptycho_backend_torch.sweeps import group_estimate
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.errors import ConfigError
from ptycho_core.networks import architectures
from ptycho_core.physics.forward import fourier_shift
from ptycho_core.physics.patches import extract, merge
from ptycho_core.physics.solver import RELAXATION, solver_update

pytestmark = pytest.mark.torch

CNN = vary(model={"generator": "cnn", "width": 2}, group_size=3)


def inputs(config, N=16, **more):
    """A batch of two groups: estimate, counts, shifted probe, and what is known of scale and detector."""
    scan = make_scan(N, **more)
    groups = PtychoDataContainer.for_training(scan, config.group_size, n_groups=scan.n_frames, seed=2)
    counts = torch.from_numpy(groups.read_group_counts(np.array([0, 7])))
    rest = torch.from_numpy(groups.subpixel_px[[0, 7]].copy())
    shifted = physics.fourier_shift(torch.from_numpy(scan.probe.copy()), rest[..., None, :])
    mask = None if scan.mask is None else torch.from_numpy(scan.mask.copy())
    level = None if scan.background is None else torch.from_numpy(scan.background.copy())
    flat = torch.ones_like(shifted[..., 0, :, :])
    return groups, [flat, counts, shifted, groups.statistics.scale, mask, level]


def first(config, N):
    generator = GENERATORS[config.model.generator](config, N)
    load_weights(generator, architectures.initial_weights(config, N))
    return generator.eval()


def test_every_architecture_has_a_generator():
    assert set(GENERATORS) == set(architectures.GENERATORS)


@pytest.mark.parametrize(
    ("config", "N"),
    [(CONFIG, 16), (vary(model={"depth": 4, "width": 3}), 48), (CNN, 64), (vary(CNN, group_size=5), 128), (CNN, 256)],
)
def test_names_and_shapes_are_those_of_core(config, N):
    module = PtychoModule(
        config, np.ones((1, N, N), np.complex64), make_groups(config).statistics, None, None, total_steps=1
    )
    state = module.generator.state_dict()
    assert {name: tuple(v.shape) for name, v in state.items()} == architectures.generator_shapes(config, N)
    assert set(state) == {name for name, _ in module.generator.named_parameters()}
    for name, wanted in architectures.initial_weights(config, N).items():
        np.testing.assert_array_equal(state[name].numpy(), wanted, err_msg=name)


def make_groups(config):
    return PtychoDataContainer.for_training(make_scan(), config.group_size)


def test_weights_are_loaded_strictly():
    generator = first(CONFIG, 16)
    weights = architectures.initial_weights(CONFIG, 16)
    with pytest.raises(RuntimeError, match=r"Missing key.*head\.bias"):
        load_weights(generator, {name: v for name, v in weights.items() if name != "head.bias"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*extra"):
        load_weights(generator, weights | {"extra": weights["head.bias"]})
    before = weights["head.bias"].copy()
    load_weights(generator, weights)
    with torch.no_grad():
        generator.head.bias += 1
    np.testing.assert_array_equal(weights["head.bias"], before)


def test_first_prediction_of_a_frame_of_the_flat_object_is_flat():
    _, given = inputs(CONFIG, flat=True, noise=False, n_modes=2, background=2.0, bad=True, calibrated=True)
    update = physics.solver_update(given[0], given[2], given[1], given[4], given[5], given[3])
    assert update.abs().max() < 2e-4
    with torch.inference_mode():
        patches = first(CONFIG, 16)(*given)
    assert (patches - 1).abs().max() < 2e-4


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_first_prediction_is_the_solver_s_own(precision):
    _, given = inputs(CONFIG, n_modes=2, background=2.0, bad=True)
    estimate = 1 + 0.1 * torch.randn(given[0].shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    update = solver_update(
        estimate.numpy(), given[2].numpy(), given[1].numpy(), given[4].numpy(), given[5].numpy(), given[3]
    )
    with torch.inference_mode():
        patches = first(CONFIG, 16)(estimate, *given[1:], precision)
    np.testing.assert_allclose(patches.numpy(), estimate.numpy() + RELAXATION * update, atol=1e-4)
    assert np.abs(update).max() > 0.1
    assert patches.dtype == torch.complex64


def test_a_correction_reaches_every_amplitude_and_phase():
    """Amplitude spans more than (0, 2) and phase all of (−π, π)."""
    _, given = inputs(CONFIG, flat=True, noise=False)
    generator = first(CONFIG, 16)
    for wanted in (3.0 + 0j, -1.0 + 1e-3j, -1.0 - 1e-3j, 0.01j, -2.5j):
        with torch.inference_mode():
            generator.head.bias.copy_(torch.tensor([wanted.real - 1, wanted.imag]))
            patches = generator(*given)
        assert (patches - wanted).abs().max() < 2e-4


def test_first_prediction_of_the_cnn_is_inside_its_range():
    _, given = inputs(CNN, 64, rows=2)
    generator = first(CNN, 64)
    with torch.inference_mode():
        patches = generator(*given)
        assert patches.shape == (2, 3, 64, 64)
        assert (patches.abs() - 1).abs().max() < 0.9
        for sign in (-1, 1):
            generator.amplitude_head.bias.fill_(50.0 * sign)
            generator.phase_head.bias.fill_(50.0 * sign)
            bounded = generator(*given)
            assert (bounded.abs() - (1 + sign)).abs().max() < 1e-4
        assert (bounded.angle().abs() - math.pi).abs().max() < 1e-3


@pytest.mark.parametrize("sweeps", [0, 3])
def test_permuted_frames_give_permuted_patches(sweeps):
    config = vary(model={"sweeps": sweeps})
    groups, given = inputs(config, n_modes=2)
    generator = first(config, 16)
    with torch.no_grad():
        generator.head.weight.copy_(
            0.1 * torch.randn(generator.head.weight.shape, generator=torch.Generator().manual_seed(3))
        )
    order = torch.tensor([2, 0, 3, 1])
    corners = torch.from_numpy(groups.corners_px[[0, 7]].copy())
    shape = tuple(int(n) for n in groups.canvas_shape[[0, 7]].max(axis=0))

    def predict(at):
        counts, shifted = given[1][:, at], given[2][:, at]
        weights = physics.mode_intensity(shifted)
        with torch.inference_mode():
            estimate = group_estimate(counts, shifted, weights, corners[:, at], shape, *given[3:], sweeps)
            return generator(estimate, counts, shifted, *given[3:])

    plain, permuted = predict(torch.arange(4)), predict(order)
    torch.testing.assert_close(permuted, plain[:, order], rtol=0, atol=2e-5)
    assert (permuted - plain).abs().max() > 0.05


@pytest.mark.spec("FM-16", "BE-7")
def test_sweeps_on_the_canvas_of_a_group_are_the_oracle_s():
    groups, given = inputs(CONFIG, n_modes=2, background=2.0, bad=True)
    shape = tuple(int(n) for n in groups.canvas_shape[[0, 7]].max(axis=0))
    corners = groups.corners_px[[0, 7]]
    weights = physics.mode_intensity(given[2])
    found = group_estimate(*given[1:3], weights, torch.from_numpy(corners.copy()), shape, *given[3:], 4).numpy()
    for b in range(2):
        shifted = fourier_shift(groups.probe[None], groups.subpixel_px[[0, 7]][b][:, None])
        power = np.sum(np.abs(shifted) ** 2, axis=1)
        patches = np.ones_like(shifted[:, 0])
        for _ in range(4):
            update = solver_update(patches, shifted, given[1][b].numpy(), given[4].numpy(), given[5].numpy(), given[3])
            patches = extract(merge(patches + RELAXATION * update, power, corners[b], shape), corners[b], 16)
        np.testing.assert_allclose(found[b], patches, atol=2e-4)
    flat = group_estimate(*given[1:3], weights, torch.from_numpy(corners.copy()), shape, *given[3:], 0)
    assert (flat == 1).all()


def test_cnn_refuses_what_it_was_not_made_for():
    _, given = inputs(vary(CNN, group_size=4), 64, rows=2)
    with pytest.raises(ConfigError, match="trained with group_size = 3 and was given groups of 4"):
        first(CNN, 64)(*given)
    with pytest.raises(ConfigError, match=r"'cnn' supports N = 64, 128 or 256; frames are 32×32"):
        GENERATORS["cnn"](CNN, 32)


def test_cnn_does_not_see_bad_pixels_or_the_units_of_the_probe():
    _, given = inputs(CNN, 64, rows=2, background=1.0, bad=True)
    generator = first(CNN, 64)
    spoilt = given[1].clone()
    spoilt[..., ~given[4]] = 1e9
    with torch.inference_mode():
        plain = generator(*given)
        torch.testing.assert_close(generator(given[0], spoilt, *given[2:]), plain, rtol=0, atol=0)
        rescaled = generator(given[0], given[1], 2 * given[2], given[3] / 4, *given[4:])
        torch.testing.assert_close(rescaled, plain, rtol=0, atol=1e-5)
        dark = generator(given[0], given[1], given[2], given[3], given[4], given[5] + 1e3)
        assert (dark - plain).abs().max() > 1e-3
