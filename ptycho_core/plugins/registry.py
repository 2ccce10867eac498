"""Which engines are installed, and how one of them is loaded (specs/40-plugins).

An engine is a large thing: importing one framework takes seconds and gigabytes, and two frameworks in one process
fight over threads and devices. So three steps are kept apart. *Finding* reads package metadata and runs nobody's
code. *Describing* imports a plugin module, which holds a ``BackendSpec`` and no framework; it is guarded, so that a
broken plugin is shown with its cause and stops nobody else. *Loading* imports the one engine that was chosen: the
entry point carries the engine's name, so that not even the plugin modules of other engines are imported for it.

Nothing is kept between calls. Finding takes milliseconds, and a package installed or removed while a session is open
(a notebook) is seen at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..config import EngineOptions
from ..errors import (
    BackendError,
    BackendProtocolError,
    BackendUnavailableError,
    UnknownBackendError,
    suggest,
)
from ..protocol import BackendSpec, Capabilities, ReconstructionBackend
from .discovery import (
    ENGINES,
    Entry,
    PluginStatus,
    accepts,
    by_name,
    conflict,
    describe,
    installed,
    is_missing,
    owner,
    pip_line,
)
from .guard import engine_at_work
from .promises import check_engine, check_registered, check_spec, check_stated

__all__ = [
    "INSTALL_ONE",
    "BackendStatus",
    "LoadedBackend",
    "available_backends",
    "backend_distribution",
    "backend_spec",
    "describe_backend",
    "load_backend",
    "load_described",
    "options_class",
    "refuse_missing",
]

INSTALL_ONE = "pip install 'ptycho-core[torch]' or 'ptycho-core[tensorflow]'"
"""What to say where no engine is installed."""


@dataclass(frozen=True)
class LoadedBackend:
    """An engine that was chosen and imported, once, and what is known of it; handed on to every stage.

    Attributes:
        backend: the engine.
        spec: its description.
        distribution: installed distribution and version that offers it.
    """

    backend: ReconstructionBackend
    spec: BackendSpec
    distribution: str

    @property
    def name(self) -> str:
        """Engine name."""
        return self.spec.name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self.backend.capabilities


class BackendStatus(PluginStatus):
    """What is known of one engine name, the word in ``config.backend``, without importing the engine."""


def _title(spec: BackendSpec) -> str:
    return spec.title or spec.name


def _describe(entry: Entry) -> BackendSpec:
    """Import one plugin module and ask it.

    Raises:
        BackendError: the plugin failed; its own exception is the cause.
        BackendProtocolError: it does not keep the hook.
    """
    return check_spec(describe(ENGINES, entry), entry.name, f"engine '{entry.name}' ({owner(entry)}, {entry.value})")


def _find(name: str) -> Entry:
    """Return the one entry point of a name.

    Raises:
        UnknownBackendError: no distribution offers it.
        BackendConflictError: several do.
    """
    entries = installed(ENGINES)
    own = [e for e in entries if e.name == name]
    if not own:
        names = sorted({e.name for e in entries})
        raise UnknownBackendError(f"unknown engine {name!r}; {_known_engines()}.{suggest(str(name), names)}")
    if len(own) > 1:
        raise conflict(ENGINES, name, own)
    return own[0]


def _known_engines() -> str:
    """Which engines can be named, in words: those that are ready, and those that lack a package or are broken."""
    engines = available_backends()
    ready = [e.name for e in engines if e.state == "ready"]
    lacking = [f"{e.name} ({e.install})" for e in engines if e.state == "missing"]
    faulty = [f"{e.name} ({e.state})" for e in engines if e.state in ("broken", "conflict")]
    parts = [
        f"installed: {', '.join(ready)}" if ready else f"none is installed; {INSTALL_ONE}",
        *([f"not installed: {', '.join(lacking)}"] if lacking else []),
        *([f"not usable: {', '.join(faulty)}"] if faulty else []),
    ]
    return "; ".join(parts)


def _status(name: str, entries: Sequence[Entry]) -> BackendStatus:
    owners = " and ".join(owner(e) for e in entries)
    if len(entries) > 1:
        detail = str(conflict(ENGINES, name, entries))
        return BackendStatus(name=name, title=name, distribution=owners, state="conflict", detail=detail, install="")
    try:
        spec = _describe(entries[0])
    except BackendError as error:
        return BackendStatus(name=name, title=name, distribution=owners, state="broken", detail=str(error), install="")
    absent = [module for module in spec.requires if is_missing(module)]
    needs = f"needs {', '.join(spec.requires)}" if spec.requires else "needs nothing more"
    return BackendStatus(
        name=name,
        title=_title(spec),
        distribution=owners,
        state="missing" if absent else "ready",
        detail=f"not installed: {', '.join(absent)}" if absent else needs,
        install=pip_line(spec) if absent else "",
    )


def available_backends() -> list[BackendStatus]:
    """List every engine that an installed distribution offers, with its state, sorted by name.

    Plugin modules are imported, engines and frameworks are not. No plugin can make this fail.
    """
    return [_status(name, entries) for name, entries in by_name(installed(ENGINES)).items()]


def backend_spec(name: str) -> BackendSpec:
    """Return the description of an engine; the engine itself is not imported, and may lack what it requires.

    Args:
        name: engine name.

    Raises:
        UnknownBackendError: no distribution offers it; the nearest names and what is installed are listed.
        BackendConflictError: two distributions claim it; both are named.
        BackendProtocolError: its plugin does not keep the hook, or was written for another version of the protocol.
        BackendError: its plugin is broken; the cause is chained.
    """
    return _describe(_find(name))


def options_class(name: str) -> type[EngineOptions] | None:
    """Return the class of the settings that an engine alone has, or None; the engine itself is not imported.

    Args:
        name: engine name.

    Raises:
        BackendProtocolError: the plugin declares something else than a class of engine options for its name.
        BackendFaultError: the module of the options raised, which is the cause.
        BackendError: as :func:`backend_spec`.
    """
    spec = backend_spec(name)
    if not spec.options:
        return None
    module_name, _, class_name = spec.options.partition(":")
    with engine_at_work(name, "the import of its options"):
        found = getattr(importlib.import_module(module_name), class_name, None)
    if not (isinstance(found, type) and issubclass(found, EngineOptions) and found.engine == name):
        raise BackendProtocolError(
            f"engine '{name}': options = {spec.options!r}; it must name a subclass of EngineOptions whose `engine` is "
            f"{name!r}."
        )
    return found


def backend_distribution(name: str) -> str:
    """Return the installed distribution and version that offers an engine, such as ``ptycho-core 0.1.0``.

    Raises:
        UnknownBackendError, BackendConflictError: as :func:`backend_spec`.
    """
    return owner(_find(name))


def describe_backend(name: str) -> tuple[BackendSpec, str]:
    """The description of an engine, and the distribution that offers it: enough to load it later without looking again.

    Raises:
        BackendError: as :func:`backend_spec`.
    """
    entry = _find(name)
    return _describe(entry), owner(entry)


def refuse_missing(spec: BackendSpec) -> None:
    """Refuse an engine whose packages are not installed; nothing is imported to know it.

    Raises:
        BackendUnavailableError: one is not; the message has the pip line.
    """
    absent = [module for module in spec.requires if is_missing(module)]
    if absent:
        raise _unavailable(spec, absent)


def load_described(spec: BackendSpec, distribution: str) -> LoadedBackend:
    """Import the engine of a description and check that it keeps the protocol; errors as :func:`load_backend`."""
    refuse_missing(spec)
    who = f"engine '{spec.name}' ({distribution}, {spec.factory})"
    with engine_at_work(spec.name, "its import"):
        engine = _constructed(spec, who)
        check_engine(engine, spec, who)
        check_stated(spec, engine.capabilities, who)
        check_registered(spec, engine.capabilities, who)
    return LoadedBackend(engine, spec, distribution)


def load_backend(name: str) -> ReconstructionBackend:
    """Import one engine and check that it keeps the protocol; no other engine is touched.

    Args:
        name: engine name, as in ``config.backend``.

    Raises:
        BackendUnavailableError: a module that the engine requires is not installed; the message has the pip line.
        BackendProtocolError: the engine lacks a method, or one has the wrong signature, or it states no capabilities.
        BackendFaultError: the engine's module or class raised anything else, which is a fault of the engine and the
            cause; a ``BackendImportError``, which is an ImportError too, where an import failed.
        UnknownBackendError, BackendConflictError, BackendError: as :func:`backend_spec`.
    """
    return load_described(*describe_backend(name)).backend


def _constructed(spec: BackendSpec, who: str) -> Any:
    """Import the engine's module and call its class."""
    module_name, _, class_name = spec.factory.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name in spec.requires:
            raise _unavailable(spec, [error.name]) from error
        raise
    factory: Any = module
    for part in class_name.split("."):
        factory = getattr(factory, part, None)
    if not callable(factory):
        raise BackendProtocolError(f"{who}: module {module_name!r} has no class {class_name!r}.")
    if not accepts(factory, 0, ()):
        raise BackendProtocolError(f"{who}: the class needs arguments; it is called without any.")
    return factory()


def _unavailable(spec: BackendSpec, absent: Sequence[str]) -> BackendUnavailableError:
    modules = ", ".join(repr(module) for module in absent)
    return BackendUnavailableError(
        f"{_title(spec)} backend selected (backend = {spec.name!r}), but the module {modules} is not installed. "
        f"Install it with: {pip_line(spec)}"
    )
