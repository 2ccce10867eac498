"""Configuration: frozen, strict dataclasses, each default written once, here.

A config is a value that callers pass; no module reads one from anywhere else. Constructing one checks every field's
type and range, so an instance is always usable. ``config_from_mapping`` builds one from plain data (YAML, JSON) and
is where the old names of fields are accepted, with a ``DeprecationWarning``, or refused with advice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .config_checks import check_choice, check_range, check_types, shown
from .data.shown import card, settings_line
from .enginekit.architectures import GENERATORS
from .errors import ConfigError
from .generators import GeneratorSizes, PlainSizes

__all__ = [
    "EngineOptions",
    "InferenceConfig",
    "ModelConfig",
    "PlainOptions",
    "RefinementConfig",
    "TrainingConfig",
    "default_backend",
]

LOSSES = ("poisson", "amplitude")
SCHEDULES = ("one_cycle", "cosine", "exponential", "constant")
SPLITS = ("random", "region")
METHODS = ("solver", "network")
ALGORITHMS = ("rpie", "lsq")
PROBE_POWERS = ("kept", "free")

_SHIPPED = {record.name: record for record in GENERATORS}


@dataclass(frozen=True, init=False)
class ModelConfig:
    """The network: which generator, and its sizes. Two engines given the same one build the same network.

    Sizes belong to the generator: ``ModelConfig(generator="unrolled", width=8, passes=4)``. Those of a generator that
    ships with core are checked at once; those of another stay plain until its engine is chosen, and are checked then.

    Attributes:
        generator: architecture of the network. ``probe_unet`` corrects each frame by itself, after sweeps of a solver;
            ``unrolled`` is a learned solver over the whole scan; ``cnn`` is a plain encoder with two decoders.
        sizes: its sizes, those not given at their defaults.
    """

    generator: str = "probe_unet"
    sizes: GeneratorSizes = field(default_factory=PlainSizes)

    def __init__(self, *, generator: str = generator, sizes: GeneratorSizes | None = None, **given: Any) -> None:
        if sizes is not None:
            if not isinstance(sizes, GeneratorSizes):
                raise ConfigError(f"ModelConfig.sizes = {shown(sizes)}; it must be the sizes of a generator.")
            given = sizes.plain() | given
        if isinstance(generator, str) and generator in _SHIPPED:
            sizes = _SHIPPED[generator].read(given)
        elif sizes is not None and not isinstance(sizes, PlainSizes):
            sizes = type(sizes)(**given)
        else:
            sizes = PlainSizes(values=given)
        object.__setattr__(self, "generator", generator)
        object.__setattr__(self, "sizes", sizes)
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a trained model is applied to a scan.

    Attributes:
        central_crop_px: side of the central square of each patch that is stitched, pixels. None takes the whole patch.
        passes: passes over the whole object with ``unrolled``. None makes as many as in training.
    """

    central_crop_px: int | None = None
    passes: int | None = None

    def __repr__(self) -> str:
        """One line: what differs from the defaults."""
        return settings_line(self)

    def _repr_html_(self) -> str:
        """A table for a notebook."""
        return card(self)

    def __post_init__(self) -> None:
        check_types(self)
        check_range("InferenceConfig", "passes", self.passes, 1, 1000)
        check_range("InferenceConfig", "central_crop_px", self.central_crop_px, 1)


