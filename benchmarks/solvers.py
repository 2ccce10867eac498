"""Solvers side by side: how good the image is after how many epochs and seconds, for each engine that iterates.

    python benchmarks/solvers.py [--scans texture:1e5 texture:1e9 star64] [--epochs 5 10 20 40]
        [--engines ptychi:algorithm=lsqml ptychi:algorithm=rpie numpy:algorithm=lsq] [--data ../shared/data]
        [--out curves.json]

An engine is named as in a config; after a colon come its own options where it has them, or else fields of the config,
``name=JSON value`` or a bare word, separated by commas. All engines run on the same scan with the same probe, in one
process each, one after another, and every point of a curve is a run of its own from the beginning: an engine may pace
its steps by the number of epochs that it is given, so that half of a longer run is not what a short one would have
made. Seconds are those of training alone, set-up included and the import of the engine not, and are compared only
within one call: the machine is named.

``texture:PHOTONS`` is the simulated texture scan (1 764 frames of 64², the probe known and fixed), scored against its
truth: PSNR of amplitude and phase in decibels, and complex correlation after the mean is removed. ``star64`` is the
measured Siemens star of 516 frames, scored by its figures of merit, with ``--probe-modes`` modes that are refined.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ptycho_core import PtychoDataContainer, compare, reconstruct, train
from ptycho_core.config import TrainingConfig
from ptycho_core.config_mapping import config_from_mapping
from ptycho_core.data.raw import ObjectGuess, RawData
from ptycho_core.physics.merit import Figures
from ptycho_core.physics.probe import add_modes
from ptycho_core.plugins.registry import load_backend, options_class
from ptycho_core.provenance import machine
from ptycho_core.runtime import Runtime

ENGINES = ("ptychi:algorithm=lsqml", "ptychi:algorithm=rpie")
ON_CPU = Runtime(accelerator="cpu")


@dataclass(frozen=True)
class Scan:
    """A scan to reconstruct, with its truth where there is one."""

    name: str
    raw: RawData
    truth: ObjectGuess | None
    config: dict[str, Any]


def load_scan(name: str, data: Path, probe_modes: int) -> Scan:
    if name.startswith("texture:"):
        from ptycho_core.simulation import simulate_scan, texture_config

        simulated = simulate_scan(replace(texture_config(), photons=float(name.partition(":")[2])))
        return Scan(name, simulated.raw, simulated.truth, {"probe_trainable": False})
    if name == "star64":
        from ptycho_core.io import read_scan

        raw = read_scan(data / "siemens_star_64.npz", measurement="amplitude")
        return Scan(name, raw, None, {"probe_trainable": True, "probe_modes": probe_modes})
    sys.exit(f"--scans {name}: allowed are texture:PHOTONS and star64")


def engine_config(engine: str, scan: Scan) -> TrainingConfig:
    """The config of ``NAME[:setting=value,…]``."""
    name, _, settings = engine.partition(":")
    own = options_class(name)
    of_engine = set() if own is None else {field.name for field in dataclasses.fields(own)}
    values: dict[str, Any] = {"backend": name, "method": "solver"} | scan.config
    options: dict[str, Any] = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        plain: Any = value
        with contextlib.suppress(json.JSONDecodeError):
            plain = json.loads(value)
        (options if key in of_engine else values)[key] = plain
    return config_from_mapping(TrainingConfig, values | ({"options": {name: options}} if options else {}))


def figures(found: Figures) -> dict[str, float]:
    return {name: getattr(found, name) for name in ("deviance", "r_factor", "fourier_error")}


def curve(engine: str, scan: Scan, epochs: list[int]) -> list[dict[str, float]]:
    """A run of each number of epochs, scored."""
    config = engine_config(engine, scan)
    load_backend(config.backend)  # its import is no part of the first point
    points = []
    raw = scan.raw
    if config.probe_modes is not None and raw.probe is not None and config.probe_modes != len(raw.probe):
        raw = raw.with_probe(add_modes(raw.probe, config.probe_modes))
    data = PtychoDataContainer.of(raw)  # every frame makes the image: the truth judges, or the same figures for all
    for n in epochs:
        start = time.perf_counter()
        model = train(data, replace(config, epochs=n), ON_CPU)
        seconds = time.perf_counter() - start
        done = reconstruct(model, data, config.inference, ON_CPU, same_scan=True)
        point = {"epochs": n, "seconds": seconds, "frames": done.train.n_frames} | figures(done.train)
        if scan.truth is not None:
            score = compare(done, scan.truth)
            point |= {name: getattr(score, name) for name in ("amplitude_psnr_db", "phase_psnr_db", "correlation")}
        points.append(point)
        print(json.dumps({"scan": scan.name, "engine": engine} | point), flush=True)
    return points


def main() -> int:
    """Draw the curves; 1 when an engine failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", nargs="+", default=["texture:1e5", "texture:1e9", "star64"])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--epochs", nargs="+", type=int, default=[5, 10, 20, 40])
    parser.add_argument("--probe-modes", type=int, default=1)
    parser.add_argument("--loss", default="amplitude", choices=("amplitude", "poisson"))
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path, help="write all points as JSON here")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        scan = load_scan(given.scans[0], given.data, given.probe_modes)
        scan = replace(scan, config=scan.config | {"loss": given.loss})
        curve(given.engines[0], scan, sorted(given.epochs))
        return 0
    print(json.dumps({"machine": machine()}), flush=True)
    points, failed = [], 0
    for scan_name in given.scans:
        for engine in given.engines:
            command = [sys.executable, __file__, "--alone", "--scans", scan_name, "--engines", engine]
            command += ["--epochs", *map(str, given.epochs), "--probe-modes", str(given.probe_modes)]
            command += ["--data", str(given.data), "--loss", given.loss]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    print(line, end="", flush=True)
                    points.append(json.loads(line))
            if process.returncode:
                failed += 1
                print(f"{engine} on {scan_name} failed with {process.returncode}", file=sys.stderr)
    if given.out is not None:
        given.out.write_text(json.dumps({"machine": machine(), "points": points}, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
