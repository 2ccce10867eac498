"""Which devices the engine works on, and what it does when they are not to be had: several are simulated on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import tensorflow as tf
from engines.engine_scans import make_scan, train, vary
from tensorflow_processors import AMX, AVX2, AVX512, processor

from ptycho_backend_tensorflow import hardware
from ptycho_backend_tensorflow.hardware import Work, choose_devices, choose_hardware
from ptycho_core.errors import ConfigError
from ptycho_core.plugins.registry import load_backend

pytestmark = pytest.mark.tensorflow

TESTS = Path(__file__).resolve().parents[1]
WORK = Work(pixels=10**9, channels=16, sweeps=24)

HEAD = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import numpy as np
import tensorflow as tf
from engines.engine_scans import *
from ptycho_core.errors import ConfigError
from ptycho_core.plugins.registry import load_backend
engine = load_backend("tensorflow")
# this works only as long as nothing has started TensorFlow: importing the engine must not
half = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [half, half])
scan = make_scan(rows=3, columns=4, n_modes=2, bad=True, background=5.0)
held_out = make_scan(rows=2, columns=3, n_modes=2, background=5.0, seed=9)
"""

TWO = """
from ptycho_backend_tensorflow.network import PtychoNetwork
at = []
plain = PtychoNetwork.__init__
def init(self, *arguments):
    plain(self, *arguments)
    made = self.gradients
    def gradients(values, batch, shape, divisor):
        answer = made(values, batch, shape, divisor)
        at.append((len(batch["counts"]), answer[0].device.rpartition("/")[2]))
        return answer
    self.gradients = gradients
PtychoNetwork.__init__ = init

config = vary(
    devices=2, epochs=3, batch_size=2, learning_rate=3e-3, model={"sweeps": 3}, probe_trainable=True,
    scale_trainable=True, weight_average=0.5, gradient_clip_norm=0.05, output_dir=Path("out"),
)
seen = []
model = train(engine, scan, config, held_out, progress=lambda event: seen.append((event.done, event.total)))
assert seen == [(n, 9) for n in range(1, 10)], seen
assert at == 9 * [(2, "device:CPU:0"), (2, "device:CPU:1")], at
at.clear()
one = train(engine, scan, vary(config, devices=1, batch_size=4, output_dir=None), held_out)
assert at == 9 * [(4, "device:CPU:0")], at
assert list(model.history) == list(one.history)
for name, values in one.history.items():
    np.testing.assert_allclose(model.history[name], values, rtol=1e-5, err_msg=name)
for name, values in one.weights.items():
    np.testing.assert_allclose(model.weights[name], values, atol=0.02 * 3e-3, err_msg=name)  # a step is 3e-3
np.testing.assert_allclose(model.probe, one.probe, atol=1e-4 * np.abs(one.probe).max())
assert abs(model.scale / one.scale - 1) < 1e-5
assert np.abs(model.probe - scan.probe).max() > 0.01
"""

UNEVEN = """
# 12 groups in batches of 5 for each of two: the last groups are repeated, so that both make as many steps
config = vary(devices=2, batch_size=5, model={"sweeps": 0})
model = train(engine, scan, config)
assert len(model.history["train_loss"]) == 2
"""

THREE = """
try:
    train(engine, scan, vary(devices=3))
except ConfigError as error:
    print(error)
"""


def run(folder: Path, body: str) -> str:
    """Output of a script on a CPU that TensorFlow sees as two devices."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD.format(tests=str(TESTS)) + body], cwd=folder, capture_output=True, text=True,
        timeout=300, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_each_of_two_devices_works_on_half_of_a_batch_of_twice_the_size(tmp_path):
    said = run(tmp_path, TWO + UNEVEN + THREE).splitlines()[-1]
    assert said.startswith("devices = 3, but TensorFlow has 2 CPU device(s) here (/device:CPU:0, /device:CPU:1); set ")
    assert "at most 2." in said


# ---- a GPU that is not there


class Machine:
    """TensorFlow's view of a machine with GPUs; what is asked of it is written down.

    Attributes:
        asked: in order: ``("grow", name)`` when a GPU's memory was left to others, ``("start", kind)`` when the devices
            were listed for work, which starts TensorFlow.
    """

    def __init__(self, n_gpus: int, *, hidden: bool = False, running: bool = False, growing: bool = False) -> None:
        self.gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{n}", "GPU") for n in range(n_gpus)]
        self.hidden, self.running = hidden, running
        self.growing = set(self.gpus) if growing else set()
        self.capabilities = dict.fromkeys(self.gpus, (8, 0))
        self.asked: list[tuple[str, str]] = []

    def list_physical_devices(self, kind=None):
        return self.gpus if kind == "GPU" else []

    def get_visible_devices(self, kind=None):
        return self.gpus if kind == "GPU" and not self.hidden else []

    def list_logical_devices(self, kind=None):
        self.asked.append(("start", kind))
        self.running = True
        n = {"GPU": 0 if self.hidden else len(self.gpus), "CPU": 1}[kind]
        return [tf.config.LogicalDevice(f"/device:{kind}:{k}", kind) for k in range(n)]

    def get_memory_growth(self, gpu):
        return gpu in self.growing

    def set_memory_growth(self, gpu, enable):
        if self.running:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        assert enable
        self.asked.append(("grow", gpu.name))
        self.growing.add(gpu)

    def get_device_details(self, gpu):
        return {"device_name": "simulated", "compute_capability": self.capabilities[gpu]}


@pytest.fixture
def machine(monkeypatch):
    """Put a simulated machine in TensorFlow's place."""

    def make(n_gpus: int, **state: bool) -> Machine:
        made = Machine(n_gpus, **state)
        for name in ("list_physical_devices", "get_visible_devices", "list_logical_devices"):
            monkeypatch.setattr(tf.config, name, getattr(made, name))
        for name in ("get_memory_growth", "set_memory_growth", "get_device_details"):
            monkeypatch.setattr(tf.config.experimental, name, getattr(made, name))
        return made

    return make


