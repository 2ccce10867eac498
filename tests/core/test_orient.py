"""Which way positions lie against the detector: found by trials, or by how the frames move, or said to be unknown."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from orient_scan import SHAPE, grainy, lines, places, plain_scan, probe_of, scan_of
from test_io_near_field import near_counts, near_file

from ptycho_core.api import contest
from ptycho_core.api.orient import (
    diagnose_orientation,
    find_orientation,
    twin_likeness,
    twin_of,
)
from ptycho_core.api.orient_on_reading import learned_from, with_found_orientation
from ptycho_core.api.prepare import ensure_container
from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.orientation import (
    ORIENTATIONS,
    axes_of_motion,
    composed,
    inverse_of,
    matrix_of,
    oriented,
    oriented_probe,
    rotated,
)
from ptycho_core.data.orientation_finding import HALF_TURN, OrientationFinding
from ptycho_core.data.raw import RawData
from ptycho_core.errors import Cancelled, ConfigError, DataError
from ptycho_core.io import read_scan
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import aperture_probe


@pytest.fixture(scope="module")
def plain() -> RawData:
    return plain_scan()


@pytest.fixture(scope="module")
def finding(plain: RawData) -> OrientationFinding:
    return find_orientation(plain)


@pytest.mark.spec("FIND-2")
@pytest.mark.parametrize("word", ORIENTATIONS)
def test_each_orientation_is_found_by_trials(plain: RawData, finding: OrientationFinding, word: str) -> None:
    """Positions are stored so that `word` puts them right."""
    found = find_orientation(oriented(plain, inverse_of(word)))
    assert found.orientation == word
    assert found.certain
    assert found.alike == (word,)
    assert found.changes == (word != "none")
    assert [t.misfit for t in found.trials] == sorted(t.misfit for t in found.trials)
    assert {t.tried["orientation"] for t in found.trials} == set(ORIENTATIONS)
    assert found.trials[0].heldout_deviance < 0.4 * found.trials[1].heldout_deviance
    assert found.gained > found.needed > 0
    # the same frames, whatever the orientation they came in
    assert found.trials[0].misfit == pytest.approx(finding.trials[0].misfit, rel=1e-4)
    if word != "none":
        assert f"--orientation {word} explains the frames better" in found.describe()


@pytest.mark.spec("FIND-2")
def test_trials_judge_by_frames_that_none_of_them_learned_from(plain: RawData, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def noted(raw, heldout, tried, **more):
        seen.append((raw.positions_px, raw.read_counts(heldout), tuple(heldout)))
        return orient_try_scan(raw, heldout, tried, **more)

    orient_try_scan = contest.try_scan
    monkeypatch.setattr(contest, "try_scan", noted)
    found = find_orientation(plain)
    assert len(seen) == 8
    assert len({held for _, _, held in seen}) == 1
    assert len(seen[0][2]) == found.n_heldout >= 12
    for word, (positions, counts, _) in zip(ORIENTATIONS, seen, strict=True):
        np.testing.assert_array_equal(counts, seen[0][1])
        np.testing.assert_array_equal(positions, oriented(plain, word).positions_px[_frames_of(plain, seen[0][0])])


def _frames_of(raw: RawData, positions: np.ndarray) -> np.ndarray:
    return np.array([int(np.flatnonzero((raw.positions_px == place).all(axis=1))[0]) for place in positions])


@pytest.mark.spec("FIND-2")
def test_held_out_frames_of_a_container_are_not_looked_at(plain: RawData) -> None:
    heldout = np.arange(3, plain.n_frames, 7)
    read: list[int] = []

    class Watched:
        shape = plain.frames.shape

        def read(self, numbers):
            read.extend(int(n) for n in numbers)
            return plain.frames.read(numbers)

    scan = PtychoDataContainer.of(replace(plain, frames=Watched()), heldout=heldout)
    assert find_orientation(scan).orientation == "none"
    assert read
    assert not set(read) & set(heldout.tolist())


@pytest.mark.spec("FIND-3")
def test_a_probe_that_is_its_own_twin_tells_no_turn_by_half() -> None:
    raw = scan_of(grainy(), probe_of(0.0), places(16, 12, 3.0))
    found = find_orientation(oriented(raw, "transpose"))
    assert set(found.alike) == {"transpose", "transpose+flip_y+flip_x"}
    assert found.twins
    assert not found.certain
    assert found.changes
    (reason,) = found.reasons
    assert "its own twin" in reason
    assert "only four classes" in reason
    assert found.describe().endswith("a turn by 180° cannot be told")
    as_it_is = find_orientation(raw)
    assert as_it_is.alike == ("none", HALF_TURN)
    assert not as_it_is.changes
    assert as_it_is.describe().startswith("positions fit the frames as they are")


def test_likeness_to_the_twin() -> None:
    assert twin_likeness(aperture_probe(32, 8.0)) == pytest.approx(1, abs=1e-6)
    shifted = np.roll(aperture_probe(32, 8.0), (3, -5), axis=(1, 2)) * np.exp(0.7j)
    assert twin_likeness(shifted) == pytest.approx(1, abs=1e-6)
    assert twin_likeness(aperture_probe(32, 8.0, defocus_px2=40.0)) < 0.9
    assert twin_likeness(probe_of()[None]) < 0.9


@pytest.mark.spec("FIND-3")
def test_a_symmetric_object_cannot_tell_and_the_stored_orientation_is_kept() -> None:
    raw = scan_of(lines(), probe_of(), places())
    found = find_orientation(raw)
    assert set(found.alike) == {"none", "flip_x"}
    assert found.orientation == "none"
    assert not found.certain
    assert not found.changes
    assert not found.twins
    assert "symmetric" in found.reasons[0]
    assert "cannot tell its orientation (none, flip_x are alike)" in found.describe()


@pytest.mark.spec("FIND-3")
@pytest.mark.parametrize("photons", [3e4, 5.0])
def test_an_object_that_is_not_there_tells_nothing(photons: float) -> None:
    obj = np.ones(SHAPE, complex) if photons > 100 else grainy()
    found = find_orientation(scan_of(obj, probe_of(), places(), photons=photons))
    assert found.orientation == "none"
    assert not found.certain
    assert not found.changes
    assert len(found.alike) > 4


@pytest.mark.spec("FIND-3")
def test_positions_on_a_line_tell_no_flip_across_it() -> None:
    raw = scan_of(grainy(), probe_of(), np.stack([np.linspace(14, 70, 40), np.full(40, 30.2)], axis=1))
    found = find_orientation(raw)
    assert set(found.alike) == {"none", "flip_x"}
    assert found.orientation == "none"
    assert "lie on a line along y" in found.reasons[0]


@pytest.mark.spec("FIND-3")
def test_too_few_frames_are_not_tried_on(plain: RawData) -> None:
    told: list[str] = []
    found = find_orientation(oriented(plain, "transpose").subset(np.arange(11)), tell=told.append)
    assert (found.how, found.orientation, found.certain, found.trials) == ("none", "none", False, ())
    assert "11 of its frames have light" in told[0]
    assert "cannot be told" in found.describe()


def test_a_second_round_refines_the_probe_where_the_first_cannot_tell(plain: RawData) -> None:
    """With too small an aperture sweeps of the object alone tell too little."""
    off = aperture_probe(plain.side, 5.0, defocus_px2=30.0)
    events = []
    raw = oriented(plain.with_probe(off), "flip_y")
    found = find_orientation(raw, progress=events.append)
    assert [event.done for event in events] == [1, 2, 3, 4, 5, 6, 7, 8] * 2
    assert {event.stage for event in events} == {"orient"}
    assert found.alike == ("flip_y",)
    assert found.n_frames == plain.n_frames
    assert found.trials[0].heldout_deviance < 0.5 * diagnosed(raw).trials[0].heldout_deviance


def diagnosed(raw: RawData) -> OrientationFinding:
    """By the first round alone."""
    return diagnose_orientation(raw, TrainingConfig())


def test_the_cheap_form_makes_one_round_with_the_probe_it_is_given(plain: RawData) -> None:
    scan = PtychoDataContainer.of(oriented(plain, "transpose"), heldout=np.arange(0, 80, 10))
    events = []
    found = diagnose_orientation(scan, TrainingConfig(), progress=events.append)
    assert len(events) == 8
    assert found.orientation == "transpose"
    assert found.changes
    for scan_without, why in ((plain.subset(np.arange(9)), "too few"), (replace(plain, probe=None), "no probe")):
        cannot = diagnose_orientation(scan_without, TrainingConfig())
        assert cannot.how == "none"
        assert why in cannot.reasons[0]


def test_it_stops_when_asked_to_and_refuses_nonsense(plain: RawData) -> None:
    def stop(event):
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        find_orientation(plain, progress=stop)
    with pytest.raises(ConfigError, match="sweeps = 0"):
        find_orientation(plain, sweeps=0)


def test_a_finding_is_plain_data(finding: OrientationFinding) -> None:
    plain_data = finding.to_mapping()
    assert plain_data["orientation"] == "none"
    assert plain_data["trials"][0]["tried"] == {"orientation": "none"}
    assert plain_data["alike"] == ["none"]
    assert "next best" in finding.describe()


@pytest.mark.spec("FIND-4")
@pytest.mark.parametrize("word", ORIENTATIONS)
@pytest.mark.parametrize("angle", [0.0, 17.0, -40.0])
def test_the_motion_of_the_frames_tells_orientation_and_turn(word: str, angle: float) -> None:
    """Positions r′ are stored so that r = W R(a) r′; then s = ∓κ r."""
    rng = np.random.default_rng(3)
    stored = rng.normal(size=(40, 2)) * (3, 1)
    true = oriented_places(rotated(stored, angle), word)
    for sign, near in ((-1, True), (-1, False), (1, False)):
        matrix = np.linalg.lstsq(stored, sign * 2.7 * true, rcond=None)[0].T
        found, turn = axes_of_motion(matrix, near=near)
        again = oriented_places(rotated(stored, turn), found)
        if near:
            assert found == word
            assert turn == pytest.approx(angle)
        assert min(np.abs(again - true).max(), np.abs(again + true).max() if not near else np.inf) < 1e-6
        assert abs(turn) <= 45


def oriented_places(positions: np.ndarray, word: str) -> np.ndarray:
    return positions @ matrix_of(word).T


@pytest.mark.spec("FIND-4")
@pytest.mark.parametrize("mirrored", [False, True])
def test_what_refuses_a_turned_near_field_names_the_orientation_that_reads_it(tmp_path, mirrored: bool) -> None:
    counts, positions = near_counts()
    turned = np.rot90(counts, axes=(1, 2))
    path = near_file(tmp_path / "near.cxi", turned[:, ::-1] if mirrored else turned, positions)
    with pytest.raises(DataError) as refused:
        read_scan(path)
    word = re.search(r"--orientation (\S+)\)", str(refused.value))[1]
    assert "transpose" in word
    assert word.count("flip") % 2 == (0 if mirrored else 1)
    raw = read_scan(path, orientation=word)
    assert raw.propagation.is_near
    found = find_orientation(raw)
    assert (found.how, found.orientation, found.certain) == ("shadow", "none", True)
    again = find_orientation(oriented(raw, inverse_of("flip_x")))
    assert (again.how, again.orientation, again.changes) == ("shadow", "flip_x", True)
    assert "use --orientation flip_x" in again.describe()


@pytest.mark.spec("FIND-3")
def test_the_twin_of_a_probe_explains_positions_turned_by_half(plain: RawData) -> None:
    """With the conjugate object turned; so the frames cannot tell the two apart."""
    probe = plain.probe * np.exp(0.3j)
    turned_places = 90.0 - plain.positions_px
    rates = []
    for obj, light, at in (
        (grainy(), probe, plain.positions_px),
        # the object's pixel r lies at 90 - r on the turned axes
        (
            np.conj(np.pad(grainy(), ((0, 91 - SHAPE[0]), (0, 91 - SHAPE[1])))[::-1, ::-1]),
            twin_of(probe),
            turned_places,
        ),
    ):
        corner = at - (plain.side - 1) / 2
        whole = np.floor(corner + 0.5).astype(np.int64)
        rates.append(expected_counts(extract(obj, whole, plain.side), light, corner - whole))
    np.testing.assert_allclose(rates[1], rates[0], rtol=1e-3, atol=1e-4 * rates[0].max())


@pytest.mark.spec("FIND-7")
@pytest.mark.parametrize("word", ["none", "transpose"])
def test_a_scan_without_a_probe_finds_both_together_up_to_the_twin(word: str) -> None:
    true = aperture_probe(24, 7, defocus_px2=30.0)
    raw = scan_of(grainy(), true[0], places(16, 12, 3.0))
    read = oriented(replace(raw, probe=None), inverse_of(word))
    told: list[str] = []
    found = find_orientation(read, tell=told.append)
    assert found.orientation == word
    assert set(found.alike) == {word, composed(word, HALF_TURN)}
    assert not found.certain
    assert found.changes == (word != "none")
    assert "other sign of the defocus" in told[0]
    right, again = with_found_orientation(read)
    assert again.orientation == word
    np.testing.assert_array_equal(right.positions_px, oriented(read, word).positions_px)
    likeness = np.abs(np.fft.ifft2(np.fft.fft2(right.probe[0]) * np.conj(np.fft.fft2(true[0])))).max()
    assert likeness / np.linalg.norm(right.probe[0]) / np.linalg.norm(true[0]) > 0.95
    assert right.source.details["orientation"]["alike"] == list(again.alike)
    assert right.source.details["probe"]["convincing"]


@pytest.mark.spec("FIND-7")
def test_frames_that_a_run_holds_out_choose_nothing(plain: RawData) -> None:
    config = TrainingConfig(test_fraction=0.2, n_subsample=70, seed=4, test_split="region")
    frames = learned_from(plain, config)
    np.testing.assert_array_equal(frames, ensure_container(plain, config).train_frames)
    read: list[int] = []

    class Watched:
        shape = plain.frames.shape

        def read(self, numbers):
            read.extend(int(n) for n in numbers)
            return plain.frames.read(numbers)

    right, found = with_found_orientation(
        oriented(replace(plain, frames=Watched()), inverse_of("flip_y+flip_x")), frames=frames
    )
    assert found.orientation == "flip_y+flip_x"
    assert read
    assert set(read) <= set(frames.tolist())
    np.testing.assert_array_equal(right.positions_px, plain.positions_px)
    assert any("orientation flip_y+flip_x was found" in text for text in right.source.assumptions)


@pytest.mark.spec("FIND-2")
@pytest.mark.parametrize("word", ["flip_y", "transpose+flip_x"])
def test_flipped_frames_are_the_same_as_one_of_the_eight_and_the_probe_follows(plain: RawData, word: str) -> None:
    """The detector is read the wrong way; positions and probe are right in themselves."""
    counts = plain.read_counts(np.arange(plain.n_frames))
    if "transpose" in word:
        counts = counts.swapaxes(1, 2)
    for axis, part in ((1, "flip_y"), (2, "flip_x")):
        if part in word:
            counts = np.roll(np.flip(counts, axis), 1, axis)  # about pixel N/2, where zero frequency is
    mirrored = np.random.default_rng(1).normal(size=plain.probe.shape)  # of no symmetry at all
    for probe in (plain.probe, plain.probe * (1 + 0.02 * mirrored)):
        right, found = with_found_orientation(RawData.from_arrays(counts, plain.positions_px, probe))
        assert found.orientation == word
        assert found.certain
        assert found.probe_follows
        assert "flipped against both" in found.reasons[-1]
        np.testing.assert_array_equal(right.probe, oriented_probe(probe.astype(np.complex64), word))
        again = find_orientation(right)
        assert again.orientation == "none"
        assert again.trials[0].heldout_deviance < 3


def test_a_probe_that_is_right_does_not_follow(plain: RawData) -> None:
    right, found = with_found_orientation(oriented(plain, "flip_y"))
    assert not found.probe_follows
    assert right.probe is plain.probe
