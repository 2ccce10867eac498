"""Generators: each engine's against one written out in NumPy, and what a first prediction is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from engine_scans import config_for, lay_out, make_scan, patches_of, shaken, untrained, vary, without_network
from network_oracle import predicted_patches

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit import architectures
from ptycho_core.enginekit.groups import Groups
from ptycho_core.enginekit.weights import generator_shapes
from ptycho_core.errors import ConfigError

CNN = vary(model={"generator": "cnn", "width": 2}, group_size=3)
ALONE = vary(model={"sweeps": 0})
UNROLLED = vary(model={"generator": "unrolled", "depth": 2, "sweeps": 0, "passes": 2})


def filled(model, **values):
    """A model with some of its weights replaced by one value each, or by a list."""
    named = {name.replace("__", "."): value for name, value in values.items()}
    changed = {name: np.empty_like(model.weights[name]) for name in named}
    for name, value in named.items():
        changed[name][...] = value
    return replace(model, weights={**model.weights, **changed})


def test_every_architecture_has_a_generator(engine):
    assert set(engine.capabilities.generators) == {record.name for record in architectures.GENERATORS}


@pytest.mark.spec("BE-7")
@pytest.mark.parametrize(
    ("settings", "N"),
    [
        (ALONE, 16),
        (vary(model={"depth": 4, "width": 3, "sweeps": 0}), 48),
        (UNROLLED, 16),
        (CNN, 64),
        (vary(CNN, group_size=2), 128),
        (vary(CNN, group_size=2), 256),
    ],
    ids=["unet", "deep unet", "unrolled", "cnn 64", "cnn 128", "cnn 256"],
)
def test_predictions_are_those_of_the_network_written_out(engine, settings, N):
    """With noise on every weight, two modes, bad pixels and a background; without sweeps, which blow rounding up."""
    scan = make_scan(N, 2, 2 if N < 256 else 1, n_modes=2, bad=True, background=2.0)
    model = shaken(untrained(engine, scan, settings), size=0.1)
    groups = lay_out(scan, min(settings.config.group_size, scan.n_frames))
    found = patches_of(engine, model, groups)
    wanted = predicted_patches(groups, model.config, model.weights, model.scale_for(groups.scan))
    assert np.std(wanted) > 0.1
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.spec("FM-16", "BE-7")
@pytest.mark.parametrize("sweeps", [0, 4])
def test_sweeps_on_the_canvas_of_a_group_are_the_oracle_s(engine, sweeps):
    """Under a network that adds nothing, as every network does before training."""
    scan = make_scan(n_modes=2, bad=True, background=2.0)
    model = untrained(engine, scan, vary(model={"sweeps": sweeps}))
    groups = lay_out(scan)
    found = patches_of(engine, model, groups)
    wanted = predicted_patches(groups, model.config, model.weights, model.scale)
    assert np.abs(wanted - 1).max() > 0.1
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_half_precision_is_for_the_network_alone(engine):
    """What the solver says is not rounded to half precision: a network that adds nothing gives the same to the bit."""
    scan = make_scan(n_modes=2, bad=True, background=2.0)
    model = without_network(untrained(engine, scan), 2)
    precisions, noisy = ("32", "bf16"), shaken(model, size=0.05)
    plain, reduced = (patches_of(engine, model, lay_out(scan), precision=p) for p in precisions)
    np.testing.assert_allclose(reduced, plain, atol=1e-6)
    noisy = [patches_of(engine, noisy, lay_out(scan), precision=p) for p in precisions]
    assert not np.allclose(*noisy, atol=1e-5)


def test_first_prediction_of_frames_of_the_flat_object_is_flat(engine):
    scan = make_scan(flat=True, noise=False, n_modes=2, background=2.0, bad=True, calibrated=True)
    assert np.abs(patches_of(engine, untrained(engine, scan, ALONE), lay_out(scan)) - 1).max() < 2e-4


def test_a_correction_reaches_every_amplitude_and_phase(engine):
    """Amplitude spans more than (0, 2) and phase all of (−π, π)."""
    scan = make_scan(rows=2, columns=2, flat=True, noise=False)
    model = untrained(engine, scan, ALONE)
    for wanted in (3.0 + 0j, -1.0 + 1e-3j, -1.0 - 1e-3j, -2.5j):
        patches = patches_of(engine, filled(model, head__bias=[wanted.real - 1, wanted.imag]), lay_out(scan))
        assert np.abs(patches - wanted).max() < 2e-4


def test_predictions_of_the_cnn_are_inside_its_range(engine):
    scan = make_scan(64, 2, 3)
    model = untrained(engine, scan, CNN)
    patches = patches_of(engine, model, lay_out(scan, 3))
    assert patches.shape == (2, 3, 64, 64)
    assert np.abs(np.abs(patches) - 1).max() < 0.9
    for sign in (-1, 1):
        pushed = filled(model, amplitude_head__bias=50.0 * sign, phase_head__bias=50.0 * sign)
        bounded = patches_of(engine, pushed, lay_out(scan, 3))
        assert np.abs(np.abs(bounded) - (1 + sign)).max() < 1e-4
    assert np.abs(np.abs(np.angle(bounded)) - math.pi).max() < 1e-3


@pytest.mark.parametrize("sweeps", [0, 3])
def test_permuted_frames_give_permuted_patches(engine, sweeps):
    scan = make_scan(rows=2, columns=4, n_modes=2)
    model = shaken(untrained(engine, scan, vary(model={"sweeps": sweeps})), size=0.05)
    groups, order = lay_out(scan), [2, 0, 3, 1]
    swapped = Groups.of(groups.scan, groups.frame_indices[:, order])
    plain, permuted = (patches_of(engine, model, data) for data in (groups, swapped))
    np.testing.assert_allclose(permuted, plain[:, order], atol=2e-4)
    assert np.abs(permuted - plain).max() > 0.05


def test_cnn_refuses_what_it_was_not_made_for(engine):
    scan = make_scan(64, 2, 2)
    with pytest.raises(ConfigError, match="trained with group_size = 3 and was given groups of 4"):
        patches_of(engine, untrained(engine, scan, CNN), lay_out(scan, 4))
    small = PtychoDataContainer.of(make_scan(32, 2, 2))
    with pytest.raises(ConfigError, match=r"'cnn' supports N = 64, 128 or 256; frames are 32×32"):
        engine.train([small], *config_for(engine, CNN))


def test_cnn_does_not_see_bad_pixels_or_the_units_of_the_probe(engine):
    scan = make_scan(64, 2, 3, background=1.0, bad=True)
    model = untrained(engine, scan, CNN)

    def patches(counts=None, probe=None, background=None):
        counts = scan.frames.read(np.arange(6)) if counts is None else counts
        raw = RawData.from_arrays(
            counts, scan.positions_px, scan.probe if probe is None else probe, mask=scan.mask,
            background=scan.background if background is None else background,
        )  # fmt: skip
        data = lay_out(raw, 3)
        known = {"statistics": data.scan.statistics, "scale": data.scan.statistics.scale}
        return patches_of(engine, replace(model, **known), data)

    plain, spoilt = patches(), scan.frames.read(np.arange(6))
    spoilt[:, ~scan.mask] = 3.0
    np.testing.assert_array_equal(patches(counts=spoilt), plain)
    np.testing.assert_allclose(patches(probe=2 * scan.probe), plain, atol=1e-5)
    assert np.abs(patches(background=scan.background + 5) - plain).max() > 1e-3


@pytest.mark.parametrize("settings", [ALONE, UNROLLED], ids=["unet", "unrolled"])
def test_every_weight_matters(engine, settings):
    """None is left out, taken twice, or taken for another: the prediction changes with each, and differently."""
    scan = make_scan(rows=2, columns=2)
    model = shaken(untrained(engine, scan, settings), size=0.1)
    plain, seen = patches_of(engine, model, lay_out(scan)), []
    for name in generator_shapes(settings.config, 16):
        raised = replace(model, weights={**model.weights, name: model.weights[name] + np.float32(0.1)})
        seen.append(np.abs(patches_of(engine, raised, lay_out(scan)) - plain).sum())
    assert min(seen) > 1e-3
    assert len(np.unique(np.round(seen, 6))) == len(seen)
