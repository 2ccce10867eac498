"""What an engine is: the protocol every engine keeps, and the capabilities it may add (specs/30-backend-protocol).

Only NumPy arrays and the frozen types of this package cross the border between core and an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, SupportsFloat, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .config import InferenceConfig, TrainingConfig
from .data.container import PtychoDataContainer
from .data.model import TrainedModel
from .data.raw import RawData
from .data.results import Image
from .enginekit.groups import Groups
from .runtime import DEFAULT_RUNTIME, Runtime

__all__ = [
    "ACCEPTED_VERSIONS",
    "OPTIMISER_FIELDS",
    "PROTOCOL_VERSION",
    "BackendSpec",
    "Capabilities",
    "Constraints",
    "Progress",
    "ProgressEvent",
    "Quantity",
    "ReconstructionBackend",
    "StepLengths",
    "Stepper",
    "SupportsDeviceWords",
    "SupportsExpectedCounts",
    "SupportsLossChoice",
    "SupportsPatches",
    "SupportsPhysicsGradient",
    "SupportsRefinement",
    "SupportsStepping",
    "TrainedModel",
    "no_progress",
]

PROTOCOL_VERSION = 2
"""Version of this protocol."""

ACCEPTED_VERSIONS = (2, 2)
"""First and last version of the protocol that this host accepts."""

OPTIMISER_FIELDS = (
    "group_size",
    "n_groups",
    "neighbor_pool_size",
    "schedule",
    "learning_rate",
    "probe_learning_rate",
    "scale_learning_rate",
    "weight_decay",
    "gradient_clip_norm",
    "weight_average",
    "batch_size",
    "early_stopping_patience",
    "inference.central_crop_px",
    "runtime.num_workers",
    "runtime.strategy",
    "runtime.frames_at_once",
)
"""Fields of a network's groups, its optimiser, its batches and its devices: without effect in most solvers."""

Quantity = Literal["object", "probe", "positions", "frame_scale"]
"""What a step can change."""


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """One step of a long job.

    Attributes:
        stage: ``train``, ``reconstruct`` or ``refine``.
        done: units done, of `total`.
        total: units in all; with the last one of a training that stops early, those that were done.
        metrics: the latest figures by name (``train_loss``, ``test_loss``, ``epoch``, …).
        epoch: epochs that are done, of a step that ended one where `done` counts something smaller; else None.
        image: gives the image as it stands, where the engine can: of a network, which shows one at the end of an epoch,
            that of its best epoch so far. It may be called before the callback returns, and changes nothing. None
            where it cannot.
    """

    stage: str
    done: int
    total: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    epoch: int | None = None
    image: Callable[[], Image] | None = field(default=None, compare=False, repr=False)


Progress = Callable[[ProgressEvent], None]
"""Called after each step; it may raise ``Cancelled`` to stop the engine, which leaves a loadable checkpoint."""


