"""The stages that every door goes through, each on an engine that was chosen and imported once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .. import legacy
from ..config import InferenceConfig, RefinementConfig, TrainingConfig
from ..config_mapping import with_typed_options
from ..data.container import PtychoDataContainer
from ..data.raw import RawData
from ..data.results import Scored
from ..errors import BackendProtocolError, Cancelled, ConfigError, DataError
from ..physics.corrections import support_mask
from ..plugins.capabilities import (
    check_capabilities,
    check_refinement_capabilities,
    check_runtime_capabilities,
    check_scan_capabilities,
)
from ..plugins.generators import with_typed_model
from ..plugins.guard import engine_at_work
from ..plugins.registry import LoadedBackend, describe_backend, load_described, refuse_missing
from ..plugins.returned import check_image, check_model
from ..protocol import (
    BackendSpec,
    Capabilities,
    Progress,
    ProgressEvent,
    ReconstructionBackend,
    SupportsThreadChoice,
    TrainedModel,
)
from ..provenance import collect_provenance
from ..runtime import Runtime
from ..stopping import to_its_end
from .machine import machine_words, refuse_absent
from .observe import Observer
from .refine import refiner_runtime, refining_engine
from .score import score

__all__ = [
    "Engines",
    "Heard",
    "check_crop",
    "check_number_of_scans",
    "check_support",
    "image_of",
    "need_training_frames",
    "of_model",
    "provenance_of",
    "train_on",
]


class Engines:
    """The engines of a job: each is described once and imported once, and has accepted the config by then.

    An engine whose plugin says what it can do is imported when it is first used, or by :meth:`load_all`: a wrong
    setting, a scan that cannot be read or hardware that is not there is told before a framework takes seconds to start.

    Args:
        config: names them.
        runtime: what does the work.
        observer: told of the time that importing takes.
        side: N of the scan, for the old handshake, where it is known.

    Attributes:
        config: as given, with options in the class of their engine.
        runtime: as given.
        capabilities: of the engine that trains.

    Raises:
        ConfigError: a field that an engine does not honour; no data have been read then.
        BackendError: an engine is unknown, missing or broken.
    """

    def __init__(
        self, config: TrainingConfig, runtime: Runtime, observer: Observer, *, side: int | None = None
    ) -> None:
        # old callers and engines look there
        legacy.update_legacy_dict(legacy.params.cfg, config, runtime, side=side)
        self.runtime = runtime
        self.observer = observer
        self._loaded: dict[str, LoadedBackend] = {}
        self._described: dict[str, tuple[BackendSpec, str]] = {}
        self.config = with_typed_model(with_typed_options(config), self._describe(config.backend)[0])
        name = config.backend
        self._work = {name: runtime}
        self.capabilities = self._can(name)
        check_capabilities(self.config, self.capabilities, name, runtime)
        if self._describe(name)[0].capabilities is not None:  # one that says nothing speaks for itself
            refuse_absent(runtime.accelerator, name)
        self._refining = refining_engine(self.config, self.capabilities)
        if self._refining is not None:
            can = self._can(self._refining)
            check_refinement_capabilities(self.config, can, self._refining)
            work = refiner_runtime(self.config, runtime, self._refining, can)
            check_runtime_capabilities(work, can, self._refining)
            self._work.setdefault(self._refining, work)

    @property
    def trainer(self) -> LoadedBackend:
        """The engine that trains."""
        return self.load(self.config.backend)

    @property
    def refiner(self) -> LoadedBackend | None:
        """The engine that refines, or None where nothing is refined."""
        return None if self._refining is None else self.load(self._refining)

    def load_all(self) -> None:
        """Import the engines of the job that are not imported yet, and tell the observer what they work on."""
        for name in self._names():
            self.load(name)
        self.observer.working(machine_words([(self.load(name), self._work[name]) for name in self._names()]))

    def _names(self) -> list[str]:
        return list(dict.fromkeys([self.config.backend, *([self._refining] if self._refining else [])]))

    def _can(self, name: str) -> Capabilities:
        """What an engine can do: by its description, or else by itself."""
        spec = self._describe(name)[0]
        if spec.capabilities is None:
            return self.load(name).capabilities
        refuse_missing(spec)
        return spec.capabilities

    def _describe(self, name: str) -> tuple[BackendSpec, str]:
        """The description of an engine, and who offers it."""
        if name not in self._described:
            self._described[name] = describe_backend(name)
        return self._described[name]

    def load(self, name: str) -> LoadedBackend:
        """The engine of a name."""
        if name not in self._loaded:
            with self.observer.stage("start_up"):
                spec, distribution = self._describe(name)
                with self.observer.importing(spec):
                    self._loaded[name] = load_described(spec, distribution)
                self.observer.check(f"when engine '{name}' was imported")
        return self._loaded[name]

    def most_modes(self) -> int | None:
        """Probe modes that every engine of the job takes at most; None: any number."""
        found = [self._can(name).max_modes for name in self._names()]
        return min((most for most in found if most is not None), default=None)

    def check_scan(self, raw: RawData) -> None:
        """Refuse a scan with something in it that one of the engines would leave out without a word.

        Raises:
            ConfigError: see ``plugins.capabilities.check_scan_capabilities``.
        """
        for name in self._names():
            check_scan_capabilities(raw, self._can(name), name)
        check_crop(self.config.inference, raw.side)
        check_support(self.config.refinement, raw.side)


def check_crop(config: InferenceConfig, side: int) -> None:
    """Refuse a central crop that is larger than the patches.

    Raises:
        ConfigError: it is.
    """
    if config.central_crop_px is not None and config.central_crop_px > side:
        raise ConfigError(
            f"M = inference.central_crop_px = {config.central_crop_px} is larger than the patches, which are "
            f"{side}×{side}; allowed: 1 to {side}."
        )


def check_support(plan: RefinementConfig, side: int) -> None:
    """Refuse a support of the probe that no pixel lies in.

    Raises:
        ConfigError: it is too small for frames of this side.
    """
    if plan.probe_support is not None and not support_mask(side, plan.probe_support * side / 2).any():
        raise ConfigError(
            f"refinement.probe_support = {plan.probe_support} leaves no pixel of a probe of {side}×{side}; it must be "
            f"at least {2 / side:.2g} there."
        )


def check_number_of_scans(name: str, capabilities: Capabilities, n_scans: int) -> None:
    """Refuse more scans than an engine takes.

    Raises:
        ConfigError: they are more.
    """
    most = capabilities.max_scans
    if most is not None and n_scans > most:
        raise ConfigError(
            f"engine '{name}' trains on {most} scan{'s' if most > 1 else ''} at once, and {n_scans} are "
            "given; train on one, or choose an engine that takes several."
        )


class Heard:
    """Hands events on, and remembers a wish to stop that came back.

    A training that hears of it in its last step is whole, and returns its model as if nobody had asked; what follows
    would then begin all the same.

    Attributes:
        wish: what came back last, or None.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.wish: Cancelled | None = None

    def __call__(self, event: ProgressEvent) -> None:
        """Hand an event on.

        Raises:
            Cancelled: what came back.
        """
        try:
            self._progress(event)
        except Cancelled as error:
            self.wish = error
            raise


