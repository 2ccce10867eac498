"""What the engines that ship have in common, stated once: each names beside it where it differs.

They hold the same solvers and networks, so what one of them can do by these, all can. An engine from outside states its
own :class:`~ptycho_core.protocol.Capabilities`: what is added here with the next version, it may not have.
"""

from __future__ import annotations

from dataclasses import replace

from ..config import LOSSES, METHODS, SCHEDULES
from ..data.propagation import PROPAGATIONS
from ..protocol import Capabilities
from ..runtime import LOGGERS
from .architectures import GENERATORS

__all__ = ["NETWORK_CAPABILITIES", "SOLVER_CAPABILITIES"]

SOLVER_CAPABILITIES = Capabilities(
    losses=LOSSES,
    mask=True,
    background=True,
    probe_trainable=True,
    stepping=True,
    refine_positions=True,
    position_affine=True,
    probe_constraints=True,
    frame_scale=True,
    propagations=PROPAGATIONS,
    resume=True,
    preview=True,
    threads=True,
)
"""What a stepper of all formulas of ``physics.steps`` can do under core's descent, on a CPU."""

NETWORK_CAPABILITIES = replace(
    SOLVER_CAPABILITIES,
    methods=METHODS,
    generators=tuple(record.name for record in GENERATORS),
    max_scans=None,
    scale_trainable=True,
    precisions=("auto", "32", "bf16"),
    schedules=SCHEDULES,
    loggers=LOGGERS,
    max_devices=None,
)
"""The same beside every generator that ships, trained by ``enginekit.network_loop``, on any number of devices."""