def no_progress(event: ProgressEvent) -> None:
    """Ignore progress."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What an engine can do, as plain values; a config that asks for more is refused before data are read.

    Attributes:
        methods: words accepted in ``TrainingConfig.method``: ``solver``, ``network`` or both.
        generators: names accepted in ``ModelConfig.generator``, each with a record (``BackendSpec.generators``); empty
            for a solver.
        losses: names accepted in ``TrainingConfig.loss``.
        max_scans: most scans that one training takes, or None for any number.
        max_modes: most incoherent probe modes, or None for any number.
        mask: whether bad pixels are left out of the loss.
        background: whether a background enters the model.
        probe_trainable: whether the probe can be refined.
        scale_trainable: whether the intensity scale can be refined.
        stepping: whether it offers ``stepper``; such an engine is a solver and refines, by the descent of core.
        refine: whether it offers ``refine``.
        refine_positions: whether ``refine`` can move the scan positions.
        position_affine: whether it can fit a stretch, rotation and shear of all positions together.
        probe_constraints: whether it can keep a refined probe within a support, and leave its power free.
        frame_scale: whether it can fit an intensity for each frame.
        propagations: kinds of ``RawData.propagation`` that it has: ``far_field``, ``near_field``.
        sides: least and most N that it takes, and what N must be a multiple of.
        resume: whether training goes on from a checkpoint.
        precisions: names accepted in ``precision``.
        accelerators: names accepted in ``accelerator``.
        schedules: names accepted in ``TrainingConfig.schedule``.
        loggers: names accepted in ``TrainingConfig.loggers``.
        preview: whether the events of its solver, of its networks at the end of an epoch, and of its refining hold the
            image as it stands.
        max_devices: most devices, or None for any number.
        threads: whether ``Runtime.threads`` has an effect; see ``enginekit.engine_threads`` for what None does then.
        ignored_fields: fields of the config (``epochs``, ``refinement.probe``) or, after ``runtime.``, of the runtime
            with no effect here: refused unless left at default.
            ``seed`` says that the engine draws nothing; it is never refused, since core draws held-out frames by it.
    """

    methods: tuple[str, ...] = ("solver",)
    generators: tuple[str, ...] = ()
    losses: tuple[str, ...] = ("poisson",)
    max_scans: int | None = 1
    max_modes: int | None = None
    mask: bool = False
    background: bool = False
    probe_trainable: bool = False
    scale_trainable: bool = False
    stepping: bool = False
    refine: bool = False
    refine_positions: bool = False
    position_affine: bool = False
    probe_constraints: bool = False
    frame_scale: bool = False
    propagations: tuple[str, ...] = ("far_field",)
    sides: tuple[int, int, int] = (8, 4096, 2)
    resume: bool = False
    precisions: tuple[str, ...] = ("auto", "32")
    accelerators: tuple[str, ...] = ("auto", "cpu")
    schedules: tuple[str, ...] = ("constant",)
    loggers: tuple[str, ...] = ()
    preview: bool = False
    max_devices: int | None = 1
    threads: bool = False
    ignored_fields: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """What a plugin's hook returns: enough to list an engine without importing it.

    Attributes:
        name: engine name, the word in ``config.backend``.
        factory: ``"module:Class"``; the class is called without arguments when the engine is chosen.
        requires: top-level modules that must be importable.
        extra: what to pip install when one is missing, e.g. ``ptycho-core[torch]``.
        title: name for people (``PyTorch``).
        protocol_version: version of this protocol that it was written for; one that does not say was written for 1,
            where nobody had to.
        options: ``"module:Class"`` of the settings that this engine alone has, a subclass of ``EngineOptions`` in
            a module that imports no framework; empty for an engine without any.
        generators: ``"module:NAME"`` of a tuple of ``Generator`` records, in a module that imports no framework; empty
            for an engine with none but those that ship.
        capabilities: what the engine can do, the same as its class says. An engine that says it here is imported only
            after settings, scan and hardware have been looked at; None: it is imported first, to be asked.
        quiet_environment: environment variables that keep the engine's framework from writing to the terminal when it
            starts; the command sets those that are not set, in its own process only. They must change nothing else.
    """

    name: str
    factory: str
    requires: tuple[str, ...] = ()
    extra: str = ""
    title: str = ""
    protocol_version: int = 1
    options: str = ""
    generators: str = ""
    capabilities: Capabilities | None = None
    quiet_environment: Mapping[str, str] = field(default_factory=dict, hash=False)