@dataclass(frozen=True, kw_only=True)
class RefinementConfig:
    """How an image is refined by gradient steps or solver sweeps, after a network or another solver has made it.

    The frames that are held out (``test_fraction``, ``test_split``, ``seed``) are its validation frames: refining stops
    when their loss falls no further, and the state with their lowest loss is kept.

    Attributes:
        engine: engine that refines the image. ``auto`` takes the one that made it, where it can refine; ``none`` leaves
            the image as it is.
        loss: ``poisson`` or ``amplitude``. None takes Poisson, which has no bias at weak counts, where it can.
        epochs: most passes over the frames.
        batch_size: frames in one update. None takes a number that suits the scan.
        probe: refine the probe too.
        probe_modes: number of incoherent probe modes. None keeps those of the image, and adds modes where that lowers
            the validation loss. Modes are added once object and probe have settled.
        probe_support: keeps the probe, in the plane of the sample, within a circle of this part of half the window.
            None leaves it free.
        probe_power: ``kept`` keeps the power of the probe, and the object takes the level; ``free`` lets it change.
        positions: refine the scan positions too. None tries it, and keeps it where it lowers the validation loss.
        position_limit_px: farthest that a position may move in y and in x, object pixels.
        position_affine: also fit a stretch, rotation and shear of all positions together. The limit counts from there.
        frame_scale: also fit an intensity for each frame, for a beam that fluctuates. Their mean stays 1.
        patience: epochs without a lower validation loss after which the steps shrink. Refining ends when they are
            small.
    """

    engine: str = "auto"
    loss: str | None = None
    epochs: int = 40
    batch_size: int | None = None
    probe: bool = True
    probe_modes: int | None = None
    probe_support: float | None = None
    probe_power: str = "kept"
    positions: bool | None = None
    position_limit_px: float = 2.0
    position_affine: bool = False
    frame_scale: bool = False
    patience: int = 5

    def __repr__(self) -> str:
        """One line: what differs from the defaults."""
        return settings_line(self)

    def _repr_html_(self) -> str:
        """A table for a notebook."""
        return card(self)

    def __post_init__(self) -> None:
        check_types(self)
        owner = "RefinementConfig"
        for name in ("epochs", "batch_size", "probe_modes", "patience"):
            check_range(owner, name, getattr(self, name), 1)
        if self.loss is not None:
            check_choice(owner, "loss", self.loss, LOSSES)
        check_choice(owner, "probe_power", self.probe_power, PROBE_POWERS)
        check_range(owner, "position_limit_px", self.position_limit_px, 1e-3, 64)
        check_range(owner, "probe_support", self.probe_support, 0.05, 1.0)
        others = {f.name: f.default for f in dataclasses.fields(self) if f.name != "engine"}
        if self.engine == "none" and any(getattr(self, name) != default for name, default in others.items()):
            raise ConfigError(
                "RefinementConfig.engine = 'none' refines nothing, so other refinement settings have no effect; leave "
                "them out, or name an engine."
            )
        self._refuse_without_effect("positions", self.positions is False, "position_limit_px", "position_affine")
        if self.position_affine and not self.positions:
            raise ConfigError(
                "RefinementConfig.position_affine = True fits positions, and positions is not True; set it, or leave "
                "position_affine out."
            )
        if self.position_affine and self.batch_size is not None and self.batch_size < 6:
            raise ConfigError(
                f"RefinementConfig.batch_size = {self.batch_size} is too few frames to fit the stretch, rotation "
                "and shear of all positions (position_affine); it must be at least 6, or leave it out."
            )
        self._refuse_without_effect("probe", not self.probe, "probe_support", "probe_power")
        if not self.probe and self.probe_modes is not None:
            raise ConfigError(
                f"RefinementConfig.probe_modes = {self.probe_modes} adds modes, and with probe = False they are not "
                "refined; set probe to True, or leave the modes out."
            )

    def _refuse_without_effect(self, switch: str, off: bool, *names: str) -> None:
        """Refuse settings that a switch which is off leaves without effect."""
        for name in names:
            given, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if off and given != default:
                raise ConfigError(
                    f"RefinementConfig.{name} = {given} has no effect while {switch} = False; set {switch} to True, or "
                    f"leave {name} out."
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
        check_types(self)


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


def default_backend(method: str) -> str:
    """The engine of a config that names none: the one that is always there, or for a network the first that has any."""
    return "numpy" if method == "solver" else "pytorch"


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that decides a result: engine, method, frames, loss, steps, optimiser, refinement.

    What does the work, and where, is a :class:`~ptycho_core.runtime.Runtime`.

    Attributes:
        backend: engine that makes the image. It is ``numpy``, ``pytorch``, ``tensorflow``, ``ptychi`` or another that
            is installed; ``auto`` is ``numpy`` for a solver and ``pytorch`` for a network.
        method: ``solver`` solves for the image; ``network`` trains a network, which makes it. None is ``network`` where
            `model` is given, else ``solver``.
        model: the network. None takes the default one where `method` is ``network``.
        inference: how the trained network is applied.
        refinement: how the image is refined.
        options: settings that one engine alone has, for each engine that takes part. ``ptycho backends NAME`` lists
            them.
        algorithm: update rule of the solver. ``rpie`` takes damped steps (Maiden et al., Optica 4, 736 (2017)); ``lsq``
            takes least-squares steps (Odstrčil et al., Opt. Express 26, 3108 (2018)).
        group_size: C, neighbouring frames in one sample of a network.
        n_groups: B, groups in one epoch. None makes enough for each frame to be in about two. Each training frame is in
            one at least; with more groups than frames, seeds repeat.
        neighbor_pool_size: K. A group draws its C−1 neighbours among the K nearest. None takes the C−1 nearest.
        n_subsample: use only this many frames, drawn by `seed`. None uses all.
        test_fraction: fraction of the frames that is held out for validation.
        test_split: which frames are held out: ``random`` ones, or a compact ``region``.
        loss: ``poisson`` or ``amplitude``. None is Poisson for a solver that has it, and amplitude for a network.
        epochs: passes over the frames. None is 5 for a network, and for a solver whose image is refined afterwards; 30
            for a solver whose image is not.
        batch_size: frames in one step of a solver, or groups in one step of a network. None is a number that suits the
            scan, or 1 group.
        learning_rate: peak learning rate of the network.
        schedule: learning-rate schedule: ``one_cycle``, ``cosine``, ``exponential`` or ``constant``.
        weight_decay: weight decay of the network, decoupled from the gradient.
        gradient_clip_norm: largest norm of the gradient in a step. None does not clip.
        weight_average: decay of the moving average of the weights, for each step. 0 takes the last weights.
        early_stopping_patience: epochs without a lower validation loss after which training stops. None never stops
            early.
        probe_modes: number of incoherent probe modes. None takes as many as the scan's probe has.
        probe_trainable: refine the probe while solving or training.
        probe_learning_rate: peak learning rate of the probe, relative to its root mean square.
        scale_trainable: refine the intensity scale.
        scale_learning_rate: peak learning rate of the logarithm of the intensity scale.
        nphotons: expected photons in a frame. None measures it. A value off by more than 10 % is warned about.
        collapse_threshold: least relative variation of the object. An object below it counts as constant, and is
            refused.
        seed: seed of all random numbers.
    """

    backend: str = "auto"
    method: str | None = None
    model: ModelConfig | None = None
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    options: tuple[EngineOptions, ...] = ()
    algorithm: str = "rpie"
    group_size: int = 16
    n_groups: int | None = None
    neighbor_pool_size: int | None = None
    n_subsample: int | None = None
    test_fraction: float = 0.05
    test_split: str = "random"
    loss: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
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
    seed: int = 0

    def __repr__(self) -> str:
        """One line: what differs from the defaults."""
        return settings_line(self)

    def _repr_html_(self) -> str:
        """A table for a notebook."""
        return card(self)

    def __post_init__(self) -> None:
        check_types(self)
        owner = "TrainingConfig"
        for name in ("group_size", "n_groups", "neighbor_pool_size", "n_subsample", "epochs", "batch_size"):
            check_range(owner, name, getattr(self, name), 1)
        for name in ("probe_modes", "early_stopping_patience"):
            check_range(owner, name, getattr(self, name), 1)
        for name in ("weight_decay", "seed", "collapse_threshold"):
            check_range(owner, name, getattr(self, name), 0)
        for name in ("learning_rate", "probe_learning_rate", "scale_learning_rate", "gradient_clip_norm", "nphotons"):
            check_range(owner, name, getattr(self, name), 1e-12)
        check_range(owner, "weight_average", self.weight_average, 0, 0.99999)
        check_range(owner, "test_fraction", self.test_fraction, 0, 0.9)
        if self.loss is not None:
            check_choice(owner, "loss", self.loss, LOSSES)
        check_choice(owner, "algorithm", self.algorithm, ALGORITHMS)
        check_choice(owner, "schedule", self.schedule, SCHEDULES)
        check_choice(owner, "test_split", self.test_split, SPLITS)
        self._settle_method()
        if self.neighbor_pool_size is not None and self.neighbor_pool_size < self.group_size - 1:
            raise ConfigError(
                f"TrainingConfig.neighbor_pool_size = {self.neighbor_pool_size} is smaller than the "
                f"{self.group_size - 1} neighbours that group_size = {self.group_size} needs; raise it or leave it out."
            )
        self._check_options()

    def _settle_method(self) -> None:
        """Write down which method this is, and what it takes where nothing is said: nobody has to ask again."""
        method = self.method or ("solver" if self.model is None else "network")
        check_choice("TrainingConfig", "method", method, METHODS)
        object.__setattr__(self, "method", method)
        if self.backend == "auto":
            object.__setattr__(self, "backend", default_backend(method))
        if method == "solver":
            if self.model is not None:
                raise ConfigError(
                    f"TrainingConfig.method = 'solver' has no network, and model names {self.model.generator!r}; leave "
                    "the model out, or say method = 'network'."
                )
            settled: dict[str, Any] = {"epochs": 30 if self.refinement.engine == "none" else 5}
        else:
            settled = {"model": ModelConfig(), "epochs": 5, "batch_size": 1, "loss": "amplitude"}
        for name, value in settled.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.model is not None and self.model.generator in _SHIPPED:
            _SHIPPED[self.model.generator].passes_for(self.model.sizes, self.inference.passes)

    def _check_options(self) -> None:
        engines = {self.backend, self.refinement.engine}
        named = [options.engine for options in self.options]
        for name in named:
            if name not in engines:
                raise ConfigError(
                    f"TrainingConfig.options has settings of engine {name!r}, which has no part here: backend = "
                    f"{self.backend!r}, refinement.engine = {self.refinement.engine!r}. Leave them out."
                )
            if named.count(name) > 1:
                raise ConfigError(f"TrainingConfig.options has settings of engine {name!r} twice; keep one.")

    def options_for(self, engine: str) -> EngineOptions | None:
        """The settings given for an engine, or None where it takes its defaults."""
        return next((options for options in self.options if options.engine == engine), None)

    @property
    def network(self) -> ModelConfig:
        """The network of a config whose method is ``network``.

        Raises:
            ConfigError: the method is ``solver``.
        """
        if self.model is None:
            raise ConfigError(
                "TrainingConfig.method = 'solver' has no network; say method = 'network', or name a model."
            )
        return self.model
