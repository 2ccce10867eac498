"""Several devices: processes of their own train, and everything comes back to the caller's."""

from __future__ import annotations

import multiprocessing
import threading

import pytest
from test_torch_tracking import run

from ptycho_backend_torch.relay import Listener, has_own_processes, strategy_of
from ptycho_core.errors import Cancelled, CollapseError
from ptycho_core.protocol import ProgressEvent

pytestmark = pytest.mark.torch


def test_the_caller_s_script_is_never_started_again():
    assert strategy_of("auto", 1) == "auto"
    assert strategy_of("auto", 2) == "ddp_spawn"
    assert strategy_of("ddp_fork", 2) == "ddp_fork"
    assert has_own_processes("ddp_spawn")
    assert has_own_processes("ddp_fork_find_unused_parameters_false")
    assert not has_own_processes("ddp")
    assert not has_own_processes("auto")


COMPARE = """
config = vary(
    devices=2, strategy={strategy!r}, weight_average=0.5, probe_trainable=True, model={{"sweeps": 0}},
    output_dir=Path("out"),
)
seen = []
model = train(scan, config, held_out, progress=lambda event: seen.append((event.done, event.total)))
assert seen == [(n, 12) for n in range(1, 13)], seen
one = train(scan, vary(config, devices=1, strategy="auto", batch_size=2, output_dir=None), held_out)
assert set(model.history) == set(one.history)
for name, values in one.history.items():
    np.testing.assert_allclose(model.history[name], values, rtol=1e-3)
for name, values in weights_of(one).items():
    np.testing.assert_allclose(weights_of(model)[name], values, atol=3e-3, err_msg=name)  # a step is 1e-3
assert np.abs(model.probe - scan.probe).max() > 0.01
assert model.checkpoint_path.exists()
assert len(Path("out/history.csv").read_text().splitlines()) == 3
"""

STOPS = """
from ptycho_core.errors import BackendError, Cancelled

config = vary(devices=2, strategy="ddp_fork", epochs=3)

def stop(event):
    if event.done == 8:
        raise Cancelled("enough")

try:
    train(scan, vary(config, output_dir=Path("stopped")), held_out, progress=stop)
except Cancelled as error:
    assert str(error) == "enough"
    checkpoint = Path(error.checkpoint_path)
whole = train(scan, config, held_out)
resumed = train(scan, vary(config, resume_from=checkpoint), held_out)
assert_same_model(resumed, whole)

alone = train(scan, vary(config, devices=1), held_out)
assert len(alone.history["train_loss"]) == 3

def fault(event):
    raise ZeroDivisionError("the caller's")

for changes, error, words in (
    ({"learning_rate": 1e30}, BackendError, "training loss became"),
    ({"progress": fault}, ZeroDivisionError, "the caller's"),
):
    progress = changes.pop("progress", lambda event: None)
    try:
        train(scan, vary(config, **changes), progress=progress)
    except error as caught:
        assert words in str(caught), caught
    else:
        raise AssertionError(words)
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["auto", "ddp_fork"])
def test_two_processes_are_one_of_twice_the_batch(tmp_path, strategy):
    if strategy == "ddp_fork" and "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this platform cannot fork")
    run(tmp_path, COMPARE.format(strategy=strategy))


@pytest.mark.slow
def test_stopping_and_failing_in_other_processes(tmp_path):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this platform cannot fork")
    run(tmp_path, STOPS)


def event(done: int) -> ProgressEvent:
    return ProgressEvent(stage="train", done=done, total=9, metrics={"loss": 0.5})


def test_listener_passes_events_and_history_on():
    seen = []
    with Listener(lambda got: seen.append((got, threading.current_thread() is threading.main_thread()))) as listener:
        listener.mailbox.progress(event(1))
        listener.mailbox.progress(event(2))
        listener.mailbox.history({"train_loss": [0.25]})
    assert seen == [(event(1), False), (event(2), False)]
    assert listener.history == {"train_loss": [0.25]}


def hand_over(*errors) -> None:
    with Listener(lambda got: None) as listener:
        for error in errors:
            listener.mailbox.error(error)
        raise RuntimeError("what the framework says of a process that ended")


def test_listener_raises_the_first_error_handed_over():
    with pytest.raises(Cancelled, match="stop") as caught:
        hand_over(Cancelled("stop", "there.ckpt"), CollapseError("later"))
    assert caught.value.checkpoint_path == "there.ckpt"
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(CollapseError, match="flat"):
        hand_over(CollapseError("flat"))
    with pytest.raises(RuntimeError, match="what the framework says"):
        hand_over()


def test_listener_carries_the_wish_to_stop():
    def stop(got):
        raise Cancelled("enough")

    def work():
        with Listener(stop) as listener:
            for n in range(1, 1000):
                try:
                    listener.mailbox.progress(event(n))
                except Cancelled as error:
                    listener.mailbox.error(Cancelled(str(error), "here.ckpt"))
                    return
                listener.mailbox.stop.wait(timeout=30)

    with pytest.raises(Cancelled, match="enough") as caught:
        work()
    assert caught.value.checkpoint_path == "here.ckpt"
