"""Generators that installed engines register: found, listed, and the sizes of a network brought into their class.

A model file names its generator and no engine in particular, so one name must mean one network. Records stand in
modules that import no framework: an engine is described for them and not loaded.
"""

from __future__ import annotations

from dataclasses import replace

from ..config import ModelConfig, TrainingConfig
from ..enginekit.architectures import GENERATORS
from ..enginekit.weights import network_of
from ..errors import BackendConflictError, BackendError
from ..generators import Generator
from ..protocol import BackendSpec
from .discovery import ENGINES, by_name, installed
from .promises import generators_of, records_of
from .registry import backend_spec

__all__ = ["installed_generators", "with_typed_model"]

_CORE = "ptycho-core"
"""Who brings the generators that ship, in an error."""


def installed_generators() -> tuple[tuple[str, Generator], ...]:
    """Who brings it, and the record of every generator: those that ship, then those of engines, by name of the engine.

    Plugin modules are imported, engines and frameworks are not; an engine that cannot be described is left out.
    """
    found = [(_CORE, record) for record in GENERATORS]
    for name in by_name(installed(ENGINES)):
        try:
            found += [(name, record) for record in records_of(backend_spec(name))]
        except BackendError:  # it is told when the engine is chosen
            continue
    return tuple(found)


def with_typed_model(config: TrainingConfig, spec: BackendSpec | None = None) -> TrainingConfig:
    """A config with the sizes of its network in the class of the generator that its engine has.

    A generator that the engine does not have is left as it is; ``check_capabilities`` refuses it by name.

    Args:
        config: names engine and network.
        spec: description of that engine, where it is at hand.

    Raises:
        ConfigError: a size that the generator does not have, or one of the wrong type or out of range; or passes that
            it does not have.
        BackendConflictError: another engine, or core, has a generator of that name which is another network.
        BackendError: the engine is unknown or its plugin broken.
    """
    model, engine = config.model, config.backend
    if model is None:
        return config
    record = next((r for r in generators_of(spec or backend_spec(engine)) if r.name == model.generator), None)
    if record is None:
        return config
    _refuse_another(record, engine)
    sizes = network_of(model, [record]).sizes
    record.passes_for(sizes, config.inference.passes)
    typed = ModelConfig(generator=record.name, sizes=sizes)
    return config if typed == model else replace(config, model=typed)


def _refuse_another(record: Generator, engine: str) -> None:
    """Refuse a record of a name that means another network elsewhere: one in a model file could be either.

    Those that ship are not looked at: who brings another of their name is refused itself.
    """
    if any(record is shipped for shipped in GENERATORS):
        return
    for who, other in installed_generators():
        difference = record.difference(other) if other.name == record.name else None
        if difference:
            raise BackendConflictError(
                f"generator {record.name!r} is one network in engine '{engine}' and another in '{who}': {difference}. "
                "A model file names it only once; uninstall one of the two, or have one called otherwise."
            )
