"""CXI 1.6 with images: ``image_1`` is the probe and ``image_2`` the object, as ptychodus 1.7 has them; SI units.

``data_1/data`` links to the object. The place of the object is in ``ptychodus/object_center_x_m`` and ``…_y_m``, where
that program looks for it, and in ``ptycho_core/origin_px``. Positions are ``translation``, as in ``io.writers.cxi``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..h5_output import h5_output
from ..stored_reconstruction import StoredReconstruction
from ..writers.cxi import CXI_VERSION, JOULES_PER_EV
from .common import instrument_of_image, layers_of, probe_in_photons, title_of

if TYPE_CHECKING:
    import h5py

__all__ = ["write"]

_NAME = "CXI"


def _add_image(
    entry: h5py.Group, name: str, title: str, data: NDArray[np.complex64], axes: str, pixel_m: float
) -> None:
    image = entry.create_group(name)
    image["title"], image["data_space"], image["data_type"] = title, "real", "amplitude"
    image["data"] = data
    image["data"].attrs["axes"] = axes
    image["image_size"] = np.array([data.shape[-1] * pixel_m, data.shape[-2] * pixel_m, 0.0])
    image["image_size"].attrs["units"] = "m"


def write(path: Path, stored: StoredReconstruction, *, target: Path) -> list[str]:
    """Write object, probe and positions, and say what is lost.

    Raises:
        DataError: too little is known of the instrument.
    """
    import h5py

    at = instrument_of_image(stored, _NAME)
    pixel, layers = at.pixel_size_m, layers_of(stored)
    middle_m = (np.asarray(stored.origin_px) + (np.array(layers.shape[1:]) - 1) / 2) * pixel
    y, x = (stored.positions_px * pixel).T
    with h5_output(path) as (h5, _):
        h5["cxi_version"], h5["number_of_entries"] = CXI_VERSION, 1
        entry = h5.create_group("entry_1")
        entry["title"] = title_of(stored)
        for name in ("start_time", "end_time"):
            if getattr(stored, name):
                entry[name] = getattr(stored, name)
        source = entry.create_group("instrument_1/source_1")
        source["wavelength"] = at.wavelength_m
        if at.radiation == "photon":
            source["energy"] = at.energy_eV * JOULES_PER_EV
        detector = entry.create_group("instrument_1/detector_1")
        detector["distance"] = at.distance_m
        detector["x_pixel_size"] = detector["y_pixel_size"] = at.detector_pixel_size_m
        geometry = entry.create_group("sample_1/geometry_1")
        geometry["translation"] = np.stack([x, y, np.zeros_like(x)], axis=1)
        _add_image(entry, "image_1", "probe, in photons", probe_in_photons(stored), "mode:y:x", pixel)
        _add_image(entry, "image_2", "object", layers, "layer:y:x", pixel)
        source["illumination"] = h5py.SoftLink("/entry_1/image_1/data")
        data = entry.create_group("data_1")
        data["data"] = h5py.SoftLink("/entry_1/image_2/data")
        data["translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
        process = entry.create_group("process_1")
        process["program"], _, process["version"] = (stored.program or "ptycho-core").partition(" ")
        note = entry.create_group("note_1")
        note["type"], note["description"] = "application/json", "provenance and figures of merit"
        note["data"] = json.dumps({"provenance": dict(stored.provenance), "figures": dict(stored.figures)})
        theirs = entry.create_group("ptychodus")
        theirs["object_center_y_m"], theirs["object_center_x_m"] = middle_m
        for kind in ("object", "probe"):
            theirs[f"{kind}_pixel_width_m"] = theirs[f"{kind}_pixel_height_m"] = pixel
        if stored.slice_spacing_m is not None:
            theirs["object_layer_spacing_m"] = np.full(len(layers) - 1, stored.slice_spacing_m)
        own = entry.create_group("ptycho_core")
        own["origin_px"], own["pixel_size_m"] = np.asarray(stored.origin_px), pixel
    return [
        *at.notes,
        "The probe is in photons: the scale of the image is in it.",
        "Coverage, roles of frames and losses are left out; figures of merit are in note_1.",
    ]
