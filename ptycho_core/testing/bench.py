"""An engine on the bench: tiny scans it takes, settings it accepts, and its trainings, each made once.

What an engine cannot do (``Capabilities``) is left out of scans and settings, so that one suite serves a network, a
solver, and an engine that has a mask and no background. Nothing here needs pytest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..api.refine import chosen_loss, refined_by
from ..api.score import oracle_counts, score
from ..config import InferenceConfig, TrainingConfig
from ..config_mapping import config_to_mapping
from ..data.container import PtychoDataContainer, integer_corners
from ..data.propagation import FAR_FIELD, Propagation
from ..data.raw import RawData
from ..data.results import Image, Scored
from ..enginekit.stitching import Stitcher, make_image, probe_weights
from ..errors import Cancelled
from ..physics.likelihood import amplitude_loss, poisson_loss
from ..physics.patches import extract
from ..plugins.capabilities import check_capabilities
from ..plugins.returned import check_image, check_model
from ..protocol import (
    Capabilities,
    Progress,
    ProgressEvent,
    ReconstructionBackend,
    SupportsExpectedCounts,
    TrainedModel,
    no_progress,
)
from ..runtime import Runtime
from .problems import Problem, make_object, make_problem, make_scan
from .tiny_settings import tiny_config
from .traces import advance_global_generators, arrays_in, arrays_of, differences, digest, process_state

__all__ = ["Bench", "Refined", "Stopped", "Watched", "tiny_config", "with_counts", "with_other_counts"]

_HELD_OUT = (0, 8, 15, 22)
"""Frames of the scan that are held out; the first reaches beyond what the others light."""
_UNUSED = (13, 29)
_HELD_OUT_INSIDE = (8, 11, 15, 22)
"""Frames that are held out while an image is refined: others light all that they see."""


def with_counts(scan: PtychoDataContainer, frames: NDArray[np.int64], counts: NDArray[Any]) -> PtychoDataContainer:
    """The same scan, roles and constants, with other counts (n, N, N) in some frames (n,)."""
    raw = scan.raw
    every = raw.read_counts(np.arange(raw.n_frames)).copy()
    every[frames] = counts
    changed = RawData.from_arrays(
        every,
        raw.positions_px,
        raw.probe,
        probe_calibrated=raw.probe_calibrated,
        mask=raw.mask,
        background=raw.background,
        propagation=raw.propagation,
    )
    return PtychoDataContainer.of(changed, heldout=scan.heldout_frames, unused=scan.unused, statistics=scan.statistics)


def with_other_counts(scan: PtychoDataContainer, frames: NDArray[np.int64]) -> PtychoDataContainer:
    """The same with counts in some frames (n,) that nothing explains: three times as many, upside down."""
    return with_counts(scan, frames, 3 * scan.raw.read_counts(frames)[:, ::-1, ::-1])


@dataclass(frozen=True)
class Watched:
    """A training and a reconstruction that were watched.

    Attributes:
        model: what training returned.
        image: what reconstruction returned.
        events: progress of both.
        changed: what was another after them: arrays that they were given, the config, settings of the process.
    """

    model: TrainedModel
    image: Image
    events: list[ProgressEvent]
    changed: list[str]


@dataclass(frozen=True)
class Stopped:
    """A training that was cancelled.

    Attributes:
        error: what came through, or None when it went on to its end.
        events: progress until then.
        changed: settings of the process that were others afterwards.
    """

    error: Cancelled | None
    events: list[ProgressEvent]
    changed: list[str]


@dataclass(frozen=True)
class Refined:
    """An image that was refined.

    Attributes:
        initial: the rough image.
        scan: its scan.
        image: what the engine made of it.
        events: progress.
        changed: names of arrays of both that were others afterwards.
    """

    initial: Image
    scan: PtychoDataContainer
    image: Image
    events: list[ProgressEvent]
    changed: list[str]


class Bench:
    """One engine under test.

    Attributes:
        engine: as ``load_backend`` gives it.
        settings: what its author changed in the settings.
        config: settings of every training that says nothing else.
        runtime: what does the work, of every one that says nothing else.
        side: N of every scan and problem.
        n_modes: P, two probe modes where the engine takes them.
        first_training_changed: settings of the process that the first of all trainings here left changed, since later
            ones would find them changed already. None before it.
    """

    def __init__(self, engine: ReconstructionBackend, settings: Mapping[str, Any] | None = None, side: int = 32):
        """Take an engine; nothing is computed yet."""
        self.engine = engine
        self.settings = dict(settings or {})
        self.side = side
        self.config, self.runtime = tiny_config(engine.name, self.offers, self.settings)
        self.n_modes = 2 if self.offers.max_modes is None else min(2, self.offers.max_modes)
        self.first_training_changed: list[str] | None = None

    @property
    def offers(self) -> Capabilities:
        """The engine's capabilities."""
        return self.engine.capabilities

    def problem(self, propagation: Propagation = FAR_FIELD) -> Problem:
        """A question to the physics, made anew, so that nobody can spoil another's."""
        return make_problem(self.side, n_modes=self.n_modes, propagation=propagation)

    def raw(self, propagation: Propagation = FAR_FIELD) -> RawData:
        """The frames of most trainings, with a few bad pixels and a background where the engine takes them."""
        extras: dict[str, Any] = {"n_modes": self.n_modes, "background": self.offers.background, "mask": self.mask(2)}
        # of fewer frames, an engine may take all in one step
        return make_scan(self.side, 5, 6, propagation=propagation, **extras)

    @cached_property
    def scan(self) -> PtychoDataContainer:
        """The scan of most trainings; some of its frames are held out, and some are unused."""
        return PtychoDataContainer.of(self.raw(), heldout=_HELD_OUT, unused={"not asked for": _UNUSED})

    @cached_property
    def scan_to_refine(self) -> PtychoDataContainer:
        """The same frames with the roles that they have while an image is refined."""
        return PtychoDataContainer.of(self.raw(), heldout=_HELD_OUT_INSIDE, unused={"not asked for": _UNUSED})

    @cached_property
    def near_field_scan(self) -> PtychoDataContainer:
        """Frames of the same object in the near field, in the same roles."""
        raw = self.raw(self.near_field)
        return PtychoDataContainer.of(raw, heldout=_HELD_OUT_INSIDE, unused={"not asked for": _UNUSED})

    @property
    def near_field(self) -> Propagation:
        """Two and a half times as near as a frame of this side can hold without aliasing."""
        return Propagation("near_field", 2.5 / self.side)

    @cached_property
    def other_scan(self) -> PtychoDataContainer:
        """Another scan, of other size: nothing held out, one frame without counts and one with a single count."""
        raw = make_scan(self.side, 3, 5, n_modes=self.n_modes, seed=4, photons=3e4, empty_frame=True)
        one = np.zeros((1, self.side, self.side), np.float32)
        one[0, self.side // 2, self.side // 2] = 1
        return with_counts(PtychoDataContainer.of(raw), np.array([4]), one)

    def mask(self, side: int) -> NDArray[np.bool_] | None:
        """A square of bad pixels, a little off the bright centre, or None where the engine takes no mask."""
        if not self.offers.mask:
            return None
        good = np.ones((self.side, self.side), dtype=bool)
        corner = self.side // 2 - 1
        good[corner : corner + side, corner + 1 : corner + 1 + side] = False
        return good

    def can_set(self, field: str) -> bool:
        """Whether a config field has an effect in the engine."""
        return field not in self.offers.ignored_fields

    def vary(self, **changes: Any) -> TrainingConfig:
        """The config with fields replaced."""
        return replace(self.config, **changes)

    def working(self, **changes: Any) -> Runtime:
        """The runtime with fields replaced."""
        return replace(self.runtime, **changes)

    def other_config(self) -> TrainingConfig:
        """Settings that differ in everything the engine lets one choose without cost."""
        changes: dict[str, Any] = {"seed": 8, "epochs": max(1, (self.config.epochs or 1) - 1)}
        others = [name for name in self.offers.losses if name != self.config.loss]
        if others and self.can_set("loss"):
            changes["loss"] = others[0]
        if self.offers.probe_trainable:
            changes["probe_trainable"] = not self.config.probe_trainable
        allowed = {f.name for f in fields(TrainingConfig)} - set(self.offers.ignored_fields) | {"seed"}
        return self.vary(**{name: value for name, value in changes.items() if name in allowed})

    def train(
        self,
        *scans: PtychoDataContainer,
        config: TrainingConfig | None = None,
        runtime: Runtime | None = None,
        progress: Progress = no_progress,
    ) -> TrainedModel:
        """Train on some scans, that of most trainings if none is given, and check what comes back as core does."""
        given, config, runtime = scans or (self.scan,), config or self.config, runtime or self.runtime
        if self.first_training_changed is not None:
            return check_model(self.engine.train(given, config, runtime, progress=progress), self.engine.name)
        self.first_training_changed = []  # one that is started inside of this one is not the first
        before = process_state()
        try:
            return check_model(self.engine.train(given, config, runtime, progress=progress), self.engine.name)
        finally:
            self.first_training_changed = differences(before, process_state())

    def image(
        self, model: TrainedModel, scan: PtychoDataContainer | None = None, config: InferenceConfig | None = None
    ) -> Image:
        """Make an image of a scan, that of most trainings if none is given, and check it as core does."""
        scan = self.scan if scan is None else scan
        result = self.engine.reconstruct(model, scan, config or self.config.inference, self.runtime)
        return check_image(result, scan, self.engine.name, 0.0)

    @cached_property
    def model(self) -> TrainedModel:
        """The one training that most questions are about, with held-out frames."""
        return self.train()

    @cached_property
    def reconstruction(self) -> Image:
        """The image of that training; whoever wants to write into one makes his own."""
        return self.image(self.model)

    @cached_property
    def watched(self) -> Watched:
        """A training of the other scan with the other settings, by itself, and what it touched."""
        _ = self.model  # it is watched too, see first_training_changed; this one is another one after it
        advance_global_generators()
        scan, config = self.other_scan, self.other_config()
        events: list[ProgressEvent] = []

        def look() -> dict[str, Any]:
            digests = {f"the scan's {name}": digest(array) for name, array in arrays_of(scan).items()}
            return process_state() | digests | {"the config": repr(config), "files here": sorted(os.listdir())}

        before = look()
        model = check_model(self.engine.train([scan], config, self.runtime, progress=events.append), self.engine.name)
        image = self.engine.reconstruct(model, scan, config.inference, self.runtime, progress=events.append)
        changed = differences(before, look())
        return Watched(model, check_image(image, scan, self.engine.name, 0.0), events, changed)

    def stop_halfway(self, folder: Path) -> Stopped:
        """Train on the scan, with checkpoints if the engine has them, and cancel it once half of it is done."""
        events: list[ProgressEvent] = []

        def stop(event: ProgressEvent) -> None:
            events.append(event)
            if event.done >= event.total / 2:
                raise Cancelled("that is enough")

        runtime = self.working(output_dir=folder) if self.offers.resume else self.runtime
        before, error = process_state(), None
        try:
            self.train(runtime=runtime, progress=stop)
        except Cancelled as caught:
            error = caught
        return Stopped(error, events, differences(before, process_state()))

    def refining_config(self, **changes: Any) -> TrainingConfig:
        """Settings of a short refinement by the engine under test; fields that it ignores keep their defaults."""
        wanted: dict[str, Any] = {"engine": self.engine.name, "epochs": 3, "positions": False}
        wanted = {name: value for name, value in wanted.items() if self.can_set(f"refinement.{name}")}
        config = self.vary(refinement=replace(self.config.refinement, **{**wanted, **changes}))
        check_capabilities(config, self.offers, self.engine.name, self.runtime)
        return config

    def image_of(self, truth: float, scan: PtychoDataContainer | None = None) -> Image:
        """An image from no engine at all: so much of the truth, and the rest of it flat.

        Args:
            truth: 0 to 1.
            scan: of the same frames; None is the one to refine.
        """
        scan, N = self.scan_to_refine if scan is None else scan, self.side
        frames = scan.train_frames
        corners, rest = integer_corners(scan.raw.positions_px, N)
        height, width = corners.max(axis=0) + N + 1
        obj = (1 - truth + truth * make_object(height, width)).astype(np.complex64)
        stitcher, weights = Stitcher.for_scan(scan), probe_weights(scan.probe, rest[frames])
        stitcher.add(extract(obj, corners[frames], N), weights, corners[frames])
        merged, coverage = stitcher.finish(float(weights.max()))
        positions, scale = scan.raw.positions_px, scan.statistics.scale
        image = make_image(merged, coverage, stitcher.origin_px, scan.probe, scale, positions)
        return score(image, scan, "nobody").image

    def refine(
        self,
        image: Image,
        scan: PtychoDataContainer | None = None,
        config: TrainingConfig | None = None,
        progress: Progress = no_progress,
    ) -> Image:
        """Have the engine refine an image, and check what comes back as core does."""
        scan = self.scan_to_refine if scan is None else scan
        found = refined_by(self.engine, image, scan, config or self.refining_config(), self.runtime, progress)
        return check_image(found, scan, self.engine.name, 0.0)

    def rate(self, image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]) -> NDArray[Any]:
        """λ of some frames (n,) of an image: by the oracle, or by the engine where it alone explains the image."""
        if not image.forward_model:
            return oracle_counts(image, scan, frames)
        assert isinstance(self.engine, SupportsExpectedCounts)
        return self.engine.expected_counts(image, scan, frames)

    def scored(self, image: Image, scan: PtychoDataContainer) -> Scored:
        """What core finds with an image through the same forward model."""
        return score(image, scan, "nobody", self.engine if image.forward_model else None)

    def _loss(self, rate: NDArray[Any], scan: PtychoDataContainer, frames: NDArray[np.int64]) -> float:
        losses = {"poisson": poisson_loss, "amplitude": amplitude_loss}
        loss = losses[chosen_loss(self.refining_config(), self.engine)]
        counts = scan.raw.read_counts(frames).astype(np.float64)
        return loss(rate, counts, scan.raw.mask, len(frames) * scan.statistics.mean_counts)

    def refining_loss(self, image: Image, scan: PtychoDataContainer, frames: NDArray[np.int64]) -> float:
        """Loss of some frames (n,) of an image by :meth:`rate`, in the loss that the engine refines with."""
        return self._loss(self.rate(image, scan, frames), scan, frames)

    def least_loss(self, scan: PtychoDataContainer, frames: NDArray[np.int64]) -> float:
        """The same of λ = k: no image has less."""
        return self._loss(scan.raw.read_counts(frames).astype(np.float64), scan, frames)

    def refine_rough_image(self) -> Refined:
        """Have the engine refine an image halfway to the truth, and see what it does to what it is given."""
        initial, scan = self.image_of(0.5), self.scan_to_refine
        events: list[ProgressEvent] = []

        def look() -> dict[str, str]:
            return {name: digest(array) for name, array in (arrays_of(scan) | arrays_in(initial)).items()}

        before = look()
        image = self.refine(initial, progress=events.append)
        return Refined(initial, scan, image, events, differences(before, look()))

    def request(self) -> dict[str, Any]:
        """What another process needs to put the same engine on its bench, as plain JSON data."""
        return {"engine": self.engine.name, "settings": self.settings, "side": self.side}

    def plain_config(self) -> dict[str, Any]:
        """The settings in use, as plain JSON data."""
        return config_to_mapping(self.config)
