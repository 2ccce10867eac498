"""The generators in NumPy and float64, written out once more and as plainly as possible, to compare the engines with.

Weights are those of ``ptycho_core.enginekit.architectures``; images are (channels, N, N).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ptycho_core.config import TrainingConfig
from ptycho_core.enginekit.architectures import cnn_filters
from ptycho_core.enginekit.groups import Groups
from ptycho_core.enginekit.weights import initial_weights, network_of
from ptycho_core.physics.forward import expected_counts, fourier_shift
from ptycho_core.physics.likelihood import amplitude_loss, poisson_loss
from ptycho_core.physics.patches import accumulate, extract, merge
from ptycho_core.physics.sweep import solver_update, swept

__all__ = ["first_losses", "passed", "predicted_patches"]

Weights = Mapping[str, np.ndarray]


def conv(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    """Σ_c Σ_uv w[o, c, u, v] x[c, y + u − 1, x + v − 1] + b[o], zero outside."""
    kernel, bias = weights[f"{name}.weight"].astype(float), weights[f"{name}.bias"].astype(float)
    height, width = x.shape[1:]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = [padded[:, u : u + height, v : v + width] for u in range(3) for v in range(3)]
    return np.einsum("ocw,wcyx->oyx", kernel.reshape(*kernel.shape[:2], 9), np.array(windows)) + bias[:, None, None]


def block(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    for part in ("conv0", "conv1"):
        x = np.maximum(conv(x, weights, f"{name}.{part}"), 0)
    return x


def halved(x: np.ndarray) -> np.ndarray:
    return np.max([x[:, y::2, z::2] for y in (0, 1) for z in (0, 1)], axis=0)


def doubled(x: np.ndarray) -> np.ndarray:
    return x.repeat(2, axis=1).repeat(2, axis=2)


def u_net(features: np.ndarray, weights: Weights, depth: int) -> np.ndarray:
    """(4 or 6, N, N) features of a frame → (N, N) complex correction."""
    x, skips = features, []
    for level in range(depth):
        x = block(x, weights, f"encoder{level}")
        skips.append(x)
        x = halved(x)
    x = block(x, weights, f"encoder{depth}")
    for level in reversed(range(depth)):
        x = block(np.concatenate([doubled(x), skips[level]]), weights, f"decoder{level}")
    real, imaginary = conv(x, weights, "head")
    return real + 1j * imaginary


def cnn(x: np.ndarray, weights: Weights, config: TrainingConfig) -> np.ndarray:
    """(C, N, N) amplitudes of a group → (C, N, N) complex patches."""
    encoder, decoder = cnn_filters(config.network.sizes, x.shape[-1])
    for level in range(len(encoder)):
        x = halved(block(x, weights, f"encoder{level}"))
    arms = {}
    for arm in ("amplitude", "phase"):
        y = x
        for level in range(len(decoder)):
            y = doubled(block(y, weights, f"{arm}{level}"))
        arms[arm] = conv(y, weights, f"{arm}_head")
    return 2 / (1 + np.exp(-arms["amplitude"])) * np.exp(1j * np.pi * np.tanh(arms["phase"]))


def one_pass(estimate: np.ndarray, known: tuple, weights: Weights, config: TrainingConfig) -> np.ndarray:
    """Q + ρ u + net of frames (C, N, N), before the merge: `known` is what ``solver_update`` takes besides Q."""
    update = solver_update(estimate, *known)
    if config.network.generator == "probe_unet":
        parts, size = [estimate.real - 1, estimate.imag, update.real, update.imag], 1.0
    else:
        intensity = np.sum(np.abs(known[0]) ** 2, axis=-3)
        lit = intensity / intensity.max(axis=(-2, -1), keepdims=True)
        size = np.sqrt(np.sum(lit * np.abs(update) ** 2, axis=(-2, -1)) / np.sum(lit, axis=(-2, -1)))[:, None, None]
        relative = update / size
        parts = [estimate.real - 1, estimate.imag, relative.real, relative.imag, np.sqrt(lit), lit]
    features = np.stack(parts, axis=1)
    return swept(estimate, update) + size * np.array([u_net(x, weights, config.network.sizes.depth) for x in features])


def passed(
    canvas: np.ndarray, corners_px: np.ndarray, known: tuple, weights: Weights, config: TrainingConfig
) -> np.ndarray:
    """O ← O + Σ w_j (ρ u_j + net_j) / Σ w_j where a weight falls: one whole pass over a canvas, in the other form."""
    N = known[0].shape[-1]
    estimate = extract(canvas, corners_px, N)
    power = np.sum(np.abs(known[0]) ** 2, axis=-3)
    change = one_pass(estimate, known, weights, config) - estimate
    total = accumulate(power, corners_px, canvas.shape)
    mean = accumulate(power * change, corners_px, canvas.shape) / np.where(total > 0, total, 1)
    return np.where(total > 0, canvas + mean, 0)


def _of_group(data: Groups, b: int, config: TrainingConfig, weights: Weights, scale: float) -> np.ndarray:
    raw = data.scan.raw
    shifted = fourier_shift(data.scan.probe[None].astype(complex), data.subpixel_px[b][:, None])
    power, counts = np.sum(np.abs(shifted) ** 2, axis=1), data.read_counts(b).astype(float)
    if config.network.generator == "cnn":
        signal = np.maximum(counts - (0 if raw.background is None else raw.background), 0)
        signal = signal if raw.mask is None else np.where(raw.mask, signal, 0)
        mean_power = scale * power.sum(axis=(-2, -1), keepdims=True)
        return cnn(np.sqrt(signal / mean_power) * raw.side / 2, weights, config)
    known = (shifted, counts, raw.mask, raw.background, scale, raw.propagation)
    corners, shape = data.corners_px[b], tuple(data.canvas_shape[b])
    estimate = np.ones_like(shifted[:, 0])
    for _ in range(network_of(config.network).sweeps):
        canvas = merge(swept(estimate, solver_update(estimate, *known)), power, corners, shape)
        estimate = extract(canvas, corners, raw.side)
    patches = one_pass(estimate, known, weights, config)
    network = network_of(config.network)
    for _ in range(network.record.passes_for(network.sizes, config.inference.passes) - 1):
        estimate = extract(merge(patches, power, corners, shape), corners, raw.side)
        patches = one_pass(estimate, known, weights, config)
    return patches


def predicted_patches(data: Groups, config: TrainingConfig, weights: Weights, scale: float) -> np.ndarray:
    """Patches (B, C, N, N) complex128 of each group by itself, as ``predict_patches`` of an engine gives them."""
    return np.array([_of_group(data, b, config, weights, scale) for b in range(data.n_groups)])


def first_losses(data: Groups, config: TrainingConfig, weights: Weights | None = None) -> np.ndarray:
    """Loss (B,) of each group before any training, the mean of the frames that count; other weights where given."""
    weights = initial_weights(config, data.scan.raw.side) if weights is None else weights
    scale, raw = data.scan.statistics.scale, data.scan.raw
    loss = {"poisson": poisson_loss, "amplitude": amplitude_loss}[config.loss]
    out = []
    for b, patches in enumerate(predicted_patches(data, config, weights, scale)):
        corners, rest, shape = data.corners_px[b], data.subpixel_px[b], tuple(data.canvas_shape[b])
        probe = data.scan.probe.astype(complex)
        power = np.sum(np.abs(fourier_shift(probe[None], rest[:, None])) ** 2, axis=1)
        agreed = extract(merge(patches, power, corners, shape), corners, raw.side)
        rate = expected_counts(agreed, probe, rest, scale, raw.background, raw.propagation)
        real = data.counted[b]
        divisor = real.sum() * data.scan.statistics.mean_counts
        out.append(loss(rate[real], data.read_counts(b).astype(float)[real], raw.mask, divisor))
    return np.array(out)
