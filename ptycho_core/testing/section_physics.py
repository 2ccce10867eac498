"""The engine's physics: ``expected_counts`` and ``loss_and_gradient`` against the oracle and against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ..api.score import oracle_counts, score
from ..data.container import PtychoDataContainer, integer_corners
from ..data.raw import RawData
from ..data.results import Image
from ..enginekit.stitching import make_image
from ..errors import ConfigError, PtychoError
from ..physics.likelihood import loss_and_gradient
from ..physics.merit import SUMS
from ..protocol import SupportsExpectedCounts, SupportsPhysicsGradient
from .base import Section, agree, not_offered, plain_array
from .bench import Bench
from .tolerances import FLOAT32

__all__ = ["GradientSection", "PhysicsSection"]

_RATE = FLOAT32["rate"]
_SCORES = 1e-4
"""Scores are sums over all pixels, and √k − √λ is a small difference: two digits more than a rate are lost."""


def _single(array: NDArray[Any]) -> NDArray[np.complex64]:
    return array.astype(np.complex64)


def _fft_pattern(wave: NDArray[Any]) -> NDArray[np.float64]:
    """|F ψ|² of one mode, straight from NumPy, so that it shares nothing with the oracle."""
    pattern: NDArray[np.float64] = np.abs(np.fft.fftshift(np.fft.fft2(wave) / wave.shape[-1])) ** 2
    return pattern


def image_and_scan(
    obj: NDArray[Any], probe: NDArray[Any], positions: NDArray[Any], *, scale: float = 1.0
) -> tuple[Image, PtychoDataContainer]:
    """An image whose object pixel (0, 0) is scan point (0, 0), and a scan without mask and background, all counts 1."""
    probe, positions = _single(probe), np.asarray(positions, np.float64)
    counts = np.ones((len(positions), *probe.shape[1:]), np.float32)
    scan = PtychoDataContainer.of(RawData.from_arrays(counts, positions, probe))
    coverage, origin = np.ones(obj.shape, np.float32), np.zeros(2, np.int64)
    return make_image(_single(obj), coverage, origin, probe, scale, positions), scan


def ask_counts(bench: Bench, image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]) -> Any:
    """What the engine answers; the test is left out where it has no forward model of its own."""
    if not isinstance(bench.engine, SupportsExpectedCounts):
        not_offered("expected_counts")
    assert isinstance(bench.engine, SupportsExpectedCounts)
    return bench.engine.expected_counts(image, scan, frames)


def _ask(bench: Bench, obj: NDArray[Any], probe: NDArray[Any], positions: NDArray[Any]) -> NDArray[Any]:
    """λ of every frame of a bare scan, by the engine."""
    image, scan = image_and_scan(obj, probe, positions)
    found: NDArray[Any] = ask_counts(bench, image, scan, np.arange(len(image.positions_px)))
    return found


class PhysicsSection(Section):
    """What ``expected_counts`` must return, where the engine has it; else core asks the oracle in its place."""

    @staticmethod
    def _shifted(bench: Bench) -> tuple[Image, PtychoDataContainer]:
        """An image off the origin of its scan, of another scale and other positions than the scan was read with."""
        p = bench.problem()
        raw = p.scan(mask=bench.offers.mask, background=bench.offers.background)
        scan = PtychoDataContainer.of(raw)
        moved = raw.positions_px + np.array([[0.3, -0.2], [-0.4, 0.1], [0.0, 0.45], [0.21, 0.0], [0, 0], [0.1, 0.1]])
        obj = np.pad(_single(p.obj), ((3, 2), (2, 4)), constant_values=0.9)
        coverage, origin = np.ones(obj.shape, np.float32), np.array([-3, -2])
        return make_image(obj, coverage, origin, _single(p.probe), p.scale, moved), scan

    def test_expected_counts_agree_with_the_oracle(self, bench: Bench) -> None:
        """λ is the oracle's to single precision: scale, background, origin and positions are those of the image."""
        image, scan = self._shifted(bench)
        frames = np.array([4, 1, 3])
        found = ask_counts(bench, image, scan, frames)
        agree(found, oracle_counts(image, scan, frames), _RATE, "expected_counts")

    def test_expected_counts_are_a_plain_array(self, bench: Bench) -> None:
        """λ of some frames is a NumPy array (n, N, N) of float32 or float64 that can be written."""
        image, scan = self._shifted(bench)
        found = ask_counts(bench, image, scan, np.array([5, 0]))
        dtype = np.float64 if getattr(found, "dtype", None) == np.float64 else np.float32
        plain_array(found, dtype, (2, bench.side, bench.side), "what expected_counts returned")
        assert found.flags.writeable, "what expected_counts returned is read-only; it belongs to the caller"

    def test_core_scores_alike_through_the_engine_and_the_oracle(self, bench: Bench) -> None:
        """Every figure of an image is the same through the engine's forward model and through the oracle."""
        if not isinstance(bench.engine, SupportsExpectedCounts):
            not_offered("expected_counts")
        image, name = bench.reconstruction, bench.engine.name
        if image.forward_model:
            not_offered("an image that the oracle explains")
        here, there = score(image, bench.scan, name, bench.engine), score(image, bench.scan, name)
        assert here.image.scale == pytest.approx(there.image.scale, rel=_SCORES), "the gain that core finds"
        for column, what in enumerate(SUMS):
            agree(here.frame_sums[:, column], there.frame_sums[:, column], _SCORES, f"the {what} of each frame")
        for found, wanted in ((here.train, there.train), (here.heldout, there.heldout)):
            assert found is not None
            assert wanted is not None
            assert found.to_mapping() == pytest.approx(wanted.to_mapping(), rel=_SCORES)

    def test_energy_is_conserved(self, bench: Bench) -> None:
        """The far field is unitary: a pattern's sum is the power of its exit waves."""
        p, N = bench.problem(), bench.side
        centre = (N - 1) / 2 + np.array([[3.0, 2.0], [8.0, 1.0]])
        found = _ask(bench, p.obj, p.probe, centre).sum(axis=(1, 2), dtype=np.float64)
        patches = [p.obj[3 : 3 + N, 2 : 2 + N], p.obj[8 : 8 + N, 1 : 1 + N]]
        agree(found, [np.sum(np.abs(p.probe * patch) ** 2) for patch in patches], _RATE, "the sum of a pattern")

    def test_zero_frequency_is_at_the_centre(self, bench: Bench) -> None:
        """A plane wave lands on pixel (N/2, N/2)."""
        N = bench.side
        found = _ask(bench, np.ones((N, N)), np.ones((1, N, N)), np.full((1, 2), (N - 1) / 2))[0]
        wanted = np.zeros((N, N))
        wanted[N // 2, N // 2] = N**2
        agree(found, wanted, _RATE, "the pattern of a plane wave")

    def test_axes_are_y_then_x(self, bench: Bench) -> None:
        """Positions are (y, x), and a phase ramp along y moves the pattern along y."""
        p, N = bench.problem(), bench.side
        corner = np.array([11, 2])
        found = _ask(bench, p.obj, p.probe[:1], (corner + (N - 1) / 2)[None])
        wave = p.probe[0] * p.obj[11 : 11 + N, 2 : 2 + N]
        agree(found[0], _fft_pattern(wave), _RATE, "the frame at y = 11, x = 2 of an object that is taller than wide")
        ramp = np.exp(2j * np.pi * 3 * np.arange(N)[:, None] / N) * np.ones(N)
        tilted = _ask(bench, ramp, np.ones((1, N, N)), np.full((1, 2), (N - 1) / 2))[0]
        peak = np.unravel_index(tilted.argmax(), tilted.shape)
        assert peak == (N // 2 + 3, N // 2), f"a ramp of 3 cycles along y puts its light on {tuple(map(int, peak))}"

    def test_frame_centres_are_at_half_of_n_minus_one(self, bench: Bench) -> None:
        """A frame centred on (N−1)/2 sees object pixels 0 to N−1, without any shift of the probe."""
        p, N = bench.problem(), bench.side
        found = _ask(bench, p.obj, p.probe[:1], np.full((1, 2), (N - 1) / 2))
        agree(found[0], _fft_pattern(p.probe[0] * p.obj[:N, :N]), _RATE, "the frame in the object's first corner")

    def test_the_sub_pixel_rest_is_carried_by_the_probe(self, bench: Bench) -> None:
        """A frame at +δ sees the probe moved by +δ over an object that stays on its grid."""
        p, N = bench.problem(), bench.side
        delta = np.array([0.37, -0.29])

        def gaussian(shift: NDArray[Any]) -> NDArray[Any]:
            y, x = np.mgrid[:N, :N] - (N - 1) / 2
            y, x = y - shift[0], x - shift[1]
            return np.asarray(np.exp(-(y**2) / (0.011 * N**2) - x**2 / (0.009 * N**2) + 0.4j * y - 0.2j * x))

        found = _ask(bench, p.obj, gaussian(np.zeros(2))[None], (np.array([4, 3]) + (N - 1) / 2 + delta)[None])
        wanted = _fft_pattern(gaussian(delta) * p.obj[4 : 4 + N, 3 : 3 + N])
        agree(found[0], wanted, 10 * _RATE, "a frame a third of a pixel off the grid")

    def test_modes_add_incoherently(self, bench: Bench) -> None:
        """The counts of several probe modes are the sum of the counts of each."""
        if bench.n_modes < 2:
            not_offered("more than one probe mode")
        p = bench.problem()
        both = _ask(bench, p.obj, p.probe, p.positions_px)
        each = [_ask(bench, p.obj, p.probe[m : m + 1], p.positions_px) for m in range(2)]
        agree(both, np.sum(each, axis=0, dtype=np.float64), _RATE, "the pattern of two modes")

    def test_a_global_phase_changes_nothing(self, bench: Bench) -> None:
        """Object and probe times a constant phase give the same counts."""
        p = bench.problem()
        before = _ask(bench, p.obj, p.probe, p.positions_px)
        after = _ask(bench, p.obj * np.exp(2.1j), p.probe * np.exp(-0.8j), p.positions_px)
        agree(after, before, _RATE, "the pattern after a change of the global phase")

    def test_the_order_of_frames_does_not_matter(self, bench: Bench) -> None:
        """Frames asked for in another order come back the same, in that order, and one of them alone as well."""
        p, order = bench.problem(), np.array([4, 0, 5, 2, 1, 3])
        image, scan = image_and_scan(p.obj, p.probe, p.positions_px)
        straight = ask_counts(bench, image, scan, np.arange(6))
        agree(ask_counts(bench, image, scan, order), straight[order], _RATE, "frames in another order")
        agree(ask_counts(bench, image, scan, order[2:3]), straight[5:], _RATE, "one frame alone")

    def test_an_object_too_small_is_refused(self, bench: Bench) -> None:
        """A frame that leaves the object is an error of this package, never clipped or wrapped."""
        p, N = bench.problem(), bench.side
        for position in ([[(N - 1) / 2 - 3, (N - 1) / 2]], [[N + 20.0, N]]):
            image, scan = image_and_scan(p.obj[: N + 3], p.probe, np.array(position))
            with pytest.raises(PtychoError) as caught:
                ask_counts(bench, image, scan, np.arange(1))
            assert str(caught.value), "the error says nothing"


class GradientSection(Section):
    """What ``loss_and_gradient`` must return, where the engine has it."""

    @pytest.fixture(params=["poisson", "amplitude"])
    def loss(self, bench: Bench, request: pytest.FixtureRequest) -> str:
        """A loss that the engine offers."""
        if not isinstance(bench.engine, SupportsPhysicsGradient):
            not_offered("loss_and_gradient")
        if request.param not in bench.offers.losses:
            not_offered(f"the {request.param} loss")
        return str(request.param)

    @staticmethod
    def _ask(bench: Bench, obj: NDArray[Any], probe: NDArray[Any], raw: RawData, loss: str) -> Any:
        assert isinstance(bench.engine, SupportsPhysicsGradient)
        return bench.engine.loss_and_gradient(_single(obj), _single(probe), raw, loss)

    @staticmethod
    def _scan(bench: Bench) -> RawData:
        return bench.problem().scan(mask=bench.offers.mask, background=bench.offers.background)

    def test_gradients_agree_with_the_oracle(self, bench: Bench, loss: str) -> None:
        """Loss and gradients for object and probe are the oracle's, bad pixels and empty frame included."""
        p, raw = bench.problem(), self._scan(bench)
        value, d_obj, d_probe = self._ask(bench, p.obj, p.probe, raw, loss)
        corners, rest = integer_corners(raw.positions_px, bench.side)
        counts = raw.read_counts(np.arange(raw.n_frames)).astype(np.float64)
        wanted = loss_and_gradient(
            _single(p.obj).astype(complex), _single(p.probe).astype(complex), corners, rest, counts, loss, raw.mask,
            raw.background, 1.0, float(raw.frame_totals.sum()),
        )  # fmt: skip
        plain_array(d_obj, np.complex64, p.obj.shape, "d_obj")
        plain_array(d_probe, np.complex64, p.probe.shape, "d_probe")
        agree(value, wanted[0], 10 * FLOAT32["loss"], f"the {loss} loss")
        agree(d_obj, wanted[1], FLOAT32["gradient"], "the gradient for the object")
        agree(d_probe, wanted[2], FLOAT32["gradient"], "the gradient for the probe")

    def test_gradients_turn_with_the_global_phase(self, bench: Bench, loss: str) -> None:
        """An object times a phase has the same loss, and its gradient is turned by that phase."""
        p, raw, turn = bench.problem(), self._scan(bench), np.exp(1.3j)
        value, d_obj, d_probe = self._ask(bench, p.obj, p.probe, raw, loss)
        turned = self._ask(bench, turn * p.obj, p.probe, raw, loss)
        agree(turned[0], value, 10 * FLOAT32["loss"], "the loss after a change of the global phase")
        agree(turned[1], turn * d_obj, 2 * FLOAT32["gradient"], "the gradient for the object, turned")
        agree(turned[2], d_probe, 2 * FLOAT32["gradient"], "the gradient for the probe")

    def test_the_loss_is_a_mean_over_frames(self, bench: Bench, loss: str) -> None:
        """A scan in which every frame is there twice has the same loss and the same gradients."""
        p, raw = bench.problem(), self._scan(bench)
        once = self._ask(bench, p.obj, p.probe, raw, loss)
        twice = self._ask(bench, p.obj, p.probe, raw.subset([0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0]), loss)
        counts = float(raw.frame_totals.sum())
        alone = self._ask(bench, p.obj, p.probe, raw.subset([1]), loss)[0] * float(raw.frame_totals[1])
        rest = self._ask(bench, p.obj, p.probe, raw.subset([0, 2, 3, 4, 5]), loss)[0] * (counts - raw.frame_totals[1])
        agree(twice[0], once[0], 10 * FLOAT32["loss"], "the loss of frames that are all there twice")
        for name, a, b in zip(("object", "probe"), twice[1:], once[1:], strict=True):
            agree(a, b, FLOAT32["gradient"], f"the gradient for the {name} of frames that are all there twice")
        agree(alone + rest, once[0] * counts, 20 * FLOAT32["loss"], "the sum over frames, in counts")

    def test_an_unknown_loss_is_refused(self, bench: Bench) -> None:
        """A loss that the engine does not have is a ConfigError that names it."""
        if not isinstance(bench.engine, SupportsPhysicsGradient):
            not_offered("loss_and_gradient")
        p = bench.problem()
        with pytest.raises(ConfigError, match="huber"):
            self._ask(bench, p.obj, p.probe, self._scan(bench), "huber")
