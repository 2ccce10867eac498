"""A run in a folder, for scripts and notebooks: put there as the command puts it, and taken up again.

A result folder holds what a run found, and not what it was found from: the frames stay in the file of the scan. So a
run that was loaded can be looked at, compared, saved and exported at once, and what needs the frames (refining,
scoring, measured against predicted) works when the scan is given with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, read_bundle
from ..config import TrainingConfig
from ..config_mapping import config_from_mapping
from ..data.container import PtychoDataContainer, Role, Statistics
from ..data.propagation import FAR_FIELD
from ..data.raw import RawData, read_only
from ..data.raw_checks import check_canvas, checked_positions, checked_probe
from ..data.results import Image, Refined, Scored
from ..data.run import Run, Stage
from ..data.shown import line
from ..errors import DataError, PtychoError
from ..io.result_switch import where_it_lies
from ..io.stored_reconstruction import StoredReconstruction
from ..io.stored_run import (
    MODEL_NAME,
    LostFrames,
    StoredRun,
    comparison_in,
    read_stored_run,
    source_in,
    verdict_in,
)
from ..physics.merit import SUMS, Figures
from ..plugins.registry import load_backend
from ..text import one_line
from .models import save_model
from .observe import Observer
from .outcome import opened_folder, write_run
from .prepare import ScanInput, ensure_raw
from .score import score

__all__ = ["StoredModel", "load_run", "save_run"]

_SAME_COUNTS = 1e-4
"""Relative difference of the counts of a frame that another scan has and rounding has not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredModel:
    """The model of a run that was read back: its bundle, read by core alone, so that no framework is imported to look.

    :func:`ptycho_core.reconstruct` takes it as it is, and loads it with its engine; so does ``load_model(model.path)``.

    Attributes:
        path: of the bundle.
        bundle: what it holds.
    """

    path: Path
    bundle: Bundle = field(repr=False)

    def __repr__(self) -> str:
        """One line: what it is, never an array."""
        return line("StoredModel", self.backend, self.bundle.generator or "a solver", repr(self.path.name))

    @property
    def backend(self) -> str:
        """Name of the engine that made it."""
        return self.bundle.backend

    @property
    def config(self) -> TrainingConfig:
        """The config it was trained with."""
        return self.bundle.config

    @property
    def history(self) -> Mapping[str, list[float]]:
        """Name → one float an epoch."""
        return self.bundle.history

    @property
    def probe(self) -> NDArray[np.complex64]:
        """Probe (P, N, N) at the end of training."""
        return self.bundle.probe

    @property
    def statistics(self) -> Statistics:
        """Constants of the training split."""
        return self.bundle.statistics

    @property
    def checkpoint_path(self) -> Path | None:
        """None: a result that is finished has no checkpoint."""
        return None


