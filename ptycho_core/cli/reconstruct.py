"""``ptycho reconstruct --model BUNDLE DATA``: apply a trained model to a scan and write a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import InferenceConfig
from ..config_mapping import config_to_mapping
from .options import Options, add_config_options, add_out_option, add_scan_options, build_config, make_parser
from .progress import long_job
from .results import Outcome, report_results
from .session import Session
from .workflow import output_folder, read_data

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Reconstruct a scan with a trained model bundle and write the same results as 'ptycho run', but for the model.
The probe is the scan's own if it has one, else the bundle's; --probe FILE takes another."""
EXAMPLE = "ptycho reconstruct --model result/model.ptycho scan.npz --measurement amplitude --out image"
_OMIT: dict[str, str] = {}


def build_parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = make_parser("reconstruct", "--model BUNDLE DATA", _SUMMARY, EXAMPLE)
    parser.add_argument("data", type=str, metavar="DATA", help="file with the scan")
    parser.add_argument("--model", type=str, metavar="BUNDLE", required=True, help="model.ptycho, as 'run' wrote it")
    parser.add_argument("--backend", type=str, metavar="NAME", help="engine (default: the one that made the bundle)")
    parser.add_argument(
        "--same_scan",
        action="store_true",
        help="the model was trained on this scan: use the probe and the intensity scale refined in training",
    )
    add_out_option(parser, "NAME-ptycho for a scan NAME.npz")
    add_scan_options(parser)
    add_config_options(parser, InferenceConfig, omit=_OMIT)
    return parser


def execute(options: Options, session: Session) -> int:
    """Reconstruct and report."""
    from .. import api
    from ..bundle import read_bundle
    from ..plugins.capabilities import check_inference_capabilities
    from ..plugins.registry import backend_spec, load_backend
    from ..provenance import collect_provenance

    data, bundle = Path(options["data"]), Path(options["model"])
    folder = output_folder(options, f"{data.name.partition('.')[0]}-ptycho", session)
    chosen = options["backend"] or read_bundle(bundle).backend
    with session.stage("start_up"), session.quiet_start(chosen):
        model = api.load_model(bundle, backend=chosen)
    base = config_to_mapping(model.config)["inference"]
    inference = build_config(InferenceConfig, options, omit=_OMIT, base=base)
    engine = options["backend"] or model.backend
    check_inference_capabilities(inference, load_backend(engine).capabilities, engine)
    raw = read_data(options, session)
    with session.stage("reconstruct"), long_job() as progress:
        reconstruction = api.reconstruct(
            model, raw, inference, backend=engine, same_scan=options["same_scan"], progress=progress
        )
    provenance = collect_provenance(model.config, raw.source, engine_packages=backend_spec(engine).requires)
    outcome = Outcome(
        title=data.name,
        trained_with=replace(model.config, inference=inference),
        engine=engine,
        raw=raw,
        reconstruction=reconstruction,
        history=model.history,
        provenance={**provenance, "command": session.command, "model": str(bundle)},
    )
    report_results(outcome, folder, session)
    return 0
