"""What comes out of a job, whichever it is: a Run, and the folder that it is written into in one step."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.results import Refined
from ..data.run import Run, Stage
from ..io.result_folder import NOTHING_REPLACED, RESULT_NAMES, ResultFolder, as_output_error
from ..io.room import check_room
from ..plugins.registry import LoadedBackend
from ..protocol import TrainedModel
from ..runtime import Runtime
from ..stopping import to_its_end
from .models import BUNDLE_NAME
from .observe import Observer, peak_memory_bytes
from .stages import provenance_of

__all__ = ["check_room_for_image", "first_stage_name", "made_run", "opened_folder", "tell_of_kept", "write_run"]


@contextmanager
def opened_folder(
    out: Path | str | None,
    overwrite: bool,
    inputs: Sequence[Path],
    observer: Observer,
    writes: Collection[str] = RESULT_NAMES,
) -> Iterator[ResultFolder | None]:
    """The folder of the results, held; or None where none is asked for."""
    if out is None:
        yield None
        return
    with ResultFolder.open(out, overwrite=overwrite, inputs=inputs, writes=writes) as folder:
        observer.opened(folder.path)
        tell_of_kept(folder, observer)
        yield folder


def made_run(
    stages: tuple[Stage, ...],
    model: TrainedModel,
    engine: LoadedBackend,
    config: TrainingConfig,
    runtime: Runtime,
    observer: Observer,
    *,
    refined: Refined | None = None,
    title: str | None = None,
) -> Run:
    """What came out, as it stands when the last stage is done."""
    scan = stages[0].scored.scan
    path = scan.raw.source.path
    return Run(
        title=title or (Path(path).name if path else "reconstruction"),
        scan=scan,
        stages=stages,
        refined=refined,
        model=model,
        history={name: list(values) for name, values in model.history.items()},
        config=config,
        runtime=runtime,
        engine=engine.name,
        warnings=tuple(observer.notices),
        provenance=provenance_of(config, runtime, engine, scan),
        seconds=observer.facts(),
        peak_memory_bytes=peak_memory_bytes(),
    )


def check_room_for_image(folder: ResultFolder | None, scan: PtychoDataContainer) -> None:
    """Refuse, before the work, a folder that the image of a scan cannot fit into.

    Counted is what is in every ``reconstruction.h5``: object, coverage, phase and amplitude of the canvas, the probe
    and its picture.

    Raises:
        OutputError: fewer bytes are free than that.
    """
    if folder is not None:
        _, (height, width) = scan.canvas()
        check_room(folder.path, 20 * int(height) * int(width) + 16 * scan.probe.size)


def first_stage_name(config: TrainingConfig) -> str:
    """What the first image of a run is made by: ``network`` or ``solver``."""
    assert config.method is not None
    return config.method


def write_run(
    done: Run, folder: ResultFolder, observer: Observer, bundle: Path | None, *, settings: bool = True
) -> Run:
    """Put the results of a run into its folder, in one step; the image is written first, and looks cost only looks.

    Args:
        done: the run.
        folder: of the results.
        observer: who watches.
        bundle: file of the model, which becomes one of the results, or None.
        settings: whether it is known which settings make the image again.
    """
    from ..report.settings_file import write_settings
    from ..report.write import write_image, write_looks, write_summary

    with to_its_end(), folder.staged() as partial:
        with observer.stage("report", finishes=True):
            write_image(partial, done)
            folder.secure(partial)
            if bundle is not None:
                with as_output_error(partial, NOTHING_REPLACED):
                    shutil.copyfile(bundle, partial / BUNDLE_NAME)
            if settings:
                write_settings(partial, done)
            for text in write_looks(partial, done):
                observer.notice(text)
        done = replace(
            done,
            warnings=tuple(observer.notices),
            seconds=observer.facts(),
            peak_memory_bytes=observer.peak_memory_bytes(),
            folder=folder.path,
        )
        write_summary(partial, done)
    tell_of_kept(folder, observer)
    return replace(done, warnings=tuple(observer.notices))


def tell_of_kept(folder: ResultFolder, observer: Observer) -> None:
    """Say which files of somebody else lay in the folder, and what became of them."""
    for text in folder.kept_sentences():
        observer.notice(text)
