"""What an inspection says of scans with one thing wrong each."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from io_scans import save

from ptycho_core.data.frames import ArrayFrames
from ptycho_core.data.raw import Geometry, RawData, Source
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.inspection.examine import DESPITE_FINDINGS, examine, inspect_scan, refuse_grave
from ptycho_core.inspection.facts import Facts
from ptycho_core.io import read_scan, write_scan
from ptycho_core.io.far_field import measure_shadow_motion
from ptycho_core.io.guarded.frames import GuardedFrames
from ptycho_core.physics.forward import expected_counts

M, N = 64, 32


def good_scan(seed=0, photons=2e5, stretch=1):
    """Far-field counts of a phase object under a defocused probe of known scale; 8×8 positions, y-range ≠ x-range."""
    rng = np.random.default_rng(seed)
    r = np.arange(N) - (N - 1) / 2
    probe = np.exp(-(r[:, None] ** 2 + r[None] ** 2) / 60 + 0.06j * (r[:, None] ** 2 + 1.3 * r[None] ** 2))[None]
    rows, columns = np.meshgrid(np.arange(8) * 4, np.arange(8) * 5, indexing="ij")
    corners = stretch * (np.stack([rows.ravel(), columns.ravel()], axis=1) + rng.integers(-1, 2, (M, 2)) + 1)
    obj = np.exp(0.8j * rng.random((N + stretch * 32, N + stretch * 40)))
    patches = np.stack([obj[y : y + N, x : x + N] for y, x in corners])
    rate = expected_counts(patches, probe, np.zeros((M, 2)))
    scale = photons / rate.sum(axis=(1, 2)).mean()
    return {
        "counts": rng.poisson(rate * scale).astype(np.float32),
        "positions_px": corners + (N - 1) / 2,
        "probe": probe * np.sqrt(scale),
    }


def inspect(tmp_path, **changes):
    write_scan(tmp_path / "scan.npz", RawData.from_arrays(**(good_scan() | changes)))
    found = inspect_scan(tmp_path / "scan.npz")
    json.dumps(found.to_mapping(), allow_nan=False)
    return found


def levels(found, level):
    return [finding.text for finding in found.findings if finding.level == level]


def only_warning(found):
    warnings = levels(found, "warning")
    assert len(warnings) == 1, warnings
    assert not levels(found, "error")
    return warnings[0]


def test_a_good_scan_has_no_warning_and_true_figures(tmp_path):
    scan = good_scan()
    found = inspect(tmp_path)
    assert levels(found, "warning") == levels(found, "error") == []
    assert found.usable
    assert (found.dialect, found.measurement, found.n_frames, found.side, found.n_probe_modes) == (
        "npz",
        "counts",
        M,
        N,
        1,
    )
    assert found.contents["diff3d"] == "(64, 32, 32) float32"
    assert found.facts["values_look_like"] == "counts"
    assert found.facts["mean_counts"] == pytest.approx(scan["counts"].sum() / M)
    assert found.facts["extent_px"] == np.ptp(scan["positions_px"], axis=0).tolist()
    assert found.facts["counts_per_probe_power"] == pytest.approx(1, abs=0.02)
    # |P|² = e^{−r²/30}: (ΣI)²/ΣI² = 60π, the area of a disk 4√15 wide
    assert found.facts["probe_width_px"] == pytest.approx(4 * np.sqrt(15), rel=0.02)
    step = found.facts["median_step_px"]
    assert found.facts["overlap"] == pytest.approx(1 - step / (4 * np.sqrt(15)), rel=0.02)


def test_zero_frames_and_outliers(tmp_path):
    counts = good_scan()["counts"]
    counts[5] = 0
    counts[17] = np.round(counts[17] / 2)
    found = inspect(tmp_path, counts=counts)
    empty, odd = levels(found, "warning")
    assert "1 frame has no counts, so is not used: 5." in empty
    assert "1 frame does not fit, with a total far from" in odd
    assert odd.split("): ")[1].startswith("17.")
    assert (found.facts["zero_count_frames"], found.facts["outlying_frames"]) == (1, 1)


@pytest.mark.parametrize("n_frames", [2, 4, 5])
def test_few_frames_prove_nothing(tmp_path, n_frames):
    scan = good_scan()
    few = {"counts": scan["counts"][:n_frames], "positions_px": scan["positions_px"][:n_frames]}
    warned = [text for text in levels(inspect(tmp_path, **few), "warning") if "prove nothing" in text]
    assert len(warned) == (n_frames < 5)


def test_a_frame_that_is_a_copy_of_another_is_named(tmp_path):
    counts = good_scan()["counts"]
    counts[21] = counts[20]  # the detector did not answer, and its writer stored the last frame again
    counts[22] = counts[20]
    found = inspect(tmp_path, counts=counts)
    assert "2 frames are copies, count by count, of one at another position: 21, 22." in only_warning(found)
    assert found.facts["repeated_frames"] == 2
    # the same light without noise at the same place is a repeat that is right
    positions = good_scan()["positions_px"].copy()
    positions[21:23] = positions[20]
    again = inspect(tmp_path, counts=counts, positions_px=positions)
    assert "copies" not in " ".join(levels(again, "warning"))
    # frames of equal totals are others
    counts = good_scan()["counts"]
    counts[21] = counts[20, ::-1]
    assert "copies" not in " ".join(levels(inspect(tmp_path, counts=counts), "warning"))


def test_dead_hot_and_masked_pixels(tmp_path):
    counts = good_scan()["counts"]
    counts[:, 15, 19] = 0
    counts[:, 3, 28] = 300
    mask = np.ones((N, N), bool)
    found = inspect(tmp_path, counts=counts)
    dead, hot = levels(found, "warning")
    assert "1 pixel is 0 amid or beside light, so dead: (15, 19)" in dead
    assert "1 pixel is hot" in hot
    assert "(3, 28)" in hot
    mask[15, 19] = mask[3, 28] = False
    found = inspect(tmp_path, counts=counts, mask=mask)
    assert levels(found, "warning") == []
    assert found.facts["masked_pixels"] == 2


def test_saturation(tmp_path):
    counts = good_scan()["counts"]
    ceiling = np.round(0.6 * counts.max())
    assert ceiling > 100
    found = inspect(tmp_path, counts=np.minimum(counts, ceiling))
    clipped = (counts >= ceiling).any(axis=0).sum()
    assert f"{clipped} pixels look saturated at {ceiling:g} counts" in only_warning(found)


def test_frames_that_were_not_shifted_and_frames_off_centre(tmp_path):
    counts = good_scan()["counts"]
    corner = inspect(tmp_path, counts=np.fft.fftshift(counts, axes=(1, 2)))
    assert any("sit at the corner" in text for text in levels(corner, "error"))
    some = np.fft.fftshift(counts, axes=(1, 2)) + counts / 5
    assert any("sit at the corner" in text for text in levels(inspect(tmp_path, counts=some), "warning"))
    off = inspect(tmp_path, counts=np.roll(counts, (3, -2), axis=(1, 2)))
    assert any("is 3.4 pixels from N/2 = 16. Crop" in text for text in levels(off, "warning"))
    np.testing.assert_allclose(off.facts["beam_centre_px"], [19, 14], atol=0.5)


def test_duplicate_positions_and_lonely_frames(tmp_path):
    positions = good_scan()["positions_px"].copy()
    positions = positions + np.random.default_rng(5).uniform(-0.3, 0.3, positions.shape)  # no chance twins
    positions[9] = positions[40]
    positions[63] += 200
    twins, lonely = levels(inspect(tmp_path, positions_px=positions), "warning")
    assert "2 frames share their position with another: 9, 40." in twins
    assert "1 frame overlaps with no other: 63." in lonely


def test_small_overlap(tmp_path):
    assert "poorly determined" in only_warning(inspect(tmp_path, **good_scan(stretch=3)))


def test_probe_on_another_scale_or_of_another_beam(tmp_path):
    probe = good_scan()["probe"]
    found = inspect(tmp_path, probe=probe * 10)
    assert levels(found, "warning") == []
    assert any("0.0099" in text and "not on the scale" in text for text in levels(found, "note"))
    assert "declared calibrated" in only_warning(inspect(tmp_path, probe=probe * 10, probe_calibrated=True))
    tilted = probe * np.exp(2j * np.pi * 9 * np.arange(N) / N)  # its far field lies 9 pixels to the side
    assert "a poor or a wrong probe" in only_warning(inspect(tmp_path, probe=tilted))
    none = inspect(tmp_path, probe=None)
    assert none.n_probe_modes == 0
    assert "overlap" not in none.facts
    assert len([text for text in levels(none, "note") if "No probe" in text]) == 2


def test_geometry_that_contradicts_itself(tmp_path):
    right = 1.239841984e-6 / 8000 * 2.0 / (N * 75e-6)
    known = {"energy_eV": 8000.0, "distance_m": 2.0, "detector_pixel_size_m": 75e-6}
    assert not levels(inspect(tmp_path, geometry=Geometry(**known, pixel_size_m=right)), "warning")
    wrong = inspect(tmp_path, geometry=Geometry(**known, pixel_size_m=2 * right))
    assert "λz/(N p)" in only_warning(wrong)
    assert wrong.facts["pixel_size_m"] == 2 * right


def test_unstated_measurement_is_an_error_that_does_not_stop_the_inspection(tmp_path):
    scan = good_scan()
    path = save(
        tmp_path / "a.npz",
        {},
        diff3d=np.sqrt(scan["counts"]),
        xcoords=scan["positions_px"][:, 1] + 0.5,
        ycoords=scan["positions_px"][:, 0] + 0.5,
        probeGuess=scan["probe"],
    )
    found = inspect_scan(path)
    assert not found.usable
    assert found.measurement is None
    assert "--measurement amplitude|counts (measurement=" in levels(found, "error")[0]
    assert any("supposes amplitude" in text for text in levels(found, "note"))
    assert found.facts["values_look_like"] == "amplitude"
    assert found.facts["mean_counts"] == pytest.approx(scan["counts"].sum() / M, rel=1e-5)
    assert not any("as asked for" in text for text in found.assumptions)
    asked = inspect_scan(path, measurement="amplitude")
    assert asked.usable
    assert asked.measurement == "amplitude"
    assert any("as asked for" in text for text in asked.assumptions)
    wrong = inspect_scan(path, measurement="counts")
    assert sum("look like amplitudes" in text for text in levels(wrong, "warning")) == 1
    with pytest.raises(ConfigError, match="photons"):
        inspect_scan(path, measurement="photons")


@pytest.mark.parametrize("content", [None, b"", b"not a scan", b"PK\x03\x04half", b"\x89HDF\r\n\x1a\n", b"BZh9x"])
def test_bad_files_are_findings_not_exceptions(tmp_path, content):
    path = tmp_path / "bad"
    if content is not None:
        path.write_bytes(content)
    found = inspect_scan(path)
    assert not found.usable
    (text,) = levels(found, "error")
    assert str(path) in text
    json.dumps(found.to_mapping())


def test_content_of_an_unusable_scan_is_still_listed(tmp_path):
    found = inspect_scan(save(tmp_path / "a.npz", {}, diff3d=np.zeros((3, 16, 16)), xcoords=np.arange(3)))
    assert found.contents == {"diff3d": "(3, 16, 16) float64", "xcoords": "(3,) int64"}
    assert "no ycoords" in levels(found, "error")[0]


def test_near_field_frames_without_geometry(tmp_path):
    rng = np.random.default_rng(3)
    sample, kappa = rng.random((60, 70)) ** 3, 0.25
    shifts = np.stack(np.divmod(rng.choice(28 * 38, M, replace=False), 38), axis=1)
    images = np.stack([sample[y : y + N, x : x + N] for y, x in shifts])
    found = inspect(tmp_path, counts=rng.poisson(200 * images + 5), positions_px=shifts / kappa, probe=None)
    assert "near-field scan" in only_warning(found)
    assert "or positions are not in object pixels" in only_warning(found)
    assert found.facts["shadow_px_per_object_px"] == pytest.approx(kappa, rel=0.05)
    # an undistorted picture that moves fast enough is a far-field scan with a defocused beam
    far = inspect(tmp_path, counts=rng.poisson(200 * images + 5), positions_px=shifts / 1.25, probe=None)
    assert levels(far, "warning") == []
    assert any("defocused beam" in text for text in levels(far, "ok"))
    # what does not move with the sample says nothing, wherever it was taken
    still = inspect(tmp_path, positions_px=rng.permutation(shifts) / kappa, counts=rng.poisson(200 * images + 5))
    assert "shadow_px_per_object_px" not in still.facts


GAP = (slice(None), slice(20, 23))  # columns between two modules


def scan_with_gap(tmp_path, value, dtype, measurement="counts", good=None, gap=GAP):
    """A file with a gap at one value in frames of a detector's own type, and what it reads as."""
    scan = good_scan()
    counts = np.minimum(scan["counts"], 4e4).astype(dtype)
    counts[(slice(None), *gap)] = value
    stored = counts if measurement == "counts" else np.sqrt(counts.astype(np.float64)).astype(np.float32)
    path = save(
        tmp_path / "gap.npz",
        {"diff3d": stored, "mask": good, "measurement": np.array(measurement), "pixel_centre": np.array("(N-1)/2")},
        ycoords=scan["positions_px"][:, 0],
        xcoords=scan["positions_px"][:, 1],
        probeGuess=scan["probe"],
    )
    return path, read_scan(path)


