"""A toy of two slices: amplitudes are put right, and carried back through free space from slice to slice (3PIE).

Its images are explained by its own forward model alone, and say so; core scores them through it.
"""

import numpy as np

from ptycho_core.data.container import integer_corners
from ptycho_core.enginekit.solver_model import SolverModel, load_solver, reconstruct_solved, save_solver
from ptycho_core.enginekit.stitching import corners_on
from ptycho_core.physics.forward import fourier_shift
from ptycho_core.physics.patches import accumulate, extract
from ptycho_core.physics.steps import illumination, object_step
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import OPTIMISER_FIELDS, BackendSpec, Capabilities, ProgressEvent, no_progress

NAME = "multislice"
SPACING_M = 2e-6
WAVELENGTH_M = 1.5e-10
PIXEL_M = 1e-8
"""What a scan that does not say them is taken to have."""

FRAMES_A_STEP = 4


@hookimpl
def ptycho_backend():
    """Describe the engine."""
    return BackendSpec(
        name=NAME, factory="multislice_engine:MultisliceEngine", requires=("numpy",), extra="multislice-engine",
        protocol_version=2,
    )  # fmt: skip


def spread(N):
    """(N, N) Fresnel transfer function between two slices, zero frequency at (0, 0)."""
    f2 = np.add.outer(np.fft.fftfreq(N) ** 2, np.fft.fftfreq(N) ** 2)
    return np.exp(-1j * np.pi * WAVELENGTH_M * SPACING_M / PIXEL_M**2 * f2)


def carried(waves, transfer):
    """Waves (…, N, N) after free space."""
    return np.fft.ifft2(np.fft.fft2(waves) * transfer)


def through(slices, probe, corners, rest):
    """What lights each slice, list of (J, P, N, N), and the waves at the detector, zero frequency in the middle."""
    N = probe.shape[-1]
    lights, waves = [], fourier_shift(probe[None], rest[:, None])
    for number, part in enumerate(slices):
        lights.append(waves if number == 0 else carried(waves, spread(N)))
        waves = lights[-1] * extract(part, corners, N)[:, None]
    return lights, np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))


class MultisliceEngine:
    """Steps of both slices against the gradient of the amplitude loss, over the curvature."""

    name = NAME
    capabilities = Capabilities(losses=("amplitude",), mask=True, background=True, ignored_fields=OPTIMISER_FIELDS)

    def train(self, scans, config, runtime=None, *, progress=no_progress):
        """Learn two slices from the training frames."""
        (scan,) = scans
        raw, statistics, (origin, shape) = scan.raw, scan.statistics, scan.canvas()
        corners, rest = integer_corners(raw.positions_px, raw.side)
        corners -= origin
        slices, probe = np.ones((2, *shape), complex), scan.probe * np.sqrt(statistics.scale)
        good = np.ones((raw.side,) * 2, bool) if raw.mask is None else raw.mask
        level = 0.0 if raw.background is None else raw.background

        def ask(frames):
            """Loss of some frames, what lights each slice, and the gradient at the last slice."""
            lights, arrived = through(slices, probe, corners[frames], rest[frames])
            rate = np.maximum(np.sum(np.abs(arrived) ** 2, axis=1) + level, 1e-8)
            root = np.sqrt(raw.read_counts(frames))
            slope = np.where(good, 1 - root / np.sqrt(rate), 0)
            chi = np.fft.ifft2(np.fft.ifftshift(2 * slope[:, None] * arrived, axes=(-2, -1)), norm="ortho")
            return float(np.sum(good * (np.sqrt(rate) - root) ** 2)), lights, chi

        history = {"train_loss": []} | ({"test_loss": []} if len(scan.heldout_frames) else {})
        for epoch in range(config.epochs):
            order, losses = np.random.default_rng([config.seed, epoch]).permutation(scan.train_frames), []
            for frames in np.array_split(order, -(-len(order) // FRAMES_A_STEP)):
                (loss, lights, chi), where = ask(frames), corners[frames]
                losses.append(loss)
                for number in (1, 0):
                    parts = extract(slices[number], where, raw.side)[:, None]
                    gradient = accumulate(np.sum(np.conj(lights[number]) * chi, axis=1), where, shape)
                    chi = carried(np.conj(parts) * chi, np.conj(spread(raw.side)))
                    slices[number] += 0.5 * object_step(gradient, illumination(probe, where, shape), "amplitude")
            history["train_loss"].append(sum(losses) / (len(order) * statistics.mean_counts))
            if len(scan.heldout_frames):
                judged = ask(scan.heldout_frames)[0]
                history["test_loss"].append(judged / (len(scan.heldout_frames) * statistics.mean_counts))
            metrics = {name: values[-1] for name, values in history.items()}
            progress(ProgressEvent(stage="train", done=epoch + 1, total=config.epochs, metrics=metrics))
        single = slices.astype(np.complex64)
        return SolverModel(
            backend=NAME, config=config, history=history, probe=scan.probe.copy(), statistics=statistics,
            scale=statistics.scale, object=np.prod(single, axis=0), origin_px=origin, slices=single,
            slice_spacing_m=SPACING_M, forward_model=NAME,
        )  # fmt: skip

    def reconstruct(self, model, scan, config, runtime=None, *, progress=no_progress):
        """Cut what the training frames of a scan cover out of the slices."""
        return reconstruct_solved(model, scan, config, progress)

    def expected_counts(self, image, scan, frames):
        """λ (n, N, N) of some frames through the slices of an image, or through a thin object."""
        slices = image.object[None] if image.slices is None else image.slices
        waves = through(slices, image.probe, *corners_on(image, frames))[1]
        rate = image.scale * np.sum(np.abs(waves) ** 2, axis=1)
        return rate if scan.raw.background is None else rate + scan.raw.background

    def save(self, model, path):
        """Write a bundle."""
        save_solver(model, path, ("numpy",))

    def load(self, path):
        """Read a bundle of this engine."""
        return load_solver(path, NAME)
