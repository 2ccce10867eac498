"""The conformance kit: what an engine's author subclasses to hold an engine to the protocol (docs/write-an-engine.md).

    from ptycho_core.testing import BackendConformance

    class TestMine(BackendConformance):
        engine_name = "mine"

The suite is made of pytest's fixtures and tests, so it needs pytest; ``problems`` and ``tolerances`` do not.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from ..errors import MissingPackageError

if TYPE_CHECKING:
    from .conformance import BackendConformance
    from .runner import Sheet, run_conformance

__all__ = ["BackendConformance", "Sheet", "run_conformance"]

_HOMES = {"BackendConformance": "conformance", "Sheet": "runner", "run_conformance": "runner"}


def __getattr__(name: str) -> Any:
    """Import the part of the kit that holds a public name.

    Raises:
        MissingPackageError: pytest is not installed.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if importlib.util.find_spec("pytest") is None:
        raise MissingPackageError(
            f"{__name__}.{name} is made of pytest's tests, and pytest is not installed. "
            "Install it with: pip install 'ptycho-core[testing]'"
        )
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
