"""From the client's exporter to a product of its own: train, save the model, load it, reconstruct, save, read.

All of it is done by ptychodus 1.7.0 in its own child processes; the adapter is whatever they find.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_scan import SHAPE, N, compared, exported, libraries, part_of, parts, true_probe

pytestmark = pytest.mark.ptychodus

ENGINES = ("numpy", "pytorch", "tensorflow")


@contextmanager
def log_of_children() -> Iterator[list[str]]:
    """What is logged while a block runs, at INFO: the client's children forward theirs."""
    texts: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    root, handler = logging.getLogger(), Kept(logging.INFO)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield texts
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@dataclass
class Trained:
    """A reconstructor of the client after its training.

    Attributes:
        reconstructor: it.
        folder: with the data and the model.
        log: of the training.
        engine: behind it.
    """

    reconstructor: Any
    folder: Path
    log: str
    engine: str


def split() -> tuple[Any, Any]:
    """Frames of one product in two inputs, as users export them to train and to test."""
    whole = parts()
    frames = np.arange(len(whole.diffraction_patterns))
    return part_of(whole, frames[frames % 9 != 4]), part_of(whole, frames[frames % 9 == 4])


def train(reconstructor: Any, data: Path, target: Path) -> tuple[list[Any], str]:
    target.mkdir(parents=True, exist_ok=True)
    with log_of_children() as log:
        outputs = list(reconstructor.train(data, target))
    return outputs, "\n".join(log)


@pytest.fixture(scope="module", params=ENGINES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp(request.param)
    library, _ = libraries()
    library.training_settings.nepochs.set_value(8)
    pinn = next(iter(library))
    data = exported(pinn, folder / "data", *split())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTYCHO_BACKEND", request.param)
        _, log = train(pinn, data, folder / "model")
        yield Trained(pinn, folder, log, request.param)


def reconstruct(reconstructor: Any, given: Any) -> tuple[Any, str]:
    with log_of_children() as log:
        (output,) = list(reconstructor.reconstruct(given))
    return output.product, "\n".join(log)


@pytest.fixture(scope="module")
def made(trained: Trained) -> tuple[Any, str]:
    """The product of the scan that was trained on, and the log of reconstructing it."""
    return reconstruct(trained.reconstructor, parts())


@pytest.mark.spec("PTYD-5", "PTYD-8")
def test_training_is_done_by_the_engine_that_the_variable_names(trained: Trained) -> None:
    assert f"engine {trained.engine} (named by PTYCHO_BACKEND)" in trained.log
    n_test = len(split()[1].diffraction_patterns)
    assert n_test > 8
    assert "is held out" not in trained.log  # the test frames are
    assert (trained.folder / "model" / "wts.h5.zip").is_file()
    assert (trained.folder / "model" / "training_image.png").stat().st_size > 10_000


@pytest.mark.spec("PTYD-3", "PTYD-4")
def test_the_product_is_the_truth_where_the_client_says_that_it_lies(trained: Trained, made: tuple[Any, str]) -> None:
    product, log = made
    assert f"solving with engine {trained.engine}" in log
    assert "goes on from what training made of it" in log
    score = compared(product)
    assert score.correlation > 0.97
    assert np.abs(score.shift_px).max() < 0.25
    assert product.object_.get_layer(0).shape == SHAPE
    # the whole scan, and not the one patch that the client's one group would be
    assert (product.object_.get_layer(0) != 0).mean() > 0.5


def test_the_client_writes_and_reads_the_product(made: tuple[Any, str], tmp_path: Path) -> None:
    from ptychodus.api.io import load_product, save_product

    product, _ = made
    save_product(tmp_path / "product.h5", product)
    read = load_product(tmp_path / "product.h5")
    np.testing.assert_array_equal(read.object_.get_array(), product.object_.get_array())
    assert compared(read).correlation > 0.97


@pytest.mark.spec("PTYD-3", "PTYD-7")
@pytest.mark.parametrize("trained", ["numpy"], indirect=True)
def test_a_model_that_the_client_saved_makes_an_image_of_another_scan(trained: Trained, tmp_path: Path) -> None:
    trained.reconstructor.save_model(tmp_path / "model.zip")
    library, _ = libraries()
    fresh = next(iter(library))
    fresh.load_model_from_file(tmp_path / "model.zip")
    other = parts(seed=5)
    product, _ = reconstruct(fresh, other)
    score = compared(product)
    assert score.correlation > 0.95
    assert np.abs(score.shift_px).max() < 0.25


@pytest.mark.parametrize("trained", ["numpy"], indirect=True)
def test_the_engine_of_the_model_is_taken_where_none_is_named(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PTYCHO_BACKEND")
    _, log = reconstruct(trained.reconstructor, parts())
    assert "solving with engine numpy as in training" in log


@pytest.mark.parametrize("trained", ["numpy"], indirect=True)
def test_another_probe_is_taken_as_it_is(trained: Trained) -> None:
    probe = true_probe() * np.complex64(np.exp(0.3j))
    _, log = reconstruct(trained.reconstructor, parts(probe=probe))
    assert "the probe of the product is another than in training" in log


@pytest.mark.parametrize("trained", ["numpy"], indirect=True)
def test_an_engine_that_is_not_there_is_said(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptychodus.model.processing._subprocess_protocol import ChildError

    monkeypatch.setenv("PTYCHO_BACKEND", "pytroch")
    with pytest.raises(ChildError, match=r"pytroch.*pytorch"):
        reconstruct(trained.reconstructor, parts())


@pytest.mark.spec("PTYD-8")
def test_pixels_that_the_client_filled_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTYCHO_BACKEND", "numpy")
    library, _ = libraries()
    library.training_settings.nepochs.set_value(5)
    pinn = next(iter(library))
    given = parts(bad=True)
    _, log = train(pinn, exported(pinn, tmp_path / "data", given, given), tmp_path / "model")
    assert "every test frame is a training frame too" in log
    product, log = reconstruct(pinn, given)
    assert f"{N + 1} pixels that were bad in training are left out" in log
    assert compared(product).correlation > 0.97


@pytest.mark.spec("PTYD-8")
def test_test_data_of_another_product_do_not_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTYCHO_BACKEND", "numpy")
    library, _ = libraries()
    library.training_settings.nepochs.set_value(2)
    pinn = next(iter(library))
    other = parts(seed=5, probe=true_probe() * np.complex64(1.5))
    _, log = train(pinn, exported(pinn, tmp_path / "data", parts(), other), tmp_path / "model")
    assert "the test data are of another product" in log


def test_a_grid_size_above_one_trains_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTYCHO_BACKEND", "pytorch")
    library, _ = libraries()
    library.model_settings.gridsize.set_value(2)
    library.training_settings.nepochs.set_value(1)
    pinn = next(iter(library))
    few = part_of(parts(), np.arange(0, len(parts().diffraction_patterns), 3))
    train(pinn, exported(pinn, tmp_path / "data", few, few), tmp_path / "model")
    product, log = reconstruct(pinn, few)
    assert "engine pytorch applies the network" in log
    assert np.abs(compared(product).shift_px).max() < 0.5
    library.model_settings.gridsize.set_value(1)
    from ptychodus.model.processing._subprocess_protocol import ChildError

    with pytest.raises(ChildError, match="gridsize = 1, and the model was trained with 2"):
        reconstruct(pinn, few)
