"""Two frameworks installed, one chosen: the other is never loaded; and both in one process leave each other alone."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from both_engines import NAMES, hard_scan
from engines.engine_scans import ALONE, assert_same_model, image_of, train, vary

pytestmark = pytest.mark.both

TESTS = Path(__file__).resolve().parents[1]

CHOOSE_ONE = """
import sys
sys.path.insert(0, {tests!r})
from engines.engine_scans import config_for, make_scan, vary
import ptycho_core
from ptycho_core.plugins.registry import available_backends, load_backend
assert {{engine.name: engine.state for engine in available_backends()}}.items() >= {{
    "pytorch": "ready", "tensorflow": "ready"}}.items()
assert not {{"torch", "lightning", "tensorflow", "keras"}} & set(sys.modules)
scan, test = make_scan(rows=3, columns=4), make_scan(rows=2, columns=3, seed=9)
engine = load_backend({name!r})
config = config_for(engine, vary(model={{"sweeps": 2}}, batch_size=6))
amplitude, _, results = ptycho_core.run_cdi_example(scan, test, *config, do_stitching=True)
engine.save(results["model"], "model.ptycho")
ptycho_core.load_model("model.ptycho")
print(results["reconstruction"].train.fourier_error)
print(*sorted({{"torch", "lightning", "tensorflow", "keras"}} & set(sys.modules)))
"""


def run(folder: Path, script: str, **environment: str) -> list[str]:
    """Lines that a script writes, which must end well."""
    clean = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=240, check=False,
        env={**clean, "OMP_NUM_THREADS": "1", "HOME": str(folder), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """Name → Fourier error and the frameworks loaded, of a process that chose that engine."""
    done: dict[str, tuple[float, set[str]]] = {}

    def get(name: str) -> tuple[float, set[str]]:
        if name not in done:
            script = CHOOSE_ONE.format(tests=str(TESTS), name=name)
            error, loaded = run(tmp_path_factory.mktemp(name), script)
            done[name] = float(error), set(loaded.split())
        return done[name]

    return get


@pytest.mark.spec("PLUG-2")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "own", "foreign"),
    [("pytorch", {"torch"}, {"tensorflow", "keras"}), ("tensorflow", {"tensorflow"}, {"torch", "lightning"})],
)
def test_choosing_one_engine_never_loads_the_other(chosen, name, own, foreign):
    error, loaded = chosen(name)
    assert 0 < error < 0.2
    assert own <= loaded
    assert not foreign & loaded


@pytest.mark.slow
def test_a_choice_of_keras_does_not_reach_the_tensorflow_engine(chosen, tmp_path):
    """TensorFlow imports Keras, which the environment may tell to compute with PyTorch; the engine does not care."""
    script = CHOOSE_ONE.format(tests=str(TESTS), name="tensorflow")
    error, _ = run(tmp_path, script, KERAS_BACKEND="torch")
    assert float(error) == pytest.approx(chosen("tensorflow")[0], rel=1e-6)


def test_the_tensorflow_engine_never_names_keras():
    """Neither imported nor reached through TensorFlow."""
    spec = importlib.util.find_spec("ptycho_backend_tensorflow")
    modules = sorted(Path(spec.origin).parent.rglob("*.py"))
    assert len(modules) > 10
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {getattr(node, "attr", None), getattr(node, "module", None)}
            names |= {alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)}
            assert not any("keras" in str(name) for name in names), f"{path.name}:{getattr(node, 'lineno', 0)}"


# ---- both in one process

A = vary(probe_trainable=True, schedule="one_cycle", batch_size=3, model={"sweeps": 2})
B = vary(batch_size=4, loss="poisson", seed=8, weight_average=0.5, **ALONE)


@pytest.fixture(scope="module")
def scans():
    return hard_scan(), hard_scan(rows=2, columns=4, seed=4)


@pytest.mark.spec("BE-9")
@pytest.mark.parametrize(("outer", "inner"), [NAMES, NAMES[::-1]])
def test_a_training_inside_the_others_progress(engines, scans, outer, inner):
    alone = train(engines[outer], scans[0], A), train(engines[inner], scans[1], B)
    made = []

    def progress(event):
        if event.done in (2, 7):
            made.append(train(engines[inner], scans[1], B))
            made.append(image_of(engines[inner], made[-1], scans[1]).object)

    assert_same_model(train(engines[outer], scans[0], A, progress=progress), alone[0])
    assert len(made) == 4
    for model in made[::2]:
        assert_same_model(model, alone[1])
    np.testing.assert_array_equal(made[1], made[3])


@pytest.mark.spec("BE-9")
def test_neither_changes_the_others_threads_or_random_numbers(engines, scans):
    import tensorflow as tf
    import torch

    def state():
        threading = tf.config.threading
        return {
            "torch threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
            "torch random": torch.get_rng_state().tolist(),
            "torch dtype": torch.get_default_dtype(),
            "tf threads": (threading.get_inter_op_parallelism_threads(), threading.get_intra_op_parallelism_threads()),
            "tf eager": tf.config.functions_run_eagerly(),
            "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        }

    before = state()
    for engine in engines.values():
        image_of(engine, train(engine, scans[1], vary(B, epochs=1)), scans[1])
    assert state() == before


# ---- what auto means


ASK = """
import tensorflow as tf
from ptycho_backend_tensorflow.hardware import Work, choose_hardware
from ptycho_backend_torch.hardware import choose_device, low_precision
for precision in ("32", "bf16", "auto"):
    one = low_precision(precision, choose_device("cpu"))
    other = choose_hardware("cpu", precision, Work(pixels=1, channels=1, sweeps=0)).low_precision
    print(str(one).removeprefix("torch."), None if other is None else other.name)
