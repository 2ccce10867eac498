"""What a generator is: the record of a network that an engine registers, with sizes of its own (specs/30).

A network is code in an engine. All that core asks of it is in its record, plain values and functions of plain values,
in a module that imports no framework: which sizes it has, which weights they make, whether its groups are of one size.
Core knows no generator by its name.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .config_checks import check_types, shown
from .errors import ConfigError, suggest

__all__ = ["Generator", "GeneratorSizes", "PlainSizes", "Shapes"]

Shapes = Mapping[str, tuple[int, ...]]
"""Canonical name of a weight → its shape."""


@dataclass(frozen=True, kw_only=True)
class GeneratorSizes:
    """Sizes that one generator has: a frozen dataclass in the record of that generator.

    A subclass gives every field a plain type and a default, describes it under ``Attributes``, and checks it with
    ``super().__post_init__()`` and checks of its own.
    """

    def __post_init__(self) -> None:
        check_types(self)

    def plain(self) -> dict[str, Any]:
        """Size → value."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class PlainSizes(GeneratorSizes):
    """Sizes as they were given, of a generator whose engine has not been chosen yet, and may not be installed.

    Attributes:
        values: size → plain JSON data.
    """

    values: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def plain(self) -> dict[str, Any]:
        """Size → value."""
        return dict(self.values)


def _passes_once(sizes: Any) -> int:
    return 1


def _no_sweeps(sizes: Any) -> int:
    return 0


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A network that maps the frames of a group to patches of the object.

    Attributes:
        name: the word in ``model.generator`` and in bundles.
        sizes: class of its sizes.
        shapes: (sizes, N, C) → name → shape of every weight, for frames of side N in groups of C; it raises
            ``ConfigError`` where they do not fit.
        channels: (sizes, N) → images that it holds for a frame at full resolution, which decide memory and work.
        fixed_group: whether it can be applied only to groups of the size that it was trained with.
        sweeps: sizes → solver sweeps that make the estimate which it is given; without any that is the flat object.
        passes: sizes → how often it is asked in training, each time for what the merge of its last answers gives.
        repeats: whether it may be asked another number of times after training (``inference.passes``).
        gains: part of the usual spread that some weights start with; 0 starts them at zero.
        small: sizes with which it is trained in a second, for the conformance suite; those left out are the defaults.
    """

    name: str
    sizes: type[GeneratorSizes]
    shapes: Callable[[Any, int, int], Shapes]
    channels: Callable[[Any, int], int]
    fixed_group: bool = False
    sweeps: Callable[[Any], int] = _no_sweeps
    passes: Callable[[Any], int] = _passes_once
    repeats: bool = False
    gains: Mapping[str, float] = field(default_factory=dict, hash=False)
    small: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def read(self, given: Mapping[str, Any]) -> GeneratorSizes:
        """Sizes from plain data, those not given at their defaults.

        Raises:
            ConfigError: a size that it does not have, or one of the wrong type or out of range.
        """
        hints = typing.get_type_hints(self.sizes)
        own = [f.name for f in dataclasses.fields(self.sizes)]
        for name, value in given.items():
            if name not in own:
                raise ConfigError(
                    f"model.{name} = {shown(value)}: generator {self.name!r} has no such size; it has "
                    f"{', '.join(own) or 'none'}.{suggest(str(name), own)}"
                )
        return self.sizes(
            **{
                name: tuple(value) if isinstance(value, list) and typing.get_origin(hints[name]) is tuple else value
                for name, value in given.items()
            }
        )

    def passes_for(self, sizes: GeneratorSizes, asked: int | None) -> int:
        """How often it is asked when it is applied.

        Args:
            sizes: its own.
            asked: ``inference.passes``; None is as often as in training.

        Raises:
            ConfigError: it has no passes to repeat.
        """
        if asked is None or self.repeats:
            return self.passes(sizes) if asked is None else asked
        raise ConfigError(
            f"InferenceConfig.passes = {asked} has no effect on generator {self.name!r}, which passes once; leave it "
            "out, or use a model of a generator that repeats its passes."
        )

    def difference(self, other: Generator) -> str | None:
        """What tells it from another of the same name, in words; None where bundles of one serve the other."""
        if self is other:
            return None
        mine, theirs = ({f.name: f.default for f in dataclasses.fields(record.sizes)} for record in (self, other))
        if mine != theirs:
            return f"sizes {_in_words(mine)} and {_in_words(theirs)}"
        facts = [
            (record.fixed_group, record.repeats, record.sweeps(record.sizes()), record.passes(record.sizes()))
            for record in (self, other)
        ]
        if facts[0] != facts[1]:
            return "other groups, sweeps or passes"
        one, two = (dict(record.shapes(record.sizes(), 64, 4)) for record in (self, other))
        name = next((name for name in sorted(one.keys() | two.keys()) if one.get(name) != two.get(name)), None)
        return None if name is None else f"weight {name!r} of shape {one.get(name)} and {two.get(name)}"


def _in_words(sizes: Mapping[str, Any]) -> str:
    return f"({', '.join(f'{name} = {default}' for name, default in sizes.items())})"
