"""``ptycho demo``: simulate a scan, train, reconstruct it and compare the image with the truth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..config import TrainingConfig
from ..errors import BackendUnavailableError
from .options import Options, add_config_options, add_out_option, build_config, given_settings, make_parser
from .refining import add_refine_option, start_refining_engine, with_refine_option
from .session import Session
from .workflow import CONFIG_OMIT, image_and_report, load_engine, output_folder, train_model

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ..simulate import SimulationConfig

__all__ = ["build_parser", "demo_simulation", "demo_training_config", "execute"]

_SUMMARY = """\
Simulate a scan whose true object is known, train on it, reconstruct it and score the image against the truth.
It needs no data. Without --backend it uses an engine that is installed, and says which."""
EXAMPLE = "ptycho demo --object lines --seed 0 --out demo"
_WITHOUT_FRAMEWORK = "numpy"
"""Engine that needs no framework; the demo takes it only where there is no other."""

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
    from ..simulate import demo_config, texture_config

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
    """Name of an engine that is ready, the default one first.

    Raises:
        BackendUnavailableError: none is; the message has the pip line.
    """
    from ..plugins.registry import INSTALL_ONE, available_backends

    engines = available_backends()
    ready = [engine.name for engine in engines if engine.state == "ready"]
    ready.sort(key=lambda name: name == _WITHOUT_FRAMEWORK)
    if not ready:
        lines = [engine.install for engine in engines if engine.install] or [INSTALL_ONE]
        raise BackendUnavailableError(f"no reconstruction engine is installed; install one with: {' or '.join(lines)}")
    return preferred if preferred in ready else ready[0]


def execute(options: Options, session: Session) -> int:
    """Simulate, train, reconstruct, compare, report."""
    from ..plugins.registry import load_backend
    from ..simulate import simulate_scan

    options = with_refine_option(options)
    folder = output_folder(options, "ptycho-demo", session)
    given = given_settings(options, omit=CONFIG_OMIT).get("backend")
    name = given or _installed_engine(TrainingConfig.backend)
    with session.stage("start_up"), session.quiet_start(name):
        network = bool(load_backend(name).capabilities.generators)
    base = demo_training_config(network=network) | {"backend": name}
    config = build_config(TrainingConfig, options, omit=CONFIG_OMIT, base=base)
    engine = load_engine(config, session)
    start_refining_engine(config, session)
    alone = "" if network or given else " (no framework is installed: solver sweeps alone, without a network)"
    session.say(f"engine    {engine.name}{alone}")
    with session.stage("simulate"):
        scan = simulate_scan(demo_simulation(options["object"], config.seed))
    raw = scan.raw
    session.say(f"scan      {raw.n_frames} simulated frames of {raw.side}×{raw.side}, seed {config.seed}")
    trained = train_model(raw, config, folder, session)
    title = f"demo: {options['object'].replace('_', ' ')}, seed {config.seed}"
    image_and_report(trained, title, folder, session, truth=scan.truth)
    return 0
