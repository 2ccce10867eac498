"""How anything from outside is found and described: one door for engines, one for readers (specs/40-plugins).

*Finding* reads package metadata and runs nobody's code. *Describing* imports one plugin module, guarded, so that a
broken one is known with its cause and stops nobody else. Nothing is kept between calls: finding takes milliseconds, and
a package installed or removed while a session is open (a notebook) is seen at once.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pluggy

from ..errors import BackendConflictError, BackendError, BackendProtocolError, PtychoError, ReaderError
from . import hookspecs

__all__ = [
    "ENGINES",
    "READERS",
    "Door",
    "Entry",
    "PluginStatus",
    "Versions",
    "accepts",
    "by_name",
    "check_promises",
    "conflict",
    "describe",
    "installed",
    "is_missing",
    "origin",
    "owner",
    "pip_line",
]

State = Literal["ready", "missing", "broken", "conflict"]
Entry = importlib.metadata.EntryPoint


class _Spec(Protocol):
    """What the description of an engine and that of a reader share."""

    @property
    def name(self) -> str: ...
    @property
    def requires(self) -> tuple[str, ...]: ...
    @property
    def extra(self) -> str: ...
    @property
    def protocol_version(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Door:
    """One kind of thing that comes from outside.

    Attributes:
        noun: what it is called (``engine``).
        group: of entry points.
        hook: name of the function that a plugin module marks.
        answer: name of the type that the hook returns.
        broken: raised where a plugin failed; its own exception is the cause.
        refused: raised where it does not keep the hook, or is of a version that is not accepted.
        claimed: raised where several distributions claim one name.
    """

    noun: str
    group: str
    hook: str
    answer: str
    broken: type[PtychoError]
    refused: type[PtychoError]
    claimed: type[PtychoError]


ENGINES = Door(
    noun="engine",
    group=hookspecs.ENTRY_POINT_GROUP,
    hook="ptycho_backend",
    answer="BackendSpec",
    broken=BackendError,
    refused=BackendProtocolError,
    claimed=BackendConflictError,
)
READERS = Door(
    noun="reader",
    group=hookspecs.READER_GROUP,
    hook="ptycho_reader",
    answer="ReaderSpec",
    broken=ReaderError,
    refused=ReaderError,
    claimed=ReaderError,
)


@dataclass(frozen=True, kw_only=True)
class PluginStatus:
    """What is known of one name without importing more than its plugin module.

    Attributes:
        name: of the engine or reader.
        title: name for people.
        distribution: installed distribution and version that offers it; several, joined by " and ", in a conflict.
        state: ``ready``; ``missing``: a module it requires is not installed; ``broken``: its plugin failed or does not
            keep the protocol; ``conflict``: two distributions claim the name.
        detail: one line for people: what it needs, what is missing, or what went wrong.
        install: the command that installs what is missing, or an empty text.
    """

    name: str
    title: str
    distribution: str
    state: State
    detail: str
    install: str


def installed(door: Door) -> list[Entry]:
    """The entry points of a door's group, sorted by name."""
    return sorted(importlib.metadata.entry_points(group=door.group), key=lambda e: (e.name, e.value))


