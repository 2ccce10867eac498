"""Several devices: processes of their own train, and what they say comes back to the caller's."""

from __future__ import annotations

import threading

import pytest
from torch_scans import make_scan, train, vary

from ptycho_backend_torch.relay import Listener, has_own_processes, strategy_of
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


def event(done: int) -> ProgressEvent:
    return ProgressEvent(stage="train", done=done, total=9, metrics={"loss": 0.5})


def test_listener_passes_events_on():
    seen = []
    with Listener(lambda got: seen.append((got, threading.current_thread() is threading.main_thread()))) as listener:
        listener.mailbox.progress(event(1))
        listener.mailbox.progress(event(2))
    assert seen == [(event(1), False), (event(2), False)]


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
