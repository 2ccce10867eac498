"""``ptycho run DATA``: train on a scan, reconstruct it and write a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..config import TrainingConfig
from ..io.result_folder import default_folder
from .options import Options, add_config_options, add_out_option, add_scan_options, build_config, make_parser
from .progress import long_job
from .refining import add_refine_option, with_refine_option
from .session import Session
from .words import CONFIG_OMIT, files_given, interrupted_with_advice, reading, say_run

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Train on a scan, reconstruct the whole of it, refine the image through the physics and write into a folder:
  report.html          the image before and after refining, figures of merit beside what shot noise allows, measured
                       and predicted frames; to mail
  reconstruction.h5    object, coverage, probe, positions, role of each frame, losses, for programs and viewers
  summary.json         figures, seconds, memory, versions, warnings, the hash of each file
  model.ptycho         the trained model, for 'ptycho reconstruct'
  *.png, ptycho.log, training/ (checkpoints and the history)
A few per cent of the frames are held out: neither the image nor refining uses them, so they judge both.
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
    """Train, reconstruct, refine, report."""
    from ..api.run import run

    config = build_config(TrainingConfig, with_refine_option(options), omit=CONFIG_OMIT)
    data = Path(options["data"])
    with interrupted_with_advice(session, data), long_job() as progress:
        done = run(
            reading(options, session),
            config,
            out=options["out"] or default_folder(data),
            overwrite=options["overwrite"],
            half_data=options["half_data_frc"],
            title=data.name,
            despite_findings=options["despite_findings"],
            inputs=files_given(options),
            provenance={"command": session.command},
            progress=progress,
            observer=session,
        )
    say_run(done, session)
    return 0
