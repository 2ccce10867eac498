"""From what a caller holds to a container: probe, modes, roles, views of one scan, orientation."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from io_scans import assert_same_scan
from run_engine import CONFIG, N, make_scan

from ptycho_core.api.prepare import (
    NOT_DRAWN,
    container_of_views,
    ensure_container,
    joined_views,
    of_one_experiment,
    pair_of_views,
)
from ptycho_core.data.container import NO_COUNTS, PtychoDataContainer, Statistics
from ptycho_core.data.orientation import orient_scan
from ptycho_core.data.raw import ObjectGuess, RawData, Source
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.io import write_scan
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import add_modes


class TestRoles:
    @pytest.mark.spec("DATA-17", "DATA-12")
    @pytest.mark.parametrize("how", ["random", "region"])
    def test_the_split_of_the_config_is_the_split_of_the_scan(self, how):
        raw, config = make_scan(), replace(CONFIG, test_split=how)
        scan = ensure_container(raw, config)
        train, test = raw.split(0.2, 3, how)
        np.testing.assert_array_equal(scan.train_frames, train.frame_numbers)
        np.testing.assert_array_equal(scan.heldout_frames, test.frame_numbers)
        assert scan.statistics == Statistics.of(raw, scan.train_frames)
        assert ensure_container(raw, replace(config, seed=4)).role.tolist() != scan.role.tolist()
        assert not len(ensure_container(raw, replace(config, test_fraction=0.0)).heldout_frames)

    @pytest.mark.spec("DATA-18")
    def test_frames_that_are_not_drawn_are_unused_and_held_out_ones_are_among_the_drawn(self):
        raw = make_scan(dark=(5,))
        scan = ensure_container(raw, replace(CONFIG, n_subsample=30))
        drawn = raw.subsample(30, 3).frame_numbers
        np.testing.assert_array_equal(scan.unused[NOT_DRAWN], np.setdiff1d(np.arange(54), drawn))
        np.testing.assert_array_equal(np.union1d(scan.used_frames, scan.unused.get(NO_COUNTS, [])), np.union1d(
            drawn, scan.unused.get(NO_COUNTS, [])))  # fmt: skip
        assert len(scan.heldout_frames) == 6
        assert np.isin(scan.heldout_frames, drawn).all()
        with pytest.raises(ConfigError, match="n_subsample = 99, but the scan has 54 frames"):
            ensure_container(raw, replace(CONFIG, n_subsample=99))
        with pytest.raises(ConfigError, match=r"test_fraction = 0\.9 leaves no training frame of 1"):
            ensure_container(raw, replace(CONFIG, n_subsample=1, test_fraction=0.9))

    @pytest.mark.spec("DATA-19", "CDI-5")
    def test_a_container_is_returned_as_it_is_or_refused(self):
        scan = PtychoDataContainer.of(make_scan(), heldout=[1], unused={"blank": [4, 6]})
        assert ensure_container(scan, CONFIG) is scan
        assert ensure_container(scan, replace(CONFIG, n_subsample=54, probe_modes=2)) is scan
        with pytest.raises(ConfigError, match="n_subsample = 30, but the container given for training was"):
            ensure_container(scan, replace(CONFIG, n_subsample=30))
        with pytest.raises(ConfigError, match=r"probe_modes = 1, .* with 2; say probe_modes = 2, or give the scan"):
            ensure_container(scan, replace(CONFIG, probe_modes=1))
        drawn = ensure_container(make_scan(), replace(CONFIG, n_subsample=30))
        assert ensure_container(drawn, replace(CONFIG, n_subsample=30)) is drawn

    def test_a_path_is_read_and_anything_else_refused(self, tmp_path):
        raw = make_scan()
        write_scan(tmp_path / "scan.npz", raw)
        for path in (tmp_path / "scan.npz", str(tmp_path / "scan.npz")):
            np.testing.assert_array_equal(ensure_container(path, CONFIG).role, ensure_container(raw, CONFIG).role)
        with pytest.raises(DataError, match="scan data are a dict; allowed: RawData, PtychoDataContainer, or"):
            ensure_container({}, CONFIG)


class TestProbe:
    def test_a_scan_without_probe_gets_one_that_is_found_and_says_so(self):
        level = np.full((N, N), 1.5)
        raw = replace(make_scan(background=level), probe=None)
        scan = ensure_container(raw, CONFIG)
        total = np.maximum(raw.subset(scan.train_frames).mean_pattern() - level, 0).sum()
        assert scan.probe_guess is not None
        np.testing.assert_array_equal(scan.probe, scan.probe_guess.probe)
        np.testing.assert_allclose(np.sum(np.abs(scan.probe) ** 2), total, rtol=1e-5)
        assert any("brought no probe; one was" in text for text in scan.raw.source.assumptions)
        assert ensure_container(make_scan(), CONFIG).probe_guess is None
        drowned = replace(make_scan(), probe=None, background=np.full((N, N), 1e4, np.float32))
        with pytest.raises(DataError, match="no probe, and none can be estimated"):
            ensure_container(drowned, CONFIG)

    @pytest.mark.spec("DATA-17")
    def test_frames_that_are_not_trained_on_are_not_in_an_estimated_probe(self):
        raw = replace(make_scan(probe_calibrated=False), probe=None)
        config = replace(CONFIG, n_subsample=40)
        one = ensure_container(raw, config)
        counts = raw.read_counts(np.arange(54)).copy()
        hidden = np.setdiff1d(np.arange(54), one.train_frames)
        counts[hidden] = 5 * counts[hidden][:, :, ::-1]
        other = RawData.from_arrays(counts, raw.positions_px)
        np.testing.assert_array_equal(ensure_container(other, config).probe, one.probe)
        views = joined_views(*other.split(0.2, 3))
        whole = ensure_container(raw, CONFIG)
        counts = raw.read_counts(np.arange(54)).copy()
        counts[whole.heldout_frames] *= 7
        views = joined_views(*RawData.from_arrays(counts, raw.positions_px).split(0.2, 3))
        np.testing.assert_array_equal(container_of_views(*views, CONFIG).probe, whole.probe)

    def test_probe_modes_are_added_or_the_strongest_kept(self):
        raw = make_scan()
        more = ensure_container(raw, replace(CONFIG, probe_modes=3, probe_trainable=True))
        np.testing.assert_array_equal(more.probe, add_modes(raw.probe, 3))
        assert more.raw.probe_calibrated
        with pytest.warns(UserWarning, match=r"probe_modes = 3 adds modes to the 2 .* Set probe_trainable") as caught:
            ensure_container(raw, replace(CONFIG, probe_modes=3))
        assert caught[0].filename == __file__
        assert len(ensure_container(raw, replace(CONFIG, probe_modes=1)).probe) == 1
        assert ensure_container(raw, replace(CONFIG, probe_modes=2)).raw is raw

    @pytest.mark.spec("CDI-10")
    @pytest.mark.parametrize(
        ("factor", "warns"), [(1.0, False), (1.09, False), (0.91, False), (1.11, True), (0.5, True)]
    )
    def test_nphotons_off_by_more_than_ten_percent_states_both(self, factor, warns):
        raw = make_scan(dark=tuple(range(40)))
        mean = raw.frame_totals[40:].mean()  # of the frames that are used
        config = replace(CONFIG, nphotons=float(mean * factor))
        for given in (raw, PtychoDataContainer.of(raw)):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                ensure_container(given, config)
            assert len(caught) == warns
            told: list[str] = []
            ensure_container(given, config, tell=told.append)  # and is no warning then
            assert told == [str(one.message) for one in caught]
            if warns:
                text = str(caught[0].message)
                assert f"nphotons = {mean * factor:.6g}" in text
                assert f"{mean:.6g} counts a frame" in text
                assert caught[0].filename == __file__


class TestViews:
    @pytest.mark.spec("DATA-19")
    @pytest.mark.parametrize("part", [None, np.arange(3, 50)])
    def test_two_views_are_the_scan_with_roles(self, part):
        raw = make_scan(dark=(8,), mask=True)
        raw = raw if part is None else raw.subset(part)
        config = replace(CONFIG, test_split="region", nphotons=None)
        wanted = ensure_container(raw, config)
        train, test = raw.split(0.2, 3, "region")
        joined, heldout = joined_views(train, test)
        found = container_of_views(joined, heldout, config)
        np.testing.assert_array_equal(found.role, wanted.role)
        assert {k: v.tolist() for k, v in found.unused.items()} == {k: v.tolist() for k, v in wanted.unused.items()}
        assert found.statistics == wanted.statistics
        assert_same_scan(found.raw, raw)
        np.testing.assert_array_equal(found.raw.frame_numbers, raw.frame_numbers)
        # views of views, in another order
        pieces = (train.subset(np.arange(train.n_frames)[::-1]), test.subset(np.arange(test.n_frames)[::-1]))
        again, numbers = joined_views(*pieces)
        assert_same_scan(again, raw)
        np.testing.assert_array_equal(numbers, heldout)

    @pytest.mark.spec("DATA-18", "CDI-11")
    def test_of_views_as_many_frames_are_drawn_as_of_the_scan(self):
        config = replace(CONFIG, n_subsample=20)
        train, test = make_scan().split(0.2, 3)
        raw, heldout = joined_views(train, test)
        scan = container_of_views(raw, heldout, config)
        np.testing.assert_array_equal(scan.used_frames, ensure_container(raw, config).used_frames)
        np.testing.assert_array_equal(scan.heldout_frames, np.intersect1d(test.frame_numbers, scan.used_frames))
        assert ensure_container(scan, config) is scan
        with pytest.raises(ConfigError, match="n_subsample = 55, but the scan has 54 frames"):
            container_of_views(raw, heldout, replace(CONFIG, n_subsample=55))

    @pytest.mark.spec("DATA-17", "CONV-9")
    def test_views_with_a_common_frame_are_refused(self):
        raw = make_scan()
        with pytest.raises(DataError, match=r"scan\.npz: frame 20 is held out and trained on \(3 frames are both\)"):
            joined_views(raw.subset(np.arange(23)), raw.subset(np.arange(20, 40)))
        for test in (raw, raw.subset([3, 4])):
            with pytest.raises(DataError, match="is held out and trained on"):
                joined_views(raw, test)
        again = make_scan()  # the same file, read a second time
        with pytest.raises(DataError, match="frame 0 is held out and trained on"):
            joined_views(raw, again)
        with pytest.raises(DataError, match="frame 1 is held out and trained on"):
            joined_views(raw.subset([1, 2]), again)
        assert joined_views(raw.subset([1, 2]), again.subset([3])) is None

    def test_views_of_two_detectors_are_refused(self):
        train, test = make_scan(mask=True).split(0.2, 3)
        with pytest.raises(DataError, match="its mask is not that of the frames to train on; the two views"):
            joined_views(train, replace(test, mask=None))

    def test_two_scans_are_no_views(self, tmp_path):
        raw, other = make_scan(), make_scan(photons=3000.0)
        assert joined_views(raw, other) is None
        assert joined_views(raw.subset([1, 2]), other.subset([3])) is None
        assert pair_of_views("a.npz", raw) is None
        assert pair_of_views(raw, PtychoDataContainer.of(raw)) is None

    @pytest.mark.parametrize("what", ["mask", "background"])
    def test_a_second_scan_of_another_detector_is_refused(self, what):
        plane = np.ones((N, N), bool if what == "mask" else np.float32)
        plane[3, 5] = 0
        like = PtychoDataContainer.of(make_scan(background=np.ones((N, N))))
        given: dict[str, Any] = {what: plane}
        with pytest.raises(DataError, match=f"its {what} is not that of the frames to train on; the two scans"):
            of_one_experiment(replace(make_scan(background=np.ones((N, N))), **given), like)
        small = RawData.from_arrays(np.ones((3, 16, 16)), [[0, 0], [4, 5], [9, 1]])
        with pytest.raises(DataError, match="frames are 16×16 but those of the training scan are 32×32"):
            of_one_experiment(small, like)
        other = of_one_experiment(replace(make_scan(background=np.ones((N, N))), probe=None), like)
        np.testing.assert_array_equal(other.probe, like.probe)
        assert other.probe_calibrated


class TestOrientation:
    def test_physics_stays_consistent_under_transposition(self):
        """Frames of the transposed object's patches are what the transposed scan holds."""
        rng = np.random.default_rng(4)
        obj = rng.normal(size=(40, 65)) + 1j * rng.normal(size=(40, 65))
        probe = rng.normal(size=(2, N, N)) + 1j * rng.normal(size=(2, N, N))
        corners = np.array([[0, 3], [8, 27], [5, 9]])
        rest = np.array([[0.25, -0.4], [-0.5, 0.1], [0.3, 0.45]])
        patches = extract(obj, corners, N)
        background = rng.uniform(size=(N, N))
        mask = rng.uniform(size=(N, N)) > 0.1
        counts = expected_counts(patches, probe, rest, 1.0, background)
        raw = RawData.from_arrays(counts, corners + rest + (N - 1) / 2, probe, mask=mask, background=background)
        turned = orient_scan(raw, transpose=True)
        again = expected_counts(patches.swapaxes(1, 2), turned.probe, rest[:, ::-1], 1.0, turned.background)
        np.testing.assert_allclose(turned.read_counts([0, 1, 2]), np.where(turned.mask, again, 0), rtol=2e-5)
        np.testing.assert_array_equal(turned.mask, mask.T)
        np.testing.assert_array_equal(turned.positions_px, raw.positions_px)
        np.testing.assert_array_equal(turned.frame_totals, raw.frame_totals)
        back = orient_scan(turned, transpose=True)
        np.testing.assert_array_equal(back.read_counts([1]), raw.read_counts([1]))

    def test_frames_stay_lazy_and_arrays_read_only(self):
        class Counting:
            shape = (54, N, N)
            n_reads = 0

            def read(self, numbers):
                self.n_reads += 1
                return np.ones((len(numbers), N, N), np.float32)

        source = Counting()
        raw = RawData.from_arrays(source, make_scan().positions_px, np.ones((N, N)))
        before = source.n_reads
        turned = orient_scan(raw, flip_x=True, flip_y=True, transpose=True)
        assert source.n_reads == before
        assert not turned.positions_px.flags.writeable
        assert not turned.probe.flags.writeable

    def test_it_says_what_it_did_and_leaves_the_given_object_out(self):
        guess = ObjectGuess(object=np.ones((40, 60), np.complex64), origin_px=np.zeros(2))
        raw = make_scan(object_guess=guess, source=Source(assumptions=("first",)))
        turned = orient_scan(raw, flip_x=True, transpose=True)
        assert turned.object_guess is None
        text = " | ".join(turned.source.assumptions)
        assert text.startswith("first | the x scan coordinate was negated | the axes of every frame")
        assert "object given with the scan was left out" in text
        assert orient_scan(raw) is raw
