"""Refinement: an image that is handed in comes back better, or as it was, and is not touched itself."""

from __future__ import annotations

import numpy as np
import pytest

from ..api.score import oracle_counts
from ..data.results import Image
from ..errors import Cancelled
from ..physics.likelihood import sample_counts
from ..protocol import ProgressEvent
from .base import Section, agree, not_offered, once, plain_array, shares_nothing
from .bench import Bench, Refined, with_counts, with_other_counts
from .tolerances import REPEATED
from .traces import arrays_in, arrays_of, digest

__all__ = ["RefinementSection"]

_ROUNDING = 1 + 1e-4
_TOLD = 2e-2
"""An engine may judge its epochs with a few counts added to every pixel; what differs by less is the same state."""


class RefinementSection(Section):
    """What ``refine`` does, where the engine has it."""

    @pytest.fixture
    def refined(self, request: pytest.FixtureRequest, bench: Bench) -> Refined:
        """A rough image of the scan, and what the engine made of it."""
        if not (bench.offers.refine or bench.offers.stepping):
            not_offered("refine")
        return once(request, "refined", bench.refine_rough_image)

    def test_a_rough_image_gets_better(self, bench: Bench, refined: Refined) -> None:
        """An image from elsewhere explains training and held-out frames better after it was refined."""
        scan = refined.scan
        for frames, which in ((scan.train_frames, "training"), (scan.heldout_frames, "held-out")):
            before, after = (bench.refining_loss(image, scan, frames) for image in (refined.initial, refined.image))
            assert after < before, f"the loss of {which} frames went from {before:.4g} to {after:.4g}"

    def test_the_image_handed_in_is_a_candidate(self, bench: Bench) -> None:
        """An image that nothing is better than, by the held-out frames, comes back as it was."""
        if not (bench.offers.refine or bench.offers.stepping):
            not_offered("refine")
        for truth, what in ((1.0, "the truth"), (0.5, "a rough image that the held-out frames show")):
            initial, scan = bench.image_of(truth), bench.scan_to_refine
            held, rng = scan.heldout_frames, np.random.default_rng(5)
            scan = with_counts(scan, held, sample_counts(oracle_counts(initial, scan, held), rng))
            found = bench.refine(initial, scan)
            before, after = (bench.refining_loss(image, scan, held) for image in (initial, found))
            limit = before + (_ROUNDING - 1) * abs(before)
            assert after <= limit, f"{what} was made worse: the held-out loss went from {before:.6g} to {after:.6g}"

    def test_held_out_frames_choose_what_is_returned(self, bench: Bench) -> None:
        """Of all epochs, the state is returned that explains the held-out frames best, in the loss refined with."""
        if not (bench.offers.refine or bench.offers.stepping):
            not_offered("refine")
        scan = bench.scan_to_refine
        held, rng = scan.heldout_frames, np.random.default_rng(5)
        # frames that show an object on the way to the truth: refining comes by it, and goes on
        scan = with_counts(scan, held, sample_counts(oracle_counts(bench.image_of(0.8), scan, held), rng))
        config = bench.refining_config(**({"epochs": 7} if bench.can_set("refinement.epochs") else {}))
        initial, told = bench.image_of(0.5), list[float]()
        found = bench.refine(initial, scan, config, lambda e: told.append(e.metrics.get("test_loss", np.nan)))
        assert np.isfinite(told).all(), "no test_loss is told with the progress of refining"
        least = bench.least_loss(scan, held)
        best = min(*told, bench.refining_loss(initial, scan, held)) - least
        what = f"the held-out loss of what is returned (above {least:.6g}; epochs had {told})"
        agree(bench.refining_loss(found, scan, held) - least, best, _TOLD, what)

    def test_a_refined_image_is_made_of_plain_arrays(self, bench: Bench, refined: Refined) -> None:
        """A refined image is a whole image of its scan, in NumPy arrays of the stated kinds."""
        image, M, N = refined.image, refined.scan.raw.n_frames, bench.side
        assert type(image) is Image, f"refine returned a {type(image).__name__}"
        plain_array(image.object, np.complex64, image.object.shape, "object")
        plain_array(image.coverage, np.float32, image.object.shape, "coverage")
        plain_array(image.positions_px, np.float64, (M, 2), "positions_px")
        plain_array(image.probe, np.complex64, (len(image.probe), N, N), "probe")

    def test_refining_leaves_its_image_alone(self, refined: Refined) -> None:
        """The image that was handed in is what it was, and the new one shares no memory with it."""
        assert not refined.changed, f"refine changed {', '.join(refined.changed)} of what it was given"
        given = {f"the image's {name}": array for name, array in arrays_in(refined.initial).items()}
        given |= {f"the scan's {name}": array for name, array in arrays_of(refined.scan).items()}
        shares_nothing(refined.image, given)

    def test_refining_tells_its_progress_and_can_be_cancelled(self, bench: Bench, refined: Refined) -> None:
        """Epochs are told under the stage ``refine``, and Cancelled comes through after the epoch in which it came."""
        stages = {event.stage for event in refined.events}
        assert stages == {"refine"}, f"progress was told of stages {sorted(stages)}; it must be 'refine'"
        seen: list[ProgressEvent] = []

        def stop(event: ProgressEvent) -> None:
            seen.append(event)
            raise Cancelled("that is enough")

        with pytest.raises(Cancelled, match="that is enough"):
            bench.refine(refined.initial, progress=stop)
        assert len(seen) == 1, f"the engine made {len(seen) - 1} more steps after it was cancelled"

    def test_held_out_and_unused_frames_are_not_refined_on(self, bench: Bench) -> None:
        """Held-out frames judge, unused ones do nothing: with other counts in them, the train_loss is the same."""
        if not (bench.offers.refine or bench.offers.stepping):
            not_offered("refine")
        scan = bench.scan_to_refine
        unused = np.concatenate(list(scan.unused.values()))
        judged = with_other_counts(scan, scan.heldout_frames)
        losses: list[tuple[list[float], list[float]]] = []
        for given in (scan, judged, with_other_counts(scan, unused)):
            events: list[ProgressEvent] = []
            bench.refine(bench.image_of(0.5), given, progress=events.append)
            metrics = [event.metrics for event in events if "train_loss" in event.metrics]
            losses.append(([m["train_loss"] for m in metrics], [m.get("test_loss", np.nan) for m in metrics]))
        assert losses[0][0], "no train_loss is told with the progress of refining"
        agree(losses[1][0], losses[0][0], REPEATED, f"train_loss, with other counts in {judged.heldout_frames.size} "
              "held-out frames,")  # fmt: skip
        agree(losses[2], losses[0], REPEATED, f"losses, with other counts in {unused.size} unused frames,")

    def test_what_was_not_asked_for_is_not_refined(self, bench: Bench, refined: Refined) -> None:
        """With refinement.probe = False the probe, and with positions = False the positions, are those handed in."""
        initial = refined.initial
        np.testing.assert_array_equal(refined.image.positions_px, initial.positions_px, "positions = False")
        if not bench.can_set("refinement.probe"):
            return
        image = bench.refine(initial, config=bench.refining_config(probe=False))
        agree(image.probe, initial.probe, REPEATED, "with refinement.probe = False: the probe")
        np.testing.assert_array_equal(image.positions_px, initial.positions_px, "positions = False")

    def test_refined_positions_stay_within_their_limit(self, bench: Bench, refined: Refined) -> None:
        """Positions are refined by at most the limit in y and in x, and those of the scan stay as they were read."""
        if not bench.offers.refine_positions:
            not_offered("refinement of positions")
        limit, scan = 0.25, refined.scan
        read = digest(scan.raw.positions_px)
        image = bench.refine(refined.initial, config=bench.refining_config(positions=True, position_limit_px=limit))
        moved = np.abs(image.positions_px - scan.raw.positions_px).max()
        assert 0 < moved <= limit * _ROUNDING, f"positions moved by up to {moved:.3g} px along an axis, limit {limit}"
        assert digest(scan.raw.positions_px) == read, "the positions of the scan were changed"
        assert digest(refined.initial.positions_px) == read, "the positions of the image handed in were changed"