def by_name(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Name → the entry points that claim it, sorted by name."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.name, []).append(entry)
    return dict(sorted(found.items()))


def owner(entry: Entry) -> str:
    """The distribution and version that an entry point belongs to."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value


def origin(door: Door, name: str) -> str:
    """A name in words, with the distribution it comes from: ``engine 'mine' (my-package 1.2)``.

    A broken plugin has a distribution as well; only a name that no distribution claims, or several do, has none.
    """
    entries = [entry for entry in installed(door) if entry.name == name]
    if len(entries) == 1:
        return f"{door.noun} '{name}' ({owner(entries[0])})"
    return f"{door.noun} '{name}' ({'claimed by several distributions' if entries else 'not installed'})"


def conflict(door: Door, name: str, entries: Sequence[Entry]) -> PtychoError:
    """The error of a name that several distributions claim."""
    claims = " and ".join(f"{owner(e)} ({e.value})" for e in entries)
    return door.claimed(f"{door.noun} '{name}' is claimed by {claims}; uninstall all but one of them.")


def pip_line(spec: _Spec) -> str:
    """The command that installs what a plugin requires."""
    return f"pip install '{spec.extra}'" if spec.extra else f"pip install {' '.join(spec.requires)}"


def is_missing(module: str) -> bool:
    """Whether a top-level module cannot be found; nothing is imported.

    A folder of that name on the path (a user's ``torch/`` beside a notebook) can be imported as a namespace package,
    but is not the module.
    """
    try:
        spec = importlib.util.find_spec(module)
        return spec is None or (spec.origin is None and spec.submodule_search_locations is not None)
    except ValueError:  # it is imported already, by a loader that left no spec
        return False


def describe(door: Door, entry: Entry) -> Any:
    """Import one plugin module and ask it; a plugin manager of its own keeps plugins out of each other's way.

    Returns:
        What its hook answered, whatever that is.

    Raises:
        PtychoError: the door's; the plugin failed, which is the cause, or it does not keep the hook.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    who = f"{door.noun} '{entry.name}' ({owner(entry)}, {entry.value})"
    try:
        manager.register(entry.load(), name=entry.value)
        answers: list[Any] = getattr(manager.hook, door.hook)()
    except pluggy.PluginValidationError as error:
        raise door.refused(f"{who}: its {door.hook} hook has the wrong signature: {error}") from error
    except (Exception, SystemExit) as error:  # a plugin is someone else's code: whatever it does, the host goes on
        raise door.broken(
            f"{who} is installed but its plugin is broken: {type(error).__name__}: {error}. "
            "Reinstall or remove that distribution."
        ) from error
    if len(answers) != 1:
        raise door.refused(
            f"{who}: {len(answers)} {door.hook} hooks answered; the module must mark exactly one function "
            f"{door.hook}() with hookimpl, and it must return a {door.answer}."
        )
    return answers[0]


@dataclass(frozen=True)
class Versions:
    """The versions of a protocol that this host accepts.

    Attributes:
        first: oldest.
        last: newest.
        what_changed: older version → what a plugin written for it must change.
    """

    first: int
    last: int
    what_changed: Mapping[int, str] = field(default_factory=dict)


def check_promises(door: Door, spec: _Spec, entry_name: str, who: str, versions: Versions) -> None:
    """Refuse a description whose name, requirements or version could not be acted on later.

    Args:
        door: what it describes.
        spec: of the type that the door asks for.
        entry_name: name of its entry point.
        who: what it is, distribution and module, for the message.
        versions: that are accepted.

    Raises:
        PtychoError: the door's ``refused``.
    """
    if spec.name != entry_name:
        raise door.refused(
            f"{who}: {door.hook}() names the {door.noun} {spec.name!r} but its entry point is called {entry_name!r}; "
            "the two must be equal."
        )
    bad = [name for name in spec.requires if not (isinstance(name, str) and name.isidentifier())]
    if bad or isinstance(spec.requires, str):
        raise door.refused(f"{who}: requires = {spec.requires!r}; it must be a tuple of top-level modules.")
    first, last, version = versions.first, versions.last, spec.protocol_version
    if not isinstance(version, int) or not first <= version <= last:
        newer = isinstance(version, int) and version > last
        fix = "Upgrade ptycho-core." if newer else versions.what_changed.get(version, f"Upgrade the {door.noun}.")
        raise door.refused(
            f"{who} was written for {door.noun} protocol {version}; this ptycho-core accepts "
            f"{f'{first} to {last}' if first < last else first}. {fix}"
        )


def accepts(function: Any, n_positional: int, keywords: tuple[str, ...] = ()) -> bool:
    """Whether a callable can be called with so many positional arguments and these keywords."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin or an extension type without a signature: only the call can tell
        return True
    try:
        signature.bind(*range(n_positional), **dict.fromkeys(keywords))
    except TypeError:
        return False
    return True
