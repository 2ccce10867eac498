"""NXcxi_ptycho, the application definition of NeXus for raw ptychography (manual.nexusformat.org).

It has the names of CXI and the units of its ``units`` attributes; what differs from ``cxi``:

* The energy of the beam is ``beam_1/energy`` (or ``incident_beam_energy``). ``source_1/energy`` is that of the machine.
* Frames of a raster are (n, m, H, W), and (n·m, H, W) where a virtual dataset restructures them for CXI.
* Motions are ``translation`` (M, 3), or motors ``x`` and ``y`` of ``sample_1/transformations`` (or of an NXdata group):
  (M,), (n, m), or the two axes of a raster, (n,) and (m,). A motor moves the sample along its ``vector``.
* The mask of a detector is ``mask`` as in CXI, or ``pixel_mask``; 0 is good in both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.recording import Recording
from ...errors import DataError
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ..candidate import Candidate, missing_key
from ..h5_values import attribute, dataset_at, group_at, measured_at, open_h5, text_at
from .cxi import bound
from .cxi_instrument import Said, geometry_of
from .cxi_layout import Layout, find_layout
from .cxi_parts import translations_m

__all__ = ["ptycho_reader", "read", "recognises"]

_NAME = "NXcxi_ptycho"
_VECTORS = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0)}


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="nxcxi_ptycho",
        title="NeXus (HDF5) with definition = NXcxi_ptycho",
        kind="hdf5",
        module=__name__,
        protocol_version=2,
        priority=40,
    )


def _entries(file: Candidate, h5: Any) -> list[str]:
    """Entries that say that they are of this definition."""
    named = [n.rsplit("/", 1)[0] for n in file.names if n.endswith("/definition") and n.count("/") == 1]
    return [entry for entry in named if _NAME.lower() in (text_at(h5, f"{entry}/definition") or "").lower()]


def recognises(file: Candidate) -> bool:
    """Whether an entry of an HDF5 file has a ``definition`` that is this one."""
    if file.kind != "hdf5" or not any(n.endswith("/definition") and n.count("/") == 1 for n in file.names):
        return False
    with open_h5(file.path, follow=True) as h5:
        return bool(_entries(file, h5))


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; frames stay on disk.

    Args:
        file: an examined HDF5 file.
        options: `measurement` must not contradict counts; `entry` chooses among several scans.

    Raises:
        DataError: a dataset is missing or holds what it must not, or several scans are there.
    """
    said = Said()
    with open_h5(file.path, options.follow) as h5:
        layout = find_layout(h5, _entries(file, h5), options.entry, str(file.path))
        if layout is None:
            raise missing_key(file, "entry_1/instrument_1/detector_1/data", "(M, N, N) frames")
        beam = layout.beam
        geometry = geometry_of(
            h5,
            file,
            layout,
            options,
            said,
            wavelengths=(f"{beam}/incident_wavelength",),
            energies=(f"{beam}/energy", f"{beam}/incident_beam_energy", f"{beam}/incident_energy"),
        )
        moved = _motions_m(h5, layout, options, said)
        if moved is None and options.positions is None and options.scan_step_m is None:
            raise missing_key(file, f"{layout.detector}/translation", "(M, 3) sample translations, metres")
        return bound(h5, file, layout, options, geometry, moved, said, dialect="nxcxi_ptycho")


def _motions_m(h5: Any, layout: Layout, options: ReadOptions, said: Said) -> NDArray[np.float64] | None:
    """Motions (M, 3) (x, y, z) of the sample, metres, from whichever of the places the file fills."""
    shape = h5[layout.frames].shape
    M = int(np.prod(shape[:-2]))
    paths = (
        f"{layout.detector}/translation",
        f"{layout.data}/translation",
        f"{layout.sample}/geometry_1/translation",
    )
    moved = translations_m(h5, paths, M, options, said.notes)
    if moved is not None:
        return moved
    plots = [name for name in group_at(h5, layout.entry) or () if _is_plot(h5, f"{layout.entry}/{name}")]
    for group in (f"{layout.sample}/transformations", *(f"{layout.entry}/{name}" for name in plots)):
        motors = {axis: dataset_at(h5, f"{group}/{axis}") for axis in "xy"}
        if all(motor is not None for motor in motors.values()):
            return _of_motors(h5, group, motors, shape[:-2], options, said)
    return None


def _is_plot(h5: Any, path: str) -> bool:
    item = group_at(h5, path)
    return item is not None and attribute(item, "NX_class") == "NXdata"


def _of_motors(
    h5: Any, group: str, motors: dict[str, Any], counted: tuple[int, ...], options: ReadOptions, said: Said
) -> NDArray[np.float64]:
    """Motions (M, 3), metres, of two motors along their vectors."""
    said.notes.append(f"Positions are the motors x and y of {group}.")
    values: dict[str, NDArray[np.float64]] = {}
    for axis in "xy":
        measured = measured_at(
            h5, f"{group}/{axis}", "length", "--position_unit", as_stored=options.position_unit is not None
        )
        assert measured is not None
        values[axis] = measured.values
        _check_kind(h5, group, axis, motors[axis])
    values = _on_frames(values, counted, f"{h5.file.filename}: {group}", said)
    M = len(values["x"])
    moved = np.zeros((M, 3))
    for axis in "xy":
        vector = np.asarray(attribute(motors[axis], "vector", _VECTORS[axis]), np.float64).ravel()
        length = np.linalg.norm(vector) if vector.shape == (3,) else 0.0
        if not length > 0:
            raise DataError(
                f"{h5.file.filename}: {group}/{axis}: its vector is {vector.tolist()}; it must be (x, y, z)."
            )
        moved += values[axis][:, None] * (vector / length)
    return moved


def _check_kind(h5: Any, group: str, axis: str, motor: Any) -> None:
    kind = attribute(motor, "transformation_type", "translation")
    if kind != "translation":
        raise DataError(
            f"{h5.file.filename}: {group}/{axis} is a {kind}; the motors of a scan translate. Give --positions FILE."
        )


def _on_frames(
    values: dict[str, NDArray[np.float64]], counted: tuple[int, ...], where: str, said: Said
) -> dict[str, NDArray[np.float64]]:
    """Values (M,) of x and y for every frame, of lists, of maps, or of the axes of a raster.

    Args:
        values: of x and of y, as stored.
        counted: shape of the frames without that of an image.
        where: file and group, for messages.
        said: what was assumed is added here.
    """
    M = int(np.prod(counted))
    x, y = values["x"], values["y"]
    if x.size == y.size and (x.size == M or (len(counted) == 1 and x.size * y.size != M)):
        return {"x": x.ravel(), "y": y.ravel()}
    if x.size * y.size != M or (len(counted) == 2 and {x.size, y.size} != set(counted)):
        raise DataError(
            f"{where}: x is {x.shape} and y is {y.shape} for {' × '.join(map(str, counted))} frames; they must be one "
            "value a frame, or the two axes of a raster. Give --positions FILE."
        )
    y_is_slow = len(counted) == 1 or counted == (y.size, x.size)
    said.notes.append(
        f"x and y are the axes of a raster; {'y' if y_is_slow else 'x'} was taken as the slow one, "
        f"{'by their lengths' if len(set(counted)) > 1 else 'which their lengths cannot tell'}."
    )
    if y_is_slow:
        slow, fast = np.meshgrid(y.ravel(), x.ravel(), indexing="ij")
        return {"x": fast.ravel(), "y": slow.ravel()}
    slow, fast = np.meshgrid(x.ravel(), y.ravel(), indexing="ij")
    return {"x": slow.ravel(), "y": fast.ravel()}
