"""``ptycho demo``: simulate a scan, make its image and compare it with the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .options import Options, Parser, add_out_option, make_parser
from .progress import long_job
from .refining import add_refine_option, with_refine_option
from .session import Session
from .settings import add_config_options, build_settings
from .words import interrupted_with_advice, say_makers, say_run

if TYPE_CHECKING:
    from ..simulation import SimulationConfig

__all__ = ["OBJECTS", "build_parser", "demo_simulation", "execute"]

_SUMMARY = """\
Simulate a scan, make its image as 'ptycho run' does, and compare it with the true object. It needs no data.

Without --backend it takes an engine that is installed, and says which."""
EXAMPLE = "ptycho demo --object lines --seed 0 --out demo"
OBJECTS = ("lines", "texture", "dead_leaves", "siemens_star")
"""What can be simulated here."""


def demo_simulation(kind: str, seed: int) -> SimulationConfig:
    """Return what the demo simulates."""
    from ..simulation import demo_config, texture_config

    return texture_config(seed) if kind == "texture" else replace(demo_config(seed), object=kind)


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("demo", "", _SUMMARY, EXAMPLE)
    parser.add_argument("--object", choices=list(OBJECTS), default="lines", help="what to simulate (default: lines)")
    add_out_option(parser, "ptycho-demo")
    add_refine_option(parser)
    add_config_options(parser)
    return parser


def execute(options: Options, session: Session) -> int:
    """Simulate, make the image, compare, report."""
    from ..api.run import run
    from ..simulation import simulate_scan

    config, runtime = build_settings(with_refine_option(options), session)
    with session.stage("simulate"):
        scan = simulate_scan(demo_simulation(options["object"], config.seed))
    raw = scan.raw
    session.say(f"scan      {raw.n_frames} simulated frames of {raw.side}×{raw.side}, seed {config.seed}")
    with interrupted_with_advice(session, None), long_job(session, config.method) as progress:
        done = run(
            raw,
            config,
            runtime,
            out=options["out"] or "ptycho-demo",
            overwrite=options["overwrite"],
            truth=scan.truth,
            title=f"demo: {options['object'].replace('_', ' ')}, seed {config.seed}",
            inputs=[Path(options["config"])] if options["config"] else [],
            provenance={"command": session.command, "source": raw.source.details},
            progress=progress,
            observer=session,
        )
    say_makers(done, session)
    say_run(done, session)
    return 0
