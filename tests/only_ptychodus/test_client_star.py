"""The real star through ptychodus: its defaults, ten epochs, its own child processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from client_scan import exported, libraries
from test_client_flow import reconstruct, train

from ptycho_core.evaluation.metrics import compare_objects
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract

pytestmark = [pytest.mark.ptychodus, pytest.mark.real_data, pytest.mark.slow]


def star(path: Path) -> tuple[object, np.ndarray, np.ndarray]:
    """The scan as the client holds it, with a flat object; positions (M, 2) (y, x) pixels, and the object of rPIE."""
    from ptychodus.api.geometry import PixelGeometry
    from ptychodus.api.object import Object, ObjectCenter, ObjectGeometry, ObjectPosition
    from ptychodus.api.probe import ProbeSequence
    from ptychodus.api.probe_positions import ProbePositionSequence
    from ptychodus.api.product import Product, ProductMetadata
    from ptychodus.api.reconstruct import ReconstructInput

    with np.load(path) as file:
        counts = np.rint(file["diff3d"].astype(float) ** 2).astype(np.int32)
        where = np.stack([file["ycoords"], file["xcoords"]], axis=1) - 0.5  # the file counts from N/2
        probe, known = file["probeGuess"].astype(np.complex64), file["objectGuess"]
    height, width = known.shape
    geometry = ObjectGeometry(width, height, 7e-9, 7e-9, 3.1e-6, -2.2e-6)
    places = [ObjectPosition(i, float(x), float(y)) for i, (y, x) in enumerate(where)]
    product = Product(
        metadata=ProductMetadata(
            name="star", comments="", detector_distance_m=1.9, photon_energy_eV=8800.0, probe_photon_count=0.0,
            exposure_time_s=0.0, mass_attenuation_m2_per_kg=0.0, tomography_angle_deg=0.0,
        ),
        probe_positions=ProbePositionSequence([geometry.map_coordinates_object_to_probe(place) for place in places]),
        probes=ProbeSequence(probe, None, PixelGeometry(7e-9, 7e-9)),
        object_=Object(np.ones(known.shape, np.complex64), PixelGeometry(7e-9, 7e-9), ObjectCenter(3.1e-6, -2.2e-6)),
        losses=[],
    )  # fmt: skip
    return ReconstructInput(counts, np.zeros(counts.shape[1:], bool), product), where, known


def fourier_error(given: object, product: object, where: np.ndarray) -> float:
    """Σ(g√λ − √k)² / Σk of the client's product by its own probe, with the best g: nothing of ours is in it."""
    array = product.object_.get_layer(0)  # type: ignore[attr-defined]
    probe = product.probes.get_probe_no_opr().get_array()  # type: ignore[attr-defined]
    counts = given.diffraction_patterns  # type: ignore[attr-defined]
    corner = where - (counts.shape[-1] - 1) / 2
    whole = np.floor(corner + 0.5).astype(np.int64)
    model = np.sqrt(expected_counts(extract(array, whole, counts.shape[-1]), probe, corner - whole))
    measured = np.sqrt(counts)
    gain = (model * measured).sum() / (model**2).sum()
    return float(((gain * model - measured) ** 2).sum() / counts.sum())


def test_the_star_by_the_defaults_of_the_client(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PTYCHO_BACKEND", raising=False)
    given, where, known = star(shared_data / "siemens_star_64.npz")
    library, _ = libraries()
    library.training_settings.nepochs.set_value(10)
    pinn = next(iter(library))
    _, log = train(pinn, exported(pinn, tmp_path / "data", given, given), tmp_path / "model")
    product, made = reconstruct(pinn, given)
    assert product.object_.get_layer(0).shape == known.shape
    error = fourier_error(given, product, where)
    assert error < 0.015  # measured: 0.0103, of 0.03 that are allowed
    own = float(made.rsplit("reconstructed: R ", 1)[1].split()[0])
    assert own < 0.008  # measured: 0.0044, by the probe that was found, which the client does not take
    assert "trained: R " in log
    score = compare_objects(product.object_.get_layer(0), np.zeros(2), known, np.zeros(2), positions_px=where)
    assert np.abs(score.shift_px).max() < 0.25
    assert score.correlation > 0.85