class _Saving(Observer):
    """Keeps the notices and seconds of a run that is over, to which writing it adds its own."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.notices = list(run.warnings)
        self._run = run

    def facts(self) -> dict[str, float]:
        """Seconds by stage of the run, and of writing it."""
        return {**self._run.seconds, **{name: round(value, 3) for name, value in self.seconds.items()}}

    def peak_memory_bytes(self) -> int | None:
        """That of the run."""
        return self._run.peak_memory_bytes


def save_run(run: Run, folder: Path | str, *, overwrite: bool = False) -> Run:
    """Write a run into a result folder, by the code that ``ptycho run`` writes it by; see :meth:`ptycho_core.Run.save`.

    Args:
        run: what to write.
        folder: made where it is not there.
        overwrite: replace a finished result that lies there.

    Returns:
        The run with its folder.

    Raises:
        OutputError: the folder is in use, holds a finished result, or cannot be written; nothing was replaced.
        BackendError: the engine that made the model is not there to write it.
        ArchiveError: the model could not be read back.
    """
    watcher, source = _Saving(run), run.scan.raw.source.path
    inputs = [] if source is None else [Path(source)]
    with opened_folder(folder, overwrite, inputs, watcher) as held, tempfile.TemporaryDirectory() as aside:
        assert held is not None
        if isinstance(run.model, StoredModel):
            bundle = run.model.path
        else:
            bundle = Path(aside) / MODEL_NAME
            save_model(run.model, bundle)
        return write_run(run, held, watcher, bundle)


def load_run(folder: Path | str, *, scan: ScanInput | bool | None = None) -> Run:
    """Read a result folder back into the run that it was written from.

    What the folder does not hold is not made up: without `scan` the frames, the mask and the background are missing,
    and so are the expected counts of single frames; whatever needs them says so. The probe to start from is that of the
    result.

    Args:
        folder: of ``ptycho run``, ``run(..., out=...)`` or :meth:`ptycho_core.Run.save`.
        scan: the scan that the run was made of: True reads the file that the result names, by the reader that read it
            then; a path, a RawData or a container is taken as it is given. It must hold the same frames.

    Returns:
        The run, with its folder; its model is a :class:`StoredModel`.

    Raises:
        DataError: no finished result, one that was changed since, a foreign or damaged folder, or another scan.
        BackendError: `scan` is given and the image is explained by an engine's own forward model, which is missing.
    """
    where = Path(folder)
    try:
        stored = read_stored_run(where)
        bundle = where_it_lies(where / MODEL_NAME)
        model = StoredModel(path=bundle, bundle=read_bundle(bundle))
        config = config_from_mapping(TrainingConfig, stored.image.config, plain_options=True)
        container = _container(stored, model.statistics)
        run = _run(stored, model, config, container)
    except PtychoError as error:
        text = str(error)
        raise DataError(text if text.startswith(str(where)) else f"{where}: {text}") from error
    return run if scan is None or scan is False else _with_scan(run, scan)


def _container(stored: StoredRun, statistics: Statistics) -> PtychoDataContainer:
    """The scan of a result as far as its folder knows it."""
    found = stored.image
    assert found.role is not None
    assert found.frame_sums is not None
    M, N, name = len(found.positions_px), found.probe.shape[-1], str(stored.folder)
    nominal = found.positions_px if found.nominal_positions_px is None else found.nominal_positions_px
    positions, numbers = checked_positions(nominal, M, name), np.arange(M, dtype=np.int64)
    check_canvas(positions, N, numbers, name)
    source = source_in(found.provenance)
    said = "read back from a result folder, which holds no frames, no mask and no background"
    totals = np.where(found.role == Role.UNUSED, np.nan, found.frame_sums[:, SUMS.index("counts")])
    probe = checked_probe(found.probe, N, name)
    assert probe is not None
    raw = RawData(
        frames=LostFrames((M, N, N), stored.folder),
        positions_px=positions,
        probe=probe,
        probe_calibrated=False,
        mask=None,
        background=None,
        object_guess=None,
        geometry=found.geometry,
        propagation=found.propagation or FAR_FIELD,
        source=replace(source, assumptions=(*source.assumptions, said)),
        frame_numbers=read_only(numbers),
        frame_totals=read_only(totals),
    )
    raw.geometry.check(name)
    return PtychoDataContainer(
        raw=raw,
        role=read_only(found.role.astype(np.int8)),
        unused={
            one_line(reason): read_only(np.array(frames, dtype=np.int64)) for reason, frames in found.unused.items()
        },
        probe=probe,
        statistics=statistics,
    ).checked()


def _image(found: StoredReconstruction) -> Image:
    return Image(
        object=found.object,
        coverage=found.coverage,
        origin_px=found.origin_px,
        probe=found.probe,
        scale=found.scale,
        positions_px=found.positions_px,
        slices=found.slices,
        slice_spacing_m=found.slice_spacing_m,
        mode_weights=found.mode_weights,
        forward_model=found.forward_model,
    )


def _scored(found: StoredReconstruction, engine: str, scan: PtychoDataContainer) -> Scored:
    """An image with the figures that its sums give."""
    M = scan.raw.n_frames
    if found.frame_sums is None or found.frame_sums.shape[0] != M or found.probe.shape[-1] != scan.raw.side:
        raise DataError(
            f"{found.path}: an image of it is not of the {M} frames of the scan, or has no figures of them."
        )
    held = scan.heldout_frames
    return Scored(
        image=_image(found),
        engine=engine,
        scan=scan,
        train=Figures.of(found.frame_sums[scan.train_frames]),
        heldout=Figures.of(found.frame_sums[held]) if len(held) else None,
        frame_sums=found.frame_sums,
        dropped={one_line(str(reason)): int(n) for reason, n in found.dropped.items()},
    )


def _run(stored: StoredRun, model: StoredModel, config: TrainingConfig, scan: PtychoDataContainer) -> Run:
    images = [*(stored.image.stages[name] for name, _, _ in stored.makers[:-1]), stored.image]
    stages = tuple(
        Stage(
            name=name,
            scored=_scored(found, engine, scan),
            seconds=seconds,
            comparison=comparison_in(compared, found.frc.get("truth")),
            half_data_frc=found.frc.get("half_data"),
        )
        for (name, engine, seconds), found, compared in zip(stored.makers, images, stored.comparison, strict=True)
    )
    given = stored.refinement
    refined = None
    if given is not None:
        refined = Refined(best=stages[-1].scored, initial=stages[0].scored, **given)
    return Run(
        title=stored.image.title,
        scan=scan,
        stages=stages,
        refined=refined,
        model=model,
        history=stored.image.losses,
        config=config,
        runtime=stored.runtime,
        engine=stored.engine,
        warnings=stored.warnings,
        provenance=stored.image.provenance,
        seconds=stored.seconds,
        peak_memory_bytes=stored.peak_memory_bytes,
        verdict=verdict_in(stored.image.verdict),
        folder=stored.folder,
    )


def _with_scan(run: Run, given: ScanInput | bool) -> Run:
    """The run with its frames, and everything of it scored anew on them.

    Raises:
        DataError: the scan is not the one that the run was made of.
    """
    raw = _raw_of(run, given)
    _refuse_another(run, raw)
    scan = replace(run.scan, raw=raw.with_probe(run.scan.probe, calibrated=raw.probe_calibrated))
    stages = tuple(replace(stage, scored=_scored_anew(stage.scored, scan)) for stage in run.stages)
    _refuse_other_counts(run, stages[-1].scored)
    refined = None
    if run.refined is not None:
        refined = replace(run.refined, best=stages[-1].scored, initial=stages[0].scored)
    return replace(run, scan=scan, stages=stages, refined=refined)


def _raw_of(run: Run, given: ScanInput | bool) -> RawData:
    if isinstance(given, PtychoDataContainer):
        return given.raw
    if given is not True:
        return ensure_raw(given)  # type: ignore[arg-type]
    from ..io.registry import read_scan

    source = run.scan.raw.source
    if source.path is None:
        raise DataError(
            f"{run.folder}: its scan was made of arrays and lies in no file; give it: load_run(..., scan=raw)."
        )
    if not Path(source.path).exists():
        raise DataError(
            f"{run.folder}: its scan was read from {source.path}, which is not there from here; say where it is: "
            "load_run(..., scan=path)."
        )
    propagation = run.scan.raw.propagation
    said: dict[str, Any] = {"measurement": source.measurement, "dialect": source.dialect, "propagation": propagation}
    return read_scan(source.path, **said)


def _refuse_another(run: Run, raw: RawData) -> None:
    known = run.scan.raw
    what = None
    if raw.frames.shape != known.frames.shape:
        what = f"its frames are {raw.frames.shape}, those of the run {known.frames.shape}"
    elif not np.allclose(raw.positions_px, known.positions_px, rtol=0, atol=1e-3):
        away = float(np.abs(raw.positions_px - known.positions_px).max())
        what = f"its positions differ by up to {away:.4g} object pixels"
    if what is not None:
        raise DataError(
            f"{raw.source.path or 'scan'}: not the scan that {run.folder} was made of: {what}. If it was read with "
            "options then (--crop, --bin, --frames, --orientation …), read it with the same and give it: "
            "load_run(..., scan=read_scan(path, ...))."
        )


def _scored_anew(scored: Scored, scan: PtychoDataContainer) -> Scored:
    alone = scored.image.forward_model
    # the scale is that of the result: it has the gain in it already
    return score(scored.image, scan, scored.engine, load_backend(alone) if alone else None)


def _refuse_other_counts(run: Run, found: Scored) -> None:
    column = SUMS.index("counts")
    before, now = run.scored.frame_sums[:, column], found.frame_sums[:, column]
    differ = ~np.isclose(now, before, rtol=_SAME_COUNTS, atol=0.5)
    if differ.any():
        frame = int(differ.argmax())
        raise DataError(
            f"{found.scan.raw.source.path or 'scan'}: not the scan that {run.folder} was made of: frame {frame} has "
            f"{now[frame]:.6g} counts in its good pixels, and had {before[frame]:.6g}. If it was read with options "
            "(--mask, --background, --measurement …), read it with the same and give it: load_run(..., scan=raw)."
        )
