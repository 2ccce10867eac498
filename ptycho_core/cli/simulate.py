"""``ptycho simulate``: draw a scan with a known truth and write it to a file."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError
from .options import Options, Parser, make_parser
from .progress import long_job
from .session import Session
from .settings import add_field_options, given_fields

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Simulate a scan and write it to a file, with the true object, the probe and the settings. The same seed gives the same
scan. A name that ends in .npz is written as NPZ, one in .h5 as HDF5."""
EXAMPLE = "ptycho simulate --object dead_leaves --n_frames 100 --photons 1e5 --seed 3 --out scan.npz"
_SUFFIXES = (".npz", ".h5", ".hdf5")


def build_parser() -> Parser:
    """Return the parser of the command."""
    from ..simulation import SimulationConfig

    parser = make_parser("simulate", "", _SUMMARY, EXAMPLE)
    parser.add_argument("--out", metavar="FILE", default="scan.npz", help="file to write (default: scan.npz)")
    parser.add_argument("--compress", action="store_true", help="compress the frames; such a file is read into memory")
    add_field_options(parser, SimulationConfig)
    return parser


def execute(options: Options, session: Session) -> int:
    """Simulate and write."""
    from ..io import ensure_output_folder, write_scan
    from ..simulation import SimulationConfig, simulate_scan

    path = Path(options["out"])
    if path.suffix not in _SUFFIXES:
        raise ConfigError(f"--out {path}: the suffix says how to write it; allowed: {', '.join(_SUFFIXES)}.")
    config = SimulationConfig(**given_fields(SimulationConfig, options))
    ensure_output_folder(path.parent)
    with session.stage("simulate"):
        scan = simulate_scan(config)
    with session.stage("write"), long_job(session) as progress:
        write_scan(path, scan.raw, compress=options["compress"], progress=progress)
    raw = scan.raw
    session.say(
        f"{path}: {raw.n_frames} frames of {raw.side}×{raw.side}, {config.object}, seed {config.seed}, "
        f"{raw.frame_totals.mean():.4g} photons a frame"
    )
    return 0
