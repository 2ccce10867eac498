"""``ptycho reconstruct --model BUNDLE DATA``: apply a trained model to a scan and write a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..io.result_folder import default_folder
from ..io.settings_text import APPLY, READING
from .applying import applied, said_by_file, with_applied
from .options import Options, Parser, add_out_option, add_scan_options, make_parser
from .progress import long_job
from .refining import add_refine_option, with_refine_option
from .session import Session
from .settings import add_inference_options, build_inference, build_refinement, reading_given, with_reading
from .words import files_given, reading, said_how_to_go_on, say_run

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..data.container import PtychoDataContainer
    from ..data.raw import RawData
    from ..protocol import Capabilities

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Apply a trained model to a scan, and write the same results as 'ptycho run'.

The probe is the scan's own. A scan without one takes the model's; --probe FILE takes another. All frames with counts
are part of the image. With --refine some are held out for validation, as in 'ptycho run'; the report shows the image
before and after. --config with the settings.yaml of the result makes the same image again."""
EXAMPLE = "ptycho reconstruct --model result/model.ptycho scan.npz --measurement amplitude --out image"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("reconstruct", "--model BUNDLE DATA", _SUMMARY, EXAMPLE)
    parser.add_argument("data", metavar="DATA", help="file with the scan")
    parser.add_argument(
        "--model", metavar="BUNDLE", help="model.ptycho, as 'run' wrote it (default: that of the file of --config)"
    )
    parser.add_argument("--backend", metavar="NAME", help="engine (default: the one that made the bundle)")
    parser.add_argument(
        "--same_scan",
        action="store_true",
        help="the model was trained on this scan: use the probe and the intensity scale refined in training",
    )
    add_out_option(parser, "NAME-image for a scan NAME.npz")
    add_refine_option(parser, default="none")
    add_scan_options(parser)
    add_inference_options(parser)
    return parser


def execute(options: Options, session: Session) -> int:
    """Reconstruct and report."""
    from ..api.accept import read_source
    from ..api.apply import apply_and_report, check_application
    from ..api.models import load_with_engine

    given, options = options, with_applied(with_reading(with_refine_option(options)))
    if (said := said_by_file(given, options)) is not None:
        session.say(f"model     {said}")
    data, bundle = Path(options["data"]), Path(options["model"])
    read: list[RawData | PtychoDataContainer] = []

    def look_first(of: Bundle, name: str, can: Capabilities | None) -> None:
        """What can be wrong is told before the engine's framework takes seconds to start."""
        inference, runtime = build_inference(options, of.config.inference)
        plan = build_refinement(options, of.config.refinement)
        check_application(of.config, inference, runtime, name, can, plan)
        read.append(read_source(reading(options, session), session))

    model, engine = load_with_engine(bundle, backend=options["backend"], observer=session, before_import=look_first)
    inference, runtime = build_inference(options, model.config.inference)
    with said_how_to_go_on(session), long_job(session) as progress:
        done = apply_and_report(
            model,
            engine,
            read[0],
            inference,
            runtime,
            refinement=build_refinement(options, model.config.refinement),
            out=options["out"] or default_folder(data, "-image"),
            overwrite=options["overwrite"],
            same_scan=options["same_scan"],
            title=data.name,
            despite_findings=options["despite_findings"],
            inputs=[*files_given(options), bundle],
            provenance={
                "command": session.command,
                "model": str(bundle),
                READING: reading_given(options),
                APPLY: applied(options, engine.name),
            },
            progress=progress,
            observer=session,
        )
    say_run(done, session)
    return 0
