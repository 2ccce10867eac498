"""What pty-chi would change or say in the process that runs it, and must not."""

from __future__ import annotations

import contextlib
import logging
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from ptychi_scans import config_of, image, make_scan, train

from ptycho_backend_ptychi import library
from ptycho_backend_ptychi.options import ALGORITHMS

pytestmark = pytest.mark.ptychi


def process_state():
    from ptychi import maths, utils

    return (
        torch.get_rng_state().numpy().tobytes(),
        str(np.random.get_state()),  # noqa: NPY002
        random.getstate(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        utils.get_default_complex_dtype(),
        maths.get_use_double_precision_for_fft(),
        maths.get_allow_nondeterministic_algorithms(),
        list(logging.getLogger().handlers),
        list(logging.getLogger().filters),
        logging.getLogger("ptychi").level,
        "torchvision" in sys.modules,
    )


@pytest.mark.spec("CONV-7")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_process_stays_as_it_was_and_nothing_is_said(algorithm, capfd, caplog):
    scan = make_scan(2, step=4.5)
    train(scan, config_of(algorithm, epochs=1))
    caplog.clear()
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG):
        torch.manual_seed(5)
        np.random.seed(6)  # noqa: NPY002
        before = process_state()
        seen = []
        model = train(scan, config_of(algorithm, probe_trainable=True), progress=lambda _: seen.append(process_state()))
        image(model, scan)
        assert process_state() == before
        assert seen == [before, before]
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_no_device_but_its_own_is_seeded(monkeypatch):
    """A run on the CPU leaves the generators of CUDA alone, and one on a CUDA device those of its neighbours."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: seeded.append("all"))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeded.append("current"))
    train(make_scan(1, step=4.5), config_of(epochs=1))
    assert seeded == []

    class Device:
        """A generator of a device that is not here."""

        def __init__(self, index):
            self.index = index

        def manual_seed(self, seed):
            seeded.append((self.index, seed))

    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "default_generators", tuple(map(Device, range(3))))
    before = torch.get_rng_state()
    with library._seeded(11, torch.device("cuda", 1)):
        pass
    torch.set_rng_state(before)
    assert seeded == [(1, 11)]


def test_another_default_dtype_of_the_caller_does_no_harm():
    scan = make_scan(1, step=4.5)
    usual = train(scan, config_of())
    torch.set_default_dtype(torch.float64)
    try:
        other = train(scan, config_of())
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(usual.object, other.object)


def test_the_root_logger_still_hears_everyone_else(caplog):
    def speak(_):
        logging.getLogger().warning("mine")

    train(make_scan(1, step=4.5), config_of(), progress=speak)
    assert [r.message for r in caplog.records] == ["mine", "mine"]


@pytest.mark.spec("BE-9")
def test_interleaved_runs_give_what_each_gives_alone():
    scan = make_scan(1, step=4.5, noise=True)
    one, two = config_of("lsqml", loss="poisson", seed=1), config_of("rpie", seed=2)
    alone = [train(scan, c).object for c in (one, two)]
    inner = []
    outer = train(scan, one, progress=lambda _: inner.append(train(scan, two).object))
    np.testing.assert_array_equal(outer.object, alone[0])
    for found in inner:
        np.testing.assert_array_equal(found, alone[1])


@pytest.mark.parametrize("algorithm", ["lsqml", "rpie", "autodiff"])
def test_the_seed_decides(algorithm):
    scan = make_scan(1, step=4.5)
    options = {"batch_frames": 5}
    first, again, other = (train(scan, config_of(algorithm, options, seed=seed)).object for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4


def test_choosing_it_loads_no_other_engine_and_no_torchvision():
    code = (
        "import sys, logging, torch; from ptycho_core import load_backend; load_backend('ptychi')\n"
        "assert not logging.getLogger().handlers\n"
        "sys.exit(any(m.split('.')[0] in ('lightning', 'tensorflow', 'torchvision') for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
