"""Each engine's data pipeline on its own: batches of groups as arrays, read when asked for."""

from __future__ import annotations

import numpy as np
import pytest
from engine_scans import config_for, make_scan
from frameworks import framework_of

from ptycho_core.data import frames
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.enginekit.groups import GroupDraw, Groups
from ptycho_core.enginekit.training_groups import TrainingGroups
from ptycho_core.io import read_scan, write_scan

FIELDS = {
    "counts": ((4, 16, 16), np.float32),
    "corners_px": ((4, 2), np.int64),
    "subpixel_px": ((4, 2), np.float32),
    "frame_indices": ((4,), np.int64),
    "counted": ((4,), np.bool_),
}
"""Shape and type for one group; a batch has one axis more, and ``canvas_shape`` (2,) and ``scan`` () for all."""


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4, n_modes=2, bad=True)


@pytest.fixture(scope="module")
def path(scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "scan.npz"
    write_scan(path, scan)
    return path


@pytest.mark.spec("DATA-11")
@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("epoch", [0, 3])
def test_batches_are_what_the_draw_of_the_epoch_says(engine, scan, path, epoch, num_workers):
    """In the order that all engines share, the last batch of a scan smaller, each with the canvas that holds all."""
    config = config_for(engine, n_groups=7, batch_size=3).config
    other = make_scan(rows=2, columns=4, n_modes=2, bad=True, seed=5)
    scans = [PtychoDataContainer.of(read_scan(path), heldout=[2]), PtychoDataContainer.of(other, unused={"x": [1]})]
    found = list(framework_of(engine).batches(TrainingGroups(scans, config), num_workers, epoch))
    draw = GroupDraw(scans, config)
    wanted = list(draw.batches(epoch))
    assert [len(batch["counts"]) for batch in found] == [len(batch.groups) for batch in wanted]
    assert {int(batch["scan"]) for batch in found} == {0, 1}
    for batch, asked in zip(found, wanted, strict=True):
        groups, numbers = draw.groups(epoch, asked.scan), asked.groups
        assert int(batch["scan"]) == asked.scan
        assert set(batch) == {*FIELDS, "canvas_shape", "scan"}
        for name, (shape, dtype) in FIELDS.items():
            assert batch[name].shape == (len(numbers), *shape)
            assert batch[name].dtype == dtype
        np.testing.assert_array_equal(batch["counts"], groups.read_counts(numbers))
        for name in ("frame_indices", "corners_px", "subpixel_px", "counted"):
            np.testing.assert_array_equal(batch[name], getattr(groups, name)[numbers])
        assert batch["canvas_shape"].tolist() == groups.canvas_shape[numbers].max(axis=0).tolist()
        assert (batch["corners_px"] + 16 <= batch["canvas_shape"]).all()
        assert (batch["counts"][..., ~scan.mask] == 0).all()
    assert len({tuple(shape) for shape in draw.groups(epoch).canvas_shape}) > 1  # else the canvas would show nothing


def test_a_scan_on_disk_stays_there(engine, path, monkeypatch):
    """Only the frames of a batch are read, when the batch is asked for."""
    framework, config = framework_of(engine), config_for(engine, n_groups=6, batch_size=2).config
    scan = PtychoDataContainer.of(read_scan(path))
    assert isinstance(scan.raw.frames, frames.NpzFrames)
    asked = []
    real = frames.NpzFrames.read
    monkeypatch.setattr(frames.NpzFrames, "read", lambda self, n: (asked.append(np.size(n)), real(self, n))[1])
    batches = framework.batches(TrainingGroups([scan], config))
    assert asked == []
    assert next(batches)["counts"].sum() > 0
    assert sum(asked) < 6 * 4
    rest = list(batches)
    assert sum(asked) == 6 * 4
    assert len(rest) == 2


def test_reading_leaves_the_global_random_state_alone(engine, scan):
    framework = framework_of(engine)
    framework.seed(3)
    drawn = framework.draw()
    framework.seed(3)
    groups = TrainingGroups([PtychoDataContainer.of(scan)], config_for(engine, n_groups=4).config)
    assert len(list(framework.batches(groups))) == 4
    assert framework.draw() == drawn


def test_an_error_while_reading_is_the_error_itself(engine, scan, monkeypatch):
    """Not a framework's, with the cause somewhere in its text."""

    def fail(self, groups):
        raise OSError(5, "the disk is gone")

    monkeypatch.setattr(Groups, "read_counts", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        engine.train([PtychoDataContainer.of(scan)], *config_for(engine))
