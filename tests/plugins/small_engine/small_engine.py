"""A whole engine in one file: it lowers the amplitude loss of a few frames at a time, with the physics of core."""

import numpy as np

from ptycho_core.data.container import integer_corners
from ptycho_core.enginekit.solver_model import SolverModel, load_solver, reconstruct_solved, save_solver
from ptycho_core.physics.likelihood import loss_and_gradient
from ptycho_core.physics.steps import illumination, object_step
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.protocol import OPTIMISER_FIELDS, BackendSpec, Capabilities, ProgressEvent, no_progress

FRAMES_A_STEP = 4


@hookimpl
def ptycho_backend():
    """Describe the engine; nothing more happens before it is chosen."""
    return BackendSpec(
        name="small", factory="small_engine:SmallEngine", requires=("numpy",), extra="small-engine", protocol_version=2
    )


class SmallEngine:
    """Steps against the gradient, over the curvature; ``epochs`` is the number of passes over the frames."""

    name = "small"
    capabilities = Capabilities(
        losses=("amplitude",),
        mask=True,
        background=True,
        ignored_fields=OPTIMISER_FIELDS,
    )

    def train(self, scans, config, runtime=None, *, progress=no_progress):
        """Learn the object from the training frames; the held-out ones are only judged, the others not looked at."""
        (scan,) = scans
        raw, statistics, (origin, shape) = scan.raw, scan.statistics, scan.canvas()
        corners, rest = integer_corners(raw.positions_px, raw.side)
        corners -= origin
        obj, probe = np.ones(shape, complex), scan.probe * np.sqrt(statistics.scale)

        def ask(frames):
            """Loss of some frames and its gradient in the object, summed over their good pixels."""
            where, counts = (corners[frames], rest[frames]), raw.read_counts(frames)
            return loss_and_gradient(obj, probe, *where, counts, "amplitude", raw.mask, raw.background)[:2]

        history = {"train_loss": []} | ({"test_loss": []} if len(scan.heldout_frames) else {})
        for epoch in range(config.epochs):
            order = np.random.default_rng([config.seed, epoch]).permutation(scan.train_frames)
            losses = []
            for frames in np.array_split(order, -(-len(order) // FRAMES_A_STEP)):
                loss, gradient = ask(frames)
                losses.append(loss)
                obj += object_step(gradient, illumination(probe, corners[frames], shape), "amplitude")
            history["train_loss"].append(sum(losses) / (len(order) * statistics.mean_counts))
            if len(scan.heldout_frames):
                judged = ask(scan.heldout_frames)[0]
                history["test_loss"].append(judged / (len(scan.heldout_frames) * statistics.mean_counts))
            metrics = {name: values[-1] for name, values in history.items()}
            progress(ProgressEvent(stage="train", done=epoch + 1, total=config.epochs, metrics=metrics))
        return SolverModel(
            backend="small", config=config, history=history, probe=scan.probe.copy(), statistics=statistics,
            scale=statistics.scale, object=obj.astype(np.complex64), origin_px=origin,
        )  # fmt: skip

    def reconstruct(self, model, scan, config, runtime=None, *, progress=no_progress):
        """Cut what the training frames of a scan cover out of the object."""
        return reconstruct_solved(model, scan, config, progress)

    def save(self, model, path):
        """Write a bundle."""
        save_solver(model, path, ("numpy",))

    def load(self, path):
        """Read a bundle of this engine."""
        return load_solver(path, "small")
