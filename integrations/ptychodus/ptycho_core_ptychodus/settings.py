"""What the client's settings come to here: each has an effect or, off its default, is refused by its name.

Training as the client knows it is our default way: the scan is solved and refined (decision 46). A network is trained
where the client asks for what only networks have: a grid size above 1 in its TensorFlow plugin, the name of one of our
generators as the model name in its Torch plugin.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ptycho_core import ModelConfig, Runtime, TrainingConfig
from ptycho_core.errors import ConfigError

from . import tf_configs, torch_configs
from .engine import chosen_engine

__all__ = ["Job", "job_of_tf", "job_of_torch", "refuse_ineffective", "refuse_supervised"]

_GENERATORS = ("probe_unet", "unrolled", "cnn")
_SCHEDULES = {"Default": "one_cycle", "Exponential": "exponential", "Cosine": "cosine"}
_LOSSES = {"Poisson": "poisson", "MAE": "amplitude"}

_NO_EFFECT = {"N", "model", "train_data_file", "test_data_file", "output_dir", "model_path", "debug"}
"""Fields of a config that are no settings: the data say N, and the client's paths are empty."""


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        config: what decides the result.
        runtime: what does the work.
        why: which engine was chosen, and why, in words.
    """

    config: TrainingConfig
    runtime: Runtime
    why: str


def refuse_ineffective(config: object, honoured: Collection[str]) -> None:
    """Refuse settings off their defaults that would change nothing.

    Raises:
        ConfigError: there is one; the message names it and the value to set it back to.
    """
    for f in fields(config):  # type: ignore[arg-type]
        if f.name in honoured or f.name in _NO_EFFECT:
            continue
        default = f.default if f.default is not MISSING else None
        value = getattr(config, f.name)
        if value != default:
            raise ConfigError(
                f"{type(config).__name__}.{f.name} = {value!r} has no effect with ptycho-core behind ptychodus; set it "
                f"back to {default!r}."
            )


def refuse_supervised(mode: str) -> None:
    """Refuse to learn from the object that comes with the data.

    Raises:
        ConfigError: that is asked for.
    """
    if mode.casefold() == "supervised":
        raise ConfigError(
            "the reconstructor 'Supervised' learns from an object that is known already, which ptycho-core does not. "
            "Choose 'PINN' (or 'Unsupervised'), which needs none."
        )


def _loss(poisson: float, amplitude: float) -> str:
    """The loss, by the client's two weights.

    Raises:
        ConfigError: both or neither is above 0.
    """
    if (poisson > 0) == (amplitude > 0):
        raise ConfigError(
            f"nll_weight = {poisson:g} and mae_weight = {amplitude:g}: one of them must be 0 and the other above it: "
            "the loss is either Poisson (nll) or that of amplitudes (mae)."
        )
    return "poisson" if poisson > 0 else "amplitude"


def _one_of(name: str, value: str, ours: Mapping[str, str]) -> str:
    """Our word for one of the client's.

    Raises:
        ConfigError: the client has no such word.
    """
    if value not in ours:
        raise ConfigError(f"{name} = {value!r}; allowed: {', '.join(ours)}.")
    return ours[value]


def _unless(value: Any, default: Any) -> Any:
    """None, which leaves the choice to ptycho-core, where the client sends its own default."""
    return None if value == default else value


def job_of_tf(config: tf_configs.TrainingConfig) -> Job:
    """What a training of the TensorFlow plugin comes to.

    Raises:
        ConfigError: a setting that would have no effect.
        BackendError: no engine for it.
    """
    model, network = config.model, config.model.gridsize > 1
    refuse_supervised(model.model_type)
    refuse_ineffective(model, {"gridsize", "model_type"})
    refuse_ineffective(
        config,
        {"batch_size", "nepochs", "mae_weight", "nll_weight", "nphotons", "probe_trainable"}
        # the level of a solved image is the object's, and there is no scale to train beside it
        | ({"intensity_scale_trainable"} if network else set()),
    )
    engine, why = chosen_engine(network=network)
    sent = tf_configs.TrainingConfig()
    settings: dict[str, Any] = {
        "backend": engine,
        "epochs": config.nepochs,
        "batch_size": _unless(config.batch_size, sent.batch_size),
        "loss": _loss(config.nll_weight, config.mae_weight),
        "nphotons": _unless(config.nphotons, sent.nphotons),
        "probe_trainable": config.probe_trainable,
    }
    if network:
        settings |= {"method": "network", "group_size": model.gridsize**2}
        settings |= {"scale_trainable": config.intensity_scale_trainable}
    return Job(TrainingConfig(**settings), Runtime(), f"engine {engine} ({why})")


def job_of_torch(
    data: torch_configs.DataConfig,
    model: torch_configs.ModelConfig,
    training: torch_configs.TrainingConfig,
    inference: torch_configs.InferenceConfig,
) -> Job:
    """What a training of the Torch plugin comes to.

    Raises:
        ConfigError: a setting that would have no effect.
        BackendError: no engine for it.
    """
    refuse_supervised(model.mode)
    generator = training.model_name if training.model_name in _GENERATORS else None
    network = generator is not None
    # the client copies the number of channels into three fields of the network
    copies = {"decoder_last_amp_channels", "C_model", "C_forward"}
    refuse_ineffective(
        model, {"mode", "loss_function", *copies, *({"intensity_scale_trainable"} if network else set())}
    )
    refuse_ineffective(data, {"C", "grid_size"} if network else set())
    refuse_ineffective(inference, ())
    of_networks = {"learning_rate", "scheduler", "gradient_clip_val", "num_workers", "model_name", "n_devices"}
    refuse_ineffective(training, {"epochs", "batch_size", "device", "notes", *(of_networks if network else ())})
    engine, why = chosen_engine(network=network)
    sent = torch_configs.TrainingConfig()
    settings: dict[str, Any] = {
        "backend": engine,
        "epochs": training.epochs,
        "batch_size": _unless(training.batch_size, sent.batch_size),
        "loss": _one_of("loss_function", model.loss_function, _LOSSES),
    }
    runtime: dict[str, Any] = {"accelerator": "auto" if training.device == "cuda" else training.device}
    if generator is not None:
        if math.prod(data.grid_size) != data.C:
            raise ConfigError(f"C = {data.C} and grid_size = {data.grid_size}; the channels must be those of the grid.")
        settings |= {
            "model": ModelConfig(generator=generator),
            "group_size": data.C,
            "learning_rate": training.learning_rate,
            "schedule": _one_of("scheduler", training.scheduler, _SCHEDULES),
            "gradient_clip_norm": training.gradient_clip_val,
            "scale_trainable": model.intensity_scale_trainable,
        }
        runtime |= {
            "devices": training.n_devices,
            "num_workers": 0 if training.num_workers == sent.num_workers else training.num_workers,
        }
    return Job(TrainingConfig(**settings), Runtime(**runtime), f"engine {engine} ({why})")
