"""The page of an inspection: what is in the scan, findings with their fix, usable or not, and nothing that acts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from report_scan import make_raw

from ptycho_core.cli import main as cli
from ptycho_core.inspection.examine import inspect_scan
from ptycho_core.inspection.facts import Facts
from ptycho_core.io.write import write_scan
from ptycho_core.report.inspection import LookedAt, _beams, inspection_page


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspected") / "a <b> scan.npz"
    write_scan(path, make_raw(pixel_size_m=26e-9))
    return path


def page_of(path: Path, **options: str) -> tuple[str, list[LookedAt]]:
    seen: list[LookedAt] = []

    def look(raw: object, facts: Facts) -> None:
        seen.append(LookedAt(raw=raw, mean=facts.mean, stuck=facts.stuck, at_peak=facts.at_peak, figures=facts.figures))

    found = inspect_scan(path, seen=look, **options)
    return inspection_page(found.to_mapping(), seen[0] if seen else None, ("inspect", str(path), "--report")), seen


def test_the_page_has_pictures_findings_and_the_command(scan: Path) -> None:
    page, seen = page_of(scan)
    assert page.count("data:image/png;base64,") == 4
    assert "could not be drawn" not in page
    assert seen[0].raw.n_frames == 77
    assert "77 of 32×32 pixels" in page
    assert "1 frame" in page  # the one without counts is told of
    assert '<li class="ok"><strong>Good</strong>' in page
    assert "ptycho inspect" in page
    assert "<b>" not in page
    assert "a &lt;b&gt; scan.npz" in page
    assert page.count("<script>") == 1


def test_findings_stand_with_the_worst_first_and_their_fix(scan: Path, tmp_path: Path) -> None:
    with np.load(scan) as file:
        np.savez(tmp_path / "unsaid.npz", **{name: file[name] for name in file.files if name != "measurement"})
    page, seen = page_of(tmp_path / "unsaid.npz")
    assert "Not usable as it is." in page
    levels = re.findall(r'<li class="(\w+)"><strong>', page)
    assert levels[0] == "error"
    assert levels == sorted(levels, key=["error", "warning", "note", "ok"].index)
    assert '<span class="option">--measurement</span>' in page
    assert seen  # it was supposed, and is shown: what is wrong with it can be seen
    assert page.count("data:image/png;base64,") == 4


def test_a_file_that_cannot_be_read_has_a_page_of_words(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 and no more")
    page, seen = page_of(tmp_path / "bad.npz")
    assert seen == []
    assert "Not usable as it is." in page
    assert "data:image" not in page


def test_beams_over_a_place_are_counted() -> None:
    beams, (left, right, bottom, top) = _beams(np.array([[0.0, 0.0], [0.0, 6.0], [40.0, 3.0]]), 12.0)
    assert beams.max() == 2

    def at(y: float, x: float) -> float:
        rows, columns = beams.shape
        return float(beams[int((y - top) / (bottom - top) * rows), int((x - left) / (right - left) * columns)])

    assert at(0, 3) == 2
    assert at(40, 3) == 1
    assert at(20, 3) == 0
    assert at(0, -4) == 1


@pytest.mark.spec("CMD-30")
def test_the_command_writes_it_where_it_is_asked_to(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = tmp_path / "small.npz"
    small.write_bytes(scan.read_bytes())
    assert cli.main(["inspect", "small.npz", "--report"]) == 0
    page = tmp_path / "small-inspection.html"
    assert page.is_file()
    assert "page      small-inspection.html" in capsys.readouterr().out
    assert cli.main(["inspect", "small.npz", "--report"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(["inspect", "small.npz", "--report=other.html", "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")
    assert (tmp_path / "other.html").is_file()
    before = small.read_bytes()
    assert cli.main(["inspect", "small.npz", "--report=small.npz", "--overwrite"]) == 2
    assert "is the scan itself" in capsys.readouterr().err
    assert small.read_bytes() == before
    assert cli.main(["inspect", "small.npz", "--overwrite"]) == 2
    assert "--report" in capsys.readouterr().err
