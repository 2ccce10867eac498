"""What is PyTorch's own in training: files that hold code are not run, and processes that read ahead."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from engines.engine_scans import interrupted
from torch_scans import ENGINE, assert_same_model, make_scan, train, vary

from ptycho_backend_torch import inference, network
from ptycho_backend_torch.backend import TorchBackend
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.enginekit.engine_threads import FixedThreads
from ptycho_core.errors import ArchiveError

pytestmark = pytest.mark.torch

CONFIG = vary(epochs=2, batch_size=6, probe_trainable=True)


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4)


@pytest.fixture(scope="module")
def checkpoint(scan, tmp_path_factory):
    """A training stopped after its first epoch and one step."""
    return interrupted(ENGINE, scan, vary(CONFIG, output_dir=tmp_path_factory.mktemp("stopped")), 3)


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_file_of_the_framework_with_code_in_it_is_refused_and_not_run(scan, tmp_path):
    armed, mark = tmp_path / "armed.ckpt", tmp_path / "mark"
    torch.save({"state_dict": {}, "callbacks": {"x": Bomb(mark)}}, armed)
    with pytest.raises(ArchiveError, match=r"armed\.ckpt: not a checkpoint that can be read safely"):
        train(scan, vary(CONFIG, resume_from=armed))
    assert not mark.exists()
    torch.load(armed, weights_only=False)  # the bomb would have gone off
    assert mark.is_dir()


@pytest.mark.slow
def test_reading_processes_go_on_in_the_right_epoch(scan, checkpoint):
    whole = train(scan, CONFIG)
    assert_same_model(train(scan, vary(CONFIG, num_workers=1, resume_from=checkpoint)), whole)


def test_threads_are_as_asked_for_where_it_computes_and_as_before_elsewhere(monkeypatch):
    """In training and in applying the model; a caller that is told of a step finds its own number."""
    before, seen, computed = torch.get_num_threads(), [], {}
    asked = before + 1
    scan = PtychoDataContainer.of(make_scan())
    for module, name in ((network.PtychoNetwork, "forward"), (inference.TorchScan, "_moved")):
        monkeypatch.setattr(module, name, noting(getattr(module, name), computed.setdefault(name, set())))

    def look(event):
        seen.append((event.stage, torch.get_num_threads()))

    settings = vary(threads=asked, n_groups=9)
    model = ENGINE.train([scan], *settings, progress=look)
    ENGINE.reconstruct(model, scan, settings.config.inference, settings.runtime, progress=look)
    assert computed == {"forward": {asked}, "_moved": {asked}}
    assert set(seen) == {("train", before), ("reconstruct", before)}
    assert torch.get_num_threads() == before


def noting(method, numbers):
    """The method, which notes how many threads its operations take."""

    def noted(*given, **named):
        numbers.add(torch.get_num_threads())
        return method(*given, **named)

    return noted


@pytest.mark.spec("BE-37")
def test_threads_that_nobody_asked_for_are_chosen_on_its_steps(scan, monkeypatch):
    """The number that is given to a step is the number it computes with, and what was measured is told."""
    engine, computed = TorchBackend(), []
    choice = iter([2, 1] * 1000)
    monkeypatch.setattr(FixedThreads, "step", lambda self, kind, size: nullcontext(next(choice)))
    monkeypatch.setattr(engine._threads, "of", lambda given, slower: FixedThreads(2))
    forward = network.PtychoNetwork.forward
    monkeypatch.setattr(
        network.PtychoNetwork,
        "forward",
        lambda *given, **named: (computed.append(torch.get_num_threads()), forward(*given, **named))[1],
    )
    engine.train([PtychoDataContainer.of(scan)], *vary(CONFIG, n_groups=24))
    assert computed[:4] == [2, 1, 2, 1]
