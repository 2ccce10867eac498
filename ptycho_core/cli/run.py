"""``ptycho run DATA``: from a scan to an image and a report."""

from __future__ import annotations

from pathlib import Path

from ..io.result_folder import default_folder
from .options import Options, Parser, add_out_option, add_scan_options, make_parser
from .progress import long_job
from .refining import add_refine_option, with_refine_option
from .session import Session
from .settings import add_config_options, build_settings
from .words import files_given, interrupted_with_advice, reading, say_makers, say_run

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Solve a scan for its image, refine image, probe and positions through the physics, and write into a folder:
  report.html          the image before and after refining, figures of merit beside what shot noise allows, measured
                       and predicted frames; to mail
  reconstruction.h5    object, coverage, probe, positions, role of each frame, losses, for programs and viewers
  summary.json         figures, seconds, memory, versions, warnings, the hash of each file
  model.ptycho         what was solved or trained, for 'ptycho reconstruct'
  *.png, ptycho.log, training/ (checkpoints and the history)
A few per cent of the frames are held out: neither the image nor refining uses them, so they judge both.
After Ctrl-C it says how to go on.

--preset quick makes an image in seconds; --preset best takes its time. --method network trains a network on the scan,
which makes the image before it is refined; --model.generator says which. Figures are in docs/which-engine.md."""
EXAMPLE = "ptycho run scan.npz --measurement amplitude --epochs 20 --seed 3 --out result"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("run", "DATA", _SUMMARY, EXAMPLE)
    parser.add_argument("data", metavar="DATA", help="file with the scan")
    add_out_option(parser, "NAME-ptycho for a scan NAME.npz")
    parser.add_argument(
        "--half_data_frc",
        action="store_true",
        help="also make an image of each half of the frames and correlate the two; takes about twice as long",
    )
    add_scan_options(parser)
    add_refine_option(parser)
    add_config_options(parser)
    return parser


def execute(options: Options, session: Session) -> int:
    """Solve or train, refine, report."""
    from ..api.run import run

    config, runtime = build_settings(with_refine_option(options), session)
    data = Path(options["data"])
    with interrupted_with_advice(session, data), long_job(session) as progress:
        done = run(
            reading(options, session, config=config, progress=progress),
            config,
            runtime,
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
    say_makers(done, session)
    say_run(done, session)
    return 0
