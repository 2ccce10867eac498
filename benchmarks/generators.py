"""What each generator makes of one scan, side by side in one process: quality against seconds.

    python benchmarks/generators.py [--object texture | --scan FILE --measurement amplitude] [--engine pytorch]

``unrolled`` is trained on some groups and applied with as many passes as in training and with three times as many.
Beside each stands the same network before training with three times the passes: that is the parallel solver, and is
made with its sweeps, which cost less than passes of a network that adds nothing. Then come the solver with yet more
sweeps, and ``probe_unet``.

Seconds are wall time, and in brackets those of all processors of this process, which a busy machine does not stretch as
much. On a machine that others use set OMP_NUM_THREADS=1: threads that wait for each other count as work, and a step
took three times the processor seconds. To reach on the texture scan with two processors: correlation 0.95 within 180 s
of training and inference together, no less than untrained with three times the passes, and stable at three times the
passes of the training.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ptycho_core import InferenceConfig, ModelConfig, PtychoDataContainer, RawData, TrainingConfig
from ptycho_core.api.compare import compare
from ptycho_core.api.score import score
from ptycho_core.cli.demo import demo_simulation
from ptycho_core.enginekit.network_model import NetworkModel
from ptycho_core.enginekit.weights import initial_weights
from ptycho_core.io import read_scan
from ptycho_core.plugins.registry import load_backend
from ptycho_core.provenance import machine
from ptycho_core.simulation import simulate_scan

SEED = 0


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock and of the processors."""

    wall: float
    processors: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall + other.wall, self.processors + other.processors)

    def __str__(self) -> str:
        return f"{self.wall:.0f} ({self.processors:.0f})"


def timed(work: Callable[[], Any]) -> tuple[Any, Spent]:
    """What a function gives, and what it took."""
    wall, processors = time.perf_counter(), time.process_time()
    made = work()
    return made, Spent(time.perf_counter() - wall, time.process_time() - processors)


class Bench:
    """A scan, an engine, and the rows of the table so far.

    Args:
        raw: the scan.
        truth: of a simulated one, or None.
        engine_name: which engine.
    """

    def __init__(self, raw: RawData, truth: Any, engine_name: str) -> None:
        self.raw, self.truth, self.engine = raw, truth, load_backend(engine_name)
        self.scan = PtychoDataContainer.of(raw)
        self.statistics = self.scan.statistics

    def train(self, config: TrainingConfig) -> tuple[NetworkModel, Spent]:
        """Train on groups of the scan."""
        return timed(lambda: self.engine.train([self.scan], config))

    def solver(self, sweeps: int) -> NetworkModel:
        """The solver alone: a network with its first weights adds nothing to its own sweep after the others."""
        model = ModelConfig(width=1, depth=1, sweeps=sweeps - 1)
        config = TrainingConfig(backend=self.engine.name, method="network", model=model)
        return NetworkModel(
            backend=self.engine.name,
            config=config,
            weights=initial_weights(config, self.raw.side),
            statistics=self.statistics,
            scale=self.statistics.scale,
            probe=self.raw.probe,
            history={"train_loss": [0.0]},
        )

    def row(self, name: str, model: NetworkModel, passes: int | None, training: Spent | None) -> None:
        """Apply a model to the whole scan, and print what came out."""
        result, image = timed(lambda: self.engine.reconstruct(model, self.scan, InferenceConfig(passes=passes)))
        scored, text = score(result, self.scan, self.engine.name, self.engine), "—"
        if self.truth is not None:
            compared = compare(scored, self.truth)
            text = f"{compared.correlation:.4f}, {compared.amplitude_psnr_db:.1f} / {compared.phase_psnr_db:.1f}"
        total = image if training is None else training + image
        print(
            f"| {name} | {text} | {scored.train.fourier_error:.5f} | {training or '—'} | {image} | {total} |",
            flush=True,
        )


def read(arguments: argparse.Namespace) -> tuple[RawData, Any]:
    """The scan, and its truth where it is simulated."""
    if arguments.scan:
        return read_scan(arguments.scan, measurement=arguments.measurement), None
    scan = simulate_scan(demo_simulation(arguments.object, SEED))
    return scan.raw, scan.truth


def measure(bench: Bench, arguments: argparse.Namespace) -> None:
    """All rows."""
    network: dict[str, Any] = {"width": arguments.width, "depth": arguments.depth}
    common: dict[str, Any] = {"backend": bench.engine.name, "method": "network", "seed": SEED, "epochs": 1}
    common["collapse_threshold"] = 0.0
    model = ModelConfig(generator="unrolled", sweeps=arguments.sweeps, passes=arguments.passes, **network)
    config = TrainingConfig(model=model, n_groups=arguments.steps, learning_rate=arguments.learning_rate, **common)
    T = arguments.passes
    learned, spent = bench.train(config)
    before = f"{arguments.sweeps} sweeps, " if arguments.sweeps else ""
    for passes in (T, 3 * T):
        bench.row(f"unrolled, {before}{passes} passes", learned, passes, spent)
    for passes in (3 * T, 9 * T):
        bench.row(f"untrained, {before}{passes} passes", bench.solver(arguments.sweeps + passes), None, None)
    for sweeps in arguments.solver_sweeps:
        bench.row(f"solver alone, {sweeps} sweeps", bench.solver(sweeps), None, None)
    if arguments.probe_unet_steps:
        sweeps, steps = 48, arguments.probe_unet_steps
        corrected, spent = bench.train(
            replace(config, model=ModelConfig(sweeps=sweeps), n_groups=steps, learning_rate=1e-3)
        )
        bench.row(f"probe_unet, {sweeps} sweeps, {steps} steps", corrected, None, spent)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--object", default="texture", help="of the demo, to simulate")
    parser.add_argument("--scan", help="a file instead")
    parser.add_argument("--measurement", help="amplitude or counts, where the file does not say")
    parser.add_argument("--engine", default="pytorch")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--sweeps", type=int, default=0, help="solver sweeps before the first pass")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--steps", type=int, default=120, help="of the training of unrolled")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--probe-unet-steps", type=int, default=440, help="0 leaves it out")
    parser.add_argument("--solver-sweeps", type=int, nargs="*", default=[48, 144])
    arguments = parser.parse_args()
    raw, truth = read(arguments)
    bench = Bench(raw, truth, arguments.engine)
    print(f"machine: {json.dumps(machine())}; {raw.n_frames} frames of {raw.side}²; engine {bench.engine.name}")
    print(f"settings: {json.dumps(vars(arguments))}\n")
    print("| what | correlation, amplitude / phase PSNR in dB | Fourier error | training, s | image, s | together, s |")
    print("|---|---|---|---|---|---|")
    measure(bench, arguments)


if __name__ == "__main__":
    main()
