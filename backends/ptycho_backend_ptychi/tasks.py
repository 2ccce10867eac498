"""From our options to pty-chi's: one function an algorithm, and what holds for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .extras import Optics
from .library import api
from .options import PtychiOptions
from .physics import EveryModeForward, frames_that_overlap, position_origin

__all__ = ["Settings", "library_options", "suited_batch"]

_PARALLEL_CHUNK = 64
"""Frames that ``dm`` and ``raar`` propagate at once; changes memory and speed, not the answer."""

BATCH_FRAMES = {"lsqml": 64, "rpie": 64, "epie": 64, "autodiff": 32}
"""Most frames in one update where the caller leaves it to us."""

_ADDS_STEPS = ("rpie", "epie")
_OVERLAP = 0.5
"""Frames of a batch that light a pixel, on average, in algorithms that add up the full steps of all frames."""


def suited_batch(algorithm: str, probe: NDArray[Any], positions_px: NDArray[np.float64]) -> int:
    """Frames in one update that suit a scan.

    pty-chi's rPIE and ePIE take the full step of every frame of a batch and add them up, which diverges where they
    overlap much: there the batch is so small that a pixel is lit by half a frame of it, on average.

    Args:
        algorithm: as in the options.
        probe: (P, N, N) complex modes.
        positions_px: (J, 2) centres of the frames to iterate on.
    """
    most = BATCH_FRAMES.get(algorithm, _PARALLEL_CHUNK)
    if algorithm not in _ADDS_STEPS:
        return most
    return int(np.clip(frames_that_overlap(probe, positions_px, _OVERLAP), 1, most))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a run but the data.

    Attributes:
        options: the engine's own settings.
        loss: ``amplitude`` or ``poisson``.
        seed: of batches and noise.
        batch_frames: frames in one update; None takes the options', or what suits the scan.
        refine_probe: whether the probe moves.
        refine_positions: whether positions move.
    """

    options: PtychiOptions
    loss: str
    seed: int
    batch_frames: int | None = None
    refine_probe: bool = False
    refine_positions: bool = False

    @property
    def varies(self) -> bool:
        """Whether the probe varies from frame to frame."""
        return self.refine_probe and self.options.opr_modes is not None


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _lsqml(settings: Settings) -> Any:
    o = settings.options
    made = api.LSQMLOptions()
    r = made.reconstructor_options
    r.noise_model = "poisson" if settings.loss == "poisson" else "gaussian"
    r.gaussian_noise_std = _or(o.noise_std, 0.5)
    r.momentum_acceleration_gain = _or(o.momentum, 0.0)
    r.preconditioning_damping_factor = _or(o.damping, 0.1)
    r.solve_step_sizes_only_using_first_probe_mode = _or(o.step_from_first_mode, True)
    r.rescale_probe_intensity_in_first_epoch = False  # the scale has one owner, see the backend
    made.object_options = _object(api.LSQMLObjectOptions, optimal_step_size_scaler=_or(o.object_step, 0.9))
    made.probe_options.optimal_step_size_scaler = _or(o.probe_step, 0.9)
    return made


def _pie(settings: Settings) -> Any:
    o = settings.options
    made = api.RPIEOptions() if o.algorithm == "rpie" else api.EPIEOptions()
    default = 0.1 if o.algorithm == "rpie" else 1.0
    momentum = {"optimizer_params": {"momentum": o.momentum, "nesterov": True}} if o.momentum else {}
    made.object_options = _object(
        api.PIEObjectOptions, alpha=_or(o.alpha, default), step_size=_or(o.object_step, 1.0), **momentum
    )
    made.probe_options = api.PIEProbeOptions(
        alpha=_or(o.probe_alpha, default), step_size=_or(o.probe_step, 1.0), **momentum
    )
    return made


def _parallel(settings: Settings) -> Any:
    o = settings.options
    dm = o.algorithm == "dm"
    made = api.DMOptions() if dm else api.RAAROptions()
    made.reconstructor_options.chunk_length = _PARALLEL_CHUNK
    if dm:
        made.reconstructor_options.exit_wave_update_relaxation = _or(o.relaxation, 1.0)
    else:
        made.reconstructor_options.beta = _or(o.relaxation, 0.75)
    kind = api.DMObjectOptions if dm else api.RAARObjectOptions
    limit = {} if o.amplitude_limit is None else {"amplitude_clamp_limit": o.amplitude_limit}
    made.object_options = _object(kind, inertia=1 - _or(o.object_step, 1.0), **limit)
    made.probe_options.inertia = 1 - _or(o.probe_step, 1.0)
    return made


