"""``ptycho train DATA …``: train a network on one scan or several and write a model bundle."""

from __future__ import annotations

from pathlib import Path

from ..io.result_folder import default_folder
from .options import Options, Parser, add_out_option, add_scan_options, make_parser
from .preview import add_preview_option, check_preview, with_preview
from .progress import long_job
from .session import Session
from .settings import add_config_options, build_settings, reading_given, with_reading
from .words import files_given, interrupted_with_advice, reading

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Train a network on one scan or several, and write it as model.ptycho. 'ptycho reconstruct' applies it to these scans or
to others.

Checkpoints and the history are left in training/, and the settings in settings.yaml. After Ctrl-C the command says how
to go on. With --method solver the bundle holds the image that a solver found instead."""
EXAMPLE = "ptycho train scan.npz --measurement amplitude --config settings.yaml --epochs 5 --out model"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("train", "DATA …", _SUMMARY, EXAMPLE)
    parser.add_argument("data", nargs="+", metavar="DATA", help="file with a scan; several are one training")
    add_out_option(parser, "NAME-ptycho for a first scan NAME.npz")
    add_preview_option(parser)
    add_scan_options(parser)
    add_config_options(parser)
    return parser


def execute(options: Options, session: Session) -> int:
    """Train and write the bundle."""
    from ..api.models import BUNDLE_NAME
    from ..api.train import train

    options = with_reading(options)
    config, runtime = build_settings(options, session, method="network")
    session.reading = reading_given(options)
    every = check_preview(options, config, runtime, refines=False)
    paths = [Path(path) for path in options["data"]]
    folder = Path(options["out"] or default_folder(paths[0]))
    with interrupted_with_advice(session, paths[0]), long_job(session, config.method) as report:
        progress = with_preview(report, every, session, config)
        train(
            [reading({**options, "data": str(path)}, session, config=config, progress=progress) for path in paths],
            config,
            runtime,
            out=folder,
            overwrite=options["overwrite"],
            despite_findings=options["despite_findings"],
            inputs=[*paths, *files_given({**options, "data": str(paths[0])})],
            provenance={"command": session.command, "reading": session.reading},
            progress=progress,
            observer=session,
        )
    session.say(f"time      {session.age():.1f} s")
    session.say(f"model     {folder / BUNDLE_NAME}")
    return 0
