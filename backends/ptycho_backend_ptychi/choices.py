"""What of a config this engine honours, where that depends on the algorithm; imports no framework."""

from __future__ import annotations

from ptycho_core.config import TrainingConfig
from ptycho_core.enginekit.loss_choice import refinement_loss, training_loss
from ptycho_core.errors import ConfigError

from .options import PARALLEL, POSITION_OPTIONS, PROBE_OPTIONS, PtychiOptions

__all__ = ["check_choices", "check_fixed_positions", "losses_for", "options_of"]

_POISSON = ("lsqml",)
"""Not ``autodiff``: the gradient of its Poisson loss overflows float32 where next to nothing is expected."""


def options_of(config: TrainingConfig) -> PtychiOptions:
    """The engine's own settings in a config; its defaults where there are none, or those of another engine."""
    options = config.options_for(PtychiOptions.engine)
    return options if isinstance(options, PtychiOptions) else PtychiOptions()


def losses_for(config: TrainingConfig) -> tuple[str, ...]:
    """The losses that the chosen algorithm has; another one that is asked for is refused by :func:`check_choices`."""
    return ("amplitude", "poisson") if options_of(config).algorithm in _POISSON else ("amplitude",)


def _losses(config: TrainingConfig, *, refining: bool) -> dict[str, str]:
    """Field → loss of each of this engine's parts in a config: training, refining or both."""
    losses = {} if refining and config.backend != "ptychi" else {"loss": training_loss(config, losses_for(config))}
    if refining or config.refinement.engine in ("auto", "ptychi"):
        losses["refinement.loss"] = refinement_loss(config, losses_for(config))
    return losses


def check_fixed_positions(options: PtychiOptions) -> None:
    """Refuse to move positions where the object has slices or the probe varies.

    Raises:
        ConfigError: it has, or does.
    """
    for name in ("slices", "opr_modes"):
        if getattr(options, name) is not None:
            raise ConfigError(
                f"engine 'ptychi': refinement.positions = True is not supported with PtychiOptions.{name} = "
                f"{getattr(options, name)}; refine them first without {name}, or set refinement.positions = False."
            )


def check_choices(config: TrainingConfig, *, refining: bool) -> None:
    """Refuse what the chosen algorithm would ignore.

    Args:
        config: as given.
        refining: whether an image is refined, or one is made.

    Raises:
        ConfigError: a loss that the algorithm has not, a number of frames in an update where it has none, or a setting
            of a probe or of positions that stay as they are.
    """
    options = options_of(config)
    given = set(options.given())
    losses = losses_for(config)
    field, loss = (
        ("refinement.loss", refinement_loss(config, losses)) if refining else ("loss", training_loss(config, losses))
    )
    if loss not in losses:
        raise ConfigError(
            f"engine 'ptychi': {field} = 'poisson' is not supported by algorithm {options.algorithm!r}; allowed: "
            f"amplitude, or algorithm {' or '.join(_POISSON)}."
        )
    if "noise_std" in given and "amplitude" not in _losses(config, refining=refining).values():
        raise ConfigError(
            f"engine 'ptychi': PtychiOptions.noise_std = {options.noise_std} has no effect with {field} = 'poisson'; "
            f"leave it out, or set {field} = 'amplitude'."
        )
    may_refine = config.refinement.engine in ("auto", "ptychi")
    if config.refinement.batch_size is not None and options.algorithm in PARALLEL and (refining or may_refine):
        raise ConfigError(
            f"engine 'ptychi': refinement.batch_size = {config.refinement.batch_size} has no effect on algorithm "
            f"{options.algorithm!r}, which takes all frames in one update; leave it out, or choose another algorithm."
        )
    moves_probe = config.refinement.probe if refining else config.probe_trainable
    later_probe = not refining and may_refine and config.refinement.probe
    # None asks for nothing: the descent of core would try them, and this engine leaves them
    moves_positions = bool(config.refinement.positions) and (refining or may_refine)
    if moves_positions:
        check_fixed_positions(options)
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
