"""Training depends on its arguments only, and leaves the process as it found it."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import threading
import warnings

import numpy as np
import pytest
import torch
from torch_scans import CONFIG, assert_same_model, differ, make_scan, train, vary

from ptycho_core.errors import Cancelled

pytestmark = [pytest.mark.torch]

A = vary(probe_trainable=True, epochs=3, schedule="one_cycle")
B = vary(model={"width": 3, "depth": 1, "sweeps": 0}, loss="poisson", seed=8, batch_size=3, weight_average=0.5)


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4)


@pytest.fixture(scope="module")
def other_scan():
    return make_scan(rows=2, columns=4, n_modes=2, seed=4, background=1.0)


@pytest.fixture(scope="module")
def alone(scan, other_scan):
    return train(scan, A, other_scan), train(other_scan, B)


@pytest.mark.spec("BE-9")
def test_the_seed_decides(scan, alone):
    assert_same_model(train(scan, CONFIG), train(scan, CONFIG))
    other = train(scan, vary(seed=2))
    assert differ(train(scan, CONFIG), other)
    # not only the first weights: the order of the groups too
    assert other.history["train_loss"] != train(scan, vary(seed=2, learning_rate=1e-12)).history["train_loss"]


@pytest.mark.spec("BE-9")
def test_the_global_random_state_decides_nothing(scan, alone, other_scan):
    torch.manual_seed(77)
    random.seed(77)
    np.random.seed(77)  # noqa: NPY002
    assert_same_model(train(scan, A, other_scan), alone[0])


@pytest.mark.spec("BE-9")
def test_a_training_inside_another_one_s_progress(scan, other_scan, alone):
    inner = []

    def progress(event):
        if event.done in (5, 14):
            inner.append(train(other_scan, B))

    outer = train(scan, A, other_scan, progress=progress)
    assert_same_model(outer, alone[0])
    assert len(inner) == 2
    for model in inner:
        assert_same_model(model, alone[1])


@pytest.mark.spec("BE-9")
def test_two_threads_step_by_step(scan, other_scan, alone):
    """Each waits for the other after every step, as long as both are training."""
    barrier = threading.Barrier(2)
    models, errors = {}, []

    def meet(event):
        with contextlib.suppress(threading.BrokenBarrierError):  # the other has finished
            barrier.wait(timeout=60)
        if event.done == event.total:
            barrier.abort()

    def run(name, *arguments):
        try:
            models[name] = train(*arguments, progress=meet)
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [
        threading.Thread(target=run, args=("A", scan, A, other_scan)),
        threading.Thread(target=run, args=("B", other_scan, B)),
    ]
    filters, level = list(warnings.filters), logging.getLogger("lightning.pytorch").level
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not errors
    assert_same_model(models["A"], alone[0])
    assert_same_model(models["B"], alone[1])
    assert list(warnings.filters) == filters
    assert logging.getLogger("lightning.pytorch").level == level


@pytest.mark.spec("BE-9")
@pytest.mark.parametrize("ending", ["done", "cancelled"])
def test_the_process_is_left_as_it_was(scan, other_scan, tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)

    def state():
        return {
            "torch": torch.get_rng_state().numpy().tolist(),
            "python": random.getstate(),
            "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
            "threads": torch.get_num_threads(),
            "dtype": torch.get_default_dtype(),
            "grad": torch.is_grad_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "matmul": torch.get_float32_matmul_precision(),
            "filters": list(warnings.filters),
            "level": logging.getLogger("lightning.pytorch").level,
            "sigint": signal.getsignal(signal.SIGINT),
            "sigterm": signal.getsignal(signal.SIGTERM),
        }

    def progress(event):
        if ending == "cancelled" and event.done == 7:
            raise Cancelled

    before = state()
    try:
        train(scan, A, other_scan, progress=progress)
    except Cancelled:
        assert ending == "cancelled"
    assert state() == before
    assert list(tmp_path.iterdir()) == []


def test_training_says_nothing(scan, other_scan, capfd, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(scan, vary(output_dir=tmp_path), other_scan)
    assert [str(w.message) for w in caught] == []
    assert capfd.readouterr() == ("", "")
