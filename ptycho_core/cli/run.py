"""``ptycho run DATA``: from a scan to an image and a report."""

from __future__ import annotations

from pathlib import Path

from ..io.result_folder import default_folder
from .options import Options, Parser, add_out_option, add_scan_options, make_parser
from .preview import add_preview_option, check_preview, with_preview
from .progress import long_job
from .refining import add_refine_option, with_refine_option
from .session import Session
from .settings import add_config_options, build_settings, reading_given, with_reading
from .words import files_given, interrupted_with_advice, reading, say_makers, say_run

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Make an image of a scan: solve it, refine image, probe and positions, and write a report into a folder.

The folder holds:
  report.html          images, figures of merit beside the noise limit, measured and predicted frames; to mail
  reconstruction.h5    object, probe, positions, coverage, losses; for programs and viewers
  summary.json         figures, times, versions, warnings, the hash of each file
  settings.yaml        the settings that decided the result; --config repeats it
  model.ptycho         what was solved or trained, for 'ptycho reconstruct'
  *.png, ptycho.log    pictures, and what was said
  training/            checkpoints and the history

A few per cent of the frames are held out for validation: the image is not made from them, and is judged by them.
After Ctrl-C the command says how to go on.

--method network trains a network on the scan, which makes the image before it is refined. Figures of engines,
networks and presets are in docs/which-engine.md."""
EXAMPLE = "ptycho run scan.npz --measurement amplitude --epochs 20 --seed 3 --out result"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("run", "DATA", _SUMMARY, EXAMPLE)
    parser.add_argument("data", metavar="DATA", help="file or folder with the scan")
    add_out_option(parser, "NAME-ptycho for a scan NAME.npz")
    add_refine_option(parser)
    add_preview_option(parser)
    parser.add_group(
        "resolution",
        {
            "--half_data_frc": {
                "action": "store_true",
                "help": "also reconstruct each half of the frames and correlate the two; takes about twice as long",
            }
        },
    )
    add_scan_options(parser)
    add_config_options(parser)
    return parser


def execute(options: Options, session: Session) -> int:
    """Solve or train, refine, report."""
    from ..api.run import run

    options = with_reading(with_refine_option(options))
    config, runtime = build_settings(options, session)
    session.reading = reading_given(options)
    every = check_preview(options, config, runtime, refines=True)
    data = Path(options["data"])
    with interrupted_with_advice(session, data), long_job(session, config.method) as report:
        progress = with_preview(report, every, session, config)
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
            provenance={"command": session.command, "reading": session.reading},
            progress=progress,
            observer=session,
        )
    say_makers(done, session)
    say_run(done, session)
    return 0
