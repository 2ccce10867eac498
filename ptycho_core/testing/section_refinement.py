"""Refinement: an image that is handed in comes back no worse, and is not touched itself."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from ..data.results import Reconstruction
from ..errors import Cancelled
from ..plugins.returned import check_reconstruction
from ..protocol import ProgressEvent
from .base import Section, not_offered, once, plain_array
from .bench import Bench, Refined
from .traces import digest

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
        for name in ("object", "coverage"):
            new, old = getattr(refined.image, name), getattr(refined.initial, name)
            assert not np.shares_memory(new, old), f"{name} of the refined image is memory of the one handed in"

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

    def test_refined_positions_stay_within_their_limit(self, bench: Bench, refined: Refined) -> None:
        """Positions are refined by at most the limit, and those that were read are kept beside them."""
        if not bench.offers.refine_positions:
            not_offered("refinement of positions")
        limit = 0.25
        config = bench.refining_config(positions=True, position_limit_px=limit)
        image = bench.engine.refine(refined.initial, refined.data, config)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(image.nominal_positions_px, bench.scan.positions_px)
        moved = np.abs(image.positions_px - image.nominal_positions_px).max()
        assert 0 < moved <= limit * np.sqrt(2) * _ROUNDING, f"positions moved by up to {moved:.3g} px, limit {limit}"
        before = [digest(getattr(refined.initial, f.name)) for f in fields(refined.initial) if f.name == "positions_px"]
        assert before == [digest(bench.scan.positions_px)], "the positions of the image handed in were changed"
