"""XLA is used where it pays, and changes nothing but speed."""

from __future__ import annotations

import numpy as np
import pytest
from engines.engine_scans import CONFIG, EXACT, make_scan, train, vary

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.plugins.registry import load_backend

pytestmark = pytest.mark.tensorflow

STEADY = vary(CONFIG, model={"sweeps": 3}, epochs=1, probe_trainable=True, scale_trainable=True)
"""Few sweeps and much light, so that rounding is not multiplied in dark pixels."""


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4, n_modes=2, bad=True, background=5.0)


def choose(precision: str, pixels: int):
    from ptycho_backend_tensorflow.hardware import Work, choose_hardware

    return choose_hardware("cpu", precision, Work(pixels, channels=16, sweeps=24))


def test_small_jobs_are_not_compiled_and_large_ones_are():
    assert [choose("32", n).compile_network for n in (10**6, 10**7)] == [False, True]
    assert [choose("32", n).compile_sweeps for n in (10**6, 10**7)] == [False, True]


def test_a_network_in_bfloat16_is_not_compiled():
    hardware = choose("bf16", 10**9)
    assert hardware.compile_sweeps
    assert not hardware.compile_network
    assert hardware.low_precision.name == "bfloat16"


def test_compiled_steps_are_the_plain_ones(scan, monkeypatch):
    from ptycho_backend_tensorflow import hardware

    engine = load_backend("tensorflow")
    groups = PtychoDataContainer.for_reconstruction(scan, 4)
    plain = train(engine, scan, STEADY)
    image, patches = engine.reconstruct(plain, groups, EXACT), engine.predict_patches(plain, groups)
    made = []
    real = hardware.choose_hardware
    for module in ("backend", "inference"):
        monkeypatch.setattr(
            f"ptycho_backend_tensorflow.{module}.choose_hardware",
            lambda *arguments: (made.append(real(*arguments)), made[-1])[1],
        )
    monkeypatch.setattr(hardware, "XLA_PAYS_FOR_NETWORK", 1)
    monkeypatch.setattr(hardware, "XLA_PAYS_FOR_SWEEPS", 1)
    compiled = train(engine, scan, STEADY)
    assert made[0].compile_network
    assert made[0].compile_sweeps
    np.testing.assert_allclose(compiled.history["train_loss"], plain.history["train_loss"], rtol=1e-5)
    for name, value in plain.weights.items():
        np.testing.assert_allclose(compiled.weights[name], value, atol=2e-4, err_msg=name)  # a step is 1e-3
    np.testing.assert_allclose(compiled.probe, plain.probe, atol=1e-4 * np.abs(plain.probe).max())
    again = engine.reconstruct(plain, groups, EXACT)
    assert made[-1].compile_sweeps
    np.testing.assert_allclose(again.object, image.object, atol=1e-3 * np.abs(image.object).max())
    np.testing.assert_allclose(engine.predict_patches(plain, groups), patches, atol=1e-3 * np.abs(patches).max())
