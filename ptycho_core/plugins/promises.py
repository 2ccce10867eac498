"""What a plugin and its engine promise by their version of the protocol, and how it is checked when they are loaded."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ..enginekit.architectures import GENERATORS
from ..errors import BackendProtocolError
from ..generators import Generator
from ..protocol import ACCEPTED_VERSIONS, BackendSpec, Capabilities
from .discovery import ENGINES, Versions, accepts, check_promises
from .guard import engine_at_work

__all__ = ["check_engine", "check_registered", "check_spec", "check_stated", "generators_of", "records_of"]

_METHODS: dict[str, tuple[int, tuple[str, ...]]] = {
    "train": (3, ("progress",)),
    "reconstruct": (4, ("progress",)),
    "save": (2, ()),
    "load": (1, ()),
}
_OPTIONAL: dict[str, tuple[int, tuple[str, ...]]] = {
    "refine": (4, ("progress",)),
    "stepper": (4, ()),
    "expected_counts": (3, ()),
    "losses_for": (1, ()),
    "loss_and_gradient": (4, ()),
    "predict_patches": (2, ()),
    "device_words": (1, ()),
}


_WHAT_CHANGED = {
    1: (
        "To bring it to protocol 2: train(scans, config, runtime) takes scans with a role for each frame "
        "(scan.train_frames, scan.heldout_frames) in place of groups and a test set; reconstruct and refine return an "
        "Image from ptycho_core.enginekit.stitching.make_image, and core scores it; simulate is replaced by the "
        "optional expected_counts; say protocol_version=2 in the BackendSpec. docs/write-an-engine.md has a whole one."
    ),
}
"""Older version of the protocol → what an engine written for it must change."""


def check_spec(spec: Any, entry_name: str, who: str) -> BackendSpec:
    """Refuse a description that could not be acted on later.

    Args:
        spec: what the plugin's hook returned.
        entry_name: name of its entry point.
        who: engine, distribution and module, for the message.

    Raises:
        BackendProtocolError: it is no description, contradicts its entry point, or is of a version not accepted here.
    """
    if not isinstance(spec, BackendSpec):
        raise BackendProtocolError(f"{who}: ptycho_backend() returned {type(spec).__name__}; it must be a BackendSpec.")
    module, colon, attribute = spec.factory.partition(":")
    if not (colon and module and attribute):
        raise BackendProtocolError(f"{who}: factory = {spec.factory!r}; it must be 'module:Class'.")
    quiet = spec.quiet_environment
    if not isinstance(quiet, Mapping) or not all(isinstance(word, str) for pair in quiet.items() for word in pair):
        raise BackendProtocolError(f"{who}: quiet_environment = {quiet!r}; it must map names of variables to texts.")
    if not isinstance(spec.capabilities, Capabilities | None):
        given = type(spec.capabilities).__name__
        raise BackendProtocolError(f"{who}: capabilities is a {given}; it must be a Capabilities, or None.")
    check_promises(ENGINES, spec, entry_name, who, Versions(*ACCEPTED_VERSIONS, _WHAT_CHANGED))
    return spec


def check_engine(engine: Any, spec: BackendSpec, who: str) -> None:
    """Check name, capabilities and methods; every fault is named at once.

    Raises:
        BackendProtocolError: at least one fault.
    """
    faults = []
    if getattr(engine, "name", None) != spec.name:
        faults.append(f"name is {getattr(engine, 'name', None)!r}, it must be {spec.name!r}")
    capabilities = getattr(engine, "capabilities", None)
    if not isinstance(capabilities, Capabilities):
        faults.append(f"capabilities is a {type(capabilities).__name__}, it must be a Capabilities")
    refines = isinstance(capabilities, Capabilities) and capabilities.refine
    methods = _METHODS | {name: how for name, how in _OPTIONAL.items() if hasattr(engine, name)}
    if refines:
        methods["refine"] = _OPTIONAL["refine"]
    if isinstance(capabilities, Capabilities) and capabilities.stepping:
        methods["stepper"] = _OPTIONAL["stepper"]
    for method, (n_positional, keywords) in methods.items():
        function = getattr(engine, method, None)
        if not callable(function):
            faults.append(f"method {method} is missing")
        elif not accepts(function, n_positional, keywords):
            wanted = f"{n_positional} positional arguments" + "".join(f" and the keyword {k}" for k in keywords)
            faults.append(f"method {method}{inspect.signature(function)} must accept {wanted}")
    old = _is_of_protocol_1(engine)
    if old:
        given = inspect.signature(engine.train)
        faults.append(f"method train{given} must take scans, config and runtime, in this order")
    if faults:
        raise BackendProtocolError(
            f"{who} does not keep the engine protocol {spec.protocol_version}: {'; '.join(faults)}."
            f"{' ' + _WHAT_CHANGED[1] if old else ''}"
        )


def _is_of_protocol_1(engine: Any) -> bool:
    """Whether training takes the parameters of protocol 1: groups, a test set and then a config, as many as now."""
    try:
        names = list(inspect.signature(engine.train).parameters)
    except (AttributeError, TypeError, ValueError):
        return False
    return "config" in names[2:]


def records_of(spec: BackendSpec) -> tuple[Generator, ...]:
    """What an engine registers itself.

    Raises:
        BackendProtocolError: something else than records, or two of one name.
        BackendFaultError: the module of the records raised, which is the cause.
    """
    if not spec.generators:
        return ()
    module_name, _, name = spec.generators.partition(":")
    with engine_at_work(spec.name, "the import of its generators"):
        found: Any = getattr(importlib.import_module(module_name), name, None)
    formed = isinstance(found, Sequence) and all(isinstance(record, Generator) for record in found)
    if not formed or len({record.name for record in found}) != len(found):
        raise BackendProtocolError(
            f"engine '{spec.name}': generators = {spec.generators!r}; it must name a tuple of Generator records, each "
            "with a name of its own."
        )
    return tuple(found)


def generators_of(spec: BackendSpec) -> tuple[Generator, ...]:
    """The records that an engine's generators may be of: those that it registers, then those that ship.

    Raises:
        BackendError: its records cannot be had.
    """
    own = records_of(spec)
    return own + tuple(record for record in GENERATORS if record.name not in {mine.name for mine in own})


def check_stated(spec: BackendSpec, capabilities: Capabilities, who: str) -> None:
    """Refuse an engine that can do something else than its plugin said, by which a job was accepted.

    Raises:
        BackendProtocolError: the two differ; the first field that does is named.
    """
    if spec.capabilities is None or spec.capabilities == capabilities:
        return
    names = [f.name for f in dataclasses.fields(capabilities)]
    name = next(n for n in names if getattr(capabilities, n) != getattr(spec.capabilities, n))
    raise BackendProtocolError(
        f"{who}: capabilities.{name} is {getattr(capabilities, name)!r} in the engine and "
        f"{getattr(spec.capabilities, name)!r} in its BackendSpec; the two must be equal."
    )


def check_registered(spec: BackendSpec, capabilities: Capabilities, who: str) -> None:
    """Refuse an engine whose capabilities name a generator that nobody has described.

    Raises:
        BackendProtocolError: one without a record.
        BackendError: its records cannot be had.
    """
    known = {record.name for record in generators_of(spec)}
    missing = [name for name in capabilities.generators if name not in known]
    if missing:
        raise BackendProtocolError(
            f"{who}: capabilities.generators names {missing[0]!r}, which has no record; give the BackendSpec "
            "generators = 'module:NAME' of a tuple of Generator records (docs/write-an-engine.md, \"A network\")."
        )