"""

SWITCHES = ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""What the frameworks read from the environment to use less, or more, than they would on a processor."""


@pytest.mark.slow
@pytest.mark.parametrize("switches", [{}, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}])
def test_precision_means_the_same_in_both_on_this_processor(switches):
    """PyTorch tells what a processor has and TensorFlow is measured, so each says whether the other is right."""
    environment = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    done = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, timeout=300, check=True,
        env=environment | switches,
    )  # fmt: skip
    single, reduced, auto = (line.split() for line in done.stdout.splitlines())
    assert (single, reduced) == (["None", "None"], ["bfloat16", "bfloat16"])
    assert auto[0] == auto[1]
    if switches:
        assert auto[0] == "None"


@pytest.mark.parametrize(
    ("has", "fast"),
    [("avx512_bf16", True), ("amx_bf16", True), ("avx512f", False), ("amx_int8", False), ("bf16", False)],
)
@pytest.mark.parametrize(
    ("switches", "allowed"),
    [
        ({}, True),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, False),
        ({"ONEDNN_MAX_CPU_ISA": "avx512_core_amx"}, True),
        ({"ATEN_CPU_CAPABILITY": "avx2"}, True),  # for kernels that do not convolve
    ],
)
def test_auto_precision_of_pytorch_follows_the_processor_and_what_onednn_may_use_of_it(
    monkeypatch, has, fast, switches, allowed
):
    import torch

    from ptycho_backend_torch.hardware import choose_device, low_precision

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {has: True, "sse": True})
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    for name, value in switches.items():
        monkeypatch.setenv(name, value)
    assert low_precision("auto", choose_device("cpu")) == (torch.bfloat16 if fast and allowed else None)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert low_precision("auto", choose_device("cpu")) is None


def test_auto_accelerator_means_the_same_in_both():
    from ptycho_backend_tensorflow.hardware import choose_devices
    from ptycho_backend_torch.hardware import choose_device

    kinds = {"cpu": "CPU", "cuda": "GPU"}
    device = choose_device("auto").type
    if device not in kinds:
        pytest.skip(f"{device} is for one framework only")
    assert kinds[device] in choose_devices("auto")[0]
