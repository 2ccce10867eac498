"""What ``inspect`` says of the orientation: by a few sweeps with a probe, by the motion of the frames without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from orient_scan import lines, places, plain_scan, probe_of, scan_of
from test_io_near_field import near_counts, near_file

from ptycho_core.api.orientation_check import LARGEST_SIDE, check_orientation
from ptycho_core.data.orientation import composed, inverse_of, oriented
from ptycho_core.data.orientation_finding import HALF_TURN
from ptycho_core.data.propagation import FAR_FIELD
from ptycho_core.data.raw import RawData
from ptycho_core.inspection.examine import examine, inspect_scan
from ptycho_core.inspection.facts import Facts
from ptycho_core.io import read_scan, write_scan


def check(raw: RawData) -> tuple[str, str, Facts]:
    facts = Facts.of(raw)
    (found,) = check_orientation(raw, facts)
    return found.level, found.text, facts


@pytest.mark.spec("FIND-8")
def test_inspecting_warns_where_another_orientation_explains_the_frames_better(tmp_path) -> None:
    write_scan(tmp_path / "scan.h5", oriented(plain_scan(), inverse_of("transpose")))
    found = inspect_scan(tmp_path / "scan.h5", further=(check_orientation,))
    assert found.usable
    said = found.findings[-1]
    assert said.level == "warning"
    assert "Positions do not fit the frames as they are read: --orientation transpose explains" in said.text
    figures = found.facts["orientation_deviance"]
    assert len(figures) == 8
    assert figures["transpose"] < 0.4 * figures["none"]
    assert not any("orientation" in finding.text for finding in inspect_scan(tmp_path / "scan.h5").findings)


@pytest.mark.spec("FIND-8")
def test_it_says_what_it_cannot_tell_and_is_silent_where_it_has_nothing_to_say() -> None:
    level, text, _ = check(plain_scan())
    assert (level, text[:45]) == ("ok", "Positions fit the frames as they are: held-ou")
    level, text, _ = check(scan_of(lines(), probe_of(), places()))
    assert level == "note"
    assert "cannot tell its orientation (none, flip_x are alike)" in text
    level, text, _ = check(plain_scan().subset(np.arange(11)))
    assert level == "note"
    assert "11 frames with light are too few to tell" in text
    assert check_orientation(replace(plain_scan(), probe=None), Facts.of(plain_scan())) == []


def test_large_scans_are_left_to_the_command() -> None:
    raw = plain_scan()
    side = LARGEST_SIDE + 2
    big = RawData.from_arrays(np.ones((3, side, side)), raw.positions_px[:3], np.ones((side, side)))
    assert "'ptycho orient' does" in check(big)[1]


@pytest.mark.spec("FIND-4", "FIND-8")
def test_frames_that_move_along_other_axes_are_seen_at_no_cost(tmp_path) -> None:
    raw = read_scan(near_file(tmp_path / "near.cxi", *near_counts()))
    assert not [f for f in examine(raw) if "other axes" in f.text]
    wrong = oriented(raw, inverse_of("transpose+flip_x"))
    (said,) = [f for f in examine(wrong) if "other axes" in f.text]
    assert said.level == "warning"
    assert said.text.endswith("give --orientation transpose+flip_x.")
    assert check_orientation(wrong, Facts.of(wrong)) == []
    # as far-field frames they tell it up to a turn by half
    far = replace(wrong, propagation=FAR_FIELD, positions_px=wrong.positions_px / 4)
    (either,) = [f for f in examine(far) if "other axes" in f.text]
    assert either.text.endswith("(or with a turn by 180° besides).")
    word = either.text.partition("--orientation ")[2].split()[0]
    assert word in ("transpose+flip_x", composed("transpose+flip_x", HALF_TURN))
