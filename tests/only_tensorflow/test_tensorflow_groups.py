"""Groups are other ones in each epoch, and what TensorFlow makes of them is traced once."""

from __future__ import annotations

import numpy as np
import pytest
from engines.engine_scans import ALONE, config_for, make_scan

from ptycho_backend_tensorflow import data
from ptycho_backend_tensorflow.data import Canvases
from ptycho_backend_tensorflow.network import PtychoNetwork
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.enginekit.training_groups import TrainingGroups
from ptycho_core.plugins.registry import load_backend

pytestmark = pytest.mark.tensorflow

EPOCHS = 5


@pytest.fixture(scope="module")
def engine():
    return load_backend("tensorflow")


@pytest.fixture(scope="module")
def scans():
    """Two with other masks, backgrounds and canvases; most groups of the second are larger."""
    first = make_scan(rows=3, columns=4, n_modes=2, bad=True, background=5.0)
    second = make_scan(rows=2, columns=8, n_modes=2, seed=5, bad=True, background=1.0)
    return [PtychoDataContainer.of(first), PtychoDataContainer.of(second, heldout=[3])]


def needed(groups: TrainingGroups, epoch: int) -> tuple[int, ...]:
    """The smallest canvas that holds every group of an epoch."""
    shapes = [groups.draw.groups(epoch, scan).canvas_shape.max(axis=0) for scan in range(groups.n_trained)]
    return tuple(np.max(shapes, axis=0).tolist())


def test_one_trace_serves_all_epochs_and_scans(engine, scans, monkeypatch):
    """Else a training would compile anew in every epoch, and for every scan."""
    made = []
    real = PtychoNetwork.__init__
    monkeypatch.setattr(
        PtychoNetwork, "__init__", lambda self, *arguments: (made.append(self), real(self, *arguments))[1]
    )
    config = config_for(engine, epochs=EPOCHS, batch_size=2, n_groups=4, **ALONE)
    assert len({needed(TrainingGroups(scans, config.config), epoch) for epoch in range(EPOCHS)}) > 1
    engine.train(scans, *config)
    assert made[0]._plain.experimental_get_tracing_count() == 1
    assert made[0]._whole_loss.experimental_get_tracing_count() == 1


def test_the_canvas_holds_every_group_and_grows_only_where_it_must(engine, scans, monkeypatch):
    config = config_for(engine, epochs=EPOCHS).config
    for looked_at, shapes_told in ((10**6, 1), (1, 2)):
        monkeypatch.setattr(data, "_GROUPS_LOOKED_AT", looked_at)
        monkeypatch.setattr(data, "_CANVAS_STEP_PX", 8 if looked_at > 1 else 2)
        groups = TrainingGroups(scans, config)
        shapes = [Canvases(groups).of_epoch(epoch) for epoch in range(EPOCHS)]
        for epoch, shape in enumerate(shapes):
            assert (np.array(shape) >= needed(groups, epoch)).all()
            assert (np.array(shape) >= shapes[0]).all()
        assert (len(set(shapes)) == 1) is (shapes_told == 1)
        # a training that goes on begins in a later epoch, and works on the same canvas
        assert Canvases(TrainingGroups(scans, config)).of_epoch(EPOCHS - 1) == shapes[-1]
