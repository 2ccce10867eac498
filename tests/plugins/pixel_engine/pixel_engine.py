"""A network engine in one file: two layers that correct each pixel of a solver sweep, trained by trial and error."""

from types import SimpleNamespace

import numpy as np
from pixel_generator import GENERATORS

from ptycho_core.enginekit.network_inference import ScanLayout, predict_groups, reconstruct_network
from ptycho_core.enginekit.network_loop import Step, Training
from ptycho_core.enginekit.network_model import load_network, save_network
from ptycho_core.enginekit.network_result import NetworkResult
from ptycho_core.enginekit.network_training import check_trainable, run_facts
from ptycho_core.enginekit.training_groups import TrainingGroups
from ptycho_core.enginekit.weights import initial_weights, network_of
from ptycho_core.physics.forward import fourier_shift, mode_intensity, rate_of_waves
from ptycho_core.physics.likelihood import amplitude_loss
from ptycho_core.physics.patches import accumulate, extract, merge
from ptycho_core.physics.relative import relative_variation
from ptycho_core.physics.sweep import solver_update, swept
from ptycho_core.protocol import Capabilities, no_progress
from ptycho_core.runtime import Runtime

TRIAL = 1e-3


def pixel_mlp(weights, estimate, update):
    """Patches (J, N, N) complex: a solver sweep, and what the network makes of estimate and update besides."""
    seen = np.stack([estimate.real - 1, estimate.imag, update.real, update.imag], axis=-1)
    answer = np.tanh(seen @ weights["in.weight"].T + weights["in.bias"]) @ weights["out.weight"].T
    return swept(estimate, update) + answer[..., 0] + 1j * answer[..., 1]


class PixelLearner:
    """Weights, moved against the slope along one random direction a step; see ``network_loop.Learner``."""

    leads = True

    def __init__(self, config, data):
        self.config, self.data, self.steps = config, data, 0
        self.network = network_of(config.network, GENERATORS)
        self.weights = initial_weights(config, data.scans[0].raw.side, GENERATORS)
        self.steps_an_epoch, self.n_heldout = data.draw.steps_an_epoch(), data.n_heldout

    def agree(self, wish):
        return wish

    def batches(self, epoch, first_batch):
        return map(self.data.read, self.data.batches(epoch, first_batch=first_batch))

    def loss(self, weights, batch):
        """Loss of the counted frames of a batch, summed, over the mean counts; and the patches agreed on."""
        scan, total, patches = self.data.scans[int(batch["scan"])], 0.0, []
        shape = tuple(batch["canvas_shape"])
        for counts, corners, rest, counted in zip(
            *(batch[name] for name in ("counts", "corners_px", "subpixel_px", "counted")), strict=True
        ):
            shifted = fourier_shift(scan.probe, rest[:, None, :])
            light, known = mode_intensity(shifted), (scan.raw.mask, scan.raw.background, scan.statistics.scale)
            agreed = np.ones_like(shifted[:, 0])
            for sweep in range(self.network.sweeps + 1):
                update = solver_update(agreed, shifted, counts, *known)
                last = sweep == self.network.sweeps
                moved = pixel_mlp(weights, agreed, update) if last else swept(agreed, update)
                agreed = extract(merge(moved, light, corners, shape), corners, counts.shape[-1])
            rate = rate_of_waves(shifted * agreed[:, None], scan.statistics.scale, scan.raw.background)
            total += amplitude_loss(rate[counted], counts[counted], scan.raw.mask, scan.statistics.mean_counts)
            patches.append(agreed)
        return total, np.array(patches)

    def step(self, batch, factor, look):
        rng = np.random.default_rng([self.config.seed, self.steps])
        self.steps += 1
        way = {name: rng.choice([-1.0, 1.0], w.shape).astype(np.float32) for name, w in self.weights.items()}
        there, back = (
            self.loss({n: w + sign * TRIAL * way[n] for n, w in self.weights.items()}, batch)[0] for sign in (1, -1)
        )
        slope = (there - back) / (2 * TRIAL * batch["counts"].shape[0] * batch["counts"].shape[1])
        length = self.config.learning_rate * factor * np.clip(slope, -1, 1)
        self.weights = {n: (w - length * way[n]).astype(np.float32) for n, w in self.weights.items()}
        value, patches = self.loss(self.weights, batch)
        n_groups, C = batch["counts"].shape[:2]
        light = mode_intensity(self.data.scans[int(batch["scan"])].probe)
        return Step(value / (n_groups * C), n_groups, float(relative_variation(patches, light)) if look else None)

    def heldout_loss(self):
        batches = self.data.heldout_batches()
        return sum(self.loss(self.weights, self.data.read(batch))[0] for batch in batches) / self.n_heldout

    def values(self):
        scan = self.data.scans[0]
        probe = np.stack([scan.probe.real, scan.probe.imag], axis=-1).astype(np.float32)
        rest = {"probes.0": probe, "log_scales.0": np.array(np.log(scan.statistics.scale), np.float32)}
        return {f"generator.{name}": value.copy() for name, value in self.weights.items()} | rest

    def arrays(self):
        return {f"parameter.{name}": value for name, value in self.values().items()}

    def take(self, arrays, steps):
        self.weights = {name: arrays[f"parameter.generator.{name}"] for name in self.weights}
        self.steps = steps


