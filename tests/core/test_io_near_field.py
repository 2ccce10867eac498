"""Near-field scans in files: stated, given or measured on the frames, and never taken for far-field ones in silence."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from io_scans import DISTANCE, PIXEL, WAVELENGTH, arrays, assert_same_scan, cxi_file, full_scan, save

from ptycho_core.data.frames import ArrayFrames
from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.errors import DataError
from ptycho_core.inspection.examine import examine
from ptycho_core.io import read_scan, write_scan
from ptycho_core.io.far_field import measure_shadow_motion
from ptycho_core.physics.forward import expected_counts, shift_ramp
from ptycho_core.physics.patches import extract

F, N, M = 0.11, 32, 60
NEAR, EXACT = Propagation("near_field", F), Propagation("near_field", 0.4, 0.02)


def near_counts(seed: int = 3):
    """Near-field counts of a complex object in a wide uneven beam, and whole-pixel frame centres (y, x)."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.normal(size=(2, 90, 80))) * np.exp(-30 * np.add.outer(
        np.fft.fftfreq(90) ** 2, np.fft.fftfreq(80) ** 2
    ))  # fmt: skip
    absorption, phase = np.fft.ifft2(spectrum).real * 4
    obj = np.exp(-0.3 * np.abs(absorption) + 1j * phase)
    r = np.arange(N) - (N - 1) / 2
    probe = np.exp(-((r[:, None] / 11) ** 4) - ((r[None] + 1) / 9) ** 4)[None] * (1 + 0.1j * np.sin(r))
    corners = rng.permutation(np.stack(np.divmod(np.arange(58 * 48), 48), axis=1))[:M]
    rate = expected_counts(extract(obj, corners, N), probe, np.zeros((M, 2)), 300.0, propagation=NEAR)
    return rng.poisson(rate), corners + (N - 1) / 2


def near_file(path, counts, positions_px, **changes):
    """`cxi_file` takes far-field pixels λz/(Np); a near-field pixel p/m is F·N of those."""
    return cxi_file(path, counts, positions_px * F * N, **changes)


@pytest.mark.spec("DATA-22", "FM-25")
def test_a_cxi_file_of_magnified_images_is_read_as_the_near_field_that_it_is(tmp_path):
    counts, positions = near_counts()
    for basis in (True, False):
        raw = read_scan(near_file(tmp_path / "near.cxi", counts, positions, basis=basis))
        assert raw.propagation.fresnel_number == pytest.approx(F, rel=0.02)
        assert raw.propagation.wavelength_px is None
        # the demagnified pixel, and positions in it
        m = PIXEL**2 / (F * WAVELENGTH * DISTANCE)
        assert raw.geometry.pixel_size_m == pytest.approx(PIXEL / m, rel=0.02)
        moved = raw.positions_px - raw.positions_px.mean(axis=0)
        np.testing.assert_allclose(moved, positions - positions.mean(axis=0), atol=0.02 * 30)
        (note,) = [text for text in raw.source.assumptions if "Read as" in text]
        assert f"magnified {PIXEL / raw.geometry.pixel_size_m:.4g} times" in note
        assert "Give fresnel_number" in note
        assert not any("zero frequency" in text for text in raw.source.assumptions)
        assert not [finding for finding in examine(raw) if finding.grave or finding.level == "warning"]


@pytest.mark.spec("DATA-22", "FM-25")
def test_a_fresnel_number_that_is_given_sets_the_magnification(tmp_path):
    counts, positions = near_counts()
    path = near_file(tmp_path / "near.cxi", counts, positions)
    raw = read_scan(path, propagation=NEAR)
    assert raw.propagation == NEAR
    np.testing.assert_allclose(raw.positions_px, positions, rtol=1e-9)
    assert raw.geometry.pixel_size_m == pytest.approx(F * WAVELENGTH * DISTANCE / PIXEL, rel=1e-6)
    with pytest.raises(DataError, match=r"near.cxi: this is a near field, Fresnel number 0.22, .* move 1.97 p"):
        read_scan(path, propagation=Propagation("near_field", 2 * F))
    with pytest.raises(DataError, match=r"near-field scan.*distance 2 m.*75 µm.*magnified.*Give its Fresnel number"):
        read_scan(path, propagation=FAR_FIELD)


@pytest.mark.spec("DATA-22")
def test_inverted_or_turned_frames_of_a_near_field_are_refused(tmp_path):
    counts, positions = near_counts()
    for turned, why in ((counts[:, ::-1, ::-1], "before the focus"), (np.rot90(counts, axes=(1, 2)), "other axes")):
        path = near_file(tmp_path / "near.cxi", turned, positions)
        with pytest.raises(DataError, match=f"near.cxi: this is a near-field scan whose frames move.*{why}.*basis_vec"):
            read_scan(path)


