"""HDF5 laid out as the reconstructions of ptypy (``.ptyr``), as far as public readers of such files tell the layout.

Known, and written: ``content/obj/S00G00`` and ``content/probe/S00G00`` with ``data`` (layers or modes, H, W) complex,
``_psize`` (2,) metres (y, x), ``_origin`` (2,) metres (y, x) of pixel (0, 0), and of the probe ``_energy`` in keV; see
the guide of ptypy on its storages, and the viewers of beamlines. Whatever else ptypy keeps in one is not written.
Positions are in ``ptycho_core/positions_m`` (M, 2) (y, x), a name of our own.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..h5_output import h5_output
from ..stored_reconstruction import StoredReconstruction
from .common import layers_of, pixel_size_of, probe_in_photons

__all__ = ["write"]

_NAME = "a file like those of ptypy"
_STORAGE = "S00G00"


def write(path: Path, stored: StoredReconstruction, *, target: Path) -> list[str]:
    """Write object and probe, and say what is lost.

    Raises:
        DataError: the object pixel is not known.
    """
    pixel = pixel_size_of(stored, _NAME)
    probe, layers = probe_in_photons(stored), layers_of(stored)
    energy_eV = stored.geometry.energy_eV
    with h5_output(path) as (h5, _):
        origins = {"obj": np.asarray(stored.origin_px) * pixel, "probe": -(np.array(probe.shape[1:]) - 1) / 2 * pixel}
        for kind, data in (("obj", layers), ("probe", probe)):
            storage = h5.create_group(f"content/{kind}/{_STORAGE}")
            storage["data"], storage["_psize"], storage["_origin"] = data, np.full(2, pixel), origins[kind]
            if energy_eV is not None:
                storage["_energy"] = energy_eV / 1e3
        own = h5.create_group("ptycho_core")
        own["positions_m"] = stored.positions_px * pixel
        own["provenance"] = json.dumps({"program": stored.program, "provenance": dict(stored.provenance)})
    notes = [
        "Object and probe are where public readers of .ptyr files look for them; what else ptypy keeps in one is left "
        "out.",
        "The probe is in photons: the scale of the image is in it.",
        "Coverage, roles of frames, figures of merit and losses are left out.",
    ]
    if energy_eV is None:
        notes.append("The energy is not known, so there is no _energy; give --energy_eV.")
    if stored.slices is not None:
        notes.append("The slices are the layers of the object; their spacing is left out.")
    return notes
