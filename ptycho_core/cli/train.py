"""``ptycho train DATA``: train on a scan and write a model bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..config import TrainingConfig
from .options import Options, add_config_options, add_out_option, add_scan_options, build_config, make_parser
from .results import BUNDLE_NAME, staged
from .session import Session
from .workflow import CONFIG_OMIT, load_engine, output_folder, read_data, train_model

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Train on a scan and write model.ptycho, a bundle that 'ptycho reconstruct' applies to this scan or to others.
Checkpoints and the history are left in training/. After Ctrl-C it says how to go on."""
EXAMPLE = "ptycho train scan.npz --measurement amplitude --config settings.yaml --epochs 5 --out model"


def build_parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = make_parser("train", "DATA", _SUMMARY, EXAMPLE)
    parser.add_argument("data", type=str, metavar="DATA", help="file with the scan")
    add_out_option(parser, "NAME-ptycho for a scan NAME.npz")
    add_scan_options(parser)
    add_config_options(parser, TrainingConfig, omit=CONFIG_OMIT)
    return parser


def execute(options: Options, session: Session) -> int:
    """Train and write the bundle."""
    from ..api import save_model

    config = build_config(TrainingConfig, options, omit=CONFIG_OMIT)
    folder = output_folder(options, f"{Path(options['data']).name.partition('.')[0]}-ptycho", session)
    engine = load_engine(config, session)
    raw = read_data(options, session)
    trained = train_model(raw, config, folder, session)
    with session.stage("save"), staged(folder) as partial:
        save_model(trained.results["model"], partial / BUNDLE_NAME, backend=engine)
    session.say(f"time      {session.age():.1f} s")
    session.say(f"model     {folder / BUNDLE_NAME}")
    return 0
