"""Names, shapes and first values of weights, which every engine shares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.enginekit.architectures import (
    GENERATORS,
    CnnSizes,
    ProbeUnetSizes,
    cnn_filters,
    probe_unet_widths,
)
from ptycho_core.enginekit.weights import generator_shapes, initial_weights
from ptycho_core.errors import ConfigError


def config(**changes) -> TrainingConfig:
    seed, group_size = changes.pop("seed", 3), changes.pop("group_size", 5)
    return TrainingConfig(seed=seed, group_size=group_size, model=ModelConfig(**changes))


def test_probe_unet_written_out():
    found = generator_shapes(config(width=3, depth=2), 16)
    layers = {
        "encoder0.conv0": (4, 3), "encoder0.conv1": (3, 3), "encoder1.conv0": (3, 6), "encoder1.conv1": (6, 6),
        "encoder2.conv0": (6, 12), "encoder2.conv1": (12, 12), "decoder1.conv0": (18, 6), "decoder1.conv1": (6, 6),
        "decoder0.conv0": (9, 3), "decoder0.conv1": (3, 3), "head": (3, 2),
    }  # fmt: skip
    wanted = {}
    for name, (n_in, n_out) in layers.items():
        wanted[f"{name}.weight"], wanted[f"{name}.bias"] = (n_out, n_in, 3, 3), (n_out,)
    assert found == wanted
    assert list(found) == list(wanted)
    assert probe_unet_widths(ProbeUnetSizes(width=5, depth=3)) == [5, 10, 20, 40]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_probe_unet_does_not_depend_on_the_side_or_the_group(depth):
    one = generator_shapes(config(depth=depth), 64)
    assert one == generator_shapes(config(depth=depth, group_size=2), 128)
    assert one == generator_shapes(config(depth=depth, sweeps=0), 64)


def test_unrolled_is_a_probe_unet_that_sees_two_images_more():
    base, more = (generator_shapes(config(generator=name, width=3, depth=2), 16) for name in ("probe_unet", "unrolled"))
    assert more.pop("encoder0.conv0.weight") == (3, 6, 3, 3)
    assert base.pop("encoder0.conv0.weight") == (3, 4, 3, 3)
    assert list(more.items()) == list(base.items())
    assert generator_shapes(config(generator="unrolled"), 64) == generator_shapes(
        config(generator="unrolled", passes=9, sweeps=0, group_size=2), 128
    )


def test_a_depth_that_the_side_cannot_be_halved_by():
    assert generator_shapes(config(depth=4), 48)
    with pytest.raises(ConfigError, match=r"model.depth = 5 halves .* N = 48 is not a multiple of 32"):
        generator_shapes(config(depth=5), 48)


@pytest.mark.parametrize(("N", "n_encoder", "n_decoder"), [(64, 3, 3), (128, 4, 4), (256, 5, 5)])
def test_cnn_reaches_8_by_8_and_comes_back(N, n_encoder, n_decoder):
    encoder, decoder = cnn_filters(CnnSizes(), N)
    assert (len(encoder), len(decoder)) == (n_encoder, n_decoder)
    assert 8 * 2**n_encoder == N == 8 * 2**n_decoder
    shapes = generator_shapes(config(generator="cnn"), N)
    assert shapes["encoder0.conv0.weight"] == (encoder[0], 5, 3, 3)
    for arm in ("amplitude", "phase"):
        assert shapes[f"{arm}0.conv0.weight"] == (decoder[0], encoder[-1], 3, 3)
        assert shapes[f"{arm}_head.weight"] == (5, decoder[-1], 3, 3)
        assert shapes[f"{arm}_head.bias"] == (5,)


def test_width_scales_the_cnn():
    for N in (64, 128, 256):
        plain, half = cnn_filters(CnnSizes(width=16), N), cnn_filters(CnnSizes(width=8), N)
        assert [[2 * f for f in arm] for arm in half] == list(plain)
        assert all(f >= 1 for arm in cnn_filters(CnnSizes(width=1), N) for f in arm)


def test_what_is_refused():
    with pytest.raises(ConfigError, match=r"'cnn' supports N = 64, 128 or 256; frames are 32×32"):
        generator_shapes(config(generator="cnn"), 32)
    with pytest.raises(
        ConfigError, match=r"model.generator = 'probe_net'; allowed: probe_unet, unrolled, cnn\. Did you mean"
    ):
        generator_shapes(config(generator="probe_net"), 64)
    with pytest.raises(ConfigError, match="generator"):
        initial_weights(config(generator="unet"), 64)


@pytest.mark.parametrize("generator", [record.name for record in GENERATORS])
def test_first_weights_follow_the_shapes_and_the_law(generator):
    made = config(generator=generator, width=16)
    weights = initial_weights(made, 64)
    assert {name: value.shape for name, value in weights.items()} == generator_shapes(made, 64)
    assert list(weights) == list(generator_shapes(made, 64))
    for name, value in weights.items():
        assert value.dtype == np.float32
        if name.endswith(".bias") or name == "head.weight":
            assert not value.any()
            continue
        spread = math.sqrt(2 / math.prod(value.shape[1:])) * (0.1 if "_head" in name else 1.0)
        assert value.std() == pytest.approx(spread, rel=5 / math.sqrt(2 * value.size))
        assert abs(value.mean()) < 5 * spread / math.sqrt(value.size)


def test_first_weights_are_decided_by_seed_and_name_alone():
    one, again = (initial_weights(config(depth=2), 64) for _ in range(2))
    deeper = initial_weights(config(depth=3, group_size=9), 32)
    other = initial_weights(config(depth=2, seed=4), 64)
    for name in one:
        np.testing.assert_array_equal(one[name], again[name])
        if one[name].any():
            assert not np.array_equal(one[name], other[name]), name
    shared = [name for name in one if name.startswith("encoder")]
    for name in shared:
        np.testing.assert_array_equal(one[name], deeper[name])
    # equal shapes do not mean equal values
    assert one["encoder0.conv1.weight"].shape == one["decoder0.conv1.weight"].shape
    assert not np.array_equal(one["encoder0.conv1.weight"], one["decoder0.conv1.weight"])


def test_first_weights_leave_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    initial_weights(config(), 64)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_first_weights_are_pinned():
    """Another start would silently change every result that a seed stands for."""
    weights = initial_weights(TrainingConfig(seed=0, model=ModelConfig(width=4, depth=1)), 32)
    first = weights["encoder0.conv0.weight"][0, 0, 0]
    np.testing.assert_allclose(first, [0.36470902, -0.016870704, 0.25943646], rtol=1e-6)
