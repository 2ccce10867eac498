"""A trained model as a bundle: what those of networks and of solvers write and read alike (specs/50-model-bundle)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, write_bundle
from ..data.model import TrainedModel
from ..provenance import machine, package_versions

__all__ = ["common_of", "write_model"]


class _Scaled(TrainedModel, Protocol):
    """A model that says its scale."""

    @property
    def scale(self) -> float:
        """S at the end of training."""


def write_model(
    model: _Scaled,
    path: Path,
    packages: Collection[str],
    *,
    generator: str | None,
    weights: Mapping[str, NDArray[Any]],
    forward_model: str = "",
    slice_spacing_m: float | None = None,
) -> None:
    """Write a model as a bundle.

    Args:
        model: what to write.
        path: file, by convention named ``model.ptycho``.
        packages: distributions whose versions are kept with it.
        generator: name of the network, or None for a solver.
        weights: name → array.
        forward_model: name of the engine whose own forward model alone explains what a solver found, or empty.
        slice_spacing_m: metres between two slices of a solver's thick object, or None.

    Raises:
        ArchiveError, OutputError: see ``bundle.write_bundle``.
    """
    bundle = Bundle(
        backend=model.backend,
        generator=generator,
        side=int(np.shape(model.probe)[-1]),
        config=model.config,
        statistics=model.statistics,
        scale=model.scale,
        weights=weights,
        probe=model.probe,
        forward_model=forward_model,
        slice_spacing_m=slice_spacing_m,
        history={name: list(values) for name, values in model.history.items()},
        provenance={"versions": package_versions(tuple(packages)), "machine": machine(), "seed": model.config.seed},
    )
    write_bundle(path, bundle)


def common_of(bundle: Bundle, backend: str) -> dict[str, Any]:
    """What a model of any kind takes from a bundle, by the names of its attributes; `backend` has read it."""
    return {
        "backend": backend,
        "config": bundle.config,
        "statistics": bundle.statistics,
        "scale": bundle.scale,
        "probe": bundle.probe,
        "history": {name: list(values) for name, values in bundle.history.items()},
    }
