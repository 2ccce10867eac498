"""The reader that the guide opens with: one file, found by its entry point, for files of a container of its own."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from stub_engines import install

from ptycho_core.cli.main import main
from ptycho_core.errors import DataError
from ptycho_core.io import read_scan

SOURCE = Path(__file__).parent / "small_reader" / "small_reader.py"
PIXEL_M = 3e-8


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lay the reader out as pip does."""
    site = tmp_path / "site"
    site.mkdir()
    modules = {"small_reader": SOURCE.read_text(encoding="utf-8")}
    install(site, "small-reader", {"small": "small_reader"}, modules, group="ptycho.readers", version="0.1.0")
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("small_reader", None)


def write_small(path: Path, cut: int = 0, **head: object) -> tuple[np.ndarray, np.ndarray]:
    """A scan of 7 frames of 32×32, more in y than in x; return counts and positions in pixels."""
    rng = np.random.default_rng(4)
    counts = rng.poisson(3.0, (7, 32, 32)).astype("<u2")
    positions = np.stack([np.arange(7) * 4.25, np.arange(7) * 1.5 - 2], axis=1)
    line = json.dumps({"frames": 7, "side": 32, "pixel_size_m": PIXEL_M} | head).encode()
    data = b"SMALLSCAN" + line + b"\n" + (positions * PIXEL_M).tobytes() + counts.tobytes()
    path.write_bytes(data[: len(data) - cut])
    return counts, positions


def test_a_scan_is_read_whatever_its_name(installed, tmp_path, capsys):
    counts, positions = write_small(tmp_path / "scan.npz")
    raw = read_scan(tmp_path / "scan.npz")
    np.testing.assert_array_equal(raw.read_counts(range(7)), counts)
    np.testing.assert_allclose(raw.positions_px, positions, rtol=1e-12, atol=1e-12)
    assert raw.source.dialect == "small"
    assert main(["inspect", str(tmp_path / "scan.npz")]) in (0, 2)
    assert "small" in capsys.readouterr().out


@pytest.mark.spec("PLUG-15")
def test_a_damaged_file_names_reader_and_file(installed, tmp_path):
    write_small(tmp_path / "cut.dat", cut=4)
    with pytest.raises(DataError, match=r"cut\.dat: 7166 of 7168 pixels are there"):
        read_scan(tmp_path / "cut.dat")
    (tmp_path / "torn.dat").write_bytes(b'SMALLSCAN{"frames": 7, "si')
    with pytest.raises(DataError, match=r"torn\.dat: reader 'small' \(small-reader 0\.1\.0\) failed .*JSONDecodeError"):
        read_scan(tmp_path / "torn.dat")
    with pytest.raises(DataError, match="counts"):
        read_scan(tmp_path / "cut.dat", measurement="amplitude")


def test_it_is_about_as_short_as_the_guide_says():
    code = [line for line in SOURCE.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 42


@pytest.mark.plugin
@pytest.mark.skipif(
    "small" not in importlib.metadata.entry_points(group="ptycho.readers").names,
    reason="the small reader is not installed: pip install tests/plugins/small_reader",
)
def test_it_is_found_where_pip_installed_it(tmp_path, capsys):
    write_small(tmp_path / "scan.dat")
    assert read_scan(tmp_path / "scan.dat").n_frames == 7
    assert main(["readers"]) == 0
    assert "small-reader 0.1.0" in capsys.readouterr().out
