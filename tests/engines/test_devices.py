"""Several devices: they share the groups of a step, and what comes back is what one device makes of all of them."""

from __future__ import annotations

import multiprocessing

import pytest
from engine_scripts import run

TWO_DEVICES = {
    "pytorch": "",  # processes on the same CPU
    "tensorflow": """
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
""",
}
"""Engine → what a script does before it loads the engine, so that there are two devices."""

COMPARE = """
config = vary(
    devices=2, weight_average=0.5, probe_trainable=True, model={"sweeps": 0}, output_dir=Path("out"),
)
seen = []
model = train(engine, scan, config, held_out, progress=lambda event: seen.append((event.done, event.total)))
assert seen == [(n, 12) for n in range(1, 13)], seen
one = train(engine, scan, vary(config, devices=1, batch_size=2, output_dir=None), held_out)
assert set(model.history) == set(one.history)
for name, values in one.history.items():
    np.testing.assert_allclose(model.history[name], values, rtol=1e-3)
for name, values in weights_of(one).items():
    np.testing.assert_allclose(weights_of(model)[name], values, atol=3e-3, err_msg=name)  # a step is 1e-3
assert np.abs(model.probe - scan.probe).max() > 0.01
assert model.checkpoint_path.exists()
assert len(Path("out/history.csv").read_text().splitlines()) == 3
"""

SEVERAL_SCANS = """
second = PtychoDataContainer.of(make_scan(rows=2, columns=4, seed=5, background=1.0), heldout=[0, 3, 6, 7])
scans = [PtychoDataContainer.of(scan), second]
config = config_for(engine, probe_trainable=True, scale_trainable=True, group_size=2, n_groups=6, model={"sweeps": 0})
model = engine.train(scans, *vary(config, devices=2))
one = engine.train(scans, *vary(config, batch_size=2))
for name, values in one.history.items():
    np.testing.assert_allclose(model.history[name], values, rtol=1e-3)
for name, values in weights_of(one).items():
    np.testing.assert_allclose(weights_of(model)[name], values, atol=3e-3, err_msg=name)  # a step is 1e-3
assert np.abs(model.probe - scan.probe).max() > 0.01
"""

STOPS = """
from ptycho_core.errors import BackendError, Cancelled

config = vary(devices=2, epochs=2, strategy=strategy)
checkpoint = interrupted(engine, scan, vary(config, output_dir=Path("stopped")), 8, held_out)
whole = train(engine, scan, config, held_out)
assert_same_model(train(engine, scan, vary(config, resume_from=checkpoint), held_out), whole)

def enough(event):
    if event.done == 8:
        raise Cancelled("enough")

try:
    train(engine, scan, config, held_out, progress=enough)
except Cancelled as stopped:  # after its first epoch of 6 steps, in whichever process
    assert_same_model(stopped.model, train(engine, scan, vary(config, epochs=1), held_out))
else:
    raise AssertionError("it went on")

def fault(event):
    raise ZeroDivisionError("the caller's")

for changes, error, words in (
    ({"learning_rate": 1e30}, BackendError, "training loss became"),
    ({"progress": fault}, ZeroDivisionError, "the caller's"),
):
    progress = changes.pop("progress", lambda event: None)
    try:
        train(engine, scan, vary(config, **changes), progress=progress)
    except error as caught:
        assert words in str(caught), caught
    else:
        raise AssertionError(words)
"""

WRITES = """
import time

import torch.distributed

from ptycho_backend_torch.relay import Mailbox
from ptycho_core.enginekit import network_loop
from ptycho_core.errors import Cancelled

write, tell = network_loop.write_checkpoint, Mailbox.error

def write_slowly(path, *rest):
    time.sleep(1 if path.name == "interrupted.ckpt" else 0)
    write(path, *rest)

def tell_slowly(self, *given):
    with Path("told").open("a") as file:
        print(torch.distributed.get_rank(), file=file)
    time.sleep(1)
    tell(self, *given)

def enough(event):
    if event.done == 8:
        raise Cancelled("enough")

network_loop.write_checkpoint, Mailbox.error = write_slowly, tell_slowly
config = vary(devices=2, epochs=2, strategy="ddp_fork", output_dir=Path("stopped"))
try:
    train(engine, scan, config, held_out, progress=enough)
except Cancelled as stopped:
    assert Path(stopped.checkpoint_path).is_file()
    assert len(stopped.model.history["train_loss"]) == 1
else:
    raise AssertionError("it went on")
assert Path("told").read_text().split() == ["0"], "the weights are sent once"
"""


@pytest.mark.slow
def test_two_devices_are_one_of_twice_the_batch(engine, tmp_path):
    run(engine.name, tmp_path, COMPARE, before=TWO_DEVICES[engine.name])


@pytest.mark.slow
def test_two_devices_train_on_two_scans(engine, tmp_path):
    """In a step every device has the same scan, and leaves probe and scale of the other alone."""
    run(engine.name, tmp_path, SEVERAL_SCANS, before=TWO_DEVICES[engine.name])


@pytest.mark.slow
@pytest.mark.spec("BE-40")
def test_stopping_and_failing_with_several_devices(engine, tmp_path):
    fork = engine.name == "pytorch" and "fork" in multiprocessing.get_all_start_methods()
    strategy = "ddp_fork" if fork else "auto"  # forked processes need not import everything anew
    run(engine.name, tmp_path, f"strategy = {strategy!r}\n{STOPS}", before=TWO_DEVICES[engine.name])


@pytest.mark.slow
@pytest.mark.spec("BE-40")
def test_no_process_ends_while_another_writes_what_a_stop_leaves(engine, tmp_path):
    """The first that ends has the others killed: the one that leads, amid the checkpoint or amid its last message."""
    if engine.name != "pytorch" or "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("it has no processes, or they do not inherit what is slowed down here")
    run(engine.name, tmp_path, WRITES)
