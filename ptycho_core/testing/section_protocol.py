"""Names, signatures, capabilities, and what the engine is refused for before data are read."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from ..config import LOSSES, METHODS, SCHEDULES, TrainingConfig
from ..errors import ConfigError
from ..plugins.registry import available_backends
from ..protocol import (
    Capabilities,
    ReconstructionBackend,
    SupportsExpectedCounts,
    SupportsPatches,
    SupportsPhysicsGradient,
    SupportsRefinement,
    SupportsStepping,
)
from ..runtime import PRECISIONS
from .base import Section
from .bench import Bench
from .fresh import Answers

__all__ = ["ProtocolSection"]

_OPTIONAL: dict[str, type] = {
    "expected_counts": SupportsExpectedCounts,
    "loss_and_gradient": SupportsPhysicsGradient,
    "predict_patches": SupportsPatches,
    "refine": SupportsRefinement,
    "stepper": SupportsStepping,
}


def _parameters(function: Any) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(function).parameters.values() if p.name != "self"]


def _signature_faults(name: str, ours: Any, theirs: Any) -> list[str]:
    """How a method differs from the protocol's, in words; parameters more than asked for must have a default."""
    wanted, given = _parameters(theirs), {p.name: p for p in _parameters(ours)}
    faults = [f"{name} has no parameter {p.name!r}" for p in wanted if p.name not in given]
    positional = [p.name for p in wanted if p.kind is p.POSITIONAL_OR_KEYWORD]
    if not faults and list(given)[: len(positional)] != positional:
        faults.append(f"{name} takes {', '.join(given)}; the order must be {', '.join(positional)}")
    known = {p.name for p in wanted}
    for p in given.values():
        needs_value = p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        if needs_value and p.name not in known:
            faults.append(f"{name} needs {p.name!r}, which no caller gives; give it a default")
        if p.name == "progress" and p.default is p.empty:
            faults.append(f"{name} needs 'progress'; callers may leave it out")
    return faults


class ProtocolSection(Section):
    """What the engine is, before it does anything."""

    def test_names_and_signatures(self, bench: Bench) -> None:
        """Every method has the protocol's name and parameters, the optional ones where they are offered."""
        engine = bench.engine
        required = ("train", "reconstruct", "save", "load")
        methods: dict[str, Any] = dict.fromkeys(required, ReconstructionBackend)
        methods |= {name: kind for name, kind in _OPTIONAL.items() if hasattr(engine, name)}
        faults = []
        for name, kind in methods.items():
            faults += _signature_faults(name, getattr(engine, name), getattr(kind, name))
        assert not faults, "; ".join(faults)
        assert isinstance(engine, ReconstructionBackend)
        assert engine.name == bench.config.backend, f"the engine calls itself {engine.name!r}"

    def test_capabilities_are_plain_values(self, bench: Bench) -> None:
        """Capabilities are frozen, plain, and in words that a config can hold."""
        offers = bench.offers
        assert isinstance(offers, Capabilities), f"capabilities is a {type(offers).__name__}"
        assert bench.engine.capabilities == offers, "capabilities change from one look to the next"
        for field in fields(offers):
            value = getattr(offers, field.name)
            if isinstance(value, (list, set, dict)):
                pytest.fail(f"capabilities.{field.name} is a {type(value).__name__}; it must be a tuple")
        known = {"methods": METHODS, "losses": LOSSES, "schedules": SCHEDULES, "precisions": PRECISIONS}
        for name, words in known.items():
            strange = set(getattr(offers, name)) - set(words)
            assert not strange, f"capabilities.{name} holds {strange}; a config can say {', '.join(words)}"
        for name in ("max_modes", "max_scans"):
            most = getattr(offers, name)
            assert most is None or most >= 1, f"{name} = {most}"
        for flag, method in (("refine", "refine"), ("stepping", "stepper")):
            says = getattr(offers, flag)
            assert says == hasattr(bench.engine, method), (
                f"capabilities.{flag} = {says}, but the engine has {'no' if says else 'a'} method {method}"
            )
        assert ("network" in offers.methods) == bool(offers.generators), (
            f"capabilities.methods = {offers.methods} with the generators {offers.generators}; 'network' is offered "
            "where there is a generator, and only there"
        )
        with pytest.raises(FrozenInstanceError):
            offers.mask = not offers.mask  # type: ignore[misc]

    def test_it_is_listed_as_ready(self, bench: Bench) -> None:
        """The registry lists the engine, from a named distribution, without a complaint."""
        found = [status for status in available_backends() if status.name == bench.engine.name]
        assert len(found) == 1, f"the registry lists {bench.engine.name!r} {len(found)} times; it must be installed"
        assert found[0].state == "ready", f"the engine is {found[0].state}: {found[0].detail}"
        assert found[0].distribution, "the engine belongs to no distribution"

    def test_it_is_imported_only_when_it_is_chosen(self, fresh: Answers) -> None:
        """Describing the engine imports no framework and no engine, and loading it imports no other engine."""
        assert not fresh.too_early, f"describing the engine imported {', '.join(fresh.too_early)}"
        assert not fresh.strangers, f"loading the engine imported {', '.join(fresh.strangers)} of another"

    def test_what_it_does_not_offer_is_refused_before_data_are_read(self, bench: Bench) -> None:
        """A config that asks for more is a ConfigError with the engine's name; the scan, which is missing, is not."""
        from ..api.facade import train_cdi_model

        offers, config, runtime = bench.offers, bench.config, bench.runtime
        refused = [(config, replace(runtime, accelerator="abacus"))]
        refused += [(config, replace(runtime, devices=10**6))] * (offers.max_devices is not None)
        refused += [(config, replace(runtime, threads=2))] * (not offers.threads)
        refused += [(replace(config, loss=loss), runtime) for loss in LOSSES if loss not in offers.losses]
        refused += [(replace(config, probe_trainable=True), runtime)] * (not offers.probe_trainable)
        refused += [(replace(config, scale_trainable=True), runtime)] * (not offers.scale_trainable)
        refused += [
            (TrainingConfig(backend=config.backend, method=m), runtime) for m in METHODS if m not in offers.methods
        ]
        for wrong, working in refused:
            with pytest.raises(ConfigError, match=f"engine '{bench.engine.name}'"):
                train_cdi_model("there-is-no-such-scan.npz", None, wrong, working)
