"""Figures of a scan, an image or a run, by the name of what is to be seen; those of the report where it has them.

Every figure is drawn on its own canvas and never through pyplot: it shows itself where a notebook's cell ends with it,
and ``figure.savefig`` writes it anywhere. Nothing is left open, and no setting of the caller's matplotlib is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..data.raw import Geometry, RawData
from ..data.results import Image
from ..data.run import Run
from ..errors import ConfigError, suggest
from ..report import figures, plots, probe_pictures
from ..report.extras import slices_figure
from . import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["kinds", "plot"]

_Kinds = dict[str, Callable[[], "Figure"]]


def _of_image(image: Image, geometry: Geometry, *, is_near: bool) -> _Kinds:
    pixel_size_m = geometry.pixel_size_m
    found: _Kinds = {
        "object": lambda: pictures.object_figure(image, pixel_size_m),
        "probe": lambda: figures.probe_figure.figure(image.probe, pixel_size_m),
    }
    if not is_near:
        found["focus"] = lambda: probe_pictures.focus_figure.figure(image.probe, geometry)
    if image.slices is not None:
        found["slices"] = lambda: slices_figure.figure(image, pixel_size_m)
    return found


def _of_run(run: Run) -> _Kinds:
    raw, scored = run.scan.raw, run.scored
    found = _of_image(scored.image, raw.geometry, is_near=raw.propagation.is_near)
    found["positions"] = lambda: pictures.positions_figure(
        scored.image.positions_px, raw.geometry.pixel_size_m, role=run.scan.role, nominal_px=raw.positions_px
    )
    found["deviance"] = lambda: pictures.deviance_figure(scored)
    if scored.examples:
        found["frames"] = lambda: plots.patterns_figure.figure(scored)
    found["losses"] = lambda: pictures.losses_figure(run)
    return found


def _of_raw(raw: RawData) -> _Kinds:
    pixel_size_m = raw.geometry.pixel_size_m
    found: _Kinds = {
        "positions": lambda: pictures.positions_figure(raw.positions_px, pixel_size_m),
        "mean": lambda: pictures.mean_figure(raw),
        "frames": lambda: pictures.frames_figure(raw),
    }
    if raw.probe is not None:
        modes = raw.probe
        found["probe"] = lambda: figures.probe_figure.figure(modes, pixel_size_m)
        if not raw.propagation.is_near:
            found["focus"] = lambda: probe_pictures.focus_figure.figure(modes, raw.geometry)
    return found


def kinds(value: Any) -> _Kinds:
    """Kind → what draws it, of those figures that a value has.

    Raises:
        ConfigError: it is no scan, image or run.
    """
    if isinstance(value, Run):
        return _of_run(value)
    if isinstance(value, Image):
        found = _of_image(value, Geometry(), is_near=False)
        return found | {"positions": lambda: pictures.positions_figure(value.positions_px, None)}
    if isinstance(value, RawData):
        return _of_raw(value)
    raise ConfigError(f"a {type(value).__name__} has no figures; scans, images and runs have.")


_WHY_NOT = {
    "frames": "measured against predicted needs the frames, which a result folder does not hold (load_run, scan=True)",
    "focus": "a near field has no focus within reach, nor has a scan without a probe",
    "slices": "the object is a thin one",
    "probe": "the scan has none",
}


def plot(value: Any, kind: str) -> Figure:
    """The figure of a kind.

    Args:
        value: a scan, an image or a run.
        kind: what is to be seen; see their ``plot``.

    Raises:
        ConfigError: it has no figure of that kind.
    """
    found = kinds(value)
    if not isinstance(kind, str) or kind not in found:
        why = f" ({_WHY_NOT[kind]})" if isinstance(kind, str) and kind in _WHY_NOT else ""
        raise ConfigError(
            f"kind = {kind!r}: this {type(value).__name__} has no such figure{why}; it has {', '.join(found)}."
            f"{suggest(str(kind), found)}"
        )
    return pictures.shown(found[kind]())
