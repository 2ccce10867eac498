"""The one hook of the project (specs/40-plugins).

A plugin is a module named by an entry point in the group ``ptycho.backends``. The entry point's name is the engine's
name. The module marks one function with :data:`hookimpl` and imports no framework::

    from ptycho_core.plugins.hookspecs import hookimpl
    from ptycho_core.protocol import BackendSpec

    @hookimpl
    def ptycho_backend() -> BackendSpec:
        return BackendSpec(name="mine", factory="my_package.backend:MyBackend", requires=("jax",), extra="my-package")
"""

from __future__ import annotations

import pluggy

from ..protocol import BackendSpec

__all__ = ["ENTRY_POINT_GROUP", "PROJECT", "hookimpl", "hookspec", "ptycho_backend"]

PROJECT = "ptycho"
ENTRY_POINT_GROUP = "ptycho.backends"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ptycho_backend() -> BackendSpec:
    """Describe an engine without importing it.

    Called each time engines are listed, and once when this engine is chosen; never for the choice of another.

    Returns:
        What it is called, where its class is, what it needs. The name equals the name of the entry point.
    """
    raise NotImplementedError
