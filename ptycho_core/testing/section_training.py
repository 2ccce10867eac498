"""Training: it gets better, depends on config and data alone, stops when asked to and goes on from there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ..data.container import PtychoDataContainer, integer_corners
from ..data.results import Reconstruction
from ..errors import ArchiveError, Cancelled, PtychoError
from ..physics.forward import expected_counts
from ..physics.patches import extract
from ..plugins.returned import check_reconstruction
from ..protocol import ProgressEvent, SupportsPatches, TrainedModel
from ..stitching import finish_reconstruction
from .base import Section, agree, not_offered, plain_array
from .bench import Bench, Stopped
from .problems import make_scan
from .tolerances import OTHER_IMAGE, REPEATED, relative_error

__all__ = ["ResultSection", "TrainingSection"]


def flat_image(data: PtychoDataContainer) -> Reconstruction:
    """The object of ones, scored like any image: what an engine knows before it has seen a frame."""
    origin = data.canvas_origin_px.min(axis=0)
    height, width = (data.canvas_origin_px + data.canvas_shape).max(axis=0) - origin
    flat, lit = np.ones((height, width), np.complex64), np.ones((height, width), np.float32)
    return finish_reconstruction(flat, lit, origin, data.probe, data.statistics.scale, data)


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
        flat, found = flat_image(bench.lay_out(bench.scan)).r_factor, bench.reconstruction.r_factor
        assert found < 0.7 * flat, f"R = {found:.4g}, and a flat object has {flat:.4g}"

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
        assert model.statistics == bench.groups(bench.scan).statistics, "the statistics are not the training split's"
        assert model.checkpoint_path is None, "a checkpoint was written without an output_dir"

    def test_the_seed_decides(self, bench: Bench) -> None:
        """The same seed gives the same training, and another seed another, unless the engine says it draws nothing."""
        again = bench.train(bench.scan, test=bench.held_out)
        same_training(again, bench.model, bench, "trained twice with one seed")
        if "seed" in bench.offers.ignored_fields:
            return
        # the groups are drawn by the bench, so what differs is what the engine draws
        other = bench.train(bench.scan, bench.vary(seed=7), bench.held_out)
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
        scan = make_scan(bench.side, n_modes=bench.n_modes, mask=good, bad_counts=1e7)
        image = bench.image(bench.train(scan), scan)
        # the frames overlap, so that the good pixels tell how much light fell on the bad ones
        corners, rest = integer_corners(scan.positions_px, bench.side)
        patches = extract(image.object, corners - np.round(image.origin_px).astype(np.int64), bench.side)
        found = expected_counts(patches, image.probe, rest, image.scale)[:, ~good].sum()
        whole = make_scan(bench.side, n_modes=bench.n_modes)
        share = float(found / whole.read_counts(np.arange(whole.n_frames))[:, ~good].sum())
        assert 0.65 < share < 1.5, (
            f"the image sends {share:.2g} times the light to 16 masked pixels that fell there: what they hold in the "
            "file (nothing, as it is read) was taken for counts"
        )
        assert image.dropped.get("masked_pixels") == 16, f"dropped = {dict(image.dropped)}; 16 pixels are masked"

    def test_a_frame_without_counts_is_survived(self, bench: Bench) -> None:
        """One empty frame leaves a finite image, and is reported."""
        image = bench.watched.image
        assert np.isfinite(image.object).all()
        assert image.dropped.get("frames_without_counts") == 1, f"dropped = {dict(image.dropped)}"

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
                bench.model, bench.lay_out(bench.scan), bench.config.inference, progress=_stop_at_once
            )

    def test_a_cancelled_training_is_resumed_to_the_same_end(self, bench: Bench, stopped: Stopped) -> None:
        """From the checkpoint that cancelling left, training ends where it would have ended."""
        if not bench.offers.resume:
            not_offered("resume")
        assert stopped.error is not None, "progress raised Cancelled, and training went on to its end"
        assert stopped.error.checkpoint_path is not None, "Cancelled does not say where the checkpoint is"
        checkpoint = Path(stopped.error.checkpoint_path)
        assert checkpoint.is_file(), f"{checkpoint}: Cancelled names it, but there is no such file"
        steps: list[int] = []
        resumed = bench.train(
            bench.scan, bench.vary(resume_from=checkpoint), bench.held_out, progress=lambda e: steps.append(e.done)
        )
        at = stopped.events[-1].done
        assert steps[0] == at + 1, f"it goes on at step {steps[0]}; it was stopped at {at}"
        same_training(resumed, bench.model, bench, "resumed")

    def test_what_is_no_checkpoint_is_refused(self, bench: Bench, tmp_path: Path) -> None:
        """Resuming from a text or from no file is an ArchiveError that names it."""
        if not bench.offers.resume:
            not_offered("resume")
        (tmp_path / "text.ckpt").write_text("no checkpoint")
        for name in ("text.ckpt", "gone.ckpt"):
            with pytest.raises(ArchiveError, match=name):
                bench.train(bench.scan, bench.vary(resume_from=tmp_path / name))


def _stop_at_once(event: ProgressEvent) -> None:
    raise Cancelled("that is enough")


class ResultSection(Section):
    """What ``reconstruct`` and ``predict_patches`` return."""

    def test_an_image_is_made_of_plain_arrays(self, bench: Bench) -> None:
        """A reconstruction has NumPy arrays of the stated shapes and dtypes, and says where it lies."""
        data, image = bench.lay_out(bench.scan), bench.reconstruction
        shape, M, N = image.object.shape, bench.scan.n_frames, bench.side
        assert type(image) is Reconstruction, f"reconstruct returned a {type(image).__name__}"
        plain_array(image.object, np.complex64, shape, "object")
        plain_array(image.coverage, np.float32, shape, "coverage")
        plain_array(image.origin_px, np.float64, (2,), "origin_px")
        plain_array(image.probe, np.complex64, (bench.n_modes, N, N), "probe")
        plain_array(image.positions_px, np.float64, (M, 2), "positions_px")
        plain_array(image.nominal_positions_px, np.float64, (M, 2), "nominal_positions_px")
        plain_array(image.frame_misfit, np.float64, (M,), "frame_misfit")
        np.testing.assert_array_equal(image.nominal_positions_px, data.raw.positions_px)
        first = image.origin_px + (N - 1) / 2
        last = image.origin_px + np.array(shape) - 1 - (N - 1) / 2
        inside = (image.positions_px >= first - 0.5).all() and (image.positions_px <= last + 0.5).all()
        assert inside, f"frames leave the image of shape {shape} at {image.origin_px.tolist()}"
        again = float(image.frame_misfit.sum() / image.frame_totals.sum())
        assert image.r_factor == pytest.approx(again, rel=1e-3), f"r_factor = {image.r_factor}, its frames say {again}"

    def test_the_object_lies_where_the_frames_saw_it(self, bench: Bench) -> None:
        """Put back through the oracle at its own origin, the image explains the frames as its R-factor says."""
        image, data = bench.reconstruction, bench.lay_out(bench.scan)
        origin = np.round(image.origin_px).astype(np.int64)
        np.testing.assert_allclose(image.origin_px, origin, err_msg="the image is off the pixel grid")
        scored = finish_reconstruction(image.object, image.coverage, origin, image.probe, image.scale, data)
        # with a background the best gain is absorbed in the scale to first order only (FM-11)
        assert scored.r_factor == pytest.approx(image.r_factor, rel=0.02), (
            f"the oracle finds R = {scored.r_factor:.4g} for the image at its origin; it says {image.r_factor:.4g}"
        )

    def test_patches_are_plain_arrays(self, bench: Bench) -> None:
        """Predicted patches are (B, C, N, N) complex64 and finite."""
        if not isinstance(bench.engine, SupportsPatches):
            not_offered("predict_patches")
        data = bench.lay_out(bench.scan)
        assert isinstance(bench.engine, SupportsPatches)
        found = bench.engine.predict_patches(bench.model, data)
        plain_array(found, np.complex64, (*data.frame_indices.shape, bench.side, bench.side), "predict_patches")
        assert np.isfinite(found).all()

    def test_frames_of_another_size_are_answered_or_refused(self, bench: Bench) -> None:
        """Frames of another side give a sound image, or an error of this package; nothing else."""
        other = make_scan(2 * bench.side, 2, 3, n_modes=bench.n_modes)
        model, data = bench.model, bench.lay_out(other)
        try:
            image = bench.engine.reconstruct(model, data, bench.config.inference)
        except PtychoError:  # refused in a word of this package
            return
        check_reconstruction(image, data, bench.engine.name, 0.0)
