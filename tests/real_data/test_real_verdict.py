"""Verdicts on real scans: as they are, and with what goes wrong with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ptycho_core
from ptycho_core.config import TrainingConfig
from ptycho_core.config_mapping import config_from_mapping
from ptycho_core.data.raw import RawData
from ptycho_core.data.verdict import Verdict
from ptycho_core.io import read_scan
from ptycho_core.physics.probe import aperture_probe

pytestmark = pytest.mark.real_data

QUICK = replace(config_from_mapping(TrainingConfig, ptycho_core.preset("quick")), seed=0)


@pytest.fixture(scope="module")
def star(shared_data):
    raw = read_scan(shared_data / "siemens_star_64.npz", measurement="amplitude")
    return RawData.from_arrays(raw.read_counts(np.arange(raw.n_frames)), raw.positions_px, raw.probe)


def at(raw: RawData, positions: np.ndarray) -> RawData:
    return RawData.from_arrays(raw.read_counts(np.arange(raw.n_frames)), positions, raw.probe)


def verdict_of(raw: RawData) -> Verdict:
    found = ptycho_core.run(raw, QUICK, despite_findings=True).verdict
    assert found is not None
    return found


@pytest.mark.spec("VERDICT-4")
def test_the_star_is_an_image(star):
    found = verdict_of(star)
    assert found.kind == "above_noise"
    assert found.figures["foretold_share"] > 0.8  # measured: 0.86
    assert found.figures["noise_factor"] == pytest.approx(2.0, abs=0.3)


@pytest.mark.spec("VERDICT-3", "VERDICT-6")
@pytest.mark.parametrize(
    ("turn", "word"),
    [
        (lambda p: p[:, ::-1].copy(), "transpose"),
        (lambda p: p * [-1, 1], "flip_y"),
        (lambda p: -p, "flip_y+flip_x"),
    ],
)
def test_a_wrong_orientation_of_the_star_is_named(star, turn, word):
    found = verdict_of(at(star, turn(star.positions_px)))
    assert found.kind == "no_image"
    assert found.figures["foretold_share"] < 0.1  # measured: 0.03
    assert f"--orientation {word} explains held-out frames at 0.013" in found.sentence


@pytest.mark.spec("VERDICT-3")
def test_the_star_with_its_frames_in_another_order_is_none(star):
    found = verdict_of(at(star, np.random.default_rng(0).permutation(star.positions_px)))
    assert found.kind == "no_image"
    assert [reason.name for reason in found.reasons] == ["not_foretold"]


@pytest.mark.spec("VERDICT-6")
def test_a_wrong_probe_of_the_star_is_named(star, monkeypatch):
    monkeypatch.setattr("ptycho_core.api.diagnose.LONGEST_S", 600.0)
    found = verdict_of(star.with_probe(aperture_probe(star.side, star.side * 0.3)))
    assert found.kind == "no_image"
    assert "the probe is another one" in found.sentence
    assert "--probe auto" in found.advice


@pytest.mark.spec("VERDICT-4")
def test_gold_balls_with_their_probe_are_an_image(shared_data):
    raw = read_scan(shared_data / "gold_balls_104.cxi")
    with np.load(shared_data / "gold_balls_104_truth.npz") as truth:
        raw = raw.with_probe(truth["probe"])
    found = verdict_of(raw)
    assert found.is_image
    assert found.figures["foretold_share"] > 0.8  # weak: frames differ by 6 %
