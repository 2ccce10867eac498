"""Training depends on its arguments only, and leaves the process as it found it."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import warnings

import numpy as np
import pytest
from engine_scans import (
    CONFIG,
    assert_same_model,
    differ,
    image_of,
    lay_out,
    make_scan,
    patches_of,
    train,
    train_groups,
    vary,
)
from frameworks import framework_of
from network_oracle import first_losses

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.enginekit.groups import GroupDraw
from ptycho_core.errors import Cancelled

A = vary(probe_trainable=True, epochs=3, schedule="one_cycle")
B = vary(
    model={"width": 3, "sweeps": 0}, loss="poisson", seed=8, batch_size=4, weight_average=0.5, precision="bf16"
)  # fmt: skip


@pytest.fixture(scope="module")
def framework(engine):
    return framework_of(engine)


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4)


@pytest.fixture(scope="module")
def other_scan():
    return make_scan(rows=2, columns=4, n_modes=2, seed=4, background=1.0)


@pytest.fixture(scope="module")
def alone(scan, other_scan, trained):
    return trained(scan, A, other_scan), trained(other_scan, B)


@pytest.mark.spec("BE-9")
def test_the_seed_decides(scan, engine, trained):
    first = trained(scan, CONFIG)
    assert_same_model(train(engine, scan, CONFIG), first)
    assert differ(first, trained(scan, vary(seed=2)))


@pytest.mark.spec("BE-9")
@pytest.mark.parametrize("seed", [1, 2])
def test_seed_and_epoch_decide_the_groups_and_their_order(scan, engine, seed):
    """Without learning, a step's loss tells which group it was; groups and order are those that all engines share."""
    seen = []
    config = vary(seed=seed, learning_rate=1e-12, epochs=3, model={"sweeps": 0})
    train(engine, scan, config, progress=lambda event: seen.append(event.metrics["loss"]))
    draw, wanted, found = GroupDraw([PtychoDataContainer.of(scan)], vary(config, n_groups=12)), [], []
    for epoch in range(3):
        of_group = first_losses(train_groups(scan, config, epoch), config)
        found.append(set(of_group.round(4)))
        assert len(found[-1]) > 6  # some groups are of the same frames
        wanted += [of_group[group] for batch in draw.batches(epoch) for group in batch.groups]
    np.testing.assert_allclose(seen, wanted, rtol=1e-4)
    assert found[0] != found[1] != found[2]  # and other ones in another epoch


@pytest.mark.spec("BE-9")
def test_the_global_random_state_decides_nothing(scan, engine, alone, other_scan, framework):
    framework.seed(77)
    random.seed(77)
    np.random.seed(77)  # noqa: NPY002
    assert_same_model(train(engine, scan, A, other_scan), alone[0])


@pytest.mark.spec("BE-9")
def test_a_training_inside_another_one_s_progress(scan, engine, other_scan, alone):
    inner = []

    def progress(event):
        if event.done in (5, 14):
            inner.append(train(engine, other_scan, B))

    outer = train(engine, scan, A, other_scan, progress=progress)
    assert_same_model(outer, alone[0])
    assert len(inner) == 2
    for model in inner:
        assert_same_model(model, alone[1])


@pytest.mark.spec("BE-9")
def test_two_threads_step_by_step(scan, engine, other_scan, alone):
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
            models[name] = train(engine, *arguments, progress=meet)
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [
        threading.Thread(target=run, args=("A", scan, A, other_scan)),
        threading.Thread(target=run, args=("B", other_scan, B)),
    ]
    before = process_state(framework_of(engine))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not errors
    assert_same_model(models["A"], alone[0])
    assert_same_model(models["B"], alone[1])
    assert process_state(framework_of(engine)) == before


def process_state(framework) -> dict:
    """Whatever of the process a training could have changed."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "errors": np.geterr(),
        "print": np.get_printoptions(),
        "filters": list(warnings.filters),
        "handlers": list(logging.root.handlers),
        "level": logging.root.level,
        "sigint": signal.getsignal(signal.SIGINT),
        "sigterm": signal.getsignal(signal.SIGTERM),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        **framework.settings(),
    }


@pytest.mark.spec("BE-9")
@pytest.mark.parametrize("ending", ["done", "cancelled"])
def test_the_process_is_left_as_it_was(scan, engine, framework, other_scan, tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)

    def progress(event):
        if ending == "cancelled" and event.done == 7:
            raise Cancelled

    framework.seed(5)
    drawn = framework.draw()
    before = process_state(framework)
    framework.seed(5)
    try:
        model = train(engine, scan, A, other_scan, progress=progress)
    except Cancelled:
        assert ending == "cancelled"
    else:
        image_of(engine, model, scan)
        patches_of(engine, model, lay_out(scan))
    assert framework.draw() == drawn
    assert process_state(framework) == before
    assert list(tmp_path.iterdir()) == []