@pytest.mark.parametrize("accelerator", ["cuda", "auto"])
def test_a_gpu_is_taken_and_its_memory_left_to_others_before_use(machine, accelerator):
    made = machine(2)
    assert choose_devices(accelerator) == ("/device:GPU:0",)
    assert made.asked == [("grow", "/physical_device:GPU:0"), ("grow", "/physical_device:GPU:1"), ("start", "GPU")]


def test_several_gpus(machine):
    machine(2)
    assert choose_devices("cuda", 2) == ("/device:GPU:0", "/device:GPU:1")
    with pytest.raises(ConfigError) as caught:
        choose_devices("auto", 3)
    assert str(caught.value).startswith(
        "devices = 3, but TensorFlow has 2 GPU device(s) here (/device:GPU:0, /device:GPU:1); set devices to at most 2."
    )


def test_memory_that_is_left_to_others_already_is_no_matter(machine):
    """Also when TensorFlow is running, where asking again would be an error."""
    made = machine(1, growing=True, running=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_devices("cuda") == ("/device:GPU:0",)
    assert made.asked == [("start", "GPU")]


def test_work_on_the_cpu_does_not_take_the_memory_of_a_gpu(machine):
    """Listing any devices starts TensorFlow with every GPU that it sees, and that cannot be mended afterwards."""
    made = machine(1)
    assert choose_devices("cpu") == ("/device:CPU:0",)
    assert made.asked == [("grow", "/physical_device:GPU:0"), ("start", "CPU")]


def test_a_job_on_the_cpu_and_then_one_on_the_gpu_blames_nobody(machine):
    machine(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_devices("cpu")
        assert choose_devices("cuda") == ("/device:GPU:0",)


def test_a_tensorflow_that_others_started_is_used_with_a_warning(machine):
    machine(1, running=True)
    with pytest.warns(UserWarning, match=r"device:GPU:0: TensorFlow was started by other code .*set_memory_growth"):
        assert choose_devices("cuda") == ("/device:GPU:0",)


def test_that_warning_points_at_the_engine_so_that_the_command_shows_it(machine, monkeypatch):
    """The command shows warnings of this project only, and tells them by the file that they point at."""
    machine(1, running=True)

    class Started(Exception):
        pass

    def start(kind=None):
        raise Started

    monkeypatch.setattr(tf.config, "list_logical_devices", start)  # there is no GPU to go on with
    scan, engine = make_scan(rows=2, columns=2), load_backend("tensorflow")
    with pytest.warns(UserWarning, match="started by other code") as caught, pytest.raises(Started):
        train(engine, scan, vary(accelerator="cuda"))
    assert "ptycho_backend_tensorflow" in Path(caught[0].filename).parts


def test_a_hidden_gpu_is_not_taken_for_none(machine):
    machine(2, hidden=True)
    with pytest.raises(ConfigError, match=r"'cuda', and this machine has 2 GPU\(s\), but this process has hidden them"):
        choose_devices("cuda")
    assert choose_devices("auto") == ("/device:CPU:0",)


@pytest.mark.parametrize("accelerator", ["cuda", "mps", "tpu"])
def test_what_is_not_there_is_refused_and_nothing_else_is_taken(machine, accelerator):
    made = machine(0)
    with pytest.raises(ConfigError) as caught:
        choose_devices(accelerator)
    assert str(caught.value) == f"accelerator = '{accelerator}' is not available to TensorFlow here; available: cpu."
    assert made.asked == []


def test_a_machine_with_a_gpu_offers_both(machine):
    machine(1)
    with pytest.raises(ConfigError, match=r"'tpu' is not available to TensorFlow here; available: cpu, cuda\."):
        choose_devices("tpu")


# ---- precision and compiling on a GPU


@pytest.mark.parametrize(
    ("capabilities", "name"),
    [([(8, 0)], "bfloat16"), ([(9, 0)], "bfloat16"), ([(7, 5)], None), ([(9, 0), (7, 0)], None)],
)
def test_auto_precision_of_a_gpu_follows_what_it_multiplies_in_hardware(machine, capabilities, name):
    made = machine(len(capabilities))
    made.capabilities = dict(zip(made.gpus, capabilities, strict=True))
    found = choose_hardware("cuda", "auto", WORK).low_precision
    assert (found and found.name) == name
    assert choose_hardware("cuda", "32", WORK).low_precision is None
    assert choose_hardware("cuda", "bf16", WORK).low_precision is tf.bfloat16


def test_a_gpu_that_tells_nothing_of_itself_computes_in_single_precision(machine, monkeypatch):
    machine(1)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {})
    assert choose_hardware("cuda", "auto", WORK).low_precision is None


@pytest.mark.parametrize("has", [AVX2, AVX512, AMX])
def test_nothing_is_compiled_for_a_gpu(machine, monkeypatch, has):
    """It was never measured there."""
    machine(1)
    processor(monkeypatch, has)
    on_gpu = choose_hardware("cuda", "32", WORK)
    assert (on_gpu.compile_sweeps, on_gpu.compile_network) == (False, False)
    on_cpu = choose_hardware("cpu", "32", WORK)
    assert (on_cpu.compile_sweeps, on_cpu.compile_network) == (True, has == AVX2)


# ---- precision on a CPU


@pytest.mark.parametrize(
    ("has", "name"),
    [
        (AVX2, None),
        (AVX512, None),
        (AMX, "bfloat16"),
        (AMX._replace(speed=1.2), None),
        (AMX._replace(onednn=False), None),
    ],
)
def test_auto_precision_of_a_cpu_is_the_faster_one(monkeypatch, has, name):
    processor(monkeypatch, has)
    found = choose_hardware("cpu", "auto", WORK).low_precision
    assert (found and found.name) == name
    assert choose_hardware("cpu", "32", WORK).low_precision is None
    assert choose_hardware("cpu", "bf16", WORK).low_precision is tf.bfloat16


def test_a_cpu_that_cannot_convolve_in_bfloat16_computes_in_single_precision(monkeypatch):
    def refused(*_):
        raise tf.errors.AbortedError(None, None, "could not create a primitive descriptor")

    processor(monkeypatch, AMX)
    monkeypatch.setattr(hardware, "_least_seconds", refused)
    assert choose_hardware("cpu", "auto", WORK).low_precision is None


def test_precision_is_measured_once_in_a_process_and_only_where_it_is_asked_for(monkeypatch):
    processor(monkeypatch, AMX)
    asked = []
    monkeypatch.setattr(hardware, "_least_seconds", lambda *_: (asked.append(1), [1.0, 0.2])[1])
    for precision in ("32", "bf16"):
        choose_hardware("cpu", precision, WORK)
    assert asked == []
    for _ in range(2):
        assert choose_hardware("cpu", "auto", WORK).low_precision is tf.bfloat16
    assert asked == [1]


def test_the_least_of_calls_taken_in_turns_counts_and_the_first_does_not(monkeypatch):
    """The first call makes the kernel; here it takes no time, and each call after it longer than the one before."""
    clock, types = 0.0, []

    def convolve(image, kernel):
        nonlocal clock
        assert image.dtype == kernel.dtype
        types.append(image.dtype.name)
        clock += {"float32": 3.0, "bfloat16": 1.0}[image.dtype.name] * (len(types) > 2) + 0.25 * (len(types) > 4)

    monkeypatch.setattr(hardware.time, "process_time", lambda: clock)
    assert hardware._least_seconds(convolve, (tf.float32, tf.bfloat16)) == [3.0, 1.0]
    assert types[:4] == ["float32", "bfloat16"] * 2
    assert len(types) > 10


THREADS = """
import os
import tensorflow as tf
from ptycho_backend_tensorflow import hardware
from ptycho_core.errors import ConfigError
threads = tf.config.threading
hardware.affinity, hardware.available_cpus = (lambda: range(16)), lambda: 3
assert hardware.settle_threads(None) == 3  # a control group allows no more
assert (threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads()) == (3, 3)
assert hardware.settle_threads(2) == 2
tf.constant(1.0) + 1.0  # from here on they are what they are
assert (threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads()) == (2, 2)
assert hardware.settle_threads(2) == hardware.settle_threads(None) == 2
hardware.available_cpus = lambda: 1
assert hardware.settle_threads(None) == 2  # it cannot be changed, and nobody asked
try:
    hardware.settle_threads(5)
except ConfigError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.spec("BE-36", "BE-37")
def test_threads_are_settled_before_it_starts_and_kept(tmp_path):
    """In a process of its own, since TensorFlow keeps what it starts with."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TF_NUM_")}
    done = subprocess.run(
        [sys.executable, "-c", THREADS], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env=plain,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("threads = 5, but TensorFlow is running in this process with 2 already")
