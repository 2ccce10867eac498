"""What a pty-chi algorithm carries from one epoch to the next, as plain arrays: a resumed run goes on exactly.

Object and probe as pty-chi holds them, the moments of torch's optimisers, the object's preconditioner, the exit waves
of ``dm`` and ``raar``, and the momentum and step sizes of ``lsqml``. Complex arrays are stored with a last axis of real
and imaginary part. Positions are not among them: they stay as they are while a model is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.errors import ArchiveError
from ptycho_core.text import one_line

from .options import PtychiOptions

__all__ = ["read_state", "restore_state"]

Arrays = dict[str, NDArray[Any]]
_MOMENTA = ("object_momentum_params", "probe_momentum_params")


def _array(tensor: Tensor) -> NDArray[np.float32]:
    plain = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    return plain.cpu().numpy().astype(np.float32)


def _tensor(array: NDArray[np.float32], device: torch.device, *, is_complex: bool) -> Tensor:
    plain = torch.as_tensor(np.array(array), device=device)
    return torch.view_as_complex(plain) if is_complex else plain


def _parameters(reconstructor: Any) -> dict[str, Any]:
    group = reconstructor.parameter_group
    return {"object": group.object, "probe": group.probe}


def _optimizers(reconstructor: Any) -> dict[str, Any]:
    of_all = {name: parameter.optimizer for name, parameter in _parameters(reconstructor).items()}
    return {name: optimizer for name, optimizer in of_all.items() if optimizer is not None}


def read_state(reconstructor: Any) -> Arrays:
    """Read the state of a reconstructor between two epochs."""
    # the pairs that pty-chi holds, not the complex numbers that it makes of them
    out: Arrays = {name: _array(parameter.tensor.data) for name, parameter in _parameters(reconstructor).items()}
    for name, optimizer in _optimizers(reconstructor).items():
        for key, value in optimizer.state_dict()["state"].get(0, {}).items():
            if isinstance(value, Tensor):
                out[f"{name}.{key}"] = _array(value)
    preconditioner = reconstructor.parameter_group.object.preconditioner
    if preconditioner is not None:
        out["preconditioner"] = _array(preconditioner)
    weights = reconstructor.parameter_group.opr_mode_weights
    if weights.n_opr_modes > 1:
        out["opr_weights"] = _array(weights.data)
    if hasattr(reconstructor, "psi"):
        out["exit_waves"] = _array(reconstructor.psi)
    for name in _MOMENTA:
        momentum = getattr(reconstructor, name, None)
        if momentum is not None and momentum.velocity_map is not None:
            out[f"{name}.velocity"] = _array(momentum.velocity_map)
            for i, update in enumerate(momentum.update_direction_history):
                out[f"{name}.history.{i}"] = _array(update)
    if hasattr(reconstructor, "alpha_psi_far_all_pos"):
        out["far_field_steps"] = _array(reconstructor.alpha_psi_far_all_pos)
        errors = reconstructor.reconstructor_buffers.fourier_errors
        out["fourier_errors"] = np.asarray(errors, dtype=np.float64)
    return out


def _needed(reconstructor: Any, options: PtychiOptions, *, probe_moved: bool) -> list[str]:
    """Names that :func:`read_state` gives after at least one epoch; a history of updates may be longer."""
    names = ["object", "probe", "preconditioner"]
    if options.algorithm in ("dm", "raar"):
        names.append("exit_waves")
    if options.algorithm == "lsqml":
        names += ["far_field_steps", "fourier_errors"]
    if reconstructor.parameter_group.opr_mode_weights.n_opr_modes > 1:
        names.append("opr_weights")
    moving = ("object", "probe") if probe_moved else ("object",)
    for which, optimizer in _optimizers(reconstructor).items():
        if which not in moving:
            continue
        if isinstance(optimizer, torch.optim.Adam):
            names += [f"{which}.{key}" for key in ("step", "exp_avg", "exp_avg_sq")]
        elif optimizer.defaults.get("momentum"):
            names.append(f"{which}.momentum_buffer")
    if options.algorithm == "lsqml" and options.momentum:
        names += [f"{which}_momentum_params.{key}" for which in moving for key in ("velocity", "history.0")]
    return names


def _restore_parameters(reconstructor: Any, state: Mapping[str, NDArray[Any]]) -> None:
    for name, parameter in _parameters(reconstructor).items():
        found, values = state[name], parameter.tensor.data
        if found.shape != tuple(values.shape):  # torch would spread one that fits by broadcasting
            raise ValueError(f"{name} is {found.shape}, it must be {tuple(values.shape)}")
        with torch.no_grad():
            values.copy_(torch.as_tensor(np.array(found)))


def _restore_optimizers(reconstructor: Any, state: Mapping[str, NDArray[Any]], device: torch.device) -> None:
    for name, optimizer in _optimizers(reconstructor).items():
        mine = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        if mine:
            now = optimizer.state_dict()
            # Adam's step count is a tensor on the CPU
            now["state"] = {
                0: {
                    k: _tensor(v, torch.device("cpu") if k == "step" else device, is_complex=False)
                    for k, v in mine.items()
                }
            }
            optimizer.load_state_dict(now)


def _restore_momenta(reconstructor: Any, state: Mapping[str, NDArray[Any]], device: torch.device) -> None:
    for name in _MOMENTA:
        if f"{name}.velocity" not in state:
            continue
        momentum = getattr(reconstructor, name)
        momentum.velocity_map = _tensor(state[f"{name}.velocity"], device, is_complex=True)
        n_history = sum(key.startswith(f"{name}.history.") for key in state)
        momentum.update_direction_history = [
            _tensor(state[f"{name}.history.{i}"], device, is_complex=True) for i in range(n_history)
        ]


def restore_state(
    reconstructor: Any,
    state: Mapping[str, NDArray[Any]],
    options: PtychiOptions,
    device: torch.device,
    *,
    probe_moved: bool,
) -> None:
    """Put a state that :func:`read_state` read into a reconstructor that was built anew.

    Args:
        reconstructor: pty-chi's.
        state: by name.
        options: that the reconstructor was made with.
        device: where it is.
        probe_moved: whether the probe had been refined when the state was read.

    Raises:
        ArchiveError: it is not a state of this algorithm, or a part of it is missing.
    """
    missing = [n for n in _needed(reconstructor, options, probe_moved=probe_moved) if n not in state]
    if missing:
        raise ArchiveError(
            f"the checkpoint's solver state lacks {', '.join(map(repr, missing))}, which algorithm "
            f"{options.algorithm!r} goes on with; resume with the settings it was made with, or train again."
        )
    try:
        _restore_parameters(reconstructor, state)
        _restore_optimizers(reconstructor, state, device)
        if "preconditioner" in state:
            found = _tensor(state["preconditioner"], device, is_complex=False)
            reconstructor.parameter_group.object.preconditioner = found
        if "opr_weights" in state:
            of_modes = reconstructor.parameter_group.opr_mode_weights
            with torch.no_grad():
                of_modes.set_data(_tensor(state["opr_weights"], device, is_complex=False))
        if "exit_waves" in state:
            reconstructor.psi = _tensor(state["exit_waves"], device, is_complex=True)
        _restore_momenta(reconstructor, state, device)
        if "far_field_steps" in state:
            reconstructor.alpha_psi_far_all_pos = _tensor(state["far_field_steps"], device, is_complex=False)
            errors = [float(e) for e in state["fourier_errors"]]
            reconstructor.reconstructor_buffers.fourier_errors = errors
    except Exception as error:  # torch and pty-chi say in many ways what is wrong with what they are given
        said = one_line(str(error) or type(error).__name__, 300)
        raise ArchiveError(f"the checkpoint's solver state does not fit this algorithm: {said}") from error
