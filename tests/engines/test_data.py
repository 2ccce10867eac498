"""Each engine's data pipeline on its own: batches of groups as arrays, read when asked for."""

from __future__ import annotations

import numpy as np
import pytest
from engine_scans import config_for, make_scan
from frameworks import framework_of

from ptycho_core.data import frames
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.errors import ConfigError
from ptycho_core.io import write_scan
from ptycho_core.networks.training import epoch_batches

FIELDS = {
    "counts": ((4, 16, 16), np.float32),
    "corners_px": ((4, 2), np.int64),
    "subpixel_px": ((4, 2), np.float32),
    "frame_indices": ((4,), np.int64),
}
"""Shape and type for one group; a batch has one axis more, and ``canvas_shape`` (2,) for all."""


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4, n_modes=2, bad=True)


@pytest.fixture(scope="module")
def path(scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "scan.npz"
    write_scan(path, scan)
    return path


@pytest.mark.parametrize(
    ("kind", "num_workers"),
    [("container", 0), ("scan", 0), ("path", 0), ("text", 0), pytest.param("path", 2, marks=pytest.mark.slow)],
)
def test_batches_are_what_the_container_says(engine, scan, path, kind, num_workers):
    """In the order that all engines share, the last batch smaller, each with the smallest canvas that holds all."""
    config = config_for(engine, n_groups=7, batch_size=3, num_workers=num_workers)
    groups = PtychoDataContainer.for_training(scan, 4, n_groups=7, seed=1)
    data = {"container": groups, "scan": scan, "path": path, "text": str(path)}[kind]
    found = list(framework_of(engine).batches(data, config))
    wanted = list(epoch_batches(7, 3, config.seed, 0))
    assert [len(batch["counts"]) for batch in found] == [3, 3, 1]
    for batch, numbers in zip(found, wanted, strict=True):
        assert set(batch) == {*FIELDS, "canvas_shape"}
        for name, (shape, dtype) in FIELDS.items():
            assert batch[name].shape == (len(numbers), *shape)
            assert batch[name].dtype == dtype
        np.testing.assert_array_equal(batch["counts"], groups.read_group_counts(np.array(numbers)))
        for name in ("frame_indices", "corners_px", "subpixel_px"):
            np.testing.assert_array_equal(batch[name], getattr(groups, name)[numbers])
        assert batch["canvas_shape"].tolist() == groups.canvas_shape[numbers].max(axis=0).tolist()
        assert (batch["corners_px"] + 16 <= batch["canvas_shape"]).all()
        assert (batch["counts"][..., ~scan.mask] == 0).all()
    assert len({tuple(shape) for shape in groups.canvas_shape}) > 1  # else the canvas would show nothing


def test_a_scan_on_disk_stays_there(engine, path, monkeypatch):
    """Only the frames of a batch are read, when the batch is asked for."""
    framework, config = framework_of(engine), config_for(engine, n_groups=6, batch_size=2)
    groups = framework.groups(path, config).container
    assert isinstance(groups.raw.frames, frames.NpzFrames)
    asked = []
    real = frames.NpzFrames.read
    monkeypatch.setattr(frames.NpzFrames, "read", lambda self, n: (asked.append(np.size(n)), real(self, n))[1])
    batches = framework.batches(groups, config)
    assert asked == []
    assert next(batches)["counts"].sum() > 0
    assert sum(asked) < 6 * 4
    rest = list(batches)
    assert sum(asked) == 6 * 4
    assert len(rest) == 2


def test_a_scan_needs_a_config_to_be_grouped_by(engine, scan):
    framework = framework_of(engine)
    with pytest.raises(ConfigError, match="config"):
        framework.groups(scan)
    groups = PtychoDataContainer.for_training(scan, 4, n_groups=5)
    assert len(framework.groups(groups)) == 5


def test_reading_leaves_the_global_random_state_alone(engine, scan):
    framework = framework_of(engine)
    framework.seed(3)
    drawn = framework.draw()
    framework.seed(3)
    assert len(list(framework.batches(scan, config_for(engine, n_groups=4)))) == 4
    assert framework.draw() == drawn


def test_an_error_while_reading_is_the_error_itself(engine, scan, monkeypatch):
    """Not a framework's, with the cause somewhere in its text."""

    def fail(self, groups):
        raise OSError(5, "the disk is gone")

    groups = PtychoDataContainer.for_training(scan, 4)
    monkeypatch.setattr(PtychoDataContainer, "read_group_counts", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        engine.train(groups, None, config_for(engine))
