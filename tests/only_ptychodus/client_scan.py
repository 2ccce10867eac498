"""A simulated scan in the words of ptychodus: two modes, off the middle of its object, positions between pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import add_modes, aperture_probe

N, PIXEL_M = 32, 7e-9
SHAPE = (109, 90)
CENTRE_M = (3.1e-6, -2.2e-6)
"""(x, y) of the middle of the object's array."""


def truth() -> np.ndarray:
    """Strong, complex, asymmetric, and taller than wide."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    amplitude = 0.8 + 0.2 * np.sin(x / 4 + y / 13)
    texture = np.random.default_rng(9).normal(size=SHAPE)
    phase = 0.9 * np.cos(y / 5 - x / 9) + 0.5 * ((x > 40) & (y > 30)) + 0.25 * texture
    return (amplitude * np.exp(1j * phase)).astype(np.complex64)


def true_probe() -> np.ndarray:
    """(2, N, N): a defocused aperture, and a weak second mode."""
    probe = add_modes(aperture_probe(N, 9, defocus_px2=60.0, total=2e5), 2)
    return probe.astype(np.complex64)


def positions(seed: int) -> np.ndarray:
    """(M, 2) (y, x) pixels; neither their mean nor the middle of their box is the middle of the object."""
    rng = np.random.default_rng(seed)
    first = np.array([18.0, 17.0]) if seed else np.array([18.0, 24.0])
    y, x = np.meshgrid(np.arange(first[0], 84, 6), np.arange(first[1], 70, 6), indexing="ij")
    made = np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-1, 1, (y.size, 2))
    return made[rng.permutation(len(made))[: len(made) - 7]]


def parts(seed: int = 0, *, bad: bool = False, probe: np.ndarray | None = None) -> Any:
    """What ptychodus hands its reconstructors: a ReconstructInput, whose object is flat.

    Args:
        seed: another one is another scan of the same sample.
        bad: with a dead column and a hot pixel.
        probe: of the product; None gives the true one.
    """
    from ptychodus.api.geometry import PixelGeometry
    from ptychodus.api.object import Object, ObjectCenter, ObjectGeometry, ObjectPosition
    from ptychodus.api.probe import ProbeSequence
    from ptychodus.api.probe_positions import ProbePositionSequence
    from ptychodus.api.product import Product, ProductMetadata
    from ptychodus.api.reconstruct import ReconstructInput

    where = positions(seed)
    corner = where - (N - 1) / 2
    whole = np.floor(corner + 0.5).astype(np.int64)
    rates = expected_counts(extract(truth(), whole, N), true_probe(), corner - whole)
    counts = np.random.default_rng(40 + seed).poisson(rates).astype(np.uint16)
    pixels = np.zeros((N, N), bool)
    if bad:
        pixels[:, 19], pixels[7, 12] = True, True
        counts[:, pixels] = 65535
    geometry = ObjectGeometry(SHAPE[1], SHAPE[0], PIXEL_M, PIXEL_M, *CENTRE_M)
    points = [
        geometry.map_coordinates_object_to_probe(ObjectPosition(i, float(x), float(y)))
        for i, (y, x) in enumerate(where)
    ]
    pixel = PixelGeometry(PIXEL_M, PIXEL_M)
    product = Product(
        metadata=ProductMetadata(
            name=f"scan {seed}", comments="", detector_distance_m=1.9, photon_energy_eV=8800.0, probe_photon_count=2e5,
            exposure_time_s=0.1, mass_attenuation_m2_per_kg=0.0, tomography_angle_deg=0.0,
        ),
        probe_positions=ProbePositionSequence(points),
        probes=ProbeSequence(true_probe() if probe is None else probe, None, pixel),
        object_=Object(np.ones(SHAPE, np.complex64), pixel, ObjectCenter(*CENTRE_M)),
        losses=[],
    )  # fmt: skip
    return ReconstructInput(counts, pixels, product)


def compared(product: Any) -> Any:
    """A product's object against the truth, where the product says that it lies: a ``Comparison``."""
    from ptycho_core.evaluation.metrics import compare_objects

    estimate, geometry = product.object_.get_layer(0), product.object_.get_geometry()
    # scan coordinates of the truth: pixels, with the middle of its array at CENTRE_M
    middle = (np.array(SHAPE) - 1) / 2
    centre = np.array([geometry.center_y_m - CENTRE_M[1], geometry.center_x_m - CENTRE_M[0]]) / PIXEL_M + middle
    origin = centre - (np.array(estimate.shape) - 1) / 2
    where = np.stack(
        [(product.probe_positions.get_coordinates_y_m() - CENTRE_M[1]) / PIXEL_M,
         (product.probe_positions.get_coordinates_x_m() - CENTRE_M[0]) / PIXEL_M], axis=1,
    ) + middle  # fmt: skip
    return compare_objects(
        estimate, origin, truth(), np.zeros(2), coverage=(estimate != 0).astype(np.float32), positions_px=where
    )


def libraries() -> tuple[Any, Any]:
    """The two PINN libraries of ptychodus, of one registry of settings."""
    from ptychodus.api.settings import SettingsRegistry
    from ptychodus.model.ptychopinn import PtychoPINNReconstructorLibrary
    from ptychodus.model.ptychopinn_torch import PtychoPINNTorchReconstructorLibrary

    registry = SettingsRegistry()
    return PtychoPINNReconstructorLibrary(registry, False), PtychoPINNTorchReconstructorLibrary(registry, False)


def exported(reconstructor: Any, folder: Path, train: Any, test: Any) -> Path:
    """A folder with the training data of two inputs, as the client writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    reconstructor.export_training_data(folder / "train_data.npz", train)
    reconstructor.export_training_data(folder / "test_data.npz", test)
    return folder


def part_of(given: Any, frames: np.ndarray) -> Any:
    """Some frames (n,) of an input, as the client's filter of odd and even indexes leaves them."""
    from ptychodus.api.probe_positions import ProbePositionSequence

    points = list(given.product.probe_positions)
    product = replace(given.product, probe_positions=ProbePositionSequence([points[i] for i in frames]))
    return replace(given, diffraction_patterns=given.diffraction_patterns[frames], product=product)