class PixelScan:
    """The trained generator on a scan; see ``network_inference.ScanWork``."""

    def __init__(self, model, data, scale, passes, runtime):
        self.layout, raw = ScanLayout(data, runtime, 1, filled=False), data.scan.raw
        self.data, self.weights, self.known = data, model.weights, (raw.mask, raw.background, scale)
        self.sweeps, self.top, self.bottom = model.network.sweeps, 0, 0

    def prepare(self, part):
        shifted = fourier_shift(self.data.scan.probe, self.data.subpixel_px[part.groups][..., None, :])
        light, counts = mode_intensity(shifted), self.data.read_counts(part.groups)
        return SimpleNamespace(part=part, shifted=shifted, light=light, counts=counts, counting=light * part.counting)

    def flat(self):
        return np.ones(self.layout.shape, complex)

    def _added(self, patches, corners):
        return accumulate(patches.reshape(-1, *patches.shape[-2:]), corners.reshape(-1, 2), self.layout.shape)

    def weigh(self, chunk):
        self.bottom = self.bottom + self._added(chunk.counting, chunk.part.corners_px)

    def add(self, chunk, canvas, learned):
        self.top = self.top + self._added(self._moved(chunk, canvas, learned) * chunk.counting, chunk.part.corners_px)

    def merged(self):
        lit = self.bottom > 0
        canvas, self.top = np.where(lit, self.top / np.where(lit, self.bottom, 1), 0), 0
        return canvas

    def _moved(self, chunk, canvas, learned):
        estimate = extract(canvas, chunk.part.corners_px.reshape(-1, 2), chunk.counts.shape[-1])
        estimate = estimate.reshape(chunk.counts.shape)
        update = solver_update(estimate, chunk.shifted, chunk.counts, *self.known)
        return pixel_mlp(self.weights, estimate, update) if learned else swept(estimate, update)

    def predict(self, chunk, canvas):
        canvas = self.flat() if canvas is None else canvas
        return self._moved(chunk, canvas, True).astype(np.complex64), chunk.light.astype(np.float32)


class PixelEngine:
    """A generator of its own, and nothing in core that knows it."""

    name = "pixel"
    capabilities = Capabilities(
        methods=("network",), generators=("pixel_mlp",), losses=("amplitude",), schedules=("constant", "cosine"),
        mask=True, background=True, resume=True, preview=True,
        ignored_fields=("weight_decay", "gradient_clip_norm", "weight_average", "runtime.num_workers",
                        "runtime.strategy", "probe_learning_rate", "scale_learning_rate"),
    )  # fmt: skip

    def train(self, scans, config, runtime=None, *, progress=no_progress):
        check_trainable(scans, config, GENERATORS)
        runtime = runtime or Runtime()
        learner = PixelLearner(config, TrainingGroups(scans, config))
        facts, result = run_facts(config, scans, runtime), NetworkResult(self, scans, config, runtime, GENERATORS)
        return result.model(Training(learner, config, runtime, self.name, facts, progress, result).run())

    def reconstruct(self, model, scan, config, runtime=None, *, progress=no_progress):
        return reconstruct_network(model, scan, config, runtime or Runtime(), PixelScan, progress)

    def predict_patches(self, model, groups, runtime=None):
        return predict_groups(model, groups, runtime or Runtime(), PixelScan)

    def save(self, model, path):
        save_network(model, path, ("numpy",))

    def load(self, path):
        return load_network(path, self.name, records=GENERATORS)
