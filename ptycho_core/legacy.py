"""The old handshake: a flat dict that callers of the old interface read (specs/60-run-cdi-example).

``params.cfg`` is the one mutable dict of this package. The facade writes it once a call, before the engine is
imported; callers may read it; nothing in this project does. The keys:

=========================== ==============================================================================
key                         value
=========================== ==============================================================================
``N``                       side of a frame, pixels; absent while it is unknown (a scan given as a path)
``gridsize``                √C when C = ``group_size`` is a square; absent otherwise
``group_size``              C
``object.big``              True: patches of a group are merged on one canvas; False when C = 1
``probe.big``               True: the object fills the whole patch
``probe.mask``              False: no hard mask is put on the probe
``probe.trainable``         ``probe_trainable``
``intensity_scale.trainable`` ``scale_trainable``
``pad_object``              False: the object is not confined to the middle of a patch
``nphotons``                ``nphotons``; absent when it is measured
``nepochs``                 ``epochs``
``batch_size``              ``batch_size``
``nll_weight``              1.0 for ``loss = poisson``, else 0.0
``mae_weight``              1.0 for ``loss = amplitude``, else 0.0
``neighbor_count``          ``neighbor_pool_size``, or C−1
``n_groups``                ``n_groups``; absent for two groups a frame
``n_subsample``             ``n_subsample``; absent for all frames
``model_type``              ``pinn``
``backend``                 ``backend``
``seed``                    ``seed``
``output_dir``              ``output_dir`` as text; absent when nothing is written
=========================== ==============================================================================
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Any

from .config import TrainingConfig
from .errors import ConfigError
from .runtime import Runtime

__all__ = ["params", "update_legacy_dict"]


class _Params:
    """Holder of ``cfg``, so that old callers can say ``params.cfg``."""

    def __init__(self) -> None:
        self.cfg: dict[str, Any] = {}


params = _Params()
"""``params.cfg`` is written by the facade for old callers; see the module."""


def update_legacy_dict(
    cfg: MutableMapping[str, Any], config: TrainingConfig, runtime: Runtime | None = None, *, side: int | None = None
) -> None:
    """Write a config into a flat dict under its old names; keys of the caller's own are left alone.

    A key of the table that has no value now is removed, so that none is left from an earlier config.

    Args:
        cfg: dict to update, usually ``params.cfg``.
        config: the config.
        runtime: what does the work; None is the default one.
        side: N, pixels, when it is known.

    Raises:
        ConfigError: `config` is no TrainingConfig.
    """
    if not isinstance(config, TrainingConfig):
        raise ConfigError(f"config is a {type(config).__name__}; it must be a TrainingConfig.")
    C = config.group_size
    root = math.isqrt(C)
    values: dict[str, Any] = {
        "N": side,
        "gridsize": root if root * root == C else None,
        "group_size": C,
        "object.big": C > 1,
        "probe.big": True,
        "probe.mask": False,
        "probe.trainable": config.probe_trainable,
        "intensity_scale.trainable": config.scale_trainable,
        "pad_object": False,
        "nphotons": config.nphotons,
        "nepochs": config.epochs,
        "batch_size": config.batch_size,
        "nll_weight": 1.0 if config.loss == "poisson" else 0.0,
        "mae_weight": 1.0 if config.loss == "amplitude" else 0.0,
        "neighbor_count": C - 1 if config.neighbor_pool_size is None else config.neighbor_pool_size,
        "n_groups": config.n_groups,
        "n_subsample": config.n_subsample,
        "model_type": "pinn",
        "backend": config.backend,
        "seed": config.seed,
        "output_dir": None if runtime is None or runtime.output_dir is None else str(runtime.output_dir),
    }
    for key, value in values.items():
        if value is None:
            cfg.pop(key, None)
        else:
            cfg[key] = value
