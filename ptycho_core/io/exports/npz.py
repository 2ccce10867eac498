"""NPZ of all arrays of a reconstruction, and of its numbers and documents, under the names of ``reconstruction.h5``.

It needs NumPy alone to be read, and no pickle. ``ptycho compare`` takes it as an image and ``--probe`` as a probe.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np

from ..stored_reconstruction import StoredReconstruction
from ..writers.npz import add_array

__all__ = ["write"]

_ARRAYS = (
    *("object", "coverage", "origin_px", "probe", "scale", "positions_px", "nominal_positions_px", "slices"),
    *("slice_spacing_m", "mode_weights", "role", "frame_sums"),
)
_TEXTS = ("title", "start_time", "end_time", "program", "forward_model")
_DOCUMENTS = ("figures", "losses", "refinement_losses", "unused", "dropped", "config", "provenance", "verdict")


def write(path: Path, stored: StoredReconstruction, *, target: Path) -> list[str]:
    """Write everything but the images of earlier stages."""
    arrays = {name: getattr(stored, name) for name in _ARRAYS if getattr(stored, name) is not None}
    arrays |= {name: np.array(getattr(stored, name)) for name in _TEXTS if getattr(stored, name)}
    arrays |= {name: np.array(json.dumps(getattr(stored, name), ensure_ascii=False)) for name in _DOCUMENTS}
    geometry = dataclasses.asdict(stored.geometry).items()
    arrays |= {name: np.array(value) for name, value in geometry if value is not None}
    if stored.propagation is not None:
        propagation = {
            "propagation": stored.propagation.kind,
            "fresnel_number": stored.propagation.fresnel_number,
            "wavelength_px": stored.propagation.wavelength_px,
        }
        arrays |= {name: np.array(value) for name, value in propagation.items() if value is not None}
    for kind, frc in stored.frc.items():
        arrays |= {f"frc_{kind}_{name}": np.asarray(value) for name, value in dataclasses.asdict(frc).items()}
    whole = io.BytesIO()  # a zip that the disk does not take is no matter of zipfile's closing it
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            add_array(archive, name, values)
    path.write_bytes(whole.getbuffer())
    return ["Images of earlier stages are left out."]
