"""The client's Torch plugin, with a solver and with a network behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from client_scan import SHAPE, compared, exported, libraries, parts
from test_client_flow import reconstruct, split, train

pytestmark = pytest.mark.ptychodus


@pytest.mark.spec("PTYD-3")
def test_it_trains_tells_its_losses_and_reconstructs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTYCHO_BACKEND", "pytorch")
    _, library = libraries()
    library.training_settings.epochs.set_value(6)
    unsupervised = next(iter(library))
    assert unsupervised.name == "Unsupervised"
    (output,), log = train(unsupervised, exported(unsupervised, tmp_path / "data", *split()), tmp_path / "model")
    assert "engine pytorch (named by PTYCHO_BACKEND)" in log
    for losses in (output.training_loss, output.validation_loss):
        assert [loss.epoch for loss in losses] == list(range(6))
        values = [loss.value for loss in losses]
        assert values[-1] < values[0]
    assert output.progress == 6
    unsupervised.save_model(tmp_path / "saved.ckpt")
    _, other = libraries()
    fresh = next(iter(other))
    fresh.load_model_from_file(tmp_path / "saved.ckpt")
    product, _ = reconstruct(fresh, parts())
    score = compared(product)
    assert score.correlation > 0.97
    # its call does not say how large the client's object is; the scan is the one trained on, so that is known
    assert np.abs(score.shift_px).max() < 0.25
    assert product.object_.get_layer(0).shape == SHAPE
    _, log = reconstruct(fresh, parts(seed=5))
    assert "the centre of the new object may be wrong" in log
