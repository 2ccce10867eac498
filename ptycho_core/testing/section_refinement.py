"""Refinement: an image that is handed in comes back no worse, and is not touched itself."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from ..data.container import PtychoDataContainer
from ..data.raw import RawData
from ..data.results import Reconstruction
from ..errors import Cancelled
from ..plugins.returned import check_reconstruction
from ..protocol import ProgressEvent
from ..refinement.image import heldout_frames
from .base import Section, agree, not_offered, once, plain_array, shares_nothing
from .bench import Bench, Refined
from .tolerances import REPEATED
from .traces import arrays_in, arrays_of, digest

__all__ = ["RefinementSection"]

_ROUNDING = 1 + 1e-4


class RefinementSection(Section):
    """What ``refine`` does, where the engine has it."""

    @pytest.fixture
    def refined(self, request: pytest.FixtureRequest, bench: Bench) -> Refined:
        """A rough image of the scan, and what the engine made of it."""
        if not bench.offers.refine:
            not_offered("refine")
        return once(request, "refined", bench.refine_rough_image)

    def test_a_refined_image_is_no_worse(self, bench: Bench, refined: Refined) -> None:
        """An image from elsewhere explains its frames no worse after it was refined."""
        before, after = refined.initial.r_factor, refined.image.r_factor
        assert after <= before * _ROUNDING, f"R went from {before:.4g} to {after:.4g}"

    def test_a_refined_image_is_made_of_plain_arrays(self, bench: Bench, refined: Refined) -> None:
        """A refined image is a whole reconstruction of its scan, in NumPy arrays of the stated kinds."""
        image, M, N = refined.image, bench.scan.n_frames, bench.side
        assert type(image) is Reconstruction, f"refine returned a {type(image).__name__}"
        check_reconstruction(image, refined.data, bench.engine.name, 0.0)
        plain_array(image.object, np.complex64, image.object.shape, "object")
        plain_array(image.coverage, np.float32, image.object.shape, "coverage")
        plain_array(image.positions_px, np.float64, (M, 2), "positions_px")
        plain_array(image.probe, np.complex64, (len(image.probe), N, N), "probe")
        np.testing.assert_array_equal(image.nominal_positions_px, bench.scan.positions_px)

    def test_refining_leaves_its_image_alone(self, refined: Refined) -> None:
        """The image that was handed in is what it was, and the new one shares no memory with it."""
        assert not refined.changed, f"refine changed {', '.join(refined.changed)} of what it was given"
        given = {f"the image's {name}": array for name, array in arrays_in(refined.initial).items()}
        given |= {f"the scan's {name}": array for name, array in arrays_of(refined.data).items()}
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
            bench.engine.refine(  # type: ignore[attr-defined]
                refined.initial, refined.data, bench.refining_config(), progress=stop
            )
        assert len(seen) == 1, f"the engine made {len(seen) - 1} more steps after it was cancelled"

    def test_held_out_frames_are_not_refined_on(self, bench: Bench) -> None:
        """Frames that are held out judge and teach nothing: with other counts in them, the losses are the same."""
        if not bench.offers.refine:
            not_offered("refine")
        config = replace(bench.refining_config(), test_fraction=0.2)
        given, initial = bench.scan, bench.rough_image()
        held_out = heldout_frames(given, config)
        counts = given.read_counts(np.arange(given.n_frames))
        counts[held_out] = 3 * counts[held_out][:, ::-1, ::-1]
        spoilt = RawData.from_arrays(
            counts, given.positions_px, given.probe, mask=given.mask, background=given.background
        )
        # constants of the scan are given, so that they are the same for both
        laid_out = bench.lay_out(given)
        other = PtychoDataContainer.for_reconstruction(
            spoilt, min(config.group_size, spoilt.n_frames), statistics=laid_out.statistics
        )
        losses: list[list[float]] = []
        for data in (laid_out, other):
            events: list[ProgressEvent] = []
            bench.engine.refine(initial, data, config, progress=events.append)  # type: ignore[attr-defined]
            losses.append([event.metrics["train_loss"] for event in events if "train_loss" in event.metrics])
        assert losses[0], "no train_loss is told with the progress of refining"
        agree(losses[1], losses[0], REPEATED, f"train_loss, with other counts in {held_out.size} held-out frames,")

    def test_what_was_not_asked_for_is_not_refined(self, bench: Bench, refined: Refined) -> None:
        """With refinement.probe = False the probe, and with positions = False the positions, are those handed in."""
        initial = refined.initial
        np.testing.assert_array_equal(refined.image.positions_px, initial.positions_px, "positions = False")
        if "refinement.probe" in bench.offers.ignored_fields:
            return
        config = bench.refining_config(probe=False)
        image = bench.engine.refine(initial, refined.data, config)  # type: ignore[attr-defined]
        agree(image.probe, initial.probe, REPEATED, "with refinement.probe = False: the probe")
        np.testing.assert_array_equal(image.positions_px, initial.positions_px, "positions = False")

    def test_refined_positions_stay_within_their_limit(self, bench: Bench, refined: Refined) -> None:
        """Positions are refined by at most the limit in y and in x, and those that were read are kept beside them."""
        if not bench.offers.refine_positions:
            not_offered("refinement of positions")
        limit = 0.25
        config = bench.refining_config(positions=True, position_limit_px=limit)
        image = bench.engine.refine(refined.initial, refined.data, config)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(image.nominal_positions_px, bench.scan.positions_px)
        moved = np.abs(image.positions_px - image.nominal_positions_px).max()
        assert 0 < moved <= limit * _ROUNDING, f"positions moved by up to {moved:.3g} px along an axis, limit {limit}"
        before = [digest(getattr(refined.initial, f.name)) for f in fields(refined.initial) if f.name == "positions_px"]
        assert before == [digest(bench.scan.positions_px)], "the positions of the image handed in were changed"
