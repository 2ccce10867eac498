"""The near field: physics, steps and a training of an engine that offers it; one that does not refuses such a scan."""

from __future__ import annotations

import numpy as np
import pytest

from ..api.score import oracle_counts
from ..data.container import PtychoDataContainer
from ..enginekit.state import flat_image
from ..errors import ConfigError
from ..physics.likelihood import amplitude_loss, loss_and_gradient
from ..protocol import Quantity, StepLengths, SupportsExpectedCounts, SupportsPhysicsGradient, SupportsStepping
from .base import Section, agree, not_offered
from .bench import Bench
from .section_stepping import STEP, StepReference
from .tolerances import FLOAT32

__all__ = ["NearFieldSection"]

_OBJECT: tuple[Quantity, ...] = ("object",)


def _offered(bench: Bench) -> None:
    if "near_field" not in bench.offers.propagations:
        not_offered("the near field")


class NearFieldSection(Section):
    """What ``propagations`` promises (FM-23)."""

    def test_a_propagation_that_it_does_not_offer_is_refused(self, bench: Bench) -> None:
        """A near-field scan is a ConfigError with the engine's name, and nothing is trained."""
        from ..api.facade import train_cdi_model

        if "near_field" in bench.offers.propagations:
            not_offered("nothing: it has the near field too")
        raw = bench.near_field_scan.raw
        with pytest.raises(ConfigError, match=f"engine '{bench.engine.name}' has .* propagation.*near_field"):
            train_cdi_model(raw, None, bench.config, bench.runtime)

    def test_expected_counts_of_a_near_field_agree_with_the_oracle(self, bench: Bench) -> None:
        """λ is that of the Fresnel propagator of the scan."""
        _offered(bench)
        if not isinstance(bench.engine, SupportsExpectedCounts):
            not_offered("expected_counts")
        assert isinstance(bench.engine, SupportsExpectedCounts)
        scan, frames = bench.near_field_scan, np.array([7, 2, 20])
        image = bench.image_of(0.8, scan)
        found = bench.engine.expected_counts(image, scan, frames)
        agree(found, oracle_counts(image, scan, frames), FLOAT32["rate"], "expected_counts of a near field")

    def test_gradients_of_a_near_field_agree_with_the_oracle(self, bench: Bench) -> None:
        """Loss and gradients for object and probe are the oracle's."""
        _offered(bench)
        if not isinstance(bench.engine, SupportsPhysicsGradient):
            not_offered("loss_and_gradient")
        assert isinstance(bench.engine, SupportsPhysicsGradient)
        p = bench.problem(bench.near_field)
        raw = p.scan(mask=bench.offers.mask, background=bench.offers.background)
        obj, probe = p.obj.astype(np.complex64), p.probe.astype(np.complex64)
        for loss in bench.offers.losses:
            value, d_obj, d_probe = bench.engine.loss_and_gradient(obj, probe, raw, loss)
            wanted = loss_and_gradient(
                obj.astype(complex), probe.astype(complex), p.corners, p.rest, p.counts, loss, raw.mask,
                raw.background, 1.0, float(raw.frame_totals.sum()), raw.propagation,
            )  # fmt: skip
            agree(value, wanted[0], 10 * FLOAT32["loss"], f"the {loss} loss of a near field")
            agree(d_obj, wanted[1], FLOAT32["gradient"], "the gradient for the object of a near field")
            agree(d_probe, wanted[2], FLOAT32["gradient"], "the gradient for the probe of a near field")

    def test_a_step_in_the_near_field_follows_the_formulas(self, bench: Bench) -> None:
        """One step changes the object as FM-21 says; the loss before and after it is that of the image."""
        _offered(bench)
        if not bench.offers.stepping:
            not_offered("stepper")
        assert isinstance(bench.engine, SupportsStepping)
        scan = bench.near_field_scan
        image, frames = bench.image_of(0.6, scan), scan.train_frames[1:9]
        stepper = bench.engine.stepper(image, scan, "amplitude", bench.runtime)
        stepper.begin()
        stepper.prepare(frames)
        told = float(stepper.step(frames, StepLengths(object=0.7), _OBJECT))
        found, lit = stepper.image(), image.coverage > 0
        step = 0.7 * StepReference(scan, image, frames, "amplitude").object_step()
        agree((found.object - image.object)[lit], step[lit], STEP, "the step of the object in the near field")
        for made, loss in ((image, told), (found, stepper.loss(frames))):
            rate, counts = oracle_counts(made, scan, frames), scan.raw.read_counts(frames).astype(np.float64)
            assert loss == pytest.approx(amplitude_loss(rate, counts, scan.raw.mask, 1.0), rel=1e-4)

    def test_a_near_field_scan_becomes_an_image(self, bench: Bench) -> None:
        """What training on one gives explains its frames better than a flat object does."""
        _offered(bench)
        scan: PtychoDataContainer = bench.near_field_scan
        images = (flat_image(scan), bench.image(bench.train(scan), scan))
        flat, found = (bench.scored(image, scan).train.fourier_error for image in images)
        assert found < 0.8 * flat, f"the Fourier error is {found:.4g}, and that of a flat object {flat:.4g}"
