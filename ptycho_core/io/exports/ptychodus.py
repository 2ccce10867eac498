"""The data product of ptychodus, from an image: see ``io.writers.ptychodus`` for the layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..stored_reconstruction import StoredReconstruction
from ..writers.ptychodus import Product, write_product_file
from .common import instrument_of_image, layers_of, probe_in_photons, title_of

__all__ = ["write"]

_NAME = "a product of ptychodus"


def write(path: Path, stored: StoredReconstruction, *, target: Path) -> list[str]:
    """Write positions, probe, object and losses, and say what is lost.

    Raises:
        DataError: too little is known of the instrument, or it is not one of photons.
    """
    at = instrument_of_image(stored, _NAME)
    if at.radiation != "photon":
        raise DataError(
            f"{stored.path}: the scan is of {at.radiation}s; {_NAME} is for photons. Choose another format."
        )
    probe, layers = probe_in_photons(stored), layers_of(stored)
    losses = stored.refinement_losses or stored.losses
    spacing = [] if stored.slice_spacing_m is None else [stored.slice_spacing_m] * (len(layers) - 1)
    comments = {"program": stored.program, "figures": dict(stored.figures), "provenance": dict(stored.provenance)}
    product = Product(
        name=title_of(stored),
        comments=json.dumps(comments, ensure_ascii=False),
        energy_eV=at.energy_eV,
        distance_m=at.distance_m,
        pixel_size_m=at.pixel_size_m,
        positions_px=stored.positions_px,
        frame_numbers=np.arange(len(stored.positions_px), dtype=np.int64),
        probe=probe,
        photons=float(np.sum(np.abs(probe.astype(np.complex128)) ** 2)),
        layers=layers,
        origin_px=stored.origin_px,
        far_field=stored.propagation is None or not stored.propagation.is_near,
        layer_spacing_m=spacing,
        losses=losses.get("train_loss", []),
    )
    write_product_file(path, product)
    notes = [
        *at.notes,
        "The probe is in photons: the scale of the image is in it.",
        "Coverage, roles of frames and figures of merit have no place in a product; figures are in its comments.",
    ]
    if stored.refinement_losses and stored.losses:
        notes.append("Of the losses, those of refining are in the product; those of training are left out.")
    if stored.mode_weights is not None:
        notes.append("What each frame takes of each mode of the probe is left out.")
    if stored.propagation is not None and stored.propagation.is_near:
        notes.append("That this is a near field is in far_field; its Fresnel number is left out.")
    return notes
