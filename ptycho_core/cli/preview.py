"""``--preview N``: the image as it stands, written as a picture every N epochs of solving, training or refining."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import TrainingConfig
from ..config_checks import shown
from ..errors import Cancelled, ConfigError
from ..io.atomic import write_bytes
from ..protocol import Progress, ProgressEvent
from ..runtime import Runtime
from ..stopping import stoppable
from .options import Options, Parser
from .session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..data.results import Image

__all__ = ["PREVIEW_NAME", "add_preview_option", "check_preview", "preview_png", "with_preview"]

PREVIEW_NAME = "training/preview.png"
"""Where the picture lies in the folder of the results."""

_MOST_PX = 1200
"""Longest side of one of the two images in the picture; of larger objects rows and columns are left out."""

_GAP_PX = 8


def add_preview_option(parser: Parser) -> None:
    """Add ``--preview``."""
    parser.add_argument(
        "--preview",
        metavar="N",
        help=f"write the image as it stands to {PREVIEW_NAME} every N epochs; of a network that of its best epoch so "
        "far, which takes up to half an epoch each time",
    )


def check_preview(options: Options, config: TrainingConfig, runtime: Runtime, *, refines: bool) -> int | None:
    """The N of ``--preview``, or None where none is asked for.

    Args:
        options: of the command.
        config: of the job.
        runtime: of the job.
        refines: whether the command refines what is made.

    Raises:
        ConfigError: N is no whole number from 1, or no engine of the job can show an image while it works.
    """
    text = options["preview"]
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text) >= 1):
        raise ConfigError(f"--preview = {shown(text)}; it must be a whole number of epochs, from 1.")
    why = []
    if config.method == "network" and runtime.devices > 1:
        why.append("a network on several devices shows no image while it trains")
    elif not _can_show(config.backend):
        why.append(f"engine '{config.backend}' shows no image while it works")
    else:
        return int(text)
    refiner = config.refinement.engine
    if refiner == "auto":
        refiner = config.backend
    if refines and refiner != "none" and _can_show(refiner):
        return int(text)
    if refines:
        why.append("nothing is refined" if refiner == "none" else f"engine '{refiner}' shows none while it refines")
    raise ConfigError(f"--preview {text}: {', and '.join(why)}; leave --preview out, or take an engine that can.")


def _can_show(engine: str) -> bool:
    """Whether an engine shows the image while it works; one whose plugin does not tell is imported and asked."""
    from ..plugins.registry import backend_spec, load_backend

    can = backend_spec(engine).capabilities or load_backend(engine).capabilities
    return can.preview


def with_preview(progress: Progress, every: int | None, session: Session, config: TrainingConfig) -> Progress:
    """A progress callback that also writes the picture every so many epochs; the same one where none is asked for."""
    return progress if every is None else _Previewer(progress, every, session, config)


class _Previewer:
    """Hands events on, and draws."""

    def __init__(self, progress: Progress, every: int, session: Session, config: TrainingConfig) -> None:
        self._progress, self._every, self._session = progress, every, session
        self._doing = {"train": "solving" if config.method == "solver" else "training", "refine": "refining"}
        self._epochs = config.epochs
        self._shown = dict.fromkeys(self._doing, False)
        self._told = False

    def __call__(self, event: ProgressEvent) -> None:
        """Hand an event on, then draw where it is time; a picture that fails costs a notice."""
        self._progress(event)
        folder, stage = self._session.folder, self._session.doing
        # images of half the frames, and of trials, are not the image
        if folder is None or stage not in self._doing:
            return
        last = event.done >= event.total
        if event.image is None:  # a network shows none between the ends of two epochs
            if last and not self._shown[stage]:
                self._session.notice(f"--preview: the engine shows no image while {self._doing[stage]}")
            return
        self._shown[stage] = True
        epoch, of = (event.done, event.total) if event.epoch is None else (event.epoch, self._epochs)
        if last or epoch % self._every == 0:
            self._draw(event.image, folder / PREVIEW_NAME, f"{self._doing[stage]}, epoch {epoch} of {of}")

    def _draw(self, image: Callable[[], Image], path: Path, where: str) -> None:
        try:
            with stoppable(partial(self._session.check, "while the preview was made")):
                made = image()
            write_bytes(path, preview_png(made))
        except Cancelled:
            raise
        except Exception as error:  # an engine's library may fail in its own way, and it is only a picture
            self._session.notice(f"{path}: the preview was not written ({error})")
            return
        self._session.detail(f"preview   {where}")
        if not self._told:
            self._told = True
            often = "every epoch" if self._every == 1 else f"every {self._every} epochs"
            self._session.say(f"preview   {path}, {often}")


def preview_png(image: Image) -> bytes:
    """The phase of an object, and beside it its amplitude, as the report scales them; grey, as PNG."""
    from PIL import Image as Picture

    from ..report.figures import object_view

    step = -(-max(image.object.shape) // _MOST_PX)
    view = object_view(image.object[::step, ::step], image.coverage[::step, ::step])
    pair = [_grey(view.phase, view.phase_limits), _grey(view.amplitude, view.amplitude_limits)]
    gap = np.full((pair[0].shape[0], _GAP_PX), 255, np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(np.concatenate([pair[0], gap, pair[1]], axis=1)).save(buffer, format="PNG")
    return buffer.getvalue()


def _grey(values: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Values (h, w) between limits as greys; what is not known is white."""
    scaled = np.clip((values - limits[0]) / max(limits[1] - limits[0], 1e-30), 0, 1)
    return np.where(np.isfinite(values), np.round(255 * np.nan_to_num(scaled)), 255).astype(np.uint8)
