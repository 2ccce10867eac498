"""Reconstructing: an archive and a scan make an image, on the client's grid."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptycho_core import RawData, Runtime, Scored, ensure_container, reconstruct, refine, run_cdi_example

from .archive import Archive
from .canvas import likely_grid, on_grid
from .engine import VARIABLE, named_engine
from .scans import ClientScan
from .training import logged, said_of, tell_progress

__all__ = ["ClientImage", "image_of"]

logger = logging.getLogger("ptycho_core_ptychodus")

_SAME_PX = 1e-3
_SAME_SCAN = 0.5
"""Share of positions that a scan has in common with another only where both are counted from one pixel."""


@dataclass(frozen=True)
class ClientImage:
    """An image for the client.

    Attributes:
        object: (H, W) complex64, whose array has the centre of the client's.
        scored: the image as it is here, with its figures.
    """

    object: NDArray[np.complex64]
    scored: Scored


def _prepared(archive: Archive, scan: ClientScan) -> RawData:
    """The scan with what training knows of the detector and of the probe."""
    raw = scan.raw
    if raw.mask is None and archive.mask is not None and archive.mask.shape == (raw.side, raw.side):
        logger.info(
            "%d pixels that were bad in training are left out; the client has filled them", int((~archive.mask).sum())
        )
        raw = RawData.from_arrays(
            raw.frames, raw.positions_px, raw.probe, probe_calibrated=raw.probe_calibrated, mask=archive.mask,
            background=raw.background, object_guess=raw.object_guess, geometry=raw.geometry,
            propagation=raw.propagation, frame_numbers=raw.frame_numbers, source=raw.source,
        )  # fmt: skip
    if raw.probe is not None and np.array_equal(raw.probe, archive.probe_guess):
        logger.info("the probe is the one that training began with, so it goes on from what training made of it")
        return raw.with_probe(archive.probe)
    logger.info("the probe of the product is another than in training, so it is taken as it is")
    return raw


def _by_solver(archive: Archive, raw: RawData, runtime: Runtime) -> Scored:
    """Solve and refine the scan by the settings of the archive; what a solver found of another scan holds for that."""
    name = named_engine()
    config = archive.config if name is None else replace(archive.config, backend=name, options=())
    logger.info("solving with engine %s%s", config.backend, f", named by {VARIABLE}" if name else " as in training")
    scored = run_cdi_example(raw, None, config, runtime, do_stitching=True, progress=tell_progress())
    image = scored.results["reconstruction"]
    assert image is not None
    return image


def _by_network(archive: Archive, raw: RawData, runtime: Runtime) -> Scored:
    """Apply the network of the archive, and refine what it made."""
    model = archive.model(named_engine())
    logger.info("engine %s applies the network", model.backend)
    config = replace(model.config, backend=model.backend)
    first = reconstruct(model, ensure_container(raw, config), config.inference, runtime, progress=tell_progress())
    return refine(first, config, runtime, progress=tell_progress()).best


def _grid_of(archive: Archive, scan: ClientScan) -> tuple[int, int]:
    """Shape of the client's object array."""
    if scan.grid is not None:
        return scan.grid
    positions = scan.raw.positions_px
    if archive.grid is not None and _share(positions, archive.positions_px) > _SAME_SCAN:
        return archive.grid
    grid, sure = likely_grid(positions)
    if not sure:
        logger.warning(
            "ptychodus does not hand over the shape of the object here, and the scan does not lie about its middle: "
            "the centre of the new object may be wrong. Use the reconstructor PtychoPINN, which does."
        )
    return grid


def _share(positions: NDArray[np.float64], of: NDArray[np.float64]) -> float:
    """Which part of positions (M, 2) is among others (M', 2)."""
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(of).query(positions)
    return float((distance < _SAME_PX).mean())


def image_of(archive: Archive, scan: ClientScan, runtime: Runtime | None = None) -> ClientImage:
    """Make the image of a scan.

    Args:
        archive: what training left.
        scan: the scan.
        runtime: what does the work; None is the default one.

    Raises:
        PtychoError: see ``ptycho_core.run_cdi_example`` and ``reconstruct``.
    """
    raw = _prepared(archive, scan)
    with logged():
        scored = (_by_network if archive.network else _by_solver)(archive, raw, runtime or Runtime())
    logger.info("reconstructed: %s", said_of(scored))
    grid = _grid_of(archive, scan)
    array, larger = on_grid(scored.image.object, scored.image.origin_px, grid)
    if any(larger):
        logger.warning(
            "frames reach beyond the object of the product: it is %d and %d pixels larger on each side", *larger
        )
    return ClientImage(array, scored)
