"""A solver that only steps, in pure functions as JAX wants them."""

import numpy as xp

from ptycho_core.enginekit.functional import PureStepper
from ptycho_core.enginekit.solver_model import load_solver, reconstruct_solved, save_solver
from ptycho_core.enginekit.solving import solve
from ptycho_core.physics.steps import CURVATURE, DARK_COUNTS, STEP_DAMPING
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import BackendSpec, Capabilities, no_progress


@hookimpl
def ptycho_backend():
    """Describe the engine."""
    return BackendSpec(
        name="functional", factory="functional_engine:FunctionalEngine", requires=("numpy",), extra="functional-engine",
        protocol_version=2,
    )  # fmt: skip


def waves(obj, probe, batch):
    """Shifted probe (J, P, N, N), patches (J, 1, N, N) and the waves at the detector, zero frequency in the middle."""
    shifted = xp.fft.ifft2(xp.fft.fft2(probe) * batch.ramp)
    patches = obj[batch.rows, batch.columns][:, None]
    return shifted, patches, xp.fft.fftshift(xp.fft.fft2(shifted * patches, norm="ortho"), axes=(-2, -1))


def intensity(obj, probe, batch):
    """λ (J, N, N)."""
    return batch.intensities * xp.sum(xp.abs(waves(obj, probe, batch)[2]) ** 2, axis=1) + batch.background


def step_over(gradient, light, loss):
    """A gradient over the curvature of the loss, damped where there is little light (FM-21)."""
    return -gradient / (CURVATURE[loss] * ((1 - STEP_DAMPING) * light + STEP_DAMPING * light.max()))


def step(state, batch, loss, lengths, wanted):
    """State, batch → state, and the loss of the batch (FM-8, FM-9, FM-10, FM-21); JAX would derive the gradient."""
    obj, probe, counts = state["object"], state["probe"], batch.counts
    shifted, patches, arrived = waves(obj, probe, batch)
    rate = batch.intensities * xp.sum(xp.abs(arrived) ** 2, axis=1) + batch.background
    bounded, plain = rate + DARK_COUNTS, xp.maximum(rate, 1e-8)
    if loss == "poisson":
        value, slope = plain - counts * xp.log(plain), 1 - counts / bounded
    else:
        value, slope = (xp.sqrt(plain) - xp.sqrt(counts)) ** 2, 1 - xp.sqrt(counts / bounded)
    back = xp.fft.ifftshift((2 * batch.intensities * batch.good * slope)[:, None] * arrived, axes=(-2, -1))
    chi = xp.fft.ifft2(back, norm="ortho")

    def merged(parts):  # in JAX: zeros.at[rows, columns].add(parts)
        total = xp.zeros(obj.shape, parts.dtype)
        xp.add.at(total, (batch.rows, batch.columns), parts)
        return total

    light = merged(batch.intensities * xp.sum(xp.abs(probe) ** 2, axis=0))
    gradient = merged(xp.sum(xp.conj(shifted) * chi, axis=1))
    move = step_over(gradient, light, loss)
    if lengths.least_squares:
        along = CURVATURE[loss] * xp.sum(light * xp.abs(move) ** 2)
        move = move * (-xp.sum((xp.conj(move) * gradient).real) / xp.maximum(along, 1e-30))
    velocity = lengths.momentum * state["velocity"] + lengths.object * move
    if "probe" in wanted:
        d_probe = xp.sum(xp.fft.ifft2(xp.fft.fft2(xp.conj(patches) * chi) * xp.conj(batch.ramp)), axis=0)
        seen = xp.sum(batch.intensities * xp.abs(patches[:, 0]) ** 2, axis=0)
        probe = probe + lengths.probe * step_over(d_probe, seen, loss)
    if "object" in wanted:
        obj = obj + lengths.object * move + lengths.momentum * velocity
    return {"object": obj, "probe": probe, "velocity": velocity}, xp.sum(batch.good * value)


class FunctionalEngine:
    """The descent of core with the step above."""

    name = "functional"
    capabilities = Capabilities(
        losses=("poisson", "amplitude"), mask=True, background=True, probe_trainable=True, probe_constraints=True,
        stepping=True, resume=True,
    )  # fmt: skip

    def stepper(self, image, scan, loss, runtime):
        """Steps from an image."""
        return PureStepper(image, scan, loss, rate=intensity, step=step, arrays=xp)

    def train(self, scans, config, runtime=None, *, progress=no_progress):
        """Solve a scan from the flat object."""
        return solve(self, scans[0], config, runtime, progress)

    def reconstruct(self, model, scan, config, runtime=None, *, progress=no_progress):
        """Cut what the training frames of a scan cover out of the object."""
        return reconstruct_solved(model, scan, config, progress)

    def save(self, model, path):
        """Write a bundle."""
        save_solver(model, path, ("numpy",))

    def load(self, path):
        """Read a bundle of this engine."""
        return load_solver(path, self.name)
