"""What the client's TensorFlow plugin calls, in its order, in a process that lives for one call.

Its interface hands things on through a dict of the process, ``params.cfg``; that dict is kept here, and what training
leaves for saving lies in it too. Nothing else of the package has a state.

The client cuts a reconstruction into steps: group the frames, load them, predict patches, put them together. Ours is
one step, so what is handed from one to the next is the scan, and then the image.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import ConfigError, DataError
from ptycho_core.text import one_line

from .archive import ARCHIVE_NAME, Archive, read_archive, write_archive
from .archive_checks import client_config, damaged
from .canvas import on_grid
from .imaging import ClientImage, image_of
from .scans import ClientFrames, ClientScan
from .settings import job_of_tf, refuse_ineffective, refuse_supervised
from .tf_configs import InferenceConfig, ModelConfig, TrainingConfig
from .training import learn

__all__ = [
    "Container", "GroupedScan", "Model", "Patches", "RawData", "cfg", "load", "load_inference_bundle",
    "reassemble_position", "run_cdi_example", "save", "save_outputs", "set_probe_guess",
]  # fmt: skip

logger = logging.getLogger("ptycho_core_ptychodus")

cfg: dict[str, Any] = {}
"""The client's dict: settings under flat names, ``intensity_scale``, and our own under :data:`_TRAINED`."""

_TRAINED = "ptycho_core.trained"
_NEIGHBOURS, _SAMPLES = 7, 1
"""What the client sends where its user has set nothing."""


class RawData(ClientScan):
    """A scan, as the client makes one of a file or of its arrays."""

    @classmethod
    def from_coords_without_pc(
        cls,
        xcoords: ArrayLike,
        ycoords: ArrayLike,
        diff3d: ArrayLike,
        probeGuess: ArrayLike,
        scan_index: ArrayLike | None = None,
        objectGuess: NDArray[np.complex64] | None = None,
    ) -> RawData:
        """A scan of arrays.

        Args:
            xcoords: (M,) pixels of the object.
            ycoords: (M,) likewise.
            diff3d: (M, N, N) counts.
            probeGuess: (P, N, N), (N, N) or (N, N, 1) complex.
            scan_index: (M,), all of one value: one scan.
            objectGuess: (H, W) complex.

        Raises:
            DataError: no usable scan, or frames of several.
        """
        if scan_index is not None and len(np.unique(np.asarray(scan_index))) > 1:
            raise DataError("scan_index has several values: frames of several scans; hand over one scan at a time.")
        positions = np.stack([np.asarray(ycoords, np.float64), np.asarray(xcoords, np.float64)], axis=1)
        made = cls.from_arrays(diff3d, positions, probeGuess, objectGuess)
        return cls(made.raw, made.grid)

    def generate_grouped_data(
        self, N: int, K: int = _NEIGHBOURS, nsamples: int = _SAMPLES, gridsize: int = 1
    ) -> GroupedScan:
        """All frames, once each: an image is made of every frame, and groups are the engine's own business.

        `nsamples` = 1 is what the client sends by default, where its users expect an image of the whole scan.

        Raises:
            ConfigError: a number of neighbours or of samples that somebody has chosen; it would have no effect.
            DataError: frames of another size.
        """
        if self.raw.side != N:
            raise DataError(f"the frames are {self.raw.side}×{self.raw.side}, and N = {N}; they must agree.")
        for name, given, default in (("n_nearest_neighbors", K, _NEIGHBOURS), ("n_samples", nsamples, _SAMPLES)):
            if given != default:
                raise ConfigError(
                    f"{name} = {given} has no effect with ptycho-core behind ptychodus, which uses every frame once; "
                    f"set it back to {default}."
                )
        return GroupedScan(self)


class GroupedScan:
    """A scan on its way to :func:`load`."""

    def __init__(self, scan: ClientScan) -> None:
        self.scan = scan


class Container:
    """A scan as the client takes it apart again.

    Attributes:
        X: its frames (M, N, N, 1).
        local_offsets: (M, 1, 2, 1) float64 zeros: a frame is its own group.
        global_offsets: (M, 1, 2, 1) float64 positions (y, x), pixels.
    """

    def __init__(self, scan: ClientScan) -> None:
        positions = scan.raw.positions_px[:, None, :, None]
        self.X = ClientFrames(scan)
        self.local_offsets = np.zeros_like(positions)
        self.global_offsets = np.array(positions)


