"""CXI files of ptychography scans (www.cxidb.org), SI units unless a ``units`` attribute says otherwise.

Read from an entry: frames (M, H, W) counts, or (Ny, Nx, H, W); ``translation`` (M, 3) metres, ``distance``,
``x_pixel_size``, ``y_pixel_size``, ``wavelength`` or ``energy`` (joules), ``mask`` (bit field, 0 = good), a probe where
programs keep one, and ``basis_vectors`` (3, 2), the steps in space from one detector row, and one column, to the next.
``translation`` is where the *sample* was moved to, so that the beam sits at minus that on the object; the axes of the
detector are the object's:

    position = −(translation · row direction, translation · column direction),
    pixel_size = λz / (N p) in the far field, p / m in a near field magnified m times.

A CXI file says neither which of the two it is nor where a cone beam has its focus. The frames tell both, see
``far_field``. Where a near field is given instead, its Fresnel number gives m = p² / (F λ z) (FM-25).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.raw import Geometry, Source
from ...data.recording import Recording
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ..candidate import Candidate, missing_key
from ..h5_values import open_h5
from ..measurement import resolve_measurement
from ..probes import NO_PROBE, normalise_probe
from .cxi_instrument import Said, geometry_of
from .cxi_layout import Layout, find_layout
from .cxi_parts import centre_px, detector_directions, frames_at, good_pixels, stored_probe, translations_m

__all__ = ["bound", "object_positions", "ptycho_reader", "read", "recognises"]


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="cxi",
        title="CXI (HDF5) with entry_1/…",
        kind="hdf5",
        module=__name__,
        protocol_version=2,
        priority=20,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is HDF5 with the CXI layout."""
    return file.kind == "hdf5" and any(n == "cxi_version" or re.match(r"entry_\d+/", n) for n in file.names)


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; frames stay on disk.

    Args:
        file: an examined HDF5 file.
        options: `measurement` must not contradict the file; `entry` chooses among several scans.

    Raises:
        DataError: a dataset is missing or holds what it must not, or several scans are there.
    """
    said = Said()
    with open_h5(file.path, options.follow) as h5:
        entries = [name for name in h5 if re.fullmatch(r"entry(_\d+)?", name)]
        layout = find_layout(
            h5, sorted(entries, key=lambda n: (n == "entry", len(n), n)), options.entry, str(file.path)
        )
        if layout is None:
            raise missing_key(file, "entry_1/data_1/data", "(M, N, N) frames")
        source, beam = layout.source, layout.beam
        geometry = geometry_of(
            h5,
            file,
            layout,
            options,
            said,
            wavelengths=(f"{source}/wavelength", f"{beam}/incident_wavelength", f"{beam}/wavelength"),
            energies=(f"{beam}/energy", f"{beam}/incident_beam_energy", f"{source}/energy"),
        )
        paths = (
            f"{layout.data}/translation",
            f"{layout.sample}/geometry_1/translation",
            f"{layout.detector}/translation",
        )
        moved = translations_m(h5, paths, h5[layout.frames].shape[0], options, said.notes)
        if moved is None and options.positions is None and options.scan_step_m is None:
            raise missing_key(file, paths[1], "(M, 3) sample translations, metres")
        return bound(h5, file, layout, options, geometry, moved, said, dialect="cxi")


def object_positions(
    h5: Any, layout: Layout, moved: NDArray[np.float64] | None, said: Said
) -> NDArray[np.float64] | None:
    """Frame centres (M, 2) (y, x) on the object, metres, of the motions (M, 3) of the sample."""
    if moved is None:
        return None
    directions = detector_directions(h5, layout, said.notes)
    said.notes.append(
        "translation is the motion of the sample; positions on the object are minus that, in object pixels."
    )
    return np.asarray(-(moved @ directions))


def bound(
    h5: Any,
    file: Candidate,
    layout: Layout,
    options: ReadOptions,
    geometry: Geometry,
    moved: NDArray[np.float64] | None,
    said: Said,
    *,
    dialect: str,
) -> Recording:
    """Frames, mask and probe of an entry, with its instrument and motions, as a recording.

    Args:
        h5: the open file.
        file: the same, examined.
        layout: of the scan.
        options: what the caller says.
        geometry: the instrument.
        moved: (K, 3) motions of the sample, metres, or None.
        said: notes and warnings.
        dialect: name of the reader.

    Raises:
        DataError: no usable frames, or a measurement that contradicts them.
    """
    name = str(file.path)
    frames = frames_at(h5, layout, None if moved is None else len(moved), file.path, options.follow, said.notes)
    resolve_measurement(name, frames.measurement, options.measurement)
    source = frames.source
    M, height, width = source.shape
    positions = object_positions(h5, layout, moved, said)
    if positions is not None and h5.swmr_mode:
        positions = positions[:M]
    masks = (f"{layout.detector}/mask", f"{layout.data}/mask", f"{layout.detector}/pixel_mask")
    mask = good_pixels(h5, masks, frames.shifted, said.notes)
    stored = stored_probe(h5, layout)
    probe = None if stored is None else normalise_probe(stored[1], f"{name}: {stored[0]!r}", said.notes)
    said.notes.append(NO_PROBE if stored is None else f"The probe is {stored[0]}.")
    at = centre_px(h5, layout, geometry.detector_pixel_size_m, (height, width), said.notes, said.warnings)
    return Recording(
        frames=source,
        positions=positions,
        position_unit="m",
        raster=frames.raster,
        probe=probe,
        mask=mask,
        mask_polarity="bad",
        geometry=geometry,
        centre_px=at,
        source=Source(
            path=name,
            dialect=dialect,
            measurement=frames.measurement,
            assumptions=("CXI frames are counts.", *said.notes),
            warnings=tuple(said.warnings),
            details={} if options.entry is None else {"entry": layout.entry},
        ),
    )
