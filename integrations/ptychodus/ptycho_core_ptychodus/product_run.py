"""A process of the workflow: a folder with the client's product and frames in, a new product out.

Here the product is used as itself: what is found of probe, positions and centre goes back into it, which the calls of
the PINN plugins cannot take.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ptychodus.api.io import StandardFileLayout, load_diffraction_data, load_product, save_product
from ptychodus.api.object import Object, ObjectCenter, ObjectPosition
from ptychodus.api.probe import ProbeSequence
from ptychodus.api.probe_positions import ProbePositionSequence
from ptychodus.api.product import LossValue, Product
from ptychodus.api.reconstruct import ReconstructInput, prepare_reconstruct_input

from ptycho_core import Geometry, Image, ObjectGuess, RawData, Run, Source, TrainingConfig, config_from_mapping, run
from ptycho_core.errors import ConfigError, DataError, PtychoError
from ptycho_core.io.plain_yaml import MOST_TEXT, read_yaml
from ptycho_core.io.small_text import read_small_text

from .training import tell_progress
from .workflow import output_folder

__all__ = ["main", "new_product", "scan_of"]

logger = logging.getLogger(__name__)

SETTINGS_NAME = "ptycho_core.yaml"
"""Settings of ptycho-core beside the product, as ``ptycho run --config`` takes them; optional."""

RESULT_NAME = "ptycho-core"
"""Folder of our own results, with the report."""


def scan_of(parts: ReconstructInput) -> RawData:
    """What the client hands its reconstructors, as a scan.

    Raises:
        DataError: no usable scan.
    """
    product = parts.product
    geometry = product.object_.get_geometry()
    positions = np.stack(
        [
            geometry.map_probe_positions_to_object_y_px(product.probe_positions),
            geometry.map_probe_positions_to_object_x_px(product.probe_positions),
        ],
        axis=1,
    )
    if not product.metadata.far_field:
        raise DataError(
            f"{product.metadata.name}: the product says near field, whose Fresnel number it does not say here."
        )
    if not np.isclose(geometry.pixel_width_m, geometry.pixel_height_m, rtol=1e-3):
        raise DataError(
            f"{product.metadata.name}: object pixels are {geometry.pixel_width_m:g} × {geometry.pixel_height_m:g} m; "
            "they must be square."
        )
    probe = product.probes.get_probe_no_opr().get_array()
    if product.probes.get_opr_weights_or_none() is not None:
        logger.warning(
            "%s: the probe of the product varies from frame to frame (OPR); its first coherent mode alone is begun "
            "with, and the new product has no OPR weights",
            product.metadata.name,
        )
    guess, said = _transmission(product)
    bad = parts.bad_pixels
    return RawData.from_arrays(
        parts.diffraction_patterns,
        positions,
        probe if probe.size else None,
        mask=None if bad is None or not np.any(bad) else ~np.asarray(bad, bool),
        object_guess=guess,
        geometry=Geometry(
            energy_eV=product.metadata.photon_energy_eV or None,
            distance_m=product.metadata.detector_distance_m or None,
            pixel_size_m=geometry.pixel_width_m or None,
        ),
        source=Source(dialect="ptychodus", assumptions=("what ptychodus hands over are counts", *said)),
    )


def _transmission(product: Product) -> tuple[ObjectGuess | None, tuple[str, ...]]:
    """The object of a product as one layer (H, W), and what was assumed for it.

    A wave that does not spread from one layer to the next leaves a stack multiplied by each transmission in turn,
    O = Π_l O_l, as ptychodus flattens one. No layer by itself is the object. An image does not begin with it.
    """
    flat = np.asarray(product.object_.get_layers_flattened(), np.complex64)
    if not flat.size:
        return None, ()
    name, L = product.metadata.name, product.object_.num_layers
    if not np.isfinite(flat).all():
        logger.warning("%s: the object of the product has values that are not finite, so it is left out", name)
        return None, ()
    said = f"the object of the product has {L} layers; their product was taken, as of a thin stack"
    return ObjectGuess(object=flat, origin_px=np.zeros(2)), (said,) if L > 1 else ()


def new_product(product: Product, done: Run) -> Product:
    """A product with what a run found: object and its centre, probe, positions, losses."""
    image, old = done.image, product.object_.get_geometry()
    height, width = image.object.shape
    # the client counts from the centre of an array
    centre_y, centre_x = image.origin_px + (np.array([height, width]) - 1) / 2
    at = old.map_coordinates_object_to_probe(ObjectPosition(0, float(centre_x), float(centre_y)))
    indexes = product.probe_positions.get_indexes()
    points = [
        old.map_coordinates_object_to_probe(ObjectPosition(int(index), float(x), float(y)))
        for index, (y, x) in zip(indexes, image.positions_px, strict=True)
    ]
    counts = product.probe_positions.get_probe_photon_counts()
    if counts is not None:
        points = [replace(point, probe_photon_count=float(c)) for point, c in zip(points, counts, strict=True)]
    probe = (image.probe * np.sqrt(image.scale)).astype(np.complex64)
    if image.mode_weights is not None:
        logger.warning("the probe was fitted with an intensity for each frame, which the product has no place for here")
    history = done.refined.history if done.refined is not None and done.refined.kept else done.history
    return Product(
        metadata=replace(product.metadata, probe_photon_count=float(np.sum(np.abs(probe) ** 2))),
        probe_positions=ProbePositionSequence(points),
        probes=ProbeSequence(array=probe, opr_weights=None, pixel_geometry=product.probes.get_pixel_geometry()),
        object_=Object(
            array=image.object if image.slices is None else image.slices,
            layer_spacing_m=_spacings(image),
            pixel_geometry=product.object_.get_pixel_geometry(),
            center=ObjectCenter(x_m=at.x_m, y_m=at.y_m),
        ),
        losses=[LossValue(epoch, float(value)) for epoch, value in enumerate(history.get("train_loss", ()))],
    )


def _spacings(image: Image) -> list[float]:
    """Metres between the slices of an image, as many as the client wants."""
    return [] if image.slices is None else [float(image.slice_spacing_m or 0.0)] * (len(image.slices) - 1)


def _config(folder: Path, engine: str) -> TrainingConfig:
    """The settings beside the product, with the engine of the workflow.

    Raises:
        ConfigError: they are no settings.
    """
    values: Any = {}
    path = folder / SETTINGS_NAME
    if path.exists():
        text = read_small_text(path, ConfigError, what="a YAML file of settings", most_bytes=MOST_TEXT)
        values = read_yaml(text, str(path)) or {}
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: it holds a {type(values).__name__}; it must hold settings by name.")
    if values.get("backend", "auto") not in ("auto", engine):
        raise ConfigError(
            f"{path}: backend is {values['backend']!r}, and the workflow that was chosen is that of {engine!r}; leave "
            "backend out of the file, or choose the other workflow."
        )
    return config_from_mapping(TrainingConfig, values | {"backend": engine})


def _save(product: Product, path: Path) -> None:
    """Write a product atomically, and let those who watch the folder know: a file that is renamed is told to none."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial.h5")
    try:
        save_product(temporary, product)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    os.utime(path)


