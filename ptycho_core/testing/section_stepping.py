"""Steppers: one step follows the formulas, what is put aside comes back, and the loss is that of the image."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ..api.score import oracle_counts
from ..data.container import PtychoDataContainer, integer_corners
from ..data.results import Image
from ..physics.likelihood import amplitude_loss, loss_and_gradient, poisson_loss
from ..physics.patches import extract
from ..physics.steps import (
    DARK_COUNTS,
    illumination,
    least_squares_length,
    lit_level,
    object_step,
    patch_light,
    position_gradient,
    position_step,
    probe_step,
)
from ..protocol import Constraints, Quantity, StepLengths, Stepper, SupportsStepping
from .base import Section, agree, not_offered
from .bench import Bench
from .traces import arrays_in, arrays_of, differences, digest

__all__ = ["STEP", "StepReference", "SteppingSection"]

STEP = 2e-3
"""A step divides a gradient by the light, which is damped; in single precision two digits are lost against a rate."""
_LOSS = 1e-5
_OBJECT: tuple[Quantity, ...] = ("object",)
_WITH_PROBE: tuple[Quantity, ...] = ("object", "probe")
_WITH_POSITIONS: tuple[Quantity, ...] = ("object", "positions")
_INTENSITIES: tuple[Quantity, ...] = ("frame_scale",)
_ALL: tuple[Quantity, ...] = ("object", "probe", "positions")
_FULL = StepLengths(object=1.0, probe=1.0, positions=1.0, position_step_px=0.25, position_limit_px=3.0)


class StepReference:
    """What the formulas of the oracle make of an image and some frames, in double precision."""

    def __init__(self, scan: PtychoDataContainer, image: Image, frames: NDArray[np.int64], loss: str) -> None:
        raw, N = scan.raw, scan.raw.side
        self.loss, self.obj = loss, image.object.astype(np.complex128)
        self.probe = image.probe.astype(np.complex128) * np.sqrt(image.scale)
        corners, rest = integer_corners(image.positions_px[frames], N)
        where = (corners - np.round(image.origin_px).astype(np.int64), rest.astype(np.float64))
        dark = DARK_COUNTS + (0.0 if raw.background is None else raw.background.astype(np.float64))
        level = np.broadcast_to(dark, (N, N))
        counts = raw.read_counts(frames).astype(np.float64)
        _, self.d_obj, self.d_probe, _ = loss_and_gradient(
            self.obj, self.probe, *where, counts, loss, raw.mask, level, propagation=raw.propagation
        )
        self.light = illumination(self.probe, where[0], (image.object.shape[0], image.object.shape[1]))
        self.patches = extract(self.obj, where[0], N)
        self.d_positions = position_gradient(
            self.obj, self.probe, *where, counts, loss, raw.mask, level, propagation=raw.propagation
        )

    def object_step(self, *, least_squares: bool = False) -> NDArray[Any]:
        """ΔO (H, W), stretched to the least squares or not."""
        step = object_step(self.d_obj, self.light, self.loss)
        return step * (least_squares_length(step, self.d_obj, self.light, self.loss) if least_squares else 1.0)

    def probe_step(self) -> NDArray[Any]:
        """ΔP (P, N, N)."""
        return probe_step(self.d_probe, patch_light(self.patches), self.loss)

    def position_step(self) -> NDArray[np.float64]:
        """Δδ (J, 2) of the frames."""
        return position_step(self.d_positions, self.probe, lit_level(self.obj, self.light), self.loss)


class SteppingSection(Section):
    """What ``stepper`` must do, where the engine has it (BE-24 to BE-27)."""

    @staticmethod
    def _image(bench: Bench) -> Image:
        if not bench.offers.stepping:
            not_offered("stepper")
        return bench.image_of(0.6)

    @staticmethod
    def _stepper(bench: Bench, image: Image, loss: str = "amplitude") -> Stepper:
        assert isinstance(bench.engine, SupportsStepping)
        stepper = bench.engine.stepper(image, bench.scan_to_refine, loss, bench.runtime)
        assert isinstance(stepper, Stepper), f"stepper returned a {type(stepper).__name__}, which is no Stepper"
        return stepper

    @staticmethod
    def _step(
        stepper: Stepper, frames: NDArray[np.int64], wanted: Collection[Quantity], lengths: StepLengths = _FULL
    ) -> float:
        stepper.begin()
        stepper.prepare(frames)
        return float(stepper.step(frames, lengths, wanted))

    @pytest.mark.parametrize("least_squares", [False, True], ids=["damped", "least_squares"])
    def test_a_step_of_the_object_follows_the_formulas(self, bench: Bench, least_squares: bool) -> None:
        """One step with some frames changes the object as FM-21 says, and nothing else."""
        image, frames = self._image(bench), bench.scan_to_refine.train_frames[1:9]
        for loss in bench.offers.losses:
            stepper = self._stepper(bench, image, loss)
            self._step(stepper, frames, _OBJECT, StepLengths(object=0.7, least_squares=least_squares))
            found, oracle = stepper.image(), StepReference(bench.scan_to_refine, image, frames, loss)
            step = 0.7 * oracle.object_step(least_squares=least_squares)
            lit = image.coverage > 0
            moved = (found.object - image.object)[lit]
            agree(moved, step[lit], STEP, f"the step of the object in the {loss} loss")
            agree(found.probe, image.probe, 1e-5, "the probe, which was not asked for,")
            np.testing.assert_array_equal(found.positions_px, image.positions_px)

    def test_momentum_goes_on_within_an_epoch_and_ends_with_it(self, bench: Bench) -> None:
        """A second step is longer by what it keeps of the first, unless an epoch began between them."""
        image, frames = self._image(bench), bench.scan_to_refine.train_frames[1:9]
        lengths, lit = StepLengths(object=0.2, momentum=0.5), image.coverage > 0
        moved = {}
        for name in ("on", "anew"):
            stepper = self._stepper(bench, image)
            self._step(stepper, frames, _OBJECT, lengths)
            first = stepper.image().object
            if name == "anew":
                stepper.begin()
            stepper.step(frames, lengths, _OBJECT)
            moved[name] = float(np.abs(stepper.image().object - first)[lit].sum())
        assert moved["on"] > 1.05 * moved["anew"], f"the second step moves by {moved}; momentum must lengthen it"

    def test_a_step_of_probe_and_positions_follows_the_formulas(self, bench: Bench) -> None:
        """One step changes the probe as FM-21 says; positions by their step without its mean, within the limits."""
        image, frames = self._image(bench), bench.scan_to_refine.train_frames[1:9]
        oracle = StepReference(bench.scan_to_refine, image, frames, "amplitude")
        stepper = self._stepper(bench, image)
        self._step(stepper, frames, _WITH_PROBE)
        found = stepper.image()
        probe = found.probe * np.sqrt(found.scale)
        wanted = oracle.probe + oracle.probe_step()
        factor = np.vdot(wanted, probe) / np.vdot(wanted, wanted)  # the level of an image is set afterwards
        agree(probe / factor - oracle.probe, oracle.probe_step(), 10 * STEP, "the step of the probe")
        if not bench.offers.refine_positions:
            return
        stepper = self._stepper(bench, image)
        self._step(stepper, frames, _WITH_POSITIONS)
        step = oracle.position_step()
        wanted_px = np.clip(step - step.mean(axis=0), -0.25, 0.25)
        moved = stepper.image().positions_px - image.positions_px
        agree(moved[frames], wanted_px, STEP, "the step of the positions")
        others = np.setdiff1d(np.arange(len(moved)), frames)
        assert not moved[others].any(), "positions of frames moved that were not in the step"

    def test_intensities_of_frames_are_fitted(self, bench: Bench) -> None:
        """An image whose frames have intensities is explained with them; steps of them find those that were lost."""
        image, scan = self._image(bench), bench.scan_to_refine
        if not bench.offers.frame_scale:
            not_offered("frame_scale")
        frames = scan.train_frames
        factors = 1 + 0.3 * np.sin(np.arange(scan.raw.n_frames))
        weights = np.repeat((factors / factors[frames].mean()).astype(np.float32)[:, None], len(image.probe), axis=1)
        uneven = replace(image, mode_weights=weights)
        stepper = self._stepper(bench, uneven)
        rate = oracle_counts(stepper.image(), scan, frames)
        counts = scan.raw.read_counts(frames).astype(np.float64)
        assert stepper.loss(frames) == pytest.approx(amplitude_loss(rate, counts, scan.raw.mask, 1.0), rel=_LOSS)
        before = stepper.loss(frames)
        for _ in range(5):
            self._step(stepper, frames, _INTENSITIES)
        assert stepper.loss(frames) < 0.9 * before, "five steps of the intensities alone lower the loss by a tenth"
        found = stepper.image().mode_weights
        spread = 0.0 if found is None else float(found[frames, 0].std())
        assert spread < 0.5 * float(weights[frames, 0].std()), f"intensities that are 1 were found with {spread:.2g}"

    def test_what_positions_have_in_common_moves_all_of_them(self, bench: Bench) -> None:
        """With ``position_affine`` a step with some frames moves the others too, by one linear map."""
        image, scan = self._image(bench), bench.scan_to_refine
        if not (bench.offers.position_affine and bench.offers.refine_positions):
            not_offered("position_affine")
        frames, others = scan.train_frames[:10], scan.train_frames[10:]
        moved = {}
        for affine in (False, True):
            stepper = self._stepper(bench, image)
            self._step(stepper, frames, _WITH_POSITIONS, replace(_FULL, position_affine=affine))
            moved[affine] = (stepper.image().positions_px - image.positions_px)[others]
        assert not moved[False].any(), "without it only the frames of the step move"
        centred = image.positions_px[others] - image.positions_px[others].mean(axis=0)
        linear = np.linalg.lstsq(centred, moved[True] - moved[True].mean(axis=0), rcond=None)[0]
        assert np.abs(moved[True]).max() > 0, "with it all move"
        agree(moved[True] - moved[True].mean(axis=0), centred @ linear, 1e-6, "the common part of the positions' steps")

    def test_the_loss_is_that_of_the_image(self, bench: Bench) -> None:
        """``loss`` tells of any frames what the oracle finds of the image that would be shown, held-out ones too."""
        image, scan = self._image(bench), bench.scan_to_refine
        losses = {"poisson": poisson_loss, "amplitude": amplitude_loss}
        for name in bench.offers.losses:
            stepper = self._stepper(bench, image, name)
            self._step(stepper, scan.train_frames[:8], _OBJECT)
            shown = stepper.image()
            for frames in (scan.heldout_frames, scan.train_frames[::3]):
                rate = oracle_counts(shown, scan, frames)
                wanted = losses[name](rate, scan.raw.read_counts(frames).astype(np.float64), scan.raw.mask, 1.0)
                assert stepper.loss(frames) == pytest.approx(wanted, rel=_LOSS), f"{name} loss of {len(frames)} frames"

    def test_the_loss_of_a_step_is_told_without_dark_counts(self, bench: Bench) -> None:
        """A step tells the loss of its frames as they were before it."""
        image, scan = self._image(bench), bench.scan_to_refine
        frames = scan.train_frames[1:9]
        stepper = self._stepper(bench, image)
        told = self._step(stepper, frames, _OBJECT)
        rate = oracle_counts(image, scan, frames)
        wanted = amplitude_loss(rate, scan.raw.read_counts(frames).astype(np.float64), scan.raw.mask, 1.0)
        assert told == pytest.approx(wanted, rel=1e-4)

    def test_what_is_put_aside_comes_back(self, bench: Bench) -> None:
        """A snapshot is a state of its own: later steps leave it, and ``restore`` brings it back."""
        image, frames = self._image(bench), bench.scan_to_refine.train_frames[:8]
        stepper = self._stepper(bench, image)
        self._step(stepper, frames, _WITH_PROBE)
        kept, before = stepper.snapshot(), stepper.image()
        self._step(stepper, frames, _WITH_PROBE)
        assert not np.array_equal(stepper.image().object, before.object), "a second step changed nothing"
        stepper.restore(kept)
        for name, array in arrays_in(stepper.image()).items():
            np.testing.assert_array_equal(array, arrays_in(before)[name], err_msg=name)

    def test_a_run_goes_on_from_its_arrays_to_the_last_bit(self, bench: Bench) -> None:
        """From the arrays of one stepper another goes on as the first does; none of them is complex."""
        image, frames = self._image(bench), bench.scan_to_refine.train_frames[:8]
        first = self._stepper(bench, image)
        self._step(first, frames, _WITH_PROBE)
        arrays = first.arrays()
        strange = [name for name, array in arrays.items() if type(array) is not np.ndarray or np.iscomplexobj(array)]
        assert not strange, f"arrays() gave {strange}, which a checkpoint cannot hold"
        kept = {name: array.copy() for name, array in arrays.items()}
        second = self._stepper(bench, image)
        second.take(kept)
        for stepper in (first, second):
            self._step(stepper, frames[::-1].copy(), _WITH_PROBE)
        one, two = first.arrays(), second.arrays()
        changed = [name for name in one if not np.array_equal(one[name], two[name])]
        assert not changed, f"after going on, {changed} differ"

    def test_constraints_hold_the_probe(self, bench: Bench) -> None:
        """``settle`` gives the probe the power asked for and keeps it within a support; what it explains stays."""
        image, frames = self._image(bench), bench.scan_to_refine.train_frames
        stepper = self._stepper(bench, image)
        self._step(stepper, frames[:8], _WITH_PROBE)
        before = stepper.loss(frames)
        found = stepper.image()
        power = 1.7 * float(np.sum(np.abs(found.probe.astype(np.complex128)) ** 2)) * found.scale
        stepper.settle(Constraints(power=power))
        assert stepper.loss(frames) == pytest.approx(before, rel=1e-4), "another level of the probe changed the loss"
        assert not np.allclose(stepper.image().object, found.object), "the object did not take over what the probe lost"
        stepper.settle(Constraints(support=bench.side / 4))
        y, x = (np.arange(bench.side) - (bench.side - 1) / 2 for _ in range(2))
        outside = np.hypot(y[:, None], x) > bench.side / 4 + 2
        left = np.abs(stepper.image().probe[:, outside]).max() / np.abs(stepper.image().probe).max()
        assert left < 0.1, f"outside of its support the probe has {left:.2g} of its largest modulus"

    def test_what_it_is_given_stays_as_it_is(self, bench: Bench) -> None:
        """Steps change neither the image nor the scan that a stepper was made of."""
        image, scan = self._image(bench), bench.scan_to_refine

        def look() -> dict[str, str]:
            return {name: digest(array) for name, array in (arrays_of(scan) | arrays_in(image)).items()}

        before = look()
        stepper = self._stepper(bench, image)
        self._step(stepper, scan.train_frames[:8], _ALL)
        stepper.settle(Constraints(power=1.0))
        stepper.loss(scan.heldout_frames)
        changed = differences(before, look())
        assert not changed, f"it changed {', '.join(changed)}"
