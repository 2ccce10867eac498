"""What of a config this engine honours, where that depends on the algorithm; imports no framework."""

from __future__ import annotations

from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.errors import ConfigError

from .options import POSITION_OPTIONS, PROBE_OPTIONS, PtychiOptions

__all__ = ["check_choices", "check_inference", "options_of"]

_POISSON = ("lsqml",)
"""Not ``autodiff``: the gradient of its Poisson loss overflows float32 where next to nothing is expected."""


def options_of(config: TrainingConfig) -> PtychiOptions:
    """The engine's own settings in a config; its defaults where there are none, or those of another engine."""
    return config.options if isinstance(config.options, PtychiOptions) else PtychiOptions()


def check_choices(config: TrainingConfig, *, refining: bool) -> None:
    """Refuse what the chosen algorithm would ignore.

    Args:
        config: as given.
        refining: whether an image is refined, or one is made.

    Raises:
        ConfigError: a loss that the algorithm has not, or a setting of a probe or of positions that stay as they are.
    """
    options = options_of(config)
    given = set(options.given())
    if config.loss == "poisson" and options.algorithm not in _POISSON:
        raise ConfigError(
            f"engine 'ptychi': loss = 'poisson' is not supported by algorithm {options.algorithm!r}; allowed: "
            f"amplitude, or algorithm {' or '.join(_POISSON)}."
        )
    if config.loss == "poisson" and "noise_std" in given:
        raise ConfigError(
            f"engine 'ptychi': PtychiOptions.noise_std = {options.noise_std} has no effect with loss = 'poisson'; "
            "leave it out, or set loss = 'amplitude'."
        )
    may_refine = config.refinement.engine in ("auto", "ptychi")
    moves_probe = config.refinement.probe if refining else config.probe_trainable
    later_probe = not refining and may_refine and config.refinement.probe
    moves_positions = config.refinement.positions and (refining or may_refine)
    for names, moved, switch in (
        (PROBE_OPTIONS, moves_probe or later_probe, "refinement.probe" if refining else "probe_trainable"),
        (POSITION_OPTIONS, moves_positions, "refinement.positions"),
    ):
        useless = [name for name in names if name in given]
        if useless and not moved:
            raise ConfigError(
                f"engine 'ptychi': PtychiOptions.{useless[0]} = {getattr(options, useless[0])!r} has no effect while "
                f"{switch} = False; leave it out, or set {switch}."
            )


def check_inference(config: InferenceConfig) -> None:
    """Refuse an accelerator for what only cuts an image out.

    Raises:
        ConfigError: an accelerator other than the CPU.
    """
    if config.accelerator not in ("auto", "cpu"):
        raise ConfigError(
            f"engine 'ptychi': inference.accelerator = {config.accelerator!r} has no effect, since the image is solved "
            "in training and only cut out here; allowed: auto, cpu. Set accelerator for training."
        )
