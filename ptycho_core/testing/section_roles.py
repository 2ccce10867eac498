"""Roles: training frames teach, each of them; held-out frames judge; unused frames do nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer, integer_corners
from ..data.frames import FrameSource
from ..data.results import Image
from ..enginekit.state import coverage_of
from .base import Section, agree, not_offered
from .bench import Bench, with_other_counts
from .problems import make_scan
from .section_training import same_training
from .tolerances import REPEATED, relative_error

__all__ = ["RoleSection"]

_COVERAGE = 1e-3
"""Coverages are sums of intensities in single precision, each engine's in an order of its own."""


class _Seen:
    """Frames that remember which of them were read."""

    def __init__(self, frames: FrameSource) -> None:
        self.frames = frames
        self.read_ones: set[int] = set()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, N)."""
        return self.frames.shape

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, N, N) float32 of the numbered frames."""
        self.read_ones |= set(np.atleast_1d(frame_numbers).tolist())
        return self.frames.read(frame_numbers)


def _differs(one: Image, other: Image) -> float:
    return relative_error(one.object, other.object)


class RoleSection(Section):
    """Who is learned from, who is in the image, and who is not."""

    def test_held_out_and_unused_frames_teach_nothing(self, bench: Bench) -> None:
        """With other counts in held-out and unused frames, training ends in the same model; the test_loss tells."""
        scan, wanted = bench.scan, bench.model
        unused = np.concatenate(list(scan.unused.values()))
        same_training(bench.train(with_other_counts(scan, unused)), wanted, bench, "with other counts in unused frames")
        found = bench.train(with_other_counts(scan, scan.heldout_frames))
        what = "with other counts in held-out frames:"
        agree(found.history["train_loss"], wanted.history["train_loss"], REPEATED, f"{what} train_loss")
        agree(found.probe, wanted.probe, REPEATED, f"{what} the probe")
        agree(bench.image(found).object, bench.reconstruction.object, REPEATED, f"{what} the object")
        judged = relative_error(found.history["test_loss"], wanted.history["test_loss"])
        assert judged > 0.1, "the test_loss is the same whatever the held-out frames hold: they are not looked at"

    def test_every_training_frame_is_learned_from(self, bench: Bench) -> None:
        """Every training frame is read, and with other counts in one of them the model is another one."""
        scan, config = bench.scan, bench.vary(epochs=1)
        seen = _Seen(scan.raw.frames)
        wanted = bench.image(bench.train(replace(scan, raw=replace(scan.raw, frames=seen)), config=config))
        missed = sorted(set(scan.train_frames.tolist()) - seen.read_ones)
        assert not missed, f"training has not read frames {missed}, which are to be learned from"
        frames = scan.train_frames
        # a network needs seconds for each; that its groups cover every frame is seen by what it reads
        for frame in frames[[0, len(frames) // 2, -1]] if bench.config.model is not None else frames:
            model = bench.train(with_other_counts(scan, np.array([frame])), config=config)
            difference = _differs(bench.image(model), wanted)
            assert difference > 10 * REPEATED, (
                f"with other counts in frame {frame}, which is to be learned from, the object is the same to "
                f"{difference:.1g} of its largest magnitude"
            )

    def test_an_image_is_made_of_the_training_frames(self, bench: Bench) -> None:
        """An image has each training frame once: its coverage is theirs, and beyond them it is empty."""
        scan, image, N = bench.scan, bench.reconstruction, bench.side
        origin = np.round(image.origin_px).astype(np.int64)
        positions = image.positions_px[scan.train_frames]
        wanted = coverage_of(positions, image.probe, origin, image.object.shape)
        agree(image.coverage / image.coverage.max(), wanted / wanted.max(), _COVERAGE, "the coverage, of its largest,")
        lit = np.zeros(image.object.shape, bool)
        for y, x in integer_corners(positions, N)[0] - origin:
            lit[y : y + N, x : x + N] = True
        assert not image.object[~lit].any(), "the object is not 0 where no training frame reaches"
        spoilt = with_other_counts(scan, np.concatenate([scan.heldout_frames, *scan.unused.values()]))
        found = bench.image(bench.model, spoilt)
        agree(found.object, image.object, REPEATED, "the object, with other counts in frames that are not trained on,")

    def test_the_canvas_holds_every_used_frame(self, bench: Bench) -> None:
        """Held-out frames have a place on the canvas, so that they can be judged there."""
        image, scan = bench.reconstruction, bench.scan
        origin, shape = scan.canvas()
        first = np.round(image.origin_px).astype(np.int64)
        missing = (first > origin).any() or (first + image.object.shape < origin + np.array(shape)).any()
        assert not missing, (
            f"the object is {image.object.shape} from {first.tolist()}; the used frames need {shape} from "
            f"{origin.tolist()}"
        )

    def test_several_scans_are_trained_on(self, bench: Bench) -> None:
        """A second scan is learned from, each of its frames; one whose frames are all held out is only judged."""
        if bench.offers.max_scans == 1:
            not_offered("several scans")
        raw = make_scan(bench.side, 4, 5, n_modes=bench.n_modes, seed=6, photons=4e4)
        second = PtychoDataContainer.of(raw, heldout=(3, 6, 9, 16))
        both = bench.train(bench.scan, second)
        assert np.isfinite(bench.image(both, second).object).all()
        found = bench.image(both)
        assert _differs(found, bench.reconstruction) > 10 * REPEATED, "a second scan teaches nothing"
        taught = bench.train(bench.scan, with_other_counts(second, second.train_frames[-1:]))
        assert _differs(bench.image(taught), found) > 10 * REPEATED, "the last frame of a second scan teaches nothing"
        judged = bench.train(bench.scan, PtychoDataContainer.of(raw, heldout=np.arange(raw.n_frames)))
        what = "beside a scan that is held out as a whole"
        agree(judged.history["train_loss"], bench.model.history["train_loss"], REPEATED, f"{what}: train_loss")
        agree(bench.image(judged).object, bench.reconstruction.object, REPEATED, f"{what}: the object")
        losses = judged.history["test_loss"], bench.model.history["test_loss"]
        assert relative_error(*losses) > 10 * REPEATED, f"{what}: the test_loss is the same; it is not looked at"
