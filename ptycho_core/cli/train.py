"""``ptycho train DATA …``: train on one scan or several and write a model bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..config import TrainingConfig
from ..io.result_folder import default_folder
from .options import Options, add_config_options, add_out_option, add_scan_options, build_config, make_parser
from .progress import long_job
from .session import Session
from .words import CONFIG_OMIT, files_given, interrupted_with_advice, reading

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Train on a scan, or on several together, and write model.ptycho, a bundle that 'ptycho reconstruct' applies to these
scans or to others. Checkpoints and the history are left in training/. After Ctrl-C it says how to go on."""
EXAMPLE = "ptycho train scan.npz --measurement amplitude --config settings.yaml --epochs 5 --out model"


def build_parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = make_parser("train", "DATA …", _SUMMARY, EXAMPLE)
    parser.add_argument("data", type=str, nargs="+", metavar="DATA", help="file with a scan; several are one training")
    add_out_option(parser, "NAME-ptycho for a first scan NAME.npz")
    add_scan_options(parser)
    add_config_options(parser, TrainingConfig, omit=CONFIG_OMIT)
    return parser


def execute(options: Options, session: Session) -> int:
    """Train and write the bundle."""
    from ..api.models import BUNDLE_NAME
    from ..api.run import train

    config = build_config(TrainingConfig, options, omit=CONFIG_OMIT)
    paths = [Path(path) for path in options["data"]]
    folder = Path(options["out"] or default_folder(paths[0]))
    with interrupted_with_advice(session, paths[0]), long_job() as progress:
        train(
            [reading({**options, "data": str(path)}, session) for path in paths],
            config,
            out=folder,
            overwrite=options["overwrite"],
            despite_findings=options["despite_findings"],
            inputs=[*paths, *files_given({**options, "data": str(paths[0])})],
            provenance={"command": session.command},
            progress=progress,
            observer=session,
        )
    session.say(f"time      {session.age():.1f} s")
    session.say(f"model     {folder / BUNDLE_NAME}")
    return 0
