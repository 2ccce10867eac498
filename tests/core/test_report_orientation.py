"""The part of a report that shows how the orientation of a scan was found."""

from __future__ import annotations

import re
from dataclasses import replace

from orient_scan import plain_scan

from ptycho_core.api.orient_on_reading import with_found_orientation
from ptycho_core.data.orientation import inverse_of, oriented
from ptycho_core.io.reconstruction_file import plain_json
from ptycho_core.report.orientation import orientation_section


def test_a_row_for_each_orientation_that_was_tried_and_the_used_one_stands_out() -> None:
    right, found = with_found_orientation(oriented(plain_scan(), inverse_of("transpose+flip_x")))
    page = orientation_section(plain_json(right.source.details))
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>(.*?)</tr>", page)
    assert [word for word, _ in rows] == [trial.tried["orientation"] for trial in found.trials]
    assert rows[0][0] == "transpose+flip_x"
    assert f"<strong>{found.trials[0].heldout_deviance:.4g}</strong>" in rows[0][1]
    assert "<strong>used</strong>" in rows[0][1]
    assert all("<strong>" not in cells for _, cells in rows[1:])
    assert f"on the same {found.n_frames} frames" in page
    assert "<li>" not in page


def test_what_was_not_told_is_said_and_figures_that_are_not_finite_are_no_numbers() -> None:
    _, found = with_found_orientation(plain_scan())
    doubtful = replace(
        found, alike=("none", "flip_x"), certain=False, reasons=("positions <lie> on a line along y",)
    ).to_mapping()
    doubtful["trials"][1]["fourier_error"] = None
    page = orientation_section({"orientation": doubtful})
    assert "<strong>used, not told apart</strong>" in page
    assert page.count("not told apart") == 2
    assert "<li>Positions &lt;lie&gt; on a line along y.</li>" in page
    assert "<td>–</td>" in page


def test_a_scan_whose_orientation_was_not_tried_has_no_such_part() -> None:
    assert orientation_section({}) == ""
    assert orientation_section({"orientation": {"trials": [], "how": "shadow"}}) == ""
