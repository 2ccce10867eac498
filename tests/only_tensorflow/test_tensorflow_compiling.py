"""XLA is used where it pays, and changes nothing but speed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engines.engine_scans import CONFIG, image_of, lay_out, make_scan, patches_of, train, vary
from tensorflow_processors import AMX, AVX2, AVX512, processor

from ptycho_backend_tensorflow import tracing
from ptycho_backend_tensorflow.hardware import Work, choose_hardware
from ptycho_backend_tensorflow.options import JIT, TensorflowOptions
from ptycho_core.errors import ConfigError
from ptycho_core.plugins.registry import load_backend

pytestmark = pytest.mark.tensorflow

STEADY = vary(CONFIG, model={"sweeps": 3}, epochs=1, probe_trainable=True, scale_trainable=True)
"""Few sweeps and much light, so that rounding is not multiplied in dark pixels."""


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4, n_modes=2, bad=True, background=5.0)


def choose(precision: str, pixels: int, jit: str = "auto"):
    return choose_hardware("cpu", precision, Work(pixels, channels=16, sweeps=24), jit=jit)


def compiling(monkeypatch, wanted: bool) -> None:
    """Have XLA compile everything or nothing from here on, whatever the work and the processor."""
    for module in ("backend", "inference"):
        monkeypatch.setattr(
            f"ptycho_backend_tensorflow.{module}.choose_hardware",
            lambda *given, **more: replace(
                choose_hardware(*given, **more), compile_sweeps=wanted, compile_network=wanted
            ),
        )


@pytest.fixture
def called(monkeypatch):
    """Whether XLA compiles them, of the traced functions that were called so far."""
    seen = set()

    def traced(function, *, compiled=False):
        made = tracing.traced(function, compiled=compiled)
        return lambda *given: (seen.add(compiled), made(*given))[1]

    for module in ("inference", "network"):
        monkeypatch.setattr(f"ptycho_backend_tensorflow.{module}.traced", traced)
    return seen


@pytest.mark.parametrize("has", [AVX2, AVX512, AMX])
def test_small_jobs_are_not_compiled_and_large_ones_are(monkeypatch, has):
    processor(monkeypatch, has)
    assert [choose("32", n).compile_sweeps for n in (10**6, 10**7)] == [False, True]
    assert [choose("32", n).compile_network for n in (10**6, 10**7)] == [False, has == AVX2]


@pytest.mark.parametrize("has", [AVX2, AVX512, AMX])
def test_a_network_in_bfloat16_is_not_compiled(monkeypatch, has):
    processor(monkeypatch, has)
    hardware = choose("bf16", 10**9)
    assert hardware.compile_sweeps
    assert not hardware.compile_network
    assert hardware.low_precision.name == "bfloat16"


@pytest.mark.parametrize("has", [AVX2, AVX512, AMX])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_jit_decides_in_place_of_job_and_processor(monkeypatch, has, precision):
    processor(monkeypatch, has)
    for pixels in (1, 10**9):
        on, off = (choose(precision, pixels, jit) for jit in ("on", "off"))
        assert (on.compile_sweeps, on.compile_network) == (True, True)
        assert (off.compile_sweeps, off.compile_network) == (False, False)
        assert on.low_precision == off.low_precision == choose(precision, pixels).low_precision


@pytest.mark.parametrize("jit", JIT)
def test_jit_reaches_training_and_reconstruction(scan, called, jit):
    """The job is a small one, which is not compiled where nobody says so."""
    engine, config = (
        load_backend("tensorflow"),
        vary(STEADY, backend="tensorflow", options=(TensorflowOptions(jit=jit),)),
    )
    model = train(engine, scan, config)
    assert (True in called) is (jit == "on")
    called.clear()
    image_of(engine, model, scan)
    assert (True in called) is (jit == "on")


def test_a_jit_that_there_is_not_is_refused():
    with pytest.raises(ConfigError) as caught:
        TensorflowOptions(jit="onn")
    assert str(caught.value) == "TensorflowOptions.jit = 'onn'; allowed: auto, on, off. Did you mean 'on'?"


def test_compiled_steps_are_the_plain_ones(scan, monkeypatch, called):
    engine = load_backend("tensorflow")
    groups = lay_out(scan)
    compiling(monkeypatch, False)
    plain = train(engine, scan, STEADY)
    image, patches = image_of(engine, plain, scan), patches_of(engine, plain, groups)
    assert called == {False}
    compiling(monkeypatch, True)
    called.clear()
    compiled = train(engine, scan, STEADY)
    assert True in called
    np.testing.assert_allclose(compiled.history["train_loss"], plain.history["train_loss"], rtol=1e-5)
    for name, value in plain.weights.items():
        np.testing.assert_allclose(compiled.weights[name], value, atol=2e-4, err_msg=name)  # a step is 1e-3
    np.testing.assert_allclose(compiled.probe, plain.probe, atol=1e-4 * np.abs(plain.probe).max())
    called.clear()
    again = image_of(engine, plain, scan)
    assert True in called
    np.testing.assert_allclose(again.object, image.object, atol=1e-3 * np.abs(image.object).max())
    np.testing.assert_allclose(patches_of(engine, plain, groups), patches, atol=1e-3 * np.abs(patches).max())
