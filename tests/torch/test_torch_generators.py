"""Generators as PyTorch modules: their parameters, and weights by their canonical names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_scans import CONFIG, vary

from ptycho_backend_torch.generators import build, load_weights
from ptycho_core.enginekit.weights import generator_shapes, initial_weights

pytestmark = pytest.mark.torch

CNN = vary(model={"generator": "cnn", "width": 2}, group_size=3)


def first(config, N):
    generator = build(config, N)
    load_weights(generator, initial_weights(config, N))
    return generator.eval()


@pytest.mark.parametrize(
    ("config", "N"),
    [
        (CONFIG, 16),
        (vary(model={"depth": 4, "width": 3}), 48),
        (vary(model={"generator": "unrolled", "depth": 2}), 16),
        (CNN, 64),
        (vary(CNN, group_size=5), 128),
        (CNN, 256),
    ],
)
def test_names_and_shapes_are_those_of_core(config, N):
    config = config.config
    generator = first(config, N)
    state = generator.state_dict()
    assert {name: tuple(v.shape) for name, v in state.items()} == generator_shapes(config, N)
    assert set(state) == {name for name, _ in generator.named_parameters()}
    for name, wanted in initial_weights(config, N).items():
        np.testing.assert_array_equal(state[name].numpy(), wanted, err_msg=name)


def test_weights_are_loaded_strictly():
    generator = first(CONFIG.config, 16)
    weights = initial_weights(CONFIG.config, 16)
    with pytest.raises(RuntimeError, match=r"Missing key.*head\.bias"):
        load_weights(generator, {name: v for name, v in weights.items() if name != "head.bias"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*extra"):
        load_weights(generator, weights | {"extra": weights["head.bias"]})
    before = weights["head.bias"].copy()
    load_weights(generator, weights)
    with torch.no_grad():
        generator.head.bias += 1
    np.testing.assert_array_equal(weights["head.bias"], before)
