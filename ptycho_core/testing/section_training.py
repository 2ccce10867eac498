"""Training: it gets better, depends on config and data alone, and stops when asked to; and the image it leads to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ..data.container import PtychoDataContainer
from ..data.results import Image
from ..enginekit.groups import partition_of
from ..enginekit.stitching import make_image
from ..errors import Cancelled, PtychoError
from ..plugins.returned import check_image
from ..protocol import ProgressEvent, SupportsPatches, TrainedModel
from .base import Section, agree, not_offered, plain_array
from .bench import Bench, Stopped
from .problems import make_scan
from .tolerances import OTHER_IMAGE, REPEATED, relative_error

__all__ = ["ResultSection", "TrainingSection"]


def flat_image(scan: PtychoDataContainer) -> Image:
    """The object of ones: what an engine knows before it has seen a frame."""
    origin, shape = scan.canvas()
    obj, lit = np.ones(shape, np.complex64), np.ones(shape, np.float32)
    return make_image(obj, lit, origin, scan.probe, scan.statistics.scale, scan.raw.positions_px)


def same_training(one: TrainedModel, other: TrainedModel, bench: Bench, what: str) -> None:
    """Check that two trainings of the scan of one bench are the same: history, probe and image."""
    assert set(one.history) == set(other.history), f"{what}: history has {set(one.history)} and {set(other.history)}"
    for name, values in one.history.items():
        agree(values, other.history[name], REPEATED, f"{what}: history[{name!r}]")
    agree(one.probe, other.probe, REPEATED, f"{what}: the probe")
    agree(bench.image(one).object, bench.image(other).object, REPEATED, f"{what}: the object")


class TrainingSection(Section):
    """What ``train`` does."""

    def test_a_tiny_scan_gets_better(self, bench: Bench) -> None:
        """The loss falls, and the image explains the frames better than a flat object does."""
        losses = bench.model.history["train_loss"]
        assert losses[-1] < losses[0], f"the loss went from {losses[0]:.4g} to {losses[-1]:.4g}"
        images = (flat_image(bench.scan), bench.reconstruction)
        flat, found = (bench.scored(image, bench.scan).train.fourier_error for image in images)
        assert found < 0.7 * flat, f"the Fourier error is {found:.4g}, and that of a flat object {flat:.4g}"

    def test_the_history_is_one_number_an_epoch(self, bench: Bench) -> None:
        """A model has train_loss, and test_loss with held-out frames, of one float an epoch; and its config."""
        model, epochs = bench.model, bench.config.epochs
        assert model.backend == bench.engine.name, f"the model calls itself {model.backend!r}"
        assert model.config == bench.config, "the model's config is not the one it was trained with"
        for name in ("train_loss", "test_loss"):
            assert name in model.history, f"there is no {name!r}, only {', '.join(model.history)}"
            assert len(model.history[name]) == epochs, f"{len(model.history[name])} of {name} for {epochs} epochs"
        assert "test_loss" not in bench.watched.model.history, "there is a test_loss without held-out frames"
        plain_array(model.probe, np.complex64, (bench.n_modes, bench.side, bench.side), "the model's probe")
        assert model.statistics == bench.scan.statistics, "the statistics are not the scan's"
        assert model.checkpoint_path is None, "a checkpoint was written without an output_dir"

    def test_the_seed_decides(self, bench: Bench) -> None:
        """The same seed gives the same training, and another seed another, unless the engine says it draws nothing."""
        same_training(bench.train(), bench.model, bench, "trained twice with one seed")
        if "seed" in bench.offers.ignored_fields:
            return
        other = bench.train(config=bench.vary(seed=7))
        difference = relative_error(bench.image(other).object, bench.reconstruction.object)
        assert difference > OTHER_IMAGE, (
            "another seed gives the same image: the seed is ignored. An engine that draws nothing says so by naming "
            "'seed' in capabilities.ignored_fields"
        )

    def test_bad_pixels_are_left_out(self, bench: Bench) -> None:
        """The image knows nothing of what bad pixels hold: it sends the light there that the good ones tell of."""
        if not bench.offers.mask:
            not_offered("a mask")
        good = bench.mask(4)
        assert good is not None
        raw = make_scan(bench.side, n_modes=bench.n_modes, mask=good, bad_counts=1e7)
        scan = PtychoDataContainer.of(raw)
        image = bench.image(bench.train(scan), scan)
        # the frames overlap, so that the good pixels tell how much light fell on the bad ones
        found = bench.rate(image, scan, scan.train_frames)[:, ~good].sum()
        whole = make_scan(bench.side, n_modes=bench.n_modes)
        share = float(found / whole.read_counts(np.arange(whole.n_frames))[:, ~good].sum())
        assert 0.65 < share < 1.5, (
            f"the image sends {share:.2g} times the light to 16 masked pixels that fell there: what they hold in the "
            "file (nothing, as it is read) was taken for counts"
        )

    def test_a_frame_of_one_count_is_survived(self, bench: Bench) -> None:
        """A frame that holds a single count, in a scan with one that holds none, leaves a finite image."""
        scan, image = bench.other_scan, bench.watched.image
        assert len(scan.used_frames) == scan.raw.n_frames - 1
        assert np.isfinite(image.object).all()
        assert np.isfinite(bench.scored(image, scan).frame_sums).all()

    def test_progress_is_told_of_every_step(self, bench: Bench) -> None:
        """Steps are counted up to the total, under the names of their stages."""
        events = bench.watched.events
        for stage in ("train", "reconstruct"):
            steps = [event.done for event in events if event.stage == stage]
            totals = {event.total for event in events if event.stage == stage}
            assert steps, f"no progress of stage {stage!r}, only of {sorted({e.stage for e in events})}"
            assert len(totals) == 1, f"{stage}: the total changes: {totals}"
            assert steps == sorted(set(steps)), f"{stage}: steps do not go up: {steps[:20]}"
            assert steps[-1] == totals.pop(), f"{stage}: it ends at step {steps[-1]}"
        assert all(isinstance(v, float) for e in events for v in e.metrics.values()), "a metric is no float"

    def test_cancelling_stops_after_the_step(self, bench: Bench, stopped: Stopped) -> None:
        """Cancelled comes through training and reconstruction, no further step is made, the process is as it was."""
        assert stopped.error is not None, "progress raised Cancelled, and training went on to its end"
        assert "that is enough" in str(stopped.error), f"another Cancelled came through: {stopped.error}"
        half = stopped.events[-1].total / 2
        extra = [event.done for event in stopped.events if event.done >= half][1:]
        assert not extra, f"the engine made the steps {extra} after it was cancelled"
        assert not stopped.changed, f"it left {', '.join(stopped.changed)} changed"
        with pytest.raises(Cancelled, match="that is enough"):
            bench.engine.reconstruct(
                bench.model, bench.scan, bench.config.inference, bench.runtime, progress=_stop_at_once
            )


def _stop_at_once(event: ProgressEvent) -> None:
    raise Cancelled("that is enough")


class ResultSection(Section):
    """What ``reconstruct`` and ``predict_patches`` return."""

    def test_an_image_is_made_of_plain_arrays(self, bench: Bench) -> None:
        """An image has NumPy arrays of the stated shapes and dtypes, and says where it lies."""
        image, shape, M, N = (
            bench.reconstruction,
            bench.reconstruction.object.shape,
            bench.scan.raw.n_frames,
            bench.side,
        )
        assert type(image) is Image, f"reconstruct returned a {type(image).__name__}"
        plain_array(image.object, np.complex64, shape, "object")
        plain_array(image.coverage, np.float32, shape, "coverage")
        plain_array(image.origin_px, np.float64, (2,), "origin_px")
        plain_array(image.probe, np.complex64, (bench.n_modes, N, N), "probe")
        plain_array(image.positions_px, np.float64, (M, 2), "positions_px")

    def test_the_object_lies_where_the_frames_saw_it(self, bench: Bench) -> None:
        """Through its forward model, the image explains the frames better than one moved by a pixel does."""
        image, scan = bench.reconstruction, bench.scan
        origin = np.round(image.origin_px).astype(np.int64)
        np.testing.assert_allclose(image.origin_px, origin, err_msg="the image is off the pixel grid")
        here = bench.scored(image, scan).train.fourier_error
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            slices = None if image.slices is None else np.roll(image.slices, step, axis + 1)
            moved = replace(image, object=np.roll(image.object, step, axis), slices=slices)
            there = bench.scored(moved, scan).train.fourier_error
            assert here < there, f"moved by {step} along axis {axis}, the image explains the frames better"

    def test_the_scale_follows_the_scan(self, bench: Bench) -> None:
        """The scale of an image is the scan's own, times what training changed of the scale it started from."""
        statistics = bench.scan.statistics
        brighter = replace(bench.scan, statistics=replace(statistics, scale=3 * statistics.scale))
        before, after = bench.reconstruction.scale, bench.image(bench.model, brighter).scale
        assert after == pytest.approx(3 * before, rel=1e-6), f"with 3 times the scan's scale it is {after / before:.4g}"
        if not bench.config.scale_trainable:
            assert before == pytest.approx(statistics.scale, rel=1e-6), f"scale = {before}; the scan's is untouched"

    def test_patches_are_plain_arrays(self, bench: Bench) -> None:
        """Predicted patches are (B, C, N, N) complex64 and finite."""
        if not isinstance(bench.engine, SupportsPatches):
            not_offered("predict_patches")
        groups = partition_of(bench.scan, bench.scan.train_frames, bench.config.group_size)
        assert isinstance(bench.engine, SupportsPatches)
        found = bench.engine.predict_patches(bench.model, groups)
        plain_array(found, np.complex64, (*groups.frame_indices.shape, bench.side, bench.side), "predict_patches")
        assert np.isfinite(found).all()

    def test_frames_of_another_size_are_answered_or_refused(self, bench: Bench) -> None:
        """Frames of another side give a sound image, or an error of this package; nothing else."""
        scan = PtychoDataContainer.of(make_scan(2 * bench.side, 2, 3, n_modes=bench.n_modes))
        model = bench.model
        try:
            image = bench.engine.reconstruct(model, scan, bench.config.inference, bench.runtime)
        except PtychoError:  # refused in a word of this package
            return
        check_image(image, scan, bench.engine.name, 0.0)
