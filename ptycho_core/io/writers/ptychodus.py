"""Files of ptychodus 1.7 (Advanced Photon Source): the NPZ that it trains from, and its data product.

Training NPZ: ``diff3d`` are counts; coordinates are pixels of ``objectGuess``, whose pixel (0, 0) has its centre at
(0, 0), and name the pixel (N−1)/2 of a frame; ``bad_pixels`` is True where bad.

Product: no frames; positions, probe and object in metres. The object's centre is that of its array, (H−1)/2 and
(W−1)/2; ``probe_position_indexes`` are the numbers of the frames, each once, by which ptychodus finds them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.raw import RawData
from ...errors import DataError
from ...text import printable
from ..h5_output import h5_output
from .common import instrument_of, lost_background, lost_calibration, lost_propagation, provenance_json
from .npz import add_array, add_frames

__all__ = ["Product", "write_product", "write_product_file", "write_training"]

_TRAINING, _PRODUCT = "the training NPZ of ptychodus", "a product of ptychodus"


def _probe_of(raw: RawData, format_name: str) -> NDArray[np.complex64]:
    if raw.probe is None:
        raise DataError(f"{raw.source.path or 'scan'}: {format_name} has a probe, and the scan has none; give --probe.")
    return raw.probe


def _without_object(raw: RawData) -> tuple[NDArray[np.complex64], NDArray[np.float64]]:
    """Empty space where the frames are, and the scan coordinates of the centre of its pixel (0, 0)."""
    half = (raw.side - 1) / 2
    first = np.floor(raw.positions_px.min(axis=0) - half)
    last = np.ceil(raw.positions_px.max(axis=0) + half)
    height, width = (last - first + 1).astype(int)
    return np.ones((height, width), np.complex64), first


def write_training(path: Path, raw: RawData, *, compress: bool) -> list[str]:
    """Write a training NPZ and say what is lost.

    Raises:
        DataError: the scan has no probe.
    """
    probe = _probe_of(raw, _TRAINING)
    guess = raw.object_guess
    obj, origin = (guess.object, np.asarray(guess.origin_px)) if guess is not None else _without_object(raw)
    y, x = (raw.positions_px - origin).T
    bad = np.zeros((raw.side, raw.side), bool) if raw.mask is None else ~raw.mask
    arrays = {
        "xcoords": x,
        "ycoords": y,
        "xcoords_start": x,
        "ycoords_start": y,
        "bad_pixels": bad,
        "probeGuess": probe,
        "objectGuess": obj,
        "scan_index": np.zeros(raw.n_frames, np.int64),
        "measurement": np.array("counts"),
        "provenance": np.array(provenance_json(raw)),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for key, values in arrays.items():
            add_array(archive, key, values)
        add_frames(archive, "diff3d", raw)
    lost = []
    if guess is None:
        lost.append("The scan has no object: objectGuess is empty space, 1 everywhere.")
    if np.any(origin != 0):
        lost.append(
            f"Positions are counted from the first pixel of objectGuess: ({origin[0]:.6g}, {origin[1]:.6g}) px (y, x) "
            "was taken off them, and where the scan was is left out."
        )
    if any(getattr(raw.geometry, key) is not None for key in ("energy_eV", "distance_m", "pixel_size_m")):
        lost.append(f"Energy, distance and pixel sizes are left out: {_TRAINING} has none.")
    if raw.mask is not None:
        lost.append("Bad pixels hold 0, where ptychodus fills them in from their neighbours; bad_pixels tells them.")
    return [
        *lost,
        *lost_background(raw, _TRAINING),
        *lost_calibration(raw, _TRAINING),
        *lost_propagation(raw, _TRAINING),
    ]


@dataclass(frozen=True, kw_only=True)
class Product:
    """What a product file holds.

    Attributes:
        name: for people.
        comments: for people.
        energy_eV: photon energy.
        distance_m: object to detector, metres.
        pixel_size_m: object pixel, metres.
        positions_px: (M, 2) float64 frame centres (y, x), object pixels.
        frame_numbers: (M,) int64, each once.
        probe: (P, N, N) complex64.
        photons: in the probe.
        layers: (L, H, W) complex64, upstream first.
        origin_px: (2,) scan coordinates (y, x) of the centre of pixel (0, 0) of a layer.
        far_field: whether frames are far-field patterns.
        layer_spacing_m: metres from each layer to the next.
        losses: one an epoch.
    """

    name: str
    comments: str
    energy_eV: float
    distance_m: float
    pixel_size_m: float
    positions_px: NDArray[np.float64]
    frame_numbers: NDArray[np.int64]
    probe: NDArray[np.complex64]
    photons: float
    layers: NDArray[np.complex64]
    origin_px: NDArray[np.float64]
    far_field: bool = True
    layer_spacing_m: Sequence[float] = ()
    losses: Sequence[float] = ()


def write_product_file(path: Path, product: Product) -> None:
    """Write a product as ptychodus 1.7 names it, and 1.6 and before read it."""
    pixel = product.pixel_size_m
    middle_px = np.asarray(product.origin_px) + (np.array(product.layers.shape[1:]) - 1) / 2
    with h5_output(path) as (h5, _):
        h5.attrs.update(
            name=product.name,
            comments=product.comments,
            detector_object_distance_m=product.distance_m,
            photon_energy_eV=product.energy_eV,
            probe_energy_eV=product.energy_eV,  # what ptychodus up to 1.6 asks for
            probe_photon_count=product.photons,
            exposure_time_s=0.0,
            mass_attenuation_m2_per_kg=0.0,
            tomography_angle_deg=0.0,
            focus_object_distance_m=0.0,
            tilt_angle_deg=0.0,
            far_field=product.far_field,
        )
        h5["probe_position_indexes"] = product.frame_numbers
        h5["probe_position_y_m"], h5["probe_position_x_m"] = (product.positions_px * pixel).T
        h5["probe"] = product.probe
        h5["probe"].attrs.update(pixel_width_m=pixel, pixel_height_m=pixel)
        h5["object"] = product.layers
        h5["object"].attrs.update(pixel_width_m=pixel, pixel_height_m=pixel)
        h5["object"].attrs.update(center_y_m=middle_px[0] * pixel, center_x_m=middle_px[1] * pixel)
        h5["object_layer_spacing_m"] = np.asarray(product.layer_spacing_m, dtype=np.float64)
        h5["loss_epochs"] = np.arange(1, len(product.losses) + 1)
        h5["loss_values"] = np.asarray(product.losses, dtype=np.float64)


def write_product(path: Path, raw: RawData, *, compress: bool) -> list[str]:
    """Write what a scan knows beside its frames, and say what is lost.

    Raises:
        DataError: the scan has no probe, or too little is known of the instrument.
    """
    probe = _probe_of(raw, _PRODUCT)
    at = instrument_of(raw, _PRODUCT)
    if at.radiation != "photon":
        name = raw.source.path or "scan"
        raise DataError(f"{name}: the scan is of {at.radiation}s; {_PRODUCT} is for photons. Choose another format.")
    if len(np.unique(raw.frame_numbers)) < raw.n_frames:
        raise DataError(
            f"{raw.source.path or 'scan'}: {_PRODUCT} numbers each frame once; the scan has one twice. Give --frames."
        )
    guess = raw.object_guess
    obj, origin = (guess.object, np.asarray(guess.origin_px)) if guess is not None else _without_object(raw)
    power = float(np.sum(np.abs(probe.astype(np.complex128)) ** 2))
    product = Product(
        name=printable(Path(raw.source.path or "scan").name),
        comments=provenance_json(raw),
        energy_eV=at.energy_eV,
        distance_m=at.distance_m,
        pixel_size_m=at.pixel_size_m,
        positions_px=raw.positions_px,
        frame_numbers=raw.frame_numbers,
        probe=probe,
        photons=power if raw.probe_calibrated else float(np.nanmean(raw.frame_totals)),  # NaN where not looked at
        layers=obj[None],
        origin_px=origin,
        far_field=not raw.propagation.is_near,
    )
    write_product_file(path, product)
    lost = ["A product has no frames: the counts and the mask are left out."]
    if guess is None:
        lost.append("The scan has no object: that of the product is empty space, 1 everywhere.")
    return [*at.notes, *lost, *lost_calibration(raw, _PRODUCT), *lost_propagation(raw, _PRODUCT)]
