"""``ptycho convert`` and ``ptycho export``: from arguments to files, words and exit codes."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ptycho_core.cli import main as cli
from ptycho_core.io import read_scan, write_scan
from ptycho_core.simulation import simulate_scan

QUICK = ["--epochs", "2", "--group_size", "4", "--test_fraction", "0.25"]
INSTRUMENT = ["--energy_eV", "8.8keV", "--distance_m", "1.25", "--detector_pixel_size_m", "75um"]


def all_counts(path, **said):
    raw = read_scan(path, **said)
    return raw.read_counts(np.arange(raw.n_frames))


# ---- convert


def test_a_scan_is_converted_and_what_is_lost_is_said(scan, tmp_path, capsys):
    assert cli.main(["convert", str(scan), "out.cxi", *INSTRUMENT]) == 0
    said = capsys.readouterr().out
    assert "note      The object that came with the scan is left out: CXI" in said
    assert "written   out.cxi (CXI 1.6), 24 frames of 32×32" in said
    np.testing.assert_array_equal(all_counts("out.cxi"), all_counts(scan))
    assert cli.main(["convert", str(scan), "out.h5"]) == 0
    assert "note " not in capsys.readouterr().out


def test_what_is_read_is_what_is_written(scan, tmp_path):
    """Options of reading apply, also those that views on frames stand for."""
    assert cli.main(["convert", str(scan), "out.npz", "--crop", "16", "--frames", "2:20:3", "--compress"]) == 0
    read = read_scan(scan, crop=16, frames="2:20:3")
    again = read_scan("out.npz")
    assert again.frames.shape == (6, 16, 16)
    np.testing.assert_array_equal(again.read_counts(np.arange(6)), read.read_counts(np.arange(6)))
    np.testing.assert_array_equal(again.positions_px, read.positions_px)
    np.testing.assert_array_equal(again.probe, read.probe)


def test_a_probe_from_a_file_is_written(scan, tmp_path):
    raw = read_scan(scan)
    write_scan("without.npz", type(raw).from_arrays(all_counts(scan), raw.positions_px))
    np.savez("probe.npz", probe=raw.probe * 1j)
    assert cli.main(["convert", "without.npz", "out.h5", "--probe", "probe.npz"]) == 0
    np.testing.assert_array_equal(read_scan("out.h5").probe, raw.probe * np.complex64(1j))


def test_a_named_format_takes_the_suffix_that_it_may_have(scan, tmp_path, capsys):
    arguments = ["convert", str(scan), "out.h5", *INSTRUMENT, "--format"]
    assert cli.main([*arguments, "nxcxi_ptycho"]) == 0
    with h5py.File("out.h5") as h5:
        assert h5["entry_1/definition"].asstr()[()] == "NXcxi_ptycho"
    assert cli.main([*arguments, "ptychodus_training"]) == 2
    assert "out.h5: a file of format ptychodus_training ends in .npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "more", "words"),
    [
        ("out.cxi", [], "Give --energy_eV --distance_m --detector_pixel_size_m"),
        ("out.cxi", ["--pixel_size_m", "20nm"], "From the object pixel of 2e-08 m alone they do not follow"),
        ("scan.npz", [], "scan.npz: is a file that this command reads"),
        ("there.npz", [], "there.npz: is there already; pass --overwrite"),
        ("folder", ["--format", "hdf5"], "a file of format hdf5 ends in .h5 or .hdf5"),
        ("folder.h5", [], "folder.h5: is a folder"),
        ("out.tif", [], "found suffix '.tif'"),
        ("no/out.npz", [], "choose a folder that exists"),
    ],
)
def test_what_cannot_be_written_is_refused_in_a_line(scan, tmp_path, capsys, out, more, words):
    (tmp_path / "there.npz").write_bytes(b"mine")
    (tmp_path / "folder.h5").mkdir()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert cli.main(["convert", str(scan), out, *more]) == 2
    assert words in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_overwrite_replaces(scan, tmp_path):
    (tmp_path / "there.npz").write_bytes(b"mine")
    assert cli.main(["convert", str(scan), "there.npz", "--overwrite"]) == 0
    np.testing.assert_array_equal(all_counts("there.npz"), all_counts(scan))


def test_a_grave_finding_is_refused_here_too(tiny_simulation, tmp_path, capsys):
    raw = simulate_scan(tiny_simulation).raw
    counts = np.fft.ifftshift(raw.read_counts(np.arange(24)), axes=(1, 2))  # zero frequency at the corner
    write_scan("corner.npz", type(raw).from_arrays(counts, raw.positions_px, raw.probe))
    assert cli.main(["convert", "corner.npz", "out.h5"]) == 2
    assert "--despite_findings" in capsys.readouterr().err
    assert cli.main(["convert", "corner.npz", "out.h5", "--despite_findings"]) == 0


# ---- export


@pytest.fixture
def result(stub, scan, tmp_path):
    assert cli.main(["run", str(scan), *QUICK, "--out", "result"]) == 0
    return tmp_path / "result"


def test_an_image_is_exported_beside_its_folder(result, tmp_path, capsys):
    pytest.importorskip("tifffile")
    capsys.readouterr()
    assert cli.main(["export", "result", "--format", "tiff", "--pixel_size_m", "26e-9"]) == 0
    said = capsys.readouterr().out
    assert "written   result.tif (phase and amplitude" in said
    assert "note      A TIFF holds phase and amplitude" in said
    assert (tmp_path / "result.tif").is_file()
    assert cli.main(["export", "result", "--format", "tiff"]) == 2
    assert "result.tif: is there already; pass --overwrite" in capsys.readouterr().err
    assert cli.main(["export", "result", "--format", "tiff", "--overwrite"]) == 0


def test_the_suffix_of_out_chooses_and_lengths_have_units(result, tmp_path, capsys):
    assert cli.main(["export", "result/reconstruction.h5", "--out", "image.cxi", *INSTRUMENT]) == 0
    with h5py.File("image.cxi") as h5, h5py.File("result/reconstruction.h5") as made:
        np.testing.assert_array_equal(h5["entry_1/image_2/data"][0], made["entry/object"][()])
        assert h5["entry_1/instrument_1/detector_1/x_pixel_size"][()] == 75e-6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["result"], "no format is named; give --format, or --out with the suffix of one"),
        (
            ["result", "--out", "a.png"],
            "a.png: the suffix '.png' names no format; give --format, or --out with the suffix of one",
        ),
        (["result", "--format", "ptyr"], "give --pixel_size_m, or --energy_eV"),
        (["result", "--format", "npz", "--pixel_size_m", "-1"], "it must be a finite number > 0"),
        (["nothing", "--format", "npz"], "nothing: no such file"),
        (["result", "--out", "result/reconstruction.h5", "--overwrite", *INSTRUMENT], "the image was read from"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_line(result, tmp_path, capsys, arguments, words):
    before = (result / "reconstruction.h5").read_bytes()
    capsys.readouterr()
    assert cli.main(["export", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert (result / "reconstruction.h5").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result", "scan.npz"]
