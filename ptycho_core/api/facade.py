"""The doors of the old interface, over the stages of ``run`` (specs/60-run-cdi-example).

They only arrange. One config gives one image, whichever door: two views of one scan (as ``RawData.split`` makes them)
are that scan with roles, and a training scan alone gets its roles from the config, as in ``run``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.orientation import orient_scan
from ..data.raw import RawData
from ..data.results import CdiResult, CdiResults, Scored
from ..errors import Cancelled
from ..inspection.examine import examine, refuse_grave
from ..protocol import Progress, TrainedModel, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from .accept import known_side
from .observe import Observer
from .prepare import (
    ScanInput,
    container_of_views,
    ensure_container,
    ensure_raw,
    of_one_experiment,
    pair_of_views,
)
from .refine import ENGINE_FAILURES, error_words, refine
from .stages import Engines, image_of, of_model, provenance_of, train_on

__all__ = ["run_cdi_example", "train_cdi_model"]


@dataclass(frozen=True)
class _Orientation:
    """The old names flip_x, flip_y and transpose, which exist at this edge only."""

    flip_y: bool = False
    flip_x: bool = False
    transpose: bool = False

    def of_raw(self, raw: RawData) -> RawData:
        """The scan, turned as asked."""
        return orient_scan(raw, flip_y=self.flip_y, flip_x=self.flip_x, transpose=self.transpose)

    def apply(self, data: ScanInput) -> ScanInput:
        """Return the data as they are when nothing is asked, so that a path is read where all paths are."""
        if not (self.flip_y or self.flip_x or self.transpose):
            return data
        if not isinstance(data, PtychoDataContainer):
            return self.of_raw(ensure_raw(data))
        checked = data.checked()
        raw = self.of_raw(replace(checked.raw, probe=checked.probe))
        assert raw.probe is not None
        return replace(checked, raw=raw, probe=raw.probe)


_Read = RawData | PtychoDataContainer
_Accept = Callable[[ScanInput], _Read]


def _read(data: ScanInput) -> _Read:
    return data if isinstance(data, PtychoDataContainer) else ensure_raw(data)


def _raw_of(data: _Read) -> RawData:
    return data.checked().raw if isinstance(data, PtychoDataContainer) else data


@dataclass(frozen=True)
class _Pair:
    """What a caller gave, as containers.

    Attributes:
        train: the scan to learn from.
        test: another scan of the experiment, whose image is wanted; the same as `train` where that has held-out frames
            of the caller's own; None where no test data were given.
    """

    train: PtychoDataContainer
    test: PtychoDataContainer | None

    @property
    def one_scan(self) -> bool:
        """Whether the image that is wanted is of the scan that is trained on."""
        return self.test is None or self.test is self.train

    def each(self) -> list[PtychoDataContainer]:
        """The one scan, or both."""
        return [self.train] if self.one_scan or self.test is None else [self.train, self.test]

    def scans(self, most: int | None) -> list[PtychoDataContainer]:
        """What an engine that takes so many scans trains with; frames of a second one are held out."""
        if self.one_scan or self.test is None or (most is not None and most < 2):
            return [self.train]
        test = self.test
        held = PtychoDataContainer.of(
            test.raw, heldout=test.used_frames, unused=test.unused, statistics=self.train.statistics
        )
        return [self.train, held]


def _pair(
    train: ScanInput, test: ScanInput | None, config: TrainingConfig, orientation: _Orientation, accept: _Accept
) -> _Pair:
    """Containers of what a caller gave: one scan, two views of one, or two scans of one experiment."""
    if test is None:
        one = ensure_container(accept(orientation.apply(train)), config, stacklevel=5)
        says = "the container" if isinstance(train, PtychoDataContainer) else "test_fraction"
        warnings.warn(
            f"no test data: {len(one.heldout_frames)} of {len(one.used_frames)} frames are held out, as {says} says, "
            "and the image is of the training scan. Give a test scan to choose them (RawData.split makes one).",
            UserWarning,
            stacklevel=4,
        )
        return _Pair(one, None)
    train, test = _read(train), _read(test)
    views = pair_of_views(train, test)
    if views is not None:
        raw, heldout = views
        one = container_of_views(_raw_of(accept(orientation.of_raw(raw))), heldout, config, stacklevel=5)
        return _Pair(one, one)
    # frames to judge by come from the other scan, so that none of this one is given up for them
    first = ensure_container(accept(orientation.apply(train)), replace(config, test_fraction=0.0), stacklevel=5)
    second = accept(orientation.apply(test))
    raw = of_one_experiment(_raw_of(second), first)
    if isinstance(second, PtychoDataContainer):
        assert raw.probe is not None
        return _Pair(first, replace(second, raw=raw, probe=raw.probe))
    return _Pair(first, ensure_container(raw, replace(config, n_subsample=None, nphotons=None), stacklevel=5))


def _results(pair: _Pair, engines: Engines, model: TrainedModel) -> CdiResults:
    return CdiResults(
        backend=engines.trainer.name,
        train_container=pair.train,
        test_container=pair.test,
        history=dict(model.history),
        model=model,
        checkpoint_path=model.checkpoint_path,
        reconstructed_obj=None,
        reconstruction=None,
        probe=model.probe,
        config=engines.config,
        provenance=provenance_of(engines.config, engines.runtime, engines.trainer, *pair.each()),
    )


def _train(
    train: ScanInput,
    test: ScanInput | None,
    config: TrainingConfig,
    runtime: Runtime,
    orientation: _Orientation,
    progress: Progress,
    despite_findings: bool,
) -> tuple[_Pair, Engines, CdiResults]:
    """Make the engines, the containers and the model, each once. Called by the two public functions only."""
    engines = Engines(config, runtime, Observer(), side=known_side(train))

    def accept(data: ScanInput) -> _Read:
        read = _read(data)
        raw = _raw_of(read)
        engines.check_scan(raw)
        refuse_grave(examine(raw), raw, despite=despite_findings)
        return read

    pair = _pair(train, test, engines.config, orientation, accept)
    scans = pair.scans(engines.capabilities.max_scans)
    model = train_on(engines.trainer, scans, engines.config, runtime, progress)
    return pair, engines, _results(pair, engines, model)


def train_cdi_model(
    train: ScanInput,
    test: ScanInput | None,
    config: TrainingConfig,
    runtime: Runtime = DEFAULT_RUNTIME,
    *,
    despite_findings: bool = False,
    progress: Progress = no_progress,
) -> CdiResults:
    """Train the engine that ``config.backend`` names.

    Args:
        train: scan to learn from: RawData, a container, or a path.
        test: frames that are held out: the other view of the same scan (``train, test = scan.split(…)``), or another
            scan of the same experiment, which takes over the training scan's probe. None holds out ``test_fraction``,
            or what a container holds out.
        config: everything else that decides the result.
        runtime: what does the work.
        despite_findings: go on although the checks found what makes an image worthless; other findings are told by
            ``run`` and by the command ``inspect`` only.
        progress: called after each step; it may raise ``Cancelled``.

    Returns:
        The results of :class:`CdiResults`, with ``reconstruction`` and ``reconstructed_obj`` None.

    Warns:
        UserWarning: no test data; ``nphotons`` off by more than 10 %.

    Raises:
        ConfigError: a field that the engine does not honour, before data are read.
        DataError: no usable scan, one that the checks refuse, or a frame that is both held out and trained on.
        BackendError: the engine is unknown, missing, broken, or failed; see its subclasses.
    """
    return _train(train, test, config, runtime, _Orientation(), progress, despite_findings)[2]


def run_cdi_example(
    train: ScanInput,
    test: ScanInput | None,
    config: TrainingConfig,
    runtime: Runtime = DEFAULT_RUNTIME,
    *,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int | None = None,
    do_stitching: bool = False,
    despite_findings: bool = False,
    progress: Progress = no_progress,
) -> CdiResult:
    """Train, and make, refine and score an image if asked; unpacks as ``amplitude, phase, results``.

    The image is that of ``run`` for the same config. Of two views of one scan it is made from the frames of `train`
    and judged by those of `test`; of two scans it is that of `test`.

    Args:
        train: scan to learn from: RawData, a container, or a path.
        test: see :func:`train_cdi_model`.
        config: everything else that decides the result; ``refinement`` says how the image is refined.
        runtime: what does the work.
        flip_x: negate the x scan coordinate of both scans.
        flip_y: negate the y scan coordinate of both scans.
        transpose: exchange the axes of every patch, by exchanging those of frames, mask, background and probe.
        M: side of the central crop of each patch used in stitching, pixels; overrides ``inference.central_crop_px``.
        do_stitching: make the image; amplitude and phase are None without.
        despite_findings: see :func:`train_cdi_model`.
        progress: called after each step; it may raise ``Cancelled``.

    Returns:
        Amplitude (H, W) float32, phase (H, W) float32 radians in (−π, π], and the results.

    Warns:
        UserWarning: as :func:`train_cdi_model`; or the refined image was no better and was discarded.

    Raises:
        CollapseError: the reconstructed object is constant.
        PtychoError: as :func:`train_cdi_model`.
    """
    if M is not None:
        config = replace(config, inference=replace(config.inference, central_crop_px=M))
    turned = _Orientation(flip_y, flip_x, transpose)
    pair, engines, results = _train(train, test, config, runtime, turned, progress, despite_findings)
    if not do_stitching:
        return CdiResult(None, None, results)
    model, settings = results["model"], engines.config
    scan = of_model(pair.train if pair.test is None else pair.test, model)
    best: Scored = image_of(engines.trainer.backend, model, scan, settings.inference, runtime, progress)
    if engines.refiner is not None:
        best = _refined(best, engines, progress)
    results["reconstruction"] = best
    results["reconstructed_obj"] = best.image.object
    results["probe"] = best.image.probe
    return CdiResult(np.abs(best.image.object), _phase(best.image.object), results)


def _refined(first: Scored, engines: Engines, progress: Progress) -> Scored:
    """The better of an image and what refining makes of it; a failure costs a warning, as in ``run``."""
    assert engines.refiner is not None
    try:
        return refine(first, engines.config, engines.runtime, backend=engines.refiner.backend, progress=progress).best
    except Cancelled:
        raise
    except ENGINE_FAILURES as error:
        warnings.warn(f"no refined image: {error_words(error)}", UserWarning, stacklevel=3)
        return first


def _phase(obj: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Phase in (−π, π]; the angle of −1 − 0i would be −π."""
    phase = np.angle(obj)
    return np.where(phase <= -np.float32(np.pi), np.float32(np.pi), phase)