def reconstruct_folder(folder: Path, engine: str) -> Path:
    """Reconstruct the product of a folder.

    Returns:
        the new product.

    Raises:
        PtychoError: see ``ptycho_core.run``.
    """
    config, target = _config(folder, engine), output_folder(folder)
    target.mkdir(exist_ok=True)
    product = load_product(StandardFileLayout.PRODUCT.path(folder))
    parts = prepare_reconstruct_input(load_diffraction_data(StandardFileLayout.DIFFRACTION.path(folder)), product)
    title = parts.product.metadata.name
    done = run(
        scan_of(parts), config, out=target / RESULT_NAME, overwrite=True, title=title or None, progress=tell_progress()
    )
    for text in done.warnings:
        logger.warning("%s", text)
    path: Path = target / StandardFileLayout.PRODUCT
    _save(new_product(parts.product, done), path)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Run on a folder; 0 when a product was written."""
    parser = argparse.ArgumentParser(
        prog="python -m ptycho_core_ptychodus.product_run", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="with product.h5 and diffraction.h5")
    parser.add_argument("--engine", default="numpy", help="engine of ptycho-core")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        path = reconstruct_folder(given.folder, given.engine)
    except PtychoError as error:
        logger.error("%s", error)
        return 1
    logger.info("wrote %s", path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
