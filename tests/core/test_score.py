"""Core scores: the gain by counts, the figures of the state that is returned, each role by itself."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from run_engine import ORIGIN, N, OtherPhysics, make_object, make_scan, rate_of

from ptycho_core.api.score import heldout_loss, oracle_counts, score
from ptycho_core.data.container import NO_COUNTS, PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image, Scored
from ptycho_core.errors import BackendError, BackendProtocolError, DataError
from ptycho_core.physics.merit import SUMS, Figures, frame_sums

HELDOUT = [2, 17, 40]


def roles(raw: RawData) -> PtychoDataContainer:
    return PtychoDataContainer.of(raw, heldout=HELDOUT, unused={"saturated": [5]})


def image_of(scan: PtychoDataContainer, *, factor: complex = 1.0, scale: float = 1.0, **more: Any) -> Image:
    """The true object, times a factor."""
    obj = (factor * make_object()).astype(np.complex64)
    given: dict[str, Any] = {
        "object": obj,
        "coverage": np.ones(obj.shape, np.float32),
        "origin_px": ORIGIN.astype(np.float64),
        "probe": scan.probe,
        "scale": scale,
        "positions_px": scan.raw.positions_px,
    }
    return Image(**(given | more))


def by_hand(rate: np.ndarray, scan: PtychoDataContainer, frames: np.ndarray) -> dict[str, float]:
    good = np.ones((N, N), bool) if scan.raw.mask is None else scan.raw.mask
    k, lam = scan.raw.read_counts(frames)[:, good].astype(float), np.maximum(rate[:, good], 1e-8)
    return {
        "r_factor": np.abs(np.sqrt(k) - np.sqrt(lam)).sum() / np.sqrt(k).sum(),
        "fourier_error": ((np.sqrt(k) - np.sqrt(lam)) ** 2).sum() / k.sum(),
    }


def assert_figures(found: Figures, wanted: dict[str, float], n_frames: int) -> None:
    for name, value in wanted.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6), name
    assert found.n_frames == n_frames


@pytest.mark.spec("DATA-20", "FM-11")
def test_a_calibrated_image_is_scored_as_it_is_returned() -> None:
    """No gain is fitted where none is applied: an image 20 % too strong is reported as that."""
    scan = roles(make_scan(mask=True))
    strong = image_of(scan, factor=math.sqrt(1.2))
    done = score(strong, scan, "stub")
    assert done.image is strong
    for figures, frames in ((done.train, scan.train_frames), (done.heldout, scan.heldout_frames)):
        assert figures is not None
        assert_figures(figures, by_hand(rate_of(done.image, scan, frames), scan, frames), len(frames))
    right = score(image_of(scan), scan, "stub")
    assert done.train.fourier_error > right.train.fourier_error + 0.005
    assert right.train.deviance == pytest.approx(1, abs=0.05)
    assert done.train.deviance > 1.7


@pytest.mark.spec("DATA-20", "FM-11")
@pytest.mark.parametrize("level", [0.0, 0.7])
def test_the_gain_of_an_uncalibrated_image_is_found_by_counts_and_returned(level: float) -> None:
    background = np.full((N, N), level) * (1 + np.arange(N) / N) if level else None
    raw = make_scan(mask=True, background=background, probe_calibrated=False)
    scan = roles(raw)
    weak = image_of(scan, factor=0.4j, scale=0.3)
    done = score(weak, scan, "stub")
    frames, good = scan.train_frames, raw.mask
    before = oracle_counts(weak, scan, frames)[:, good].sum()
    base = 0.0 if background is None else len(frames) * background[good].sum()
    gain_squared = (raw.read_counts(frames)[:, good].sum(dtype=float) - base) / (before - base)
    assert done.image.scale == pytest.approx(0.3 * gain_squared, rel=1e-5)
    assert done.image.scale == pytest.approx(1 / 0.4**2, rel=0.02)  # of the true rate
    after = rate_of(done.image, scan, frames)
    assert after[:, good].sum() == pytest.approx(raw.frame_totals[frames].sum(), rel=1e-5)
    assert_figures(done.train, by_hand(after, scan, frames), len(frames))
    assert weak.scale == 0.3
    # of the training frames alone: what held-out frames hold moves nothing
    counts = raw.read_counts(np.arange(raw.n_frames)).copy()
    counts[HELDOUT] *= 7
    given = {"mask": raw.mask, "background": background}
    other = roles(RawData.from_arrays(counts, raw.positions_px, raw.probe, **given))
    assert score(weak, other, "stub").image.scale == pytest.approx(done.image.scale, rel=1e-12)


@pytest.mark.spec("FM-11")
def test_an_image_without_a_scale_is_an_error_and_not_a_gain_of_one() -> None:
    raw = make_scan(probe_calibrated=False)
    scan = roles(raw)
    with pytest.raises(BackendError, match=r"expects no light in its 50 frames \(0 counts above the background"):
        score(image_of(scan, factor=0.0), scan, "stub")
    level = 1.01 * raw.frame_totals.mean() / N**2
    drowned = replace(scan, raw=replace(raw, background=np.full((N, N), level, np.float32)))
    with pytest.raises(DataError, match=r"its background accounts for .* counts of 50 frames, which hold"):
        score(image_of(scan), drowned, "stub")


@pytest.mark.spec("DATA-20")
def test_figures_of_training_and_held_out_frames_are_kept_apart() -> None:
    raw = make_scan()
    counts = raw.read_counts(np.arange(raw.n_frames)).copy()
    counts[HELDOUT] = counts[HELDOUT][:, ::-1, ::-1]
    spoilt = roles(RawData.from_arrays(counts, raw.positions_px, raw.probe, probe_calibrated=True))
    done, whole = score(image_of(spoilt), spoilt, "stub"), score(image_of(roles(raw)), roles(raw), "stub")
    assert done.train == whole.train
    assert done.heldout.deviance > 10 * whole.heldout.deviance
    assert (done.train.n_frames, done.heldout.n_frames) == (50, 3)
    assert done.figures_of(np.array(HELDOUT)) == done.heldout
    assert score(image_of(spoilt), PtychoDataContainer.of(raw), "stub").heldout is None


@pytest.mark.spec("DATA-16", "DATA-18", "DATA-20")
def test_unused_frames_are_not_looked_at_and_are_counted_by_reason() -> None:
    raw = make_scan(dark=(9,), mask=True)

    class Watched:
        shape = raw.frames.shape
        asked: list[int] = []  # noqa: RUF012

        def read(self, numbers: np.ndarray) -> np.ndarray:
            self.asked.extend(numbers.tolist())
            return raw.frames.read(numbers)

    source = Watched()
    scan = roles(RawData.from_arrays(source, raw.positions_px, raw.probe, probe_calibrated=True, mask=raw.mask))
    source.asked.clear()
    stats = {"dropped_patches": 2, "dropped_far_patches": 0, "sweeps": 9, "dropped_note": "x"}
    done = score(image_of(scan, stats=stats), scan, "stub")
    assert sorted(source.asked) == [i for i in range(54) if i not in (5, 9)]
    assert not done.frame_sums[[5, 9]].any()
    assert (done.frame_sums[np.setdiff1d(np.arange(54), [5, 9]), SUMS.index("counts")] > 0).all()
    assert done.frame_sums.shape == (54, 8)
    assert done.dropped == {"frames: saturated": 1, f"frames: {NO_COUNTS}": 1, "masked pixels": 6, "patches": 2}


@pytest.mark.spec("DATA-20")
@pytest.mark.usefixtures("stub")
def test_an_engine_is_asked_for_its_own_forward_model() -> None:
    engine = OtherPhysics()
    scan = roles(make_scan())
    image = image_of(scan)
    done, oracle = score(image, scan, "stub", engine), score(image, scan, "stub")
    frames = scan.train_frames
    wanted = frame_sums(0.9 * rate_of(image, scan, frames), scan.raw.read_counts(frames), None)
    assert done.train == Figures.of(wanted)
    assert done.train.deviance > oracle.train.deviance
    assert set(done.examples) == set(done.typical_frames().values())
    for frame, rate in done.examples.items():  # what is drawn beside the measured frames
        np.testing.assert_allclose(rate, 0.9 * rate_of(image, scan, np.array([frame]))[0], rtol=1e-5)
    loose = roles(make_scan(probe_calibrated=False))
    bright, plain = (score(image_of(loose), loose, "stub", e) for e in (engine, None))
    assert bright.image.scale == pytest.approx(plain.image.scale / 0.9, rel=1e-5)


@pytest.mark.spec("DATA-20", "BE-5", "CONV-9")
@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda rate: rate[:-1], BackendProtocolError, "expected_counts returned float64"),
        (lambda rate: rate.tolist(), BackendProtocolError, "expected_counts returned list; it must be float32 or"),
        (lambda rate: rate.astype(int), BackendProtocolError, "expected_counts returned int64"),
        (lambda rate: -rate, BackendError, "negative or not finite"),
        (lambda rate: rate * np.nan, BackendError, "negative or not finite"),
    ],
)
def test_a_forward_model_that_gives_no_counts_is_named(answer: Any, kind: type, words: str) -> None:
    class Broken(OtherPhysics):
        def expected_counts(self, image: Any, scan: Any, frames: Any) -> Any:
            return answer(rate_of(image, scan, frames))

    scan = roles(make_scan())
    with pytest.raises(kind, match=rf"engine 'stub'.*{words}"):
        score(image_of(scan), scan, "stub", Broken())


@pytest.mark.spec("FM-11")
def test_the_score_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = roles(make_scan(mask=True, probe_calibrated=False))
    whole = score(image_of(scan), scan, "stub")
    monkeypatch.setattr("ptycho_core.api.score._CHUNK_BYTES", 1)
    single = score(image_of(scan), scan, "stub")
    np.testing.assert_allclose(single.frame_sums, whole.frame_sums, rtol=1e-9)
    assert single.image.scale == pytest.approx(whole.image.scale, rel=1e-12)


@pytest.mark.spec("CONV-9")
def test_an_image_of_another_scan_is_refused() -> None:
    scan = roles(make_scan())
    image = image_of(scan)
    part = PtychoDataContainer.of(scan.raw.subset(np.arange(20)))
    with pytest.raises(DataError, match=r"scan\.npz: it has 20 frames of 32×32, but the image was made from 54"):
        score(image, part, "stub")
    with pytest.raises(DataError, match="with a probe of 8×8"):
        score(replace(image, probe=image.probe[:, :8, :8]), scan, "stub")


@pytest.mark.spec("BE-18")
def test_the_held_out_loss_is_that_of_the_held_out_frames_in_the_loss_asked_for() -> None:
    scan = roles(make_scan())
    done: Scored = score(image_of(scan, factor=1.05), scan, "stub")
    held = rate_of(done.image, scan, scan.heldout_frames)
    k = scan.raw.read_counts(scan.heldout_frames).astype(float)
    assert heldout_loss(done, "amplitude") == pytest.approx(((np.sqrt(held) - np.sqrt(k)) ** 2).sum(), rel=1e-6)
    other = score(image_of(scan, factor=0.98), scan, "stub")
    rates = [rate_of(s.image, scan, scan.heldout_frames) for s in (done, other)]
    poisson = [(lam - k * np.log(lam)).sum() for lam in rates]
    # up to a constant of the data, and twice: the deviance is twice the logarithm of a ratio
    found = heldout_loss(done, "poisson") - heldout_loss(other, "poisson")
    assert found == pytest.approx(2 * (poisson[0] - poisson[1]), rel=1e-6)
    alone = score(image_of(scan), PtychoDataContainer.of(scan.raw), "stub")
    assert heldout_loss(alone, "amplitude") == pytest.approx(alone.frame_sums[:, SUMS.index("sq_error")].sum())