def train_on(
    engine: LoadedBackend,
    scans: Sequence[PtychoDataContainer],
    config: TrainingConfig,
    runtime: Runtime,
    progress: Progress,
) -> TrainedModel:
    """Train an engine, and check what comes back.

    Raises:
        ConfigError: more scans than the engine takes.
        DataError: the first scan has no training frames.
        BackendError: the engine failed, or returned what the protocol does not allow.
    """
    check_number_of_scans(engine.name, engine.capabilities, len(scans))
    need_training_frames(scans[0])
    with engine_at_work(engine.name, "train", progress) as relay:
        model = check_model(engine.backend.train(scans, config, runtime, progress=relay), engine.name)
    if model.backend != engine.name:
        raise BackendProtocolError(
            f"engine '{engine.name}' returned a model that calls itself {model.backend!r}; the names must be equal."
        )
    return model


def need_training_frames(scan: PtychoDataContainer) -> None:
    """Refuse a scan of which nothing is to be learned and no image to be made.

    Raises:
        DataError: it has no training frames.
    """
    if not len(scan.train_frames):
        raise DataError(
            f"{scan.raw.source.path or 'scan'}: all its {len(scan.used_frames)} used frames are held out for "
            "validation, and none is left to make an image from; lower test_fraction."
        )


def image_of(
    engine: ReconstructionBackend,
    model: TrainedModel,
    scan: PtychoDataContainer,
    config: InferenceConfig,
    runtime: Runtime,
    progress: Progress,
) -> Scored:
    """Make an image of a scan's training frames with a trained model, and score it.

    Raises:
        DataError: the scan has no training frames.
        BackendError: the engine failed, or returned what the protocol does not allow.
        CollapseError: the object is constant.
    """
    need_training_frames(scan)
    with engine_at_work(engine.name, "reconstruct", progress) as relay:
        image = engine.reconstruct(model, scan, config, runtime, progress=relay)
        check_image(image, scan, engine.name, model.config.collapse_threshold)
    with to_its_end():  # of what is finished
        return score(image, scan, engine.name, engine)


def of_model(scan: PtychoDataContainer, model: TrainedModel) -> PtychoDataContainer:
    """The scan that a model was trained on, with the probe and the constants that training ended with."""
    return replace(scan.with_probe(model.probe), statistics=model.statistics)


def provenance_of(
    config: TrainingConfig, runtime: Runtime, engine: LoadedBackend, *scans: PtychoDataContainer
) -> dict[str, Any]:
    """What is needed to repeat a run on some scans, and what did the work, plain JSON data."""
    sources = [scan.raw.source for scan in scans]
    out = collect_provenance(config, sources, runtime=runtime, engine_packages=engine.spec.requires)
    if isinstance(engine.backend, SupportsThreadChoice) and (told := engine.backend.threads_chosen()):
        out["runtime"] |= {"threads_chosen": told}
    return out | {"engine": {"name": engine.name, "distribution": engine.distribution}}