def _autodiff(settings: Settings) -> Any:
    o = settings.options
    made = api.AutodiffPtychographyOptions()
    made.reconstructor_options.loss_function = "mse_sqrt"
    made.reconstructor_options.forward_model_class = EveryModeForward
    adam = _or(o.optimizer, "adam") == "adam"
    name, step = ("adam", 0.02) if adam else ("sgd", 0.3)
    made.object_options = _object(
        api.AutodiffPtychographyObjectOptions, optimizer=name, step_size=_or(o.object_step, step)
    )
    made.probe_options.optimizer = name
    made.probe_options.step_size = _or(o.probe_step, step)
    made.probe_position_options.optimizer = "adam"  # their gradient has the size of the counts
    return made


def _object(kind: Any, **changes: Any) -> Any:
    made = kind(**changes)
    # it would change the probe, also one that is not refined; the scale is our own
    made.remove_object_probe_ambiguity.enabled = False
    return made


_MAKERS = {"lsqml": _lsqml, "rpie": _pie, "epie": _pie, "dm": _parallel, "raar": _parallel, "autodiff": _autodiff}


def library_options(
    settings: Settings,
    offset_px: NDArray[np.int64],
    N: int,
    probe_rms: float,
    n_batch: int,
    n_slices: int = 1,
    optics: Optics | None = None,
) -> Any:
    """Make the options of a pty-chi task.

    Args:
        settings: of the run.
        offset_px: (2,) corner that pty-chi's positions are counted from; see ``physics.to_library_positions``.
        N: side of a frame.
        probe_rms: root mean square of the probe as pty-chi has it.
        n_batch: frames in one update.
        n_slices: L.
        optics: of the waves between slices, where there are some.
    """
    o = settings.options
    made = _MAKERS[o.algorithm](settings)
    r = made.reconstructor_options
    r.default_device = "cpu"  # pty-chi reads it where it sets torch's default device, which we do not let it
    r.allow_nondeterministic_algorithms = False
    r.forward_model_options.pad_for_shift = 0
    if o.algorithm in BATCH_FRAMES:
        r.batch_size = n_batch
        r.batching_mode = _or(o.batching, "random")
    of_object = made.object_options
    of_object.determine_position_origin_coords_by = "specified"
    of_object.position_origin_coords = position_origin(offset_px, N)
    if optics is not None:
        of_object.slice_spacings_m = [optics.spacing_m] * (n_slices - 1)
        of_object.pixel_size_m = optics.pixel_size_m
        made.data_options.wavelength_m = optics.wavelength_m
    of_weights = made.opr_mode_weight_options
    of_weights.optimizable = settings.varies
    of_weights.update_relaxation = _or(o.opr_step, 0.5)
    of_weights.optimization_plan.start = _or(o.probe_start, 0)
    if o.total_variation is not None:
        of_object.total_variation.enabled = True
        of_object.total_variation.weight = o.total_variation
    of_probe = made.probe_options
    of_probe.optimizable = settings.refine_probe
    of_probe.optimization_plan.start = _or(o.probe_start, 0)
    if o.algorithm == "autodiff" and of_probe.optimizer == "adam":
        of_probe.step_size = of_probe.step_size * probe_rms
    modes = of_probe.orthogonalize_incoherent_modes
    method = _or(o.orthogonalise, "svd")
    modes.enabled = settings.refine_probe and method != "none"
    modes.method = "gs" if method == "gs" else "svd"
    _set_positions(made.probe_position_options, settings)
    return made


def _set_positions(of_positions: Any, settings: Settings) -> None:
    o = settings.options
    of_positions.optimizable = settings.refine_positions
    of_positions.optimization_plan.start = _or(o.position_start, 0)
    of_positions.step_size = _or(o.position_step, 0.02 if o.algorithm == "autodiff" else 1.0)
    correction = of_positions.correction_options
    correction.correction_type = _or(o.position_correction, "gradient")
    correction.update_magnitude_limit = _or(o.position_step_limit_px, 0.1)