@pytest.mark.parametrize("measurement", ["counts", "amplitude"])
@pytest.mark.parametrize(
    ("value", "dtype"),
    [(2**32 - 1, np.uint32), (2**32 - 2, np.uint32), (2**31 - 1, np.int32), (65535, np.uint16), (32767, np.uint16)],
)
def test_a_gap_at_the_largest_value_of_a_type_is_masked_in_a_file_and_grave_in_arrays(
    tmp_path, value, dtype, measurement
):
    path, read = scan_with_gap(tmp_path, value, dtype, measurement)
    np.testing.assert_array_equal(np.argwhere(~read.mask.all(axis=0)).ravel(), [20, 21, 22])
    (said,) = [text for text in read.source.assumptions if "were masked" in text]
    assert said.startswith(f"{3 * N} pixels were masked: the largest number of a type in every frame")
    assert not [finding for finding in examine(read) if finding.level in ("warning", "error")]
    stored = np.load(path)["diff3d"]
    raw = RawData.from_arrays(ArrayFrames(stored, measurement), read.positions_px, source=Source(path=str(path)))
    findings = examine(raw)
    (grave,) = [finding for finding in findings if finding.grave]
    assert (grave.level, grave.override) == ("error", DESPITE_FINDINGS)
    assert f"{3 * N} pixels hold" in grave.text
    assert "(0, 20), (0, 21), (0, 22), (1, 20)" in grave.text
    assert not [finding for finding in findings if finding.level == "warning"], "the gap alone is said, and once"
    words = rf"^{path}: {3 * N} pixels hold .* --mask auto.*{DESPITE_FINDINGS}=True \(--{DESPITE_FINDINGS}\)\.$"
    with pytest.raises(DataError, match=words):
        refuse_grave(findings, raw)
    refuse_grave(findings, raw, despite=True)
    good = np.ones((N, N), bool)
    good[GAP] = False
    _, masked = scan_with_gap(tmp_path, value, dtype, measurement, good)
    assert not [finding for finding in examine(masked) if finding.level in ("warning", "error")]


