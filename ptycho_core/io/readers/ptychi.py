"""Frames as pty-chi's users keep them: HDF5 with ``dp`` (M, H, W) intensities, and a file ``…_para.hdf5`` beside it.

The other file holds ``probe_position_y_m`` and ``probe_position_x_m``, ``probe`` and ``object`` with its pixel, as a
product of ptychodus does; or all is in one file. Files of the exchange format have their frames in ``exchange/data``.
Zero frequency is at (H // 2, W // 2): it goes to the corner when pty-chi is called.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...data.raw import Geometry, Source
from ...data.recording import Recording
from ...errors import DataError
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ..candidate import Candidate
from ..measurement import doubt, resolve_measurement
from ..probes import NO_PROBE, normalise_probe
from .arrays import Hdf5Arrays
from .growing import counted_frames
from .product import Product, product_in

__all__ = ["ptycho_reader", "read", "recognises"]

_FRAMES = ("dp", "exchange/data")
_SAMPLE = 4


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="ptychi",
        title="pty-chi: HDF5 with dp, and a …_para.hdf5 beside it (--positions)",
        kind="hdf5",
        module=__name__,
        protocol_version=2,
        priority=15,
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is HDF5 with frames by one of the names."""
    return file.kind == "hdf5" and not set(_FRAMES).isdisjoint(file.names)


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; frames stay on disk.

    Args:
        file: an examined HDF5 file.
        options: `measurement` must not contradict counts.

    Raises:
        DataError: what must be frames is none.
    """
    name = str(file.path)
    resolve_measurement(name, "counts", options.measurement)
    arrays = Hdf5Arrays(file.path, options.follow)
    path = next((p for p in _FRAMES if p in file.names), "")
    if not path:
        raise DataError(f"{name}: no frames; one of {', '.join(_FRAMES)} must hold them, (M, H, W).")
    header = arrays.header(path)
    if len(header.shape) != 3 or 0 in header.shape or header.dtype.kind not in "biuf":
        raise DataError(f"{name}: {path!r} is {header.shape} {header.dtype}; frames must be (M, H, W) real numbers.")
    notes = [f"{path} holds intensities, read as counts."]
    product = product_in(arrays)
    placed = None if product is None else _by_number(product, header.shape[0], options, notes, name)
    frames, (positions,) = counted_frames(arrays, path, (1, 2), [placed], notes)
    sample = frames.stored(np.unique(np.linspace(0, frames.shape[0] - 1, _SAMPLE).astype(np.int64)))
    probe = None if product is None or product.probe is None else normalise_probe(product.probe, name, notes)
    if probe is None:
        notes.append(NO_PROBE)
    return Recording(
        frames=frames,
        positions=positions,
        position_unit="" if product is None else "m",
        probe=probe,
        geometry=Geometry() if product is None else product.geometry,
        source=Source(
            path=name,
            dialect="ptychi",
            measurement="counts",
            assumptions=tuple(notes),
            warnings=(*(() if product is None else product.warnings), *doubt("counts", sample)),
        ),
    )


def _by_number(
    product: Product, M: int, options: ReadOptions, notes: list[str], name: str
) -> NDArray[np.float64] | None:
    """Positions in the order of the frames, by their numbers where the file has them; None where others are given.

    Raises:
        DataError: positions are of other frames than 0 to M − 1.
    """
    order = product.indexes
    if order is None or np.array_equal(order, np.arange(len(order))):
        return product.positions_m
    if options.positions is not None:
        return None
    if not np.array_equal(np.sort(order), np.arange(M)):
        raise DataError(
            f"{name}: its positions are of frames {order.min()} to {order.max()}, {len(order)} of them, and it has {M} "
            f"frames, 0 to {M - 1}. To take what belongs together, give --positions {name} --frames FILE, the numbers "
            "of the frames that have one."
        )
    notes.append("Positions were put into the order of the frames by their numbers.")
    return product.positions_m[np.argsort(order)]