def load(callback: Any, probeGuess: Any = None, which: str | None = None, create_split: bool = False) -> Container:
    """A container of what `callback` gives.

    Args:
        callback: gives a :class:`GroupedScan`.
        probeGuess: the scan's own, which it has.
        which: None; a part is named by those who split, and the client does not.
        create_split: False.

    Raises:
        ConfigError: a split is asked for.
    """
    if which is not None or create_split:
        raise ConfigError("loader.load splits no scan here; which must be None and create_split False.")
    grouped: GroupedScan = callback()
    return Container(grouped.scan)


def set_probe_guess(X_train: Any = None, probe_guess: Any = None) -> None:
    """Nothing: each scan has its probe with it."""


class Patches:
    """What :meth:`Model.predict` gives: an image that is whole already."""

    def __init__(self, image: ClientImage) -> None:
        self.image = image


class Model:
    """A loaded archive."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    def predict(self, inputs: list[Any]) -> Patches:
        """Make the image of a scan.

        Args:
            inputs: the container's frames, and its local offsets.

        Raises:
            DataError: something else than a container's frames.
        """
        frames = inputs[0]
        if not isinstance(frames, ClientFrames):
            raise DataError(f"predict got a {type(frames).__name__}; it takes the X of a container of loader.load.")
        return Patches(image_of(self.archive, frames.scan))


def reassemble_position(patches: Patches, global_offsets: Any = None, M: int = 20) -> NDArray[np.complex64]:
    """The image (H, W) complex64, on the client's grid; it was put together where it was made."""
    return patches.image.object


def run_cdi_example(
    train: ClientScan, test: ClientScan | None, config: TrainingConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32], dict[str, Any]]:
    """Train; amplitude and phase (H, W) are those of the training scan, on the client's grid.

    Raises:
        ConfigError: a setting that would have no effect.
        PtychoError: see :func:`.training.learn`.
    """
    client = {"plugin": "tensorflow", "model": asdict(config.model), "nepochs": config.nepochs}
    learned = learn(train, test, job_of_tf(config), client)
    cfg[_TRAINED] = learned.archive
    cfg["intensity_scale"] = 1.0
    image = learned.scored.image
    object = image.object if train.grid is None else on_grid(image.object, image.origin_px, train.grid)[0]
    results = {"scored": learned.scored, "probe": image.probe, "backend": learned.scored.engine}
    return np.abs(object), np.angle(object), results


def save(folder: Path | str) -> None:
    """Write what was trained last in this process to ``wts.h5.zip`` in a folder.

    Raises:
        ConfigError: nothing was.
        OutputError: it cannot be written.
    """
    archive = cfg.get(_TRAINED)
    if archive is None:
        raise ConfigError("model_manager.save: nothing was trained in this process; call run_cdi_example first.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_archive(archive, folder / ARCHIVE_NAME)


def save_outputs(amplitude: Any, phase: Any, results: Any, folder: str) -> None:
    """Leave the image of the training scan beside its model, as arrays and as a picture; None leaves nothing."""
    if amplitude is None or phase is None:
        return
    from ptycho_core.io.atomic import atomic_path

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with atomic_path(target / "training_image.npz") as temporary:
        np.savez(temporary, allow_pickle=False, amplitude=amplitude, phase=phase)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, values, title in zip(figure.subplots(1, 2), (amplitude, phase), ("amplitude", "phase, rad"), strict=True):
        shown = axes.imshow(values, cmap="gray")
        axes.set_title(title)
        figure.colorbar(shown, ax=axes, shrink=0.8)
    with atomic_path(target / "training_image.png") as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def load_inference_bundle(folder: Path | str) -> tuple[Model, TrainingConfig]:
    """Load a model archive, and put its scale where the client asks for it.

    Returns:
        the model, and the settings it was trained with, as the client knows them.

    Raises:
        ArchiveError: no model of ours.
        ConfigError: the client's settings of the network are others than in training, or have no effect.
    """
    archive = read_archive(folder)
    if archive.client.get("plugin") != "tensorflow":
        raise ConfigError("the model was trained by PtychoPINN-Torch; load it there.")
    trained = client_config(ModelConfig, archive.client.get("model"), "model", folder)
    epochs = archive.client.get("nepochs")
    if type(epochs) is not int or epochs < 1:
        raise damaged(folder, f"nepochs = {one_line(repr(epochs), 80)}; it must be a whole number from 1")
    now = InferenceConfig(model=ModelConfig(**{name: cfg[name] for name in vars(trained) if name in cfg}))
    refuse_supervised(now.model.model_type)
    refuse_ineffective(now.model, {"gridsize", "model_type"})
    if now.model.gridsize != trained.gridsize:
        raise ConfigError(
            f"gridsize = {now.model.gridsize}, and the model was trained with {trained.gridsize}; set it to that."
        )
    cfg["intensity_scale"] = 1.0
    return Model(archive), TrainingConfig(model=trained, nepochs=epochs)