def test_a_gap_at_a_made_up_value_is_grave_and_one_that_weighs_little_is_not(tmp_path):
    _, odd = scan_with_gap(tmp_path, 123456789, np.float32)
    assert any(finding.grave and "hold 123456792 in every frame" in finding.text for finding in examine(odd))
    # the same pixels, not quite as bright in one frame, and a pixel as bright as others that never varies
    scan = good_scan()
    counts = np.concatenate([scan["counts"], scan["counts"]])
    counts[:, 5, 6] = counts.max()
    places = np.concatenate([scan["positions_px"], scan["positions_px"] + 0.5])
    assert not any(finding.grave for finding in examine(RawData.from_arrays(counts, places)))
    scan["counts"][:, 31, 31] = 32767
    faint = RawData.from_arrays(**scan)
    (finding,) = [finding for finding in examine(faint) if finding.level == "warning"]
    assert "1 pixel holds 32767 in every frame" in finding.text
    refuse_grave([finding], faint)


@pytest.mark.parametrize("value", [2**31 - 1, 2**32 - 1, 65535])
def test_a_gap_shows_in_a_few_frames_and_through_the_rounding_of_roots(value):
    scan = good_scan()
    amplitude = np.sqrt(scan["counts"][:4])
    amplitude[:, *GAP] = np.sqrt(np.float64(value))
    raw = RawData.from_arrays(ArrayFrames(amplitude, "amplitude"), scan["positions_px"][:4])
    assert sum(finding.grave for finding in examine(raw)) == 1


