"""The two hooks of the project, one for engines and one for readers (specs/40-plugins).

A plugin is a module named by an entry point in the group ``ptycho.backends``. The entry point's name is the engine's
name. The module marks one function with :data:`hookimpl` and imports no framework::

    from ptycho_core.plugins.hookspecs import hookimpl
    from ptycho_core.protocol import BackendSpec

    @hookimpl
    def ptycho_backend() -> BackendSpec:
        return BackendSpec(name="mine", factory="my_package.backend:MyBackend", requires=("jax",), extra="my-package")

A reader of scan files is announced in the group ``ptycho.readers``, by ``ptycho_reader() -> ReaderSpec``.
"""

from __future__ import annotations

import pluggy

from ..protocol import BackendSpec
from ..reader_protocol import ReaderSpec

__all__ = ["ENTRY_POINT_GROUP", "PROJECT", "READER_GROUP", "hookimpl", "hookspec", "ptycho_backend", "ptycho_reader"]

PROJECT = "ptycho"
ENTRY_POINT_GROUP = "ptycho.backends"
READER_GROUP = "ptycho.readers"

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


@hookspec
def ptycho_reader() -> ReaderSpec:
    """Describe a reader of scan files without importing what it reads them with.

    Called each time readers are listed and each time a file is to be read, so the module stays light.

    Returns:
        What it is called, what files it reads, where its functions are. The name equals the name of the entry point.
    """
    raise NotImplementedError
