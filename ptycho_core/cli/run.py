"""``ptycho run DATA``: train on a scan, reconstruct it and write a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..config import TrainingConfig
from .options import Options, add_config_options, add_out_option, add_scan_options, build_config, make_parser
from .refining import add_refine_option, start_refining_engine, with_refine_option
from .session import Session
from .workflow import CONFIG_OMIT, image_and_report, load_engine, output_folder, read_data, train_model

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Train on a scan, reconstruct the whole of it, refine the image through the physics and write into a folder:
  report.html          the image before and after refining, the R-factor, measured and predicted frames; to mail
  reconstruction.h5    object, coverage, probe, positions, losses, for programs and viewers
  summary.json         figures, seconds, memory, versions, warnings
  model.ptycho         the trained model, for 'ptycho reconstruct'
  *.png, ptycho.log, training/ (checkpoints and the history)
After Ctrl-C it says how to go on.

--model.generator says how frames become an image. 'probe_unet' corrects the solver's estimate of each frame once, so
frames can be answered as they come. 'unrolled' is a learned solver, which goes over the whole scan several times
(--model.passes in training, --inference.passes after it): for a scan that is complete. Figures and settings for it
are in docs/which-engine.md."""
EXAMPLE = "ptycho run scan.npz --measurement amplitude --epochs 5 --model.width 24 --out result"


def build_parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = make_parser("run", "DATA", _SUMMARY, EXAMPLE)
    parser.add_argument("data", type=str, metavar="DATA", help="file with the scan")
    add_out_option(parser, "NAME-ptycho for a scan NAME.npz")
    parser.add_argument(
        "--half_data_frc",
        action="store_true",
        help="also train on each half of the frames and correlate the two images; takes about twice as long",
    )
    add_scan_options(parser)
    add_refine_option(parser)
    add_config_options(parser, TrainingConfig, omit=CONFIG_OMIT)
    return parser


def execute(options: Options, session: Session) -> int:
    """Train, reconstruct, report."""
    config = build_config(TrainingConfig, with_refine_option(options), omit=CONFIG_OMIT)
    data = Path(options["data"])
    folder = output_folder(options, f"{data.name.partition('.')[0]}-ptycho", session)
    load_engine(config, session)
    start_refining_engine(config, session)
    raw = read_data(options, session)
    trained = train_model(raw, config, folder, session)
    image_and_report(trained, data.name, folder, session, half_data=options["half_data_frc"])
    return 0