def test_a_highest_value_that_is_met_often_is_not_saturation_where_those_below_it_are_too():
    counts = good_scan()["counts"]
    ceiling = np.round(0.6 * counts.max())
    counts = np.minimum(counts, ceiling) - np.arange(M)[:, None, None] % 8 * (counts >= ceiling)
    facts = Facts.of(RawData.from_arrays(counts, good_scan()["positions_px"]))
    assert facts.at_peak.sum() == (counts == ceiling).sum() >= 8
    assert facts.near_peak == ((counts > 0.98 * ceiling) & (counts < ceiling)).sum() > facts.at_peak.sum()


def test_light_that_reaches_the_largest_value_now_and_then_is_not_a_gap():
    scan = good_scan()
    counts = scan["counts"].copy()
    counts[:-1, 3, 4] = 65535
    raw = RawData.from_arrays(counts, scan["positions_px"])
    assert not any("in every frame" in finding.text for finding in examine(raw))


def test_what_is_grave_beside_gaps():
    scan = good_scan()

    def grave(**changes):
        findings = examine(RawData.from_arrays(**(scan | changes)))
        return " ".join(finding.text for finding in findings if finding.grave)

    def masked(n_good):
        good = np.zeros(N * N, bool)
        good[N * N // 2 + N // 2 - n_good // 2 :][:n_good] = True
        return good.reshape(N, N)

    assert grave() == ""
    assert "hides 1015 of 1024" in grave(mask=masked(9))
    assert grave(mask=masked(60)) == ""
    assert grave(positions_px=scan["positions_px"] * [30, 20]).startswith("64 frames overlap with no other")
    assert grave(positions_px=scan["positions_px"] + np.arange(M)[:, None] * (np.arange(M) >= 10)[:, None] * 50) == ""
    assert "They hold" in grave(counts=10 * np.minimum(scan["counts"], 27))
    assert grave(counts=np.minimum(scan["counts"], np.round(0.6 * scan["counts"].max()))) == ""


def test_a_near_field_scan_of_known_geometry_is_grave():
    rng = np.random.default_rng(3)
    sample, kappa = rng.random((60, 70)) ** 3, 0.25
    shifts = np.stack(np.divmod(rng.choice(28 * 38, M, replace=False), 38), axis=1)
    images = rng.poisson(200 * np.stack([sample[y : y + N, x : x + N] for y, x in shifts]) + 5)
    known = Geometry(energy_eV=8000.0, distance_m=2.0, detector_pixel_size_m=75e-6)
    raw = RawData.from_arrays(images, shifts / kappa, geometry=known)
    (grave,) = [finding for finding in examine(raw) if finding.grave]
    assert "near-field scan" in grave.text
    with pytest.raises(DataError, match=r"^scan: this is a near-field scan"):
        refuse_grave([grave], raw)


@pytest.mark.parametrize("name", ["siemens_star_64.npz", "tike_siemens_star_small.npz.bz2"])
def test_real_scans_are_not_refused(shared_data, name):
    raw = read_scan(shared_data / name, measurement="amplitude" if name == "siemens_star_64.npz" else None)
    assert not [finding for finding in examine(raw) if finding.level in ("warning", "error")]


def sparse_file(path, written):
    """A file that claims 100 GB of frames, of which a few are there."""
    M_large, side = 100_000, 512
    rng = np.random.default_rng(0)
    y, x = np.indices((side, side)) - side // 2
    beam = 200 * np.exp(-(x**2 + y**2) / 4000)
    rows, columns = np.divmod(np.arange(M_large), 317)
    with h5py.File(path, "w") as h5:
        h5.attrs["format"], h5.attrs["version"] = "ptycho-scan", 1
        frames = h5.create_dataset("frames", (M_large, side, side), "u4", chunks=(1, side, side), compression="lzf")
        frames.attrs["measurement"] = "counts"
        for number in written:
            frames[number] = rng.poisson(beam)
        h5["positions_px"] = np.stack([rows, columns], axis=1) * 20.0 + rng.uniform(-2, 2, (M_large, 2))
    return path


@pytest.mark.spec("SETTLE-35")
def test_a_scan_of_100_gb_is_inspected_by_some_of_its_frames_and_says_so(tmp_path, monkeypatch):
    read = []
    counts = GuardedFrames.read
    monkeypatch.setattr(GuardedFrames, "read", lambda self, numbers: read.extend(numbers) or counts(self, numbers))
    path = sparse_file(tmp_path / "large.h5", [0, 1, 2, 50_000, 99_999])
    found = inspect_scan(path)
    assert found.usable
    assert found.n_frames == 100_000
    assert found.facts["frames_looked_at"] == 16
    assert any(text.startswith("The scan is large: 16 of its 100000 frames") for text in levels(found, "note"))
    assert 16 <= len(read) < 100, "each is a megabyte"
    json.dumps(found.to_mapping(), allow_nan=False)
    dark = inspect_scan(sparse_file(tmp_path / "dark.h5", [1, 2]))
    assert not dark.usable
    assert "every good pixel of the 16 frames looked at is zero" in levels(dark, "error")[0]
    empty = inspect_scan(sparse_file(tmp_path / "empty.h5", []))
    assert not empty.usable
    assert "has 0 bytes for them: they were never written" in levels(empty, "error")[0]


def test_a_picture_that_moves_is_measured_alike_on_large_frames():
    rng = np.random.default_rng(3)
    shifts = np.stack(np.divmod(rng.choice(28 * 38, M, replace=False), 38), axis=1)
    found = []
    for finer in (1, 12):
        sample = np.kron(np.random.default_rng(3).random((60, 70)) ** 3, np.ones((finer, finer)))
        side = N * finer
        images = np.stack([sample[y : y + side, x : x + side] for y, x in shifts * finer])
        found.append(measure_shadow_motion(ArrayFrames((200 * images + 5).astype(np.float32)), shifts / 0.25))
    small, large = found
    assert small.consistent
    assert large.consistent
    assert large.detector_px_per_object_px == pytest.approx(12 * small.detector_px_per_object_px, rel=0.05)
    assert large.beam_px == pytest.approx(small.beam_px, rel=0.1)
    assert large.lit_px == pytest.approx(12 * small.lit_px, rel=0.1)
    np.testing.assert_allclose(large.matrix, 12 * np.array(small.matrix), atol=0.2)