@runtime_checkable
class ReconstructionBackend(Protocol):
    """An engine."""

    @property
    def name(self) -> str:
        """Engine name, as in its spec."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    def train(
        self,
        scans: Sequence[PtychoDataContainer],
        config: TrainingConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> TrainedModel:
        """Train on the training frames of some scans (or, for a solver, iterate over those of one).

        Args:
            scans: at least one, and no more than ``capabilities.max_scans``; the first has training frames. Held-out
                frames are for the ``test_loss`` only; unused frames are not looked at.
            config: everything else that decides the result.
            runtime: what does the work.
            progress: called after each step.

        Raises:
            CollapseError: the object became constant.
            Cancelled: `progress` raised it; a checkpoint was left in ``runtime.output_dir`` if there is one.
        """

    def reconstruct(
        self,
        model: TrainedModel,
        scan: PtychoDataContainer,
        config: InferenceConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> Image:
        """Make an image of a scan from its training frames, each once, with the container's probe.

        Its canvas holds every used frame. The intensity scale is the container's ``statistics.scale`` times what
        training changed of the scale it started from.
        """

    def save(self, model: TrainedModel, path: Path) -> None:
        """Write the model as a bundle (specs/50-model-bundle) at `path`."""

    def load(self, path: Path) -> TrainedModel:
        """Read a bundle.

        Raises:
            ArchiveError: damaged, foreign, too new or unsafe.
        """


@runtime_checkable
class SupportsExpectedCounts(Protocol):
    """Optional: the engine's own forward model, through which core scores its images; else the oracle's is taken."""

    def expected_counts(
        self, image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]
    ) -> NDArray[np.float32] | NDArray[np.float64]:
        """Expected counts λ (n, N, N) of some frames (n,) of a scan, background included, scale as in `image` (FM-5).

        A few hundred frames are asked for at once.
        """


@runtime_checkable
class SupportsLossChoice(Protocol):
    """Optional: an engine whose settings leave it some of its losses to refine with; else all of them are taken."""

    def losses_for(self, config: TrainingConfig) -> tuple[str, ...]:
        """Those of ``capabilities.losses`` that an image can be refined with as `config` says, at least one.

        Core chooses among them where ``refinement.loss`` names none, and hands ``refine`` the config with its choice.
        """


@runtime_checkable
class SupportsThreadChoice(Protocol):
    """Optional: an engine that says how many threads it computed with."""

    def threads_chosen(self) -> str:
        """Threads of the last job, and where their number comes from: ``1 of 2, measured``; empty before the first."""


@runtime_checkable
class SupportsDeviceWords(Protocol):
    """Optional: an engine that says which device it will work on, before a job."""

    def device_words(self, runtime: Runtime) -> str:
        """Device, its name and its memory: ``cuda:0 (NVIDIA H100), 80 GB``; empty for the CPU.

        Raises:
            ConfigError: what ``runtime.accelerator`` asks for is not there.
        """


@runtime_checkable
class SupportsPhysicsGradient(Protocol):
    """Optional: the engine's own loss and gradient, open to questions."""

    def loss_and_gradient(
        self, obj: NDArray[np.complex64], probe: NDArray[np.complex64], raw: RawData, loss: str
    ) -> tuple[float, NDArray[np.complex64], NDArray[np.complex64]]:
        """Loss of all frames at scale 1 with d_obj (H, W) and d_probe (P, N, N), each ∂L/∂Re + i ∂L/∂Im.

        Object pixel (0, 0) is scan point (0, 0).
        """


@runtime_checkable
class SupportsPatches(Protocol):
    """Optional: patches before stitching."""

    def predict_patches(
        self, model: TrainedModel, groups: Groups, runtime: Runtime = DEFAULT_RUNTIME
    ) -> NDArray[np.complex64]:
        """Predicted patches (B, C, N, N) complex64, each group by itself."""


@runtime_checkable
class SupportsRefinement(Protocol):
    """Optional: an engine that improves an image it is given, its own or another engine's."""

    def refine(
        self,
        image: Image,
        scan: PtychoDataContainer,
        config: TrainingConfig,
        runtime: Runtime = DEFAULT_RUNTIME,
        *,
        progress: Progress = no_progress,
    ) -> Image:
        """Go on from `image` with the training frames of `scan`, as ``config.refinement`` says (BE-16 to BE-18).

        Args:
            image: image, probe, scale and positions to start from; left as it is.
            scan: its scan; held-out frames are looked at only to know when to stop and what to keep.
            config: ``refinement``, whose ``loss`` and switches are core's choice by then, ``seed`` and, for an engine
                that has some, ``options``.
            runtime: what does the work.
            progress: called after each epoch, with ``train_loss`` and, where frames are held out, ``test_loss``.

        Returns:
            The state that explained the held-out frames best in the loss refined with, that of `image` among them;
            the last one where none are held out.

        Raises:
            Cancelled: `progress` raised it.
        """