def test_the_motion_of_the_shadow_is_measured_below_a_pixel():
    """Steps of 3.4 px would all be taken for 3, and κ for 0.88."""
    rng = np.random.default_rng(1)
    f = np.fft.fftfreq(40)
    spectrum = np.fft.fft2(rng.normal(size=(40, 40))) * np.exp(-40 * np.add.outer(f**2, f**2))
    positions = 3.4 * np.stack(np.divmod(np.arange(70), 10), axis=1)
    counts = np.fft.ifft2(spectrum * shift_ramp(-positions, 40)).real
    motion = measure_shadow_motion(ArrayFrames(counts - counts.min() + 1), positions)
    assert motion.consistent
    assert motion.detector_px_per_object_px == pytest.approx(1.0, rel=0.01)
    np.testing.assert_allclose(motion.matrix, -np.eye(2), atol=0.01)


@pytest.mark.spec("DATA-22")
@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
@pytest.mark.parametrize("propagation", [FAR_FIELD, NEAR, EXACT], ids=str)
def test_a_file_keeps_how_waves_propagate(tmp_path, name, propagation):
    raw = full_scan(propagation=propagation)
    write_scan(tmp_path / name, raw)
    again = read_scan(tmp_path / name)
    assert again.propagation == propagation
    assert_same_scan(raw, again)
    assert read_scan(tmp_path / name, propagation=propagation).propagation == propagation
    with pytest.raises(
        DataError, match=r"a\.\w+: the file states a .*, but a near field, Fresnel number 0.3 was given"
    ):
        read_scan(tmp_path / name, propagation=Propagation("near_field", 0.3))


@pytest.mark.spec("DATA-22")
def test_a_file_that_says_nothing_is_what_the_caller_says(tmp_path):
    path = save(tmp_path / "a.npz", arrays(), measurement="amplitude")
    assert read_scan(path).propagation == FAR_FIELD
    assert read_scan(path, propagation=NEAR).propagation == NEAR
    path = save(tmp_path / "b.npz", arrays(), measurement="amplitude", fresnel_number=0.2)
    assert read_scan(path).propagation == Propagation("near_field", 0.2)


@pytest.mark.spec("DATA-22", "CONV-9")
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"propagation": "nearfield"}, r"a.npz: propagation = 'nearfield'; allowed: far_field, near_field"),
        ({"propagation": "near_field"}, r"a.npz: a near field needs its fresnel_number"),
        ({"propagation": "far_field", "fresnel_number": 0.2}, r"a.npz: fresnel_number = 0.2 for a far field"),
        ({"wavelength_px": 0.2}, r"a.npz: a near field needs its fresnel_number"),
        ({"fresnel_number": -0.2}, r"a.npz: 'fresnel_number' must be one positive number"),
        ({"fresnel_number": 0.02}, r"a.npz: the near field aliases.*N = 16.*least F is 0.0625"),
    ],
)
def test_bad_propagations_in_files(tmp_path, changes, match):
    path = save(tmp_path / "a.npz", arrays(), measurement="amplitude", **changes)
    with pytest.raises(DataError, match=match):
        read_scan(path)


def test_bad_propagations_in_hdf5_files(tmp_path):
    write_scan(tmp_path / "a.h5", full_scan(propagation=NEAR))
    for key, value, match in (
        ("fresnel_number", "many", r"a.h5: propagation 'fresnel_number' must be one positive number"),
        ("propagation", 3, r"a.h5: propagation = .*3.*allowed: far_field, near_field"),
    ):
        with h5py.File(tmp_path / "a.h5", "a") as h5:
            h5["propagation"].attrs[key] = value
        with pytest.raises(DataError, match=match):
            read_scan(tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5", "a") as h5:
            h5["propagation"].attrs["fresnel_number"] = F


def test_a_tike_file_is_of_the_far_field(tmp_path):
    counts = np.random.default_rng(0).poisson(9, (1, 6, 16, 16))
    np.savez(tmp_path / "t.npz", data=counts, scan=np.arange(12.0).reshape(1, 6, 2))
    assert read_scan(tmp_path / "t.npz").propagation == FAR_FIELD
    with pytest.raises(
        DataError, match=r"t.npz: the file states a far field, but a near field, Fresnel number 0.11 was"
    ):
        read_scan(tmp_path / "t.npz", propagation=NEAR)
