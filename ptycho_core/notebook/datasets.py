"""Images as datasets of xarray: named axes, coordinates in metres or pixels, and units on everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.container import Role
from ..data.results import Image
from ..data.run import Run
from ..errors import ConfigError, MissingPackageError
from ..physics.gauge import shown_phase
from ..physics.merit import SUMS

if TYPE_CHECKING:
    from xarray import Dataset

__all__ = ["image_dataset", "run_dataset"]


def _xarray() -> Any:
    try:
        import xarray
    except ModuleNotFoundError as error:
        if error.name != "xarray":
            raise
        raise MissingPackageError(
            "to_xarray needs xarray, which is not installed: pip install 'ptycho-core[xarray]' (or pip install xarray)."
        ) from error
    return xarray


def _axis(
    name: str, start: float, n: int, pixel_size_m: float | None
) -> tuple[str, NDArray[np.float64], dict[str, Any]]:
    """Centres of n pixels along an axis, the first at `start` object pixels."""
    unit, step = ("pixel", 1.0) if pixel_size_m is None else ("m", pixel_size_m)
    return (
        name,
        (start + np.arange(n, dtype=np.float64)) * np.float64(step),
        {"units": unit, "long_name": f"{name.removeprefix('probe_')}"},
    )


def image_dataset(image: Image, pixel_size_m: float | None = None) -> Dataset:
    """An image as a dataset; see :meth:`ptycho_core.Image.to_xarray`.

    Args:
        image: the image.
        pixel_size_m: side of an object pixel, metres; None gives coordinates in object pixels.

    Raises:
        MissingPackageError: xarray is not installed.
        ConfigError: a pixel that is not a finite number above 0.
    """
    xarray = _xarray()
    if pixel_size_m is not None and not 0 < pixel_size_m < np.inf:
        raise ConfigError(f"pixel_size_m = {pixel_size_m}; it must be a finite number above 0, in metres.")
    height, width = image.object.shape
    P, N, _ = image.probe.shape
    unit, step = ("pixel", 1.0) if pixel_size_m is None else ("m", pixel_size_m)
    lit = image.coverage > 0
    y, x = (float(v) for v in image.origin_px)
    phase, off = shown_phase(image.object, image.coverage)
    about_phase = {
        "units": "rad",
        "long_name": "object phase, global phase and ramp removed",
        "removed_global_phase_rad": off.phase_rad,
        "removed_ramp_rad_per_px": off.ramp_rad_per_px,
    }
    data: dict[str, Any] = {
        "object": (("y", "x"), image.object, {"units": "1", "long_name": "object"}),
        "phase": (("y", "x"), _where(lit, phase), about_phase),
        "amplitude": (("y", "x"), _where(lit, np.abs(image.object)), {"units": "1", "long_name": "object amplitude"}),
        "coverage": (("y", "x"), image.coverage, {"units": "1", "long_name": "times lit"}),
        "probe": (("mode", "probe_y", "probe_x"), image.probe, {"units": "sqrt(counts / scale)", "long_name": "probe"}),
        "positions": (
            ("frame", "axis"),
            image.positions_px * step,
            {"units": unit, "long_name": "frame centres as used"},
        ),
    }
    if image.slices is not None:
        about = {"units": "1", "long_name": "slices, upstream first", "spacing_m": image.slice_spacing_m}
        data["slices"] = (("slice", "y", "x"), image.slices, about)
    coords: dict[str, Any] = {
        "y": _axis("y", y, height, pixel_size_m),
        "x": _axis("x", x, width, pixel_size_m),
        "probe_y": _axis("probe_y", -(N - 1) / 2, N, pixel_size_m),
        "probe_x": _axis("probe_x", -(N - 1) / 2, N, pixel_size_m),
        "mode": np.arange(1, P + 1),
        "axis": ["y", "x"],
    }
    attrs: dict[str, Any] = {"scale": float(image.scale), "forward_model": image.forward_model or "core"}
    if pixel_size_m is not None:
        attrs["pixel_size_m"] = float(pixel_size_m)
    made: Dataset = xarray.Dataset(data, coords, attrs)
    return made


def _where(lit: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[np.float32]:
    """Values in the pixels that some frame reached, NaN elsewhere."""
    return np.where(lit, values, np.nan).astype(np.float32)


def run_dataset(run: Run) -> Dataset:
    """The result of a run as a dataset, with role and deviance of each frame; see :meth:`ptycho_core.Run.to_xarray`.

    Raises:
        MissingPackageError: xarray is not installed.
    """
    scored, scan = run.scored, run.scan
    made = image_dataset(scored.image, scan.raw.geometry.pixel_size_m)
    error, floor = (scored.frame_sums[:, SUMS.index(name)] for name in ("deviance", "deviance_floor"))
    ratio = np.full(len(error), np.nan)
    np.divide(error, floor, out=ratio, where=floor > 0)
    roles = np.array([Role(int(role)).name.lower() for role in scan.role])
    figures = {"deviance_train": float(scored.train.deviance), "r_factor_train": float(scored.train.r_factor)}
    if scored.heldout is not None:
        figures |= {
            "deviance_heldout": float(scored.heldout.deviance),
            "r_factor_heldout": float(scored.heldout.r_factor),
        }
    return made.assign(
        role=("frame", roles, {"long_name": "role of each frame"}),
        deviance=("frame", ratio, {"units": "1", "long_name": "deviance over that of shot noise alone"}),
    ).assign_attrs(
        title=run.title,
        engine=run.engine,
        verdict="" if run.verdict is None else run.verdict.sentence,
        **figures,
    )
