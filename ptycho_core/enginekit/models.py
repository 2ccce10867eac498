"""Models of an engine that solves and trains networks: one function to write either, and one to read either."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..bundle import read_bundle
from .network_model import NetworkModel, load_network, save_network
from .solver_model import SolverModel, load_solver, save_solver

__all__ = ["load_model", "save_model"]


def save_model(model: NetworkModel | SolverModel, path: Path, packages: Collection[str]) -> None:
    """Write a model as a bundle (specs/50-model-bundle).

    Args:
        model: what to write.
        path: file, by convention named ``model.ptycho``.
        packages: modules whose versions are kept with it.

    Raises:
        ArchiveError, OutputError: see ``bundle.write_bundle``.
    """
    if isinstance(model, SolverModel):
        save_solver(model, path, packages)
    else:
        save_network(model, path, packages)


def load_model(path: Path, backend: str, generators: Collection[str] | None = None) -> NetworkModel | SolverModel:
    """Read what an engine solved itself, or the network of any engine whose generator it has.

    Args:
        path: the bundle.
        backend: name of the engine that reads it.
        generators: names of the generators that this engine has; see ``network_model.load_network``.

    Raises:
        ArchiveError: damaged, unsafe, or of an engine or a generator that this one cannot follow; both are named.
    """
    if read_bundle(path).generator is None:
        return load_solver(path, backend)
    return load_network(path, backend, generators)
