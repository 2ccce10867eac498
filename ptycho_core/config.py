"""Configuration: frozen, strict dataclasses, each default written once, here.

A config is a value that callers pass; no module reads one from anywhere else. Constructing one checks every field's
type and range, so an instance is always usable. ``config_from_mapping`` builds one from plain data (YAML, JSON) and
is where the old names of fields are accepted, with a ``DeprecationWarning``, or refused with advice.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .errors import ConfigError, suggest

__all__ = [
    "SUPPORTED_SIDES",
    "EngineOptions",
    "InferenceConfig",
    "ModelConfig",
    "PlainOptions",
    "RefinementConfig",
    "TrainingConfig",
    "passes_of",
]

SUPPORTED_SIDES = tuple(range(16, 513, 16))

LOSSES = ("poisson", "amplitude")
SCHEDULES = ("one_cycle", "cosine", "exponential", "constant")
PRECISIONS = ("auto", "32", "64", "bf16")
SPLITS = ("random", "region")
LOGGERS = ("tensorboard", "mlflow")

_WITHOUT_EFFECT = {"cnn": ("depth", "sweeps", "passes"), "probe_unet": ("passes",)}
"""Generator → sizes that it does not have."""


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value has the annotated type; an int passes for a float, a bool never passes for a number."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(annotation))
    if origin is tuple:
        item = typing.get_args(annotation)[0]
        return isinstance(value, tuple) and all(_fits(v, item) for v in value)
    if annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or annotation)


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _check_types(config: Any) -> None:
    hints = typing.get_type_hints(type(config))
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if not _fits(value, hints[f.name]):
            raise ConfigError(
                f"{type(config).__name__}.{f.name} = {value!r} is a {type(value).__name__}; "
                f"it must be {_type_name(hints[f.name])}."
            )


def _check_choice(owner: str, name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{owner}.{name} = {value!r}; allowed: {', '.join(allowed)}.{suggest(value, allowed)}")


def _check_range(owner: str, name: str, value: float | None, low: float, high: float = math.inf) -> None:
    if value is not None and not low <= value <= high:
        limit = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise ConfigError(f"{owner}.{name} = {value!r}; it must be {limit}.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: which generator, and its sizes. Two engines given the same one build the same network.

    Attributes:
        generator: name of the generator in the engine: ``probe_unet`` where each frame must be answered by itself
            after the solver's sweeps, ``unrolled`` (a learned solver) where the scan is whole, or ``cnn``.
        width: channels of the first level of the network.
        depth: number of times the U-net halves the side (not ``cnn``); the side must be divisible by 2**depth.
        sweeps: parallel solver sweeps on the canvas before the network sees it (not ``cnn``); with 0 a ``probe_unet``
            sees each frame by itself, and an ``unrolled`` starts from the flat object.
        passes: learned passes over the canvas in training (``unrolled``); ``inference.passes`` may ask for others.
    """

    generator: str = "probe_unet"
    width: int = 16
    depth: int = 3
    sweeps: int = 24
    passes: int = 4

    def __post_init__(self) -> None:
        _check_types(self)
        _check_range("ModelConfig", "width", self.width, 1, 512)
        _check_range("ModelConfig", "depth", self.depth, 1, 5)
        _check_range("ModelConfig", "sweeps", self.sweeps, 0, 1000)
        _check_range("ModelConfig", "passes", self.passes, 1, 100)
        for name in _WITHOUT_EFFECT.get(self.generator, ()):
            given, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if given != default:
                raise ConfigError(
                    f"ModelConfig.{name} = {given} has no effect on generator '{self.generator}'; "
                    f"leave it out, or choose {'unrolled' if name == 'passes' else 'probe_unet'!r}."
                )


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a trained model is applied to a scan.

    Attributes:
        batch_size: frames predicted at once; changes memory and speed, not the answer.
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``32``, ``64`` where the engine can, or ``bf16`` (network only; propagation is float32).
        central_crop_px: side of the central square of each patch used in stitching, pixels; None uses all of it.
        passes: learned passes over the canvas (``unrolled``); None makes as many as in training.
    """

    batch_size: int = 64
    accelerator: str = "auto"
    precision: str = "auto"
    central_crop_px: int | None = None
    passes: int | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        _check_range("InferenceConfig", "batch_size", self.batch_size, 1)
        _check_range("InferenceConfig", "passes", self.passes, 1, 1000)
        _check_choice("InferenceConfig", "precision", self.precision, PRECISIONS)
        _check_range("InferenceConfig", "central_crop_px", self.central_crop_px, 1)


def passes_of(model: ModelConfig, inference: InferenceConfig | None = None) -> int:
    """Learned passes over the canvas: 1 of every generator but ``unrolled``.

    Args:
        model: the network.
        inference: how it is applied; None asks for the passes in training.

    Raises:
        ConfigError: `inference` asks for passes, and the generator has none to repeat.
    """
    asked = None if inference is None else inference.passes
    if model.generator == "unrolled":
        return model.passes if asked is None else asked
    if asked is not None:
        raise ConfigError(
            f"InferenceConfig.passes = {asked} has no effect on generator '{model.generator}', which passes once; "
            "leave it out, or use a model of generator 'unrolled'."
        )
    return 1


@dataclass(frozen=True, kw_only=True)
class RefinementConfig:
    """How an image is refined by gradient steps or solver sweeps, after a network or another solver has made it.

    The frames that training holds out (``test_fraction``, ``test_split``, ``seed``) are held out here as well: refining
    stops when they are explained no better, and what explained them best is kept.

    Attributes:
        engine: engine that refines: ``auto`` takes the one that trained, where it can refine; ``none`` leaves the image
            as it is; or the name of an engine.
        loss: ``poisson`` or ``amplitude``; None takes Poisson, which explains weak counts without bias, where the
            engine has it.
        epochs: most passes over the frames.
        batch_size: frames in one update; None takes a number that suits the scan.
        probe: refine the probe too.
        probe_modes: incoherent probe modes to refine with; None takes those of the image. Modes are added at the start.
        positions: refine the scan positions too.
        position_limit_px: farthest that a position may move in y and in x from where it was read, object pixels.
        patience: epochs without a better explanation of the held-out frames before its steps begin to shrink, which
            ends it after four tenths of the epochs more.
    """

    engine: str = "auto"
    loss: str | None = None
    epochs: int = 40
    batch_size: int | None = None
    probe: bool = True
    probe_modes: int | None = None
    positions: bool = False
    position_limit_px: float = 2.0
    patience: int = 5

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("epochs", "batch_size", "probe_modes", "patience"):
            _check_range("RefinementConfig", name, getattr(self, name), 1)
        if self.loss is not None:
            _check_choice("RefinementConfig", "loss", self.loss, LOSSES)
        _check_range("RefinementConfig", "position_limit_px", self.position_limit_px, 1e-3, 64)
        others = {f.name: f.default for f in dataclasses.fields(self) if f.name != "engine"}
        if self.engine == "none" and any(getattr(self, name) != default for name, default in others.items()):
            raise ConfigError(
                "RefinementConfig.engine = 'none' refines nothing, so other refinement settings have no effect; leave "
                "them out, or name an engine."
            )
        if not self.positions and self.position_limit_px != type(self).position_limit_px:
            raise ConfigError(
                f"RefinementConfig.position_limit_px = {self.position_limit_px} has no effect while positions = False; "
                "set positions to True, or leave the limit out."
            )
        if not self.probe and self.probe_modes is not None:
            raise ConfigError(
                f"RefinementConfig.probe_modes = {self.probe_modes} adds modes that probe = False would leave the "
                "guess that they start as; set probe to True, or leave the modes out."
            )


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Settings that one engine alone has: a frozen dataclass that its plugin declares in ``BackendSpec.options``.

    A subclass names its engine, gives every field a plain type and a default, and checks them with
    ``super().__post_init__()`` and checks of its own. Plain data (YAML, JSON, ``--options``) become an instance through
    the same strict names as any other config.
    """

    engine: ClassVar[str] = ""

    def __post_init__(self) -> None:
        _check_types(self)