@dataclass(frozen=True, kw_only=True)
class StepLengths:
    """How far the quantities of a step go along what the formulas of ``physics.steps`` give; 1 is all the way.

    Attributes:
        object: part of the object's step.
        probe: part of the probe's.
        positions: part of the positions', of which no frame takes more than ``position_step_px`` in y or x at once.
        momentum: what of its last steps the object keeps (Nesterov), within an epoch.
        least_squares: stretch the object's step to where the curvature has its minimum along it.
        position_step_px: see `positions`.
        position_limit_px: farthest that a position may be from where it was read, or from where the affine map of all
            puts it.
        position_affine: whether a stretch, rotation and shear of all positions about their middle is taken besides,
            without that limit.
    """

    object: float = 1.0
    probe: float = 0.5
    positions: float = 1.0
    momentum: float = 0.0
    least_squares: bool = False
    position_step_px: float = 0.25
    position_limit_px: float = 0.0
    position_affine: bool = False


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What a refined probe is held to at the end of an epoch; what it gives up, the object takes over.

    Attributes:
        power: Σ_p Σ|P_p|² that it keeps, scale included, or None where it is free.
        support: radius of the circle about the middle of its window that it is kept within, pixels, or None.
    """

    power: float | None = None
    support: float | None = None


@runtime_checkable
class Stepper(Protocol):
    """Object, probe, positions, their momentum and the frames of one scan, on the engine's device (BE-24 to BE-27).

    Core's descent decides the order of frames, the lengths of steps and when to stop; nothing that is as large as the
    object crosses the border but at the start, at the end, and for a picture or a checkpoint that was asked for. The
    loss is that which the stepper was made for, of frames (n,), at scale 1 with the scale in the probe.
    """

    def prepare(self, frames: NDArray[np.int64]) -> None:
        """These frames (n,) are asked for next: they may be read ahead."""

    def begin(self) -> None:
        """Forget the momentum: an epoch begins."""

    def step(self, frames: NDArray[np.int64], lengths: StepLengths, wanted: Collection[Quantity]) -> SupportsFloat:
        """One step of what is wanted with some frames (n,), by the formulas of ``physics.steps`` (FM-21).

        Gradients are taken at λ + ``physics.steps.DARK_COUNTS``. Where the object is wanted, the global translation
        of the step's positions is left out: an object that moves with them explains the data as well.

        Returns:
            The summed loss of the frames before the step, without those counts; a number that may wait to be read.
        """

    def settle(self, constraints: Constraints) -> None:
        """Take out what the data leave open: support and power of the probe, and how modes are mixed (FM-14)."""

    def loss(self, frames: NDArray[np.int64]) -> float:
        """Summed loss of some frames (n,) of the image as it would be shown.

        That is 0 where no training frame reaches, at the level at which the training frames expect as many counts as
        were measured (FM-11); in double precision where the device has it.
        """

    def snapshot(self) -> Any:
        """The state, put aside on the device."""

    def restore(self, snapshot: Any) -> None:
        """Go back to a state that was put aside."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a run goes on from, by name, to the last bit; no complex arrays."""

    def take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the arrays of a run of the same kind."""

    def image(self) -> Image:
        """The state as an image, at the level of :meth:`loss`, cut to what the used frames reach."""


@runtime_checkable
class SupportsStepping(Protocol):
    """Optional: an engine that makes steps on its device, and leaves it to core which."""

    def stepper(self, image: Image, scan: PtychoDataContainer, loss: str, runtime: Runtime) -> Stepper:
        """A stepper that starts from an image, its own or another engine's, of a scan.

        Args:
            image: object, probe, scale, positions and intensities to start from; left as it is. Where nothing lit it,
                the mean of what was lit is taken.
            scan: its scan.
            loss: one of ``capabilities.losses``.
            runtime: what does the work.

        Raises:
            DataError: the image is of another scan.
        """
