"""A network and then a solver, beside solvers alone, as overlap is taken away: which image is better, and when.

    python benchmarks/network_then_solver.py [--keep 1 2 3] [--photons 1e5] [--object texture lines]
        [--network pytorch tensorflow] [--solvers numpy ptychi] [--epochs 20 60 180]

The texture scan has 42 × 42 frames of 64²; ``--keep 3`` keeps every third position in each direction, so 196 of them.
The probe is known and fixed. Each solver starts from the flat object and runs for each number of epochs by itself; the
network is trained, applied and refined as ``ptycho run`` does. Scores are against the truth, over the region that the
kept frames light. Seconds are wall-clock seconds of this process, imports left out, compared within one call only.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import numpy as np

from ptycho_core import PtychoDataContainer, ensure_container, reconstruct, refine, train
from ptycho_core.api.compare import compare
from ptycho_core.config import ModelConfig, RefinementConfig, TrainingConfig
from ptycho_core.data.raw import ObjectGuess, RawData
from ptycho_core.data.results import Scored
from ptycho_core.plugins.registry import load_backend
from ptycho_core.provenance import machine
from ptycho_core.simulation import simulate_scan, texture_config

NETWORK_EPOCHS = 2
"""More improve a network less than refining its image does."""


def kept(raw: RawData, every: int) -> RawData:
    """Every so many-th position in each direction of a square raster."""
    side = round(raw.n_frames**0.5)
    grid = np.arange(raw.n_frames).reshape(side, side)
    return raw.subset(np.sort(grid[::every, ::every].ravel()))


def score(image: Scored, truth: ObjectGuess) -> dict[str, float]:
    found = compare(image, truth)
    names = ("amplitude_psnr_db", "phase_psnr_db", "correlation")
    return {"fourier_error": image.train.fourier_error} | {name: getattr(found, name) for name in names}


def report(**facts: object) -> None:
    print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in facts.items()}), flush=True)


def solver_alone(engine: str, raw: RawData, truth: ObjectGuess, epochs: int) -> None:
    # the loss that the engine's refining uses as well, where it has it; pty-chi chooses its own by its options
    losses = load_backend(engine).capabilities.losses
    config = TrainingConfig(backend=engine, epochs=epochs, loss="poisson" if "poisson" in losses else losses[0])
    scan = PtychoDataContainer.of(raw)
    start = time.perf_counter()
    image = reconstruct(train(scan, config), scan, config.inference, same_scan=True)
    report(way=f"{engine} alone", epochs=epochs, seconds=time.perf_counter() - start, **score(image, truth))


def network_then_solver(engine: str, raw: RawData, truth: ObjectGuess, generator: str, epochs: int) -> None:
    sizes = {"sweeps": 48} if generator == "probe_unet" else {}
    model_config = ModelConfig(generator=generator, **sizes)
    plan = RefinementConfig(probe=False, epochs=epochs)
    config = TrainingConfig(
        backend=engine, method="network", model=model_config, epochs=NETWORK_EPOCHS, refinement=plan
    )
    scan = ensure_container(raw, config)
    start = time.perf_counter()
    image = reconstruct(train(scan, config), scan, config.inference, same_scan=True)
    way = f"{engine} {generator}"
    report(way=way, epochs=config.epochs, seconds=time.perf_counter() - start, **score(image, truth))
    done = refine(image, config)
    passes = len(done.history["train_loss"])
    report(
        way=f"{way}, refined", epochs=passes, seconds=time.perf_counter() - start, kept=done.kept,
        **score(done.best, truth),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--photons", type=float, default=1e5)
    parser.add_argument("--object", nargs="+", default=["texture"])
    parser.add_argument("--network", nargs="*", default=["pytorch"])
    parser.add_argument("--generators", nargs="+", default=["probe_unet"])
    parser.add_argument("--solvers", nargs="*", default=["numpy"])
    parser.add_argument("--epochs", nargs="+", type=int, default=[20, 60, 180])
    given = parser.parse_args()
    report(machine=machine(), photons=given.photons)
    for kind in given.object:
        scan = simulate_scan(replace(texture_config(), object=kind, photons=given.photons))
        for every in given.keep:
            raw = kept(scan.raw, every)
            report(object=kind, keep=every, frames=raw.n_frames)
            for engine in given.network:
                for generator in given.generators:
                    network_then_solver(engine, raw, scan.truth, generator, max(given.epochs))
            for engine in given.solvers:
                for epochs in given.epochs:
                    solver_alone(engine, raw, scan.truth, epochs)


if __name__ == "__main__":
    main()