@dataclass(frozen=True, kw_only=True)
class PlainOptions(EngineOptions):
    """Settings of an engine that has not been chosen yet, and may not be installed: what a model file says of them.

    ``config_mapping.with_typed_options`` brings them into the class of their engine, and refuses unknown names then;
    an engine is never handed its own settings plain.

    Attributes:
        engine: name of the engine.
        values: setting → plain JSON data.
    """

    engine: str  # type: ignore[misc]  # of the instance here, of the class in every other
    values: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that decides a training run: engine, data sampling, loss, optimiser, hardware, bookkeeping.

    Attributes:
        backend: engine name (``pytorch``, ``tensorflow``, …).
        model: the network.
        inference: how the trained model is applied.
        refinement: how an image is refined.
        options: settings that only the chosen engine has, as an instance of its own class, or plain until that engine
            is chosen; None takes its defaults.
        group_size: C, frames in a training sample.
        n_groups: B, groups made for one epoch; None makes so many that a frame is in about two.
            So many at least that each training frame is in one; more than there are frames repeats seeds.
        neighbor_pool_size: K; each group draws its C−1 neighbours among the K nearest, or among all where there are
            fewer. None takes the C−1 nearest.
        n_subsample: use only this many frames of the scan, chosen by the seed; None uses all.
        test_fraction: fraction of the frames that the commands hold out of training; callers of the facade pass their
            own test scan.
        test_split: ``random`` frames or a compact ``region`` are held out.
        loss: ``poisson`` or ``amplitude``.
        epochs: passes over the groups.
        batch_size: groups in one optimiser step.
        learning_rate: peak learning rate of the network.
        schedule: ``one_cycle``, ``cosine``, ``exponential`` or ``constant``.
        weight_decay: decoupled weight decay of the network.
        gradient_clip_norm: largest gradient norm of a step; None does not clip.
        weight_average: decay a step of the moving average of the weights used in the end; 0 keeps the last weights.
        early_stopping_patience: epochs without a better held-out loss before training stops; None never stops.
        probe_modes: incoherent probe modes to use; None takes as many as the scan's probe has.
        probe_trainable: refine the probe together with the network.
        probe_learning_rate: peak learning rate of the probe, relative to its root mean square.
        scale_trainable: refine the intensity scale.
        scale_learning_rate: peak learning rate of the logarithm of the intensity scale.
        nphotons: expected photons in a frame; None measures it. A value off by more than 10 % is warned about.
        collapse_threshold: least relative variation of the predicted object that does not count as collapsed.
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: number of devices.
        strategy: distribution strategy, as the engine calls it; ``auto`` lets it choose.
        precision: ``auto``, ``32``, ``64`` where the engine can, or ``bf16`` (network only; propagation and loss are
            float32).
        num_workers: processes or threads, as the engine has it, that read groups ahead; 0 reads when a step asks.
        seed: seed of everything random.
        output_dir: folder for checkpoints, logs and the CSV history; None writes nothing.
        resume_from: checkpoint to go on from.
        loggers: extra trackers (``tensorboard``, ``mlflow``); none by default.
    """

    backend: str = "pytorch"
    model: ModelConfig = field(default_factory=ModelConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    options: EngineOptions | None = None
    group_size: int = 16
    n_groups: int | None = None
    neighbor_pool_size: int | None = None
    n_subsample: int | None = None
    test_fraction: float = 0.05
    test_split: str = "random"
    loss: str = "amplitude"
    epochs: int = 5
    batch_size: int = 1
    learning_rate: float = 1e-3
    schedule: str = "one_cycle"
    weight_decay: float = 0.0
    gradient_clip_norm: float | None = 1.0
    weight_average: float = 0.0
    early_stopping_patience: int | None = None
    probe_modes: int | None = None
    probe_trainable: bool = False
    probe_learning_rate: float = 1e-2
    scale_trainable: bool = False
    scale_learning_rate: float = 1e-3
    nphotons: float | None = None
    collapse_threshold: float = 1e-3
    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    num_workers: int = 0
    seed: int = 0
    output_dir: Path | None = None
    resume_from: Path | None = None
    loggers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_types(self)
        owner = "TrainingConfig"
        for name in ("group_size", "n_groups", "neighbor_pool_size", "n_subsample", "epochs", "batch_size", "devices"):
            _check_range(owner, name, getattr(self, name), 1)
        for name in ("probe_modes", "early_stopping_patience"):
            _check_range(owner, name, getattr(self, name), 1)
        for name in ("weight_decay", "num_workers", "seed", "collapse_threshold"):
            _check_range(owner, name, getattr(self, name), 0)
        for name in ("learning_rate", "probe_learning_rate", "scale_learning_rate", "gradient_clip_norm", "nphotons"):
            _check_range(owner, name, getattr(self, name), 1e-12)
        _check_range(owner, "weight_average", self.weight_average, 0, 0.99999)
        _check_range(owner, "test_fraction", self.test_fraction, 0, 0.9)
        _check_choice(owner, "loss", self.loss, LOSSES)
        _check_choice(owner, "schedule", self.schedule, SCHEDULES)
        _check_choice(owner, "precision", self.precision, PRECISIONS)
        _check_choice(owner, "test_split", self.test_split, SPLITS)
        for logger in self.loggers:
            _check_choice(owner, "loggers", logger, LOGGERS)
        passes_of(self.model, self.inference)
        if self.neighbor_pool_size is not None and self.neighbor_pool_size < self.group_size - 1:
            raise ConfigError(
                f"TrainingConfig.neighbor_pool_size = {self.neighbor_pool_size} is smaller than the "
                f"{self.group_size - 1} neighbours that group_size = {self.group_size} needs; raise it or leave it out."
            )
        engines = {self.backend, self.refinement.engine}
        if self.options is not None and self.options.engine not in engines:
            raise ConfigError(
                f"TrainingConfig.options are settings of engine {self.options.engine!r}, which has no part here: "
                f"backend = {self.backend!r}, refinement.engine = {self.refinement.engine!r}. Leave them out."
            )
