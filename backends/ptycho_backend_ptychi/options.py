"""The settings that the pty-chi engine alone has; imports no framework.

Which algorithm has which setting is one table. A setting that the chosen algorithm would ignore is refused when the
options are made, so before any data are read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from ptycho_core.config import EngineOptions
from ptycho_core.errors import ConfigError, suggest

__all__ = ["ALGORITHMS", "PARALLEL", "POSITION_OPTIONS", "PROBE_OPTIONS", "PtychiOptions"]

ALGORITHMS = ("lsqml", "rpie", "epie", "dm", "raar", "autodiff")

_SEQUENTIAL = ("lsqml", "rpie", "epie", "autodiff")
PARALLEL = ("dm", "raar")
"""Algorithms that take all frames in one update."""

_USED_BY: dict[str, tuple[str, ...]] = {
    "batch_frames": _SEQUENTIAL,
    "batching": _SEQUENTIAL,
    "alpha": ("rpie", "epie"),
    "probe_alpha": ("rpie", "epie"),
    "momentum": ("lsqml", "rpie", "epie"),
    "damping": ("lsqml",),
    "step_from_first_mode": ("lsqml",),
    "noise_std": ("lsqml",),
    "relaxation": PARALLEL,
    "amplitude_limit": PARALLEL,
    "optimizer": ("autodiff",),
    "position_correction": ("lsqml", "rpie", "epie"),
    "slices": ("lsqml", "autodiff"),
    "slice_spacing_m": ("lsqml", "autodiff"),
    "opr_modes": ("lsqml",),
    "opr_step": ("lsqml",),
}
"""Setting → the algorithms that have it; a setting that is not listed has an effect in all of them."""

PROBE_OPTIONS = ("probe_alpha", "probe_step", "probe_start", "orthogonalise", "opr_modes", "opr_step")
"""Settings with an effect only where the probe is refined."""

POSITION_OPTIONS = ("position_correction", "position_step", "position_step_limit_px", "position_start")
"""Settings with an effect only where positions are refined."""

MOST_SLICES = 64

_CHOICES: dict[str, tuple[str, ...]] = {
    "algorithm": ALGORITHMS,
    "batching": ("random", "uniform", "compact"),
    "optimizer": ("adam", "sgd"),
    "orthogonalise": ("svd", "gs", "none"),
    "position_correction": ("gradient", "cross_correlation"),
}

_POSITIVE = (
    "object_step",
    "probe_step",
    "position_step",
    "position_step_limit_px",
    "noise_std",
    "alpha",
    "probe_alpha",
)


@dataclass(frozen=True, kw_only=True)
class PtychiOptions(EngineOptions):
    """How pty-chi iterates. None takes the value that suits the algorithm.

    The noise model is not here: it is ``TrainingConfig.loss`` and, where an image is refined,
    ``RefinementConfig.loss``: ``amplitude`` or, for ``lsqml``, ``poisson``, which is what it refines with unless
    told otherwise. The other algorithms refuse ``poisson``.

    Attributes:
        algorithm: ``lsqml`` (least-squares maximum likelihood), ``rpie``, ``epie``, ``dm`` (difference map), ``raar``
            or ``autodiff`` (gradients by automatic differentiation).
        batch_frames: frames in one update; ``refinement.batch_size`` goes before it. All but ``dm``, ``raar``.
        batching: which frames share an update: ``random``, ``uniform`` (far apart) or ``compact`` (neighbours; in
            ``lsqml`` the object then moves once an epoch). All but ``dm``, ``raar``.
        alpha: regularisation of the object's step in ``rpie``, its step in ``epie``.
        probe_alpha: the same of the probe.
        object_step: fraction of its own step that the algorithm takes for the object: of the least-squares step in
            ``lsqml``, learning rate in ``rpie``, ``epie`` and ``autodiff``, 1 − inertia in ``dm`` and ``raar``.
        probe_step: the same of the probe; in ``autodiff`` with ``adam`` relative to its root mean square.
        momentum: in ``lsqml`` the gain of the momentum, which it has in ``compact`` batching; in ``rpie`` and ``epie``
            Nesterov momentum (mPIE), below 1.
        damping: damping of the object's preconditioner, ``lsqml``.
        step_from_first_mode: solve for step sizes with the first probe mode only, ``lsqml``.
        noise_std: standard deviation of the measured amplitude, ``lsqml`` where a loss is ``amplitude``: at ½, that of
            photon noise, a step replaces the amplitude; larger ones take a part of that.
        relaxation: relaxation of the exit waves in ``dm`` (0, 1], β of ``raar`` (½, 1].
        amplitude_limit: largest modulus of the object, ``dm`` and ``raar``: keeps pixels that are hardly lit from
            running away, above all where the probe is refined.
        optimizer: ``adam`` or ``sgd``, ``autodiff``.
        total_variation: weight of the total variation of the object.
        probe_start: first epoch in which the probe is refined.
        orthogonalise: how probe modes are kept orthogonal: ``svd``, ``gs`` (Gram–Schmidt) or ``none``.
        position_correction: ``gradient`` or ``cross_correlation``; the latter not in ``dm``, ``raar``, ``autodiff``.
        position_step: fraction of its own step that a position takes.
        position_step_limit_px: farthest that a position moves in one update, along each axis.
        position_start: first epoch in which positions are refined.
        slices: slices of a thick object, with free space between them; needs the photon energy and the object pixel of
            the scan. ``lsqml`` and ``autodiff``; positions stay where they are.
        slice_spacing_m: distance between two of them, metres.
        opr_modes: modes by which the first mode of the probe varies from frame to frame (orthogonal probe relaxation),
            ``lsqml``; positions stay where they are. A frame that is not iterated on takes what those before and after
            it say.
        opr_step: fraction of their own step that the weights of these modes take.
    """

    engine: ClassVar[str] = "ptychi"

    algorithm: str = "lsqml"
    batch_frames: int | None = None
    batching: str | None = None
    alpha: float | None = None
    probe_alpha: float | None = None
    object_step: float | None = None
    probe_step: float | None = None
    momentum: float | None = None
    damping: float | None = None
    step_from_first_mode: bool | None = None
    noise_std: float | None = None
    relaxation: float | None = None
    amplitude_limit: float | None = None
    optimizer: str | None = None
    total_variation: float | None = None
    probe_start: int | None = None
    orthogonalise: str | None = None
    position_correction: str | None = None
    position_step: float | None = None
    position_step_limit_px: float | None = None
    position_start: int | None = None
    slices: int | None = None
    slice_spacing_m: float | None = None
    opr_modes: int | None = None
    opr_step: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ConfigError(
                    f"PtychiOptions.{name} = {value!r}; allowed: {', '.join(allowed)}.{suggest(value, allowed)}"
                )
        for name in self.given():
            users = _USED_BY.get(name, ALGORITHMS)
            if self.algorithm not in users:
                raise ConfigError(
                    f"PtychiOptions.{name} = {getattr(self, name)!r} has no effect on algorithm {self.algorithm!r}; "
                    f"leave it out, or choose {' or '.join(users)}."
                )
        self._check_ranges()
        if (self.slices is None) != (self.slice_spacing_m is None):
            raise ConfigError(
                f"PtychiOptions.slices = {self.slices} and slice_spacing_m = {self.slice_spacing_m}: give both, or "
                "neither for a thin object."
            )
        if self.opr_step is not None and self.opr_modes is None:
            raise ConfigError(
                f"PtychiOptions.opr_step = {self.opr_step} has no effect without opr_modes; leave it out."
            )
        if self.algorithm == "lsqml" and self.momentum and self.batching != "compact":
            raise ConfigError(
                f"PtychiOptions.momentum = {self.momentum} needs batching = 'compact' with algorithm 'lsqml', and "
                f"batching = {self.batching!r}: elsewhere pty-chi would not accelerate the object."
            )

    def given(self) -> list[str]:
        """Names of the settings that are not left to the algorithm."""
        return [f.name for f in fields(self) if f.name != "algorithm" and getattr(self, f.name) is not None]

    def _check_ranges(self) -> None:
        inf = float("inf")
        ranges: dict[str, tuple[float, float]] = dict.fromkeys(_POSITIVE, (1e-12, inf))
        ranges |= {"batch_frames": (1, inf), "probe_start": (0, inf), "position_start": (0, inf), "damping": (0, inf)}
        ranges |= {"total_variation": (1e-12, inf), "amplitude_limit": (1e-12, inf)}
        ranges |= {
            "slices": (2, MOST_SLICES),
            "slice_spacing_m": (1e-12, inf),
            "opr_modes": (1, 32),
            "opr_step": (1e-12, 1),
        }
        ranges["momentum"] = (0, inf if self.algorithm == "lsqml" else 0.999)
        if self.algorithm in PARALLEL:
            ranges |= {"object_step": (1e-12, 1), "probe_step": (1e-12, 1)}
            ranges["relaxation"] = (1e-12, 1) if self.algorithm == "dm" else (0.5 + 1e-9, 1)
        if self.algorithm == "rpie":
            ranges |= {"alpha": (1e-12, 1), "probe_alpha": (1e-12, 1)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                limit = f"at least {low:g}" if high == inf else f"between {low:g} and {high:g}"
                raise ConfigError(f"PtychiOptions.{name} = {value!r}; with algorithm {self.algorithm!r} it is {limit}.")
