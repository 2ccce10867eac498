"""Several devices: processes of their own train, and what they say comes back to the caller's."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest
from engines.engine_scripts import run
from torch_scans import make_scan, train, vary

from ptycho_backend_torch.relay import Listener, has_own_processes, strategy_of
from ptycho_core.enginekit.network_result import Learnt
from ptycho_core.errors import Cancelled, CollapseError, ConfigError
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


def test_a_strategy_that_is_none():
    with pytest.raises(ConfigError, match=r"Lightning refuses .*strategy = 'rings'"):
        train(make_scan(rows=2, columns=3), vary(strategy="rings"))


def event(done: int, epoch: int | None = None) -> ProgressEvent:
    return ProgressEvent(stage="train", done=done, total=9, metrics={"loss": 0.5}, epoch=epoch)


class Made:
    """Makes a model of what is learnt, as far as a listener sees."""

    @staticmethod
    def model(learnt: Learnt) -> tuple[str, Learnt]:
        return "model", learnt


def listening(progress) -> Listener:
    return Listener(progress, Made())


def test_listener_passes_events_on():
    seen = []
    with listening(lambda got: seen.append((got, threading.current_thread() is threading.main_thread()))) as listener:
        listener.mailbox.progress(event(1))
        listener.mailbox.progress(event(2, epoch=1))
    assert seen == [(event(1), False), (event(2, epoch=1), False)]


def hand_over(*errors, learnt=None) -> None:
    with listening(lambda got: None) as listener:
        for error in errors:
            listener.mailbox.error(error, learnt)
        raise RuntimeError("what the framework says of a process that ended")


def test_listener_raises_the_first_error_handed_over():
    with pytest.raises(Cancelled, match="stop") as caught:
        hand_over(Cancelled("stop", "there.ckpt"), CollapseError("later"))
    assert caught.value.checkpoint_path == "there.ckpt"
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert caught.value.model is None
    with pytest.raises(CollapseError, match="flat"):
        hand_over(CollapseError("flat"))
    with pytest.raises(RuntimeError, match="what the framework says"):
        hand_over()


@pytest.mark.spec("BE-40")
def test_listener_makes_the_model_of_a_training_that_was_stopped():
    learnt = Learnt({"generator.x": np.arange(3.0, dtype=np.float32)}, {"train_loss": [1.0]}, Path("there.ckpt"))
    with pytest.raises(Cancelled, match="stop") as caught:
        hand_over(Cancelled("stop", "there.ckpt"), learnt=learnt)
    what, brought = caught.value.model
    assert what == "model"
    np.testing.assert_array_equal(brought.values["generator.x"], [0, 1, 2])
    assert brought[1:] == learnt[1:]


def test_listener_carries_the_wish_to_stop():
    def stop(got):
        raise Cancelled("enough")

    def work():
        with listening(stop) as listener:
            for n in range(1, 1000):
                try:
                    listener.mailbox.progress(event(n))
                except Cancelled as error:
                    listener.mailbox.error(Cancelled(str(error), "here.ckpt"), None)
                    return
                listener.mailbox.stop.wait(timeout=30)

    with pytest.raises(Cancelled, match="enough") as caught:
        work()
    assert caught.value.checkpoint_path == "here.ckpt"


ENDS = """
import torch.distributed

from ptycho_backend_torch import training

def aside(fabric, **given):
    learnt = train_aside(fabric, **given)
    threads = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").glob("*")]
    Path(f"ended-{fabric.global_rank}").write_text(f"{torch.distributed.is_initialized()} {' '.join(threads)}")
    return learnt

train_aside, training._train_aside = training._train_aside, aside
train(engine, scan, vary(devices=2, epochs=1, probe_trainable=True, strategy="ddp_fork"), held_out)
"""


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes that do not inherit")
def test_a_process_that_has_trained_ends_what_it_spoke_to_the_others_by(tmp_path):
    """A thread of it that holds a tensor while Python ends aborts the process now and then."""
    run("pytorch", tmp_path, ENDS)
    for rank in range(2):
        initialised, *threads = (tmp_path / f"ended-{rank}").read_text().split()
        assert initialised == "False"
        assert not [name for name in threads if "gloo" in name]
