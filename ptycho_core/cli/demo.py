"""``ptycho demo``: simulate a scan, train, reconstruct it and compare the image with the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import TrainingConfig
from ..errors import BackendUnavailableError
from .options import Options, add_config_options, add_out_option, build_config, given_settings, make_parser
from .progress import long_job
from .refining import add_refine_option, with_refine_option
from .session import Session
from .words import CONFIG_OMIT, interrupted_with_advice, say_run

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ..protocol import Capabilities
    from ..simulation import SimulationConfig

__all__ = ["build_parser", "demo_simulation", "demo_training_config", "execute"]

_SUMMARY = """\
Simulate a scan whose true object is known, train on it, reconstruct it and score the image against the truth.
It needs no data. Without --backend it uses an engine that is installed, and says which."""
EXAMPLE = "ptycho demo --object lines --seed 0 --out demo"
_OWN_ENGINES = ("pytorch", "tensorflow", "numpy", "ptychi")
"""Engines of this project, in the order in which the demo takes them; it takes another one only where it must."""

_OBJECTS = ("lines", "texture", "dead_leaves", "siemens_star")


def demo_training_config(*, network: bool = True) -> dict[str, Any]:
    """Return the settings the demo trains with, over the defaults; the one place where they are chosen.

    Args:
        network: whether the engine trains a network, which more epochs than two improve less than refining does; a
            solver sweeps over the frames instead.
    """
    return {"model": {"sweeps": 48}, "epochs": 2} if network else {"epochs": 20, "loss": "poisson"}


def demo_simulation(kind: str, seed: int) -> SimulationConfig:
    """Return what the demo simulates."""
    from ..simulation import demo_config, texture_config

    return texture_config(seed) if kind == "texture" else replace(demo_config(seed), object=kind)


def build_parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = make_parser("demo", "", _SUMMARY, EXAMPLE)
    parser.add_argument("--object", choices=list(_OBJECTS), default="lines", help="what to simulate (default: lines)")
    add_out_option(parser, "ptycho-demo")
    add_refine_option(parser)
    add_config_options(parser, TrainingConfig, omit=CONFIG_OMIT)
    return parser


def _installed_engine(preferred: str) -> str:
    """Name of an engine that is ready: the default one, else another of this project, else any.

    Raises:
        BackendUnavailableError: none is; the message has the pip line.
    """
    from ..plugins.registry import INSTALL_ONE, available_backends

    engines = available_backends()
    ready = [engine for engine in engines if engine.state == "ready"]
    if not ready:
        lines = [engine.install for engine in engines if engine.install] or [INSTALL_ONE]
        raise BackendUnavailableError(f"no reconstruction engine is installed; install one with: {' or '.join(lines)}")
    ranks = [preferred, *_OWN_ENGINES]
    rank = {name: number for number, name in reversed(list(enumerate(ranks)))}
    return min(ready, key=lambda engine: (rank.get(engine.name, len(ranks)), engine.name)).name


def _training_config(options: Options, name: str, capabilities: Capabilities) -> TrainingConfig:
    """What the demo trains with on an engine, under what was given."""
    base = demo_training_config(network=bool(capabilities.generators)) | {"backend": name}
    if "loss" in base and base["loss"] not in capabilities.losses:
        base["loss"] = capabilities.losses[0]
    return build_config(TrainingConfig, options, omit=CONFIG_OMIT, base=base)


def execute(options: Options, session: Session) -> int:
    """Simulate, train, reconstruct, compare, report."""
    from ..api.run import run
    from ..plugins.registry import load_backend
    from ..simulation import simulate_scan

    options = with_refine_option(options)
    given = given_settings(options, omit=CONFIG_OMIT).get("backend")
    name = given or _installed_engine(TrainingConfig.backend)
    with session.stage("start_up"), session.quiet_start(name):
        capabilities = load_backend(name).capabilities
    config = _training_config(options, name, capabilities)
    alone = "" if capabilities.generators or given else " (no framework is installed: solver sweeps, without a network)"
    session.say(f"engine    {name}{alone}")
    with session.stage("simulate"):
        scan = simulate_scan(demo_simulation(options["object"], config.seed))
    raw = scan.raw
    session.say(f"scan      {raw.n_frames} simulated frames of {raw.side}×{raw.side}, seed {config.seed}")
    with interrupted_with_advice(session, None), long_job() as progress:
        done = run(
            raw,
            config,
            out=options["out"] or "ptycho-demo",
            overwrite=options["overwrite"],
            truth=scan.truth,
            title=f"demo: {options['object'].replace('_', ' ')}, seed {config.seed}",
            inputs=[Path(options["config"])] if options.get("config") else [],
            provenance={"command": session.command, "source": raw.source.details},
            progress=progress,
            observer=session,
        )
    say_run(done, session)
    return 0
