"""What a ``mapping.yaml`` says: which array of a file is what. An unknown word is refused, and the nearest is named.

===================  ================================================================================================
key                  content
===================  ================================================================================================
frames               ``path``; ``axes`` names the axes of the array in order: ``frame``, or ``scan_y`` and ``scan_x``;
                     ``y`` and ``x``; ``entry`` for several scans; ``one`` for an axis of one entry. ``measurement``:
                     ``counts`` or ``amplitude``; ``reshape``: [M, H, W], done first; ``flip``: axes of the detector
                     that are turned round; ``zero_frequency``: ``middle`` or ``corner`` (which is moved to the middle)
positions            ``path`` of an (M, 2) array, with ``axes`` such as [frame, yx] ([xy, frame], [frame, xyz]); or
                     ``y`` and ``x``, an array each; ``unit``; ``negate``: axes that are turned round; ``of``:
                     ``beam``, or ``sample`` where the motion of the sample is stored (which turns both round);
                     ``names``: the pixel of a frame that positions in pixels name: ``(N-1)/2``, ``N/2`` or ``corner``
raster, scan_step    [Ny, Nx], and the steps of a raster: one length, or [y, x]
probe                ``path``, ``axes`` of ``mode``, ``y``, ``x``, ``entry``, ``one``, and ``re_im`` for real and
                     imaginary parts; ``zero``: ``middle`` or ``corner``
mask                 ``path``, ``axes``, ``one_means``: ``good`` or ``bad``
background           ``path`` and ``axes``, or a number of counts
energy, wavelength,  a quantity with its unit (``8.8keV``, ``75um``); or ``path`` (of an array, or of an attribute as
distance,            ``group@name``), with ``unit`` where the file states none
detector_pixel_size,
pixel_size
radiation            ``photon`` or ``electron``
centre               [y, x] of zero frequency, in pixels of the frames as stored
===================  ================================================================================================

A ``*`` in the paths stands for one scan of several (``scan_*/frames``); ``--entry`` chooses.
"""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import ConfigError, suggest
from ..plain_yaml import MOST_TEXT, read_yaml
from ..small_text import read_small_text
from ..units import energy_eV_of, length_m, length_unit

__all__ = ["ArrayAt", "Mapping", "PositionsAt", "Quantity", "read_mapping"]

FRAME_AXES = ("frame", "scan_y", "scan_x", "y", "x", "entry", "one")
POSITION_AXES = ("frame", "scan_y", "scan_x", "yx", "xy", "yxz", "xyz", "zyx", "zxy", "entry", "one")
PROBE_AXES = ("mode", "y", "x", "re_im", "entry", "one")
PLANE_AXES = ("y", "x", "entry", "one")
QUANTITIES = ("energy", "wavelength", "distance", "detector_pixel_size", "pixel_size")
PIXEL_NAMES = ("(N-1)/2", "N/2", "corner")


@dataclass(frozen=True, kw_only=True)
class ArrayAt:
    """An array, and what its axes are.

    Attributes:
        path: its name in the file.
        axes: names of its axes in order; empty for the usual ones.
        measurement: of frames.
        reshape: shape that it has first, or empty.
        flip: axes of the detector that are turned round.
        zero: where zero frequency (of frames) or the middle (of a probe) is: ``middle`` or ``corner``.
        one_means: of a mask.
    """

    path: str
    axes: tuple[str, ...] = ()
    measurement: str | None = None
    reshape: tuple[int, ...] = ()
    flip: tuple[str, ...] = ()
    zero: str = "middle"
    one_means: str | None = None


@dataclass(frozen=True, kw_only=True)
class PositionsAt:
    """Where positions are: one array, or one for each axis.

    Attributes:
        both: array of both coordinates, or None.
        y: array of y, or None.
        x: array of x, or None.
        unit: as given, or None for what the file states.
        negate: axes that are turned round.
        of: ``beam`` or ``sample``.
        names: pixel of a frame that positions in pixels name.
    """

    both: ArrayAt | None = None
    y: ArrayAt | None = None
    x: ArrayAt | None = None
    unit: str | None = None
    negate: tuple[str, ...] = ()
    of: str = "beam"
    names: str = "(N-1)/2"


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number with its unit, given or in the file.

    Attributes:
        value: in metres or electronvolts, or None where it is in the file.
        path: of it in the file.
        unit: as given, or None for what the file states.
    """

    value: float | None = None
    path: str = ""
    unit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A mapping, as read. See the module for what its fields mean."""

    frames: ArrayAt
    positions: PositionsAt | None = None
    raster: tuple[int, int] | None = None
    scan_step: tuple[float, float] | None = None
    probe: ArrayAt | None = None
    mask: ArrayAt | None = None
    background: ArrayAt | float | None = None
    energy: Quantity | None = None
    wavelength: Quantity | None = None
    distance: Quantity | None = None
    detector_pixel_size: Quantity | None = None
    pixel_size: Quantity | None = None
    radiation: str = "photon"
    centre: tuple[float, float] | None = None

    def paths(self) -> list[str]:
        """Every path in it."""
        arrays = [self.frames, self.probe, self.mask, self.background]
        if self.positions is not None:
            arrays += [self.positions.both, self.positions.y, self.positions.x]
        quantities = [getattr(self, name) for name in QUANTITIES]
        found = [array.path for array in arrays if isinstance(array, ArrayAt)]
        return [*found, *(quantity.path for quantity in quantities if quantity is not None and quantity.path)]


def read_mapping(path: Path) -> Mapping:
    """Read a mapping.

    Raises:
        ConfigError: it cannot be read, is no YAML, or says what no mapping says; key and file are named.
    """
    advice = "--map takes the mapping, not the scan"
    text = read_small_text(path, ConfigError, what="a mapping", most_bytes=MOST_TEXT, advice=advice)
    return mapping_of(read_yaml(text, str(path)), str(path))


def mapping_of(content: Any, name: str) -> Mapping:
    """A mapping of plain data.

    Args:
        content: as YAML gives it.
        name: the file, for messages.

    Raises:
        ConfigError: it says what no mapping says.
    """
    given = _keys(content, {field.name for field in fields(Mapping)}, name, "")
    if "frames" not in given:
        raise ConfigError(f"{name}: has no 'frames'; a mapping says at least which array they are.")
    found: dict[str, Any] = {"frames": _frames(given["frames"], name)}
    if "positions" in given:
        found["positions"] = _positions(given["positions"], name)
    for key, axes in (("probe", PROBE_AXES), ("mask", PLANE_AXES), ("background", PLANE_AXES)):
        if key in given:
            found[key] = _array(given[key], axes, name, key, _EXTRAS.get(key, {}))
    if isinstance(given.get("background"), (int, float)) and not isinstance(given["background"], bool):
        found["background"] = float(given["background"])
    for key in QUANTITIES:
        if key in given:
            found[key] = _quantity(given[key], name, key)
    if "raster" in given:
        found["raster"] = tuple(_numbers(given["raster"], int, name, "raster"))
    if "scan_step" in given:
        steps = given["scan_step"] if isinstance(given["scan_step"], list) else [given["scan_step"]] * 2
        found["scan_step"] = tuple(_length(step, name, "scan_step") for step in _two(steps, name, "scan_step"))
    if "centre" in given:
        found["centre"] = tuple(_numbers(given["centre"], float, name, "centre"))
    if "radiation" in given:
        found["radiation"] = _word(given["radiation"], ("photon", "electron"), name, "radiation")
    return Mapping(**found)


def _keys(content: Any, allowed: set[str], name: str, where: str) -> dict[str, Any]:
    """A table whose keys are all allowed."""
    inside = f" in {where!r}" if where else ""
    if not isinstance(content, AnyMapping):
        raise ConfigError(
            f"{name}: holds {content!r}{inside}; it must be 'name: value', of {', '.join(sorted(allowed))}."
        )
    for key in content:
        if key not in allowed:
            listed = ", ".join(sorted(allowed))
            raise ConfigError(f"{name}: {key!r}{inside} is unknown; allowed: {listed}.{suggest(str(key), allowed)}")
    return {key: value for key, value in content.items() if value is not None}


def _word(value: Any, allowed: tuple[str, ...], name: str, where: str) -> str:
    text = str(value).replace(" ", "") if allowed == PIXEL_NAMES else str(value)
    if text not in allowed:
        raise ConfigError(f"{name}: {where} is {value!r}; allowed: {', '.join(allowed)}.{suggest(text, allowed)}")
    return text


def _words(value: Any, allowed: tuple[str, ...], name: str, where: str) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    return tuple(_word(item, allowed, name, where) for item in items)


def _two(values: list[Any], name: str, where: str) -> list[Any]:
    if len(values) != 2:
        raise ConfigError(f"{name}: {where} is {values!r}; it must be two: [y, x].")
    return values


def _numbers(value: Any, kind: type, name: str, where: str) -> list[Any]:
    values = _two(value if isinstance(value, list) else [value], name, where)
    wanted = (int,) if kind is int else (int, float)
    if not all(isinstance(item, wanted) and not isinstance(item, bool) for item in values):
        raise ConfigError(f"{name}: {where} is {value!r}; it must be two numbers: [y, x].")
    return [kind(item) for item in values]


_EXTRAS: dict[str, dict[str, tuple[str, ...]]] = {
    "probe": {"zero": ("middle", "corner")},
    "mask": {"one_means": ("good", "bad")},
    "frames": {"measurement": ("counts", "amplitude", "intensity"), "zero_frequency": ("middle", "corner")},
}
"""Words that an array may have besides path and axes, with their values."""


def _array(
    content: Any,
    axes: tuple[str, ...],
    name: str,
    where: str,
    words: dict[str, tuple[str, ...]],
    more: tuple[str, ...] = (),
) -> ArrayAt | None:
    if where == "background" and isinstance(content, (int, float)) and not isinstance(content, bool):
        return None
    if isinstance(content, str):
        content = {"path": content}
    given = _keys(content, {"path", "axes", *words, *more}, name, where)
    if not isinstance(given.get("path"), str):
        raise ConfigError(f"{name}: {where} has no path; it must be the name of an array in the file.")
    found: dict[str, Any] = {"path": given["path"].strip("/")}
    if "axes" in given:
        found["axes"] = _words(given["axes"], axes, name, f"axes of {where}")
        twice = [axis for axis in found["axes"] if axis != "one" and found["axes"].count(axis) > 1]
        if twice:
            raise ConfigError(f"{name}: axes of {where} name {twice[0]!r} twice.")
    for word, allowed in words.items():
        if word in given:
            found["zero" if word == "zero_frequency" else word] = _word(
                given[word], allowed, name, f"{word} of {where}"
            )
    if "flip" in given:
        found["flip"] = _words(given["flip"], ("y", "x"), name, f"flip of {where}")
    if "reshape" in given:
        shape = given["reshape"]
        if not (isinstance(shape, list) and len(shape) == 3 and all(isinstance(n, int) and n != 0 for n in shape)):
            raise ConfigError(
                f"{name}: reshape of {where} is {shape!r}; it must be [M, H, W], -1 for what is left over."
            )
        found["reshape"] = tuple(shape)
    return ArrayAt(**found)


def _frames(content: Any, name: str) -> ArrayAt:
    found = _array(content, FRAME_AXES, name, "frames", _EXTRAS["frames"], ("flip", "reshape"))
    assert found is not None
    if found.axes and not {"y", "x"} <= set(found.axes):
        raise ConfigError(f"{name}: axes of frames are {list(found.axes)}; y and x must be among them.")
    if found.axes and ("frame" in found.axes) == bool({"scan_y", "scan_x"} & set(found.axes)):
        raise ConfigError(
            f"{name}: axes of frames are {list(found.axes)}; frames are counted by frame, or by scan_y, scan_x."
        )
    return found


def _positions(content: Any, name: str) -> PositionsAt:
    if isinstance(content, str):
        content = {"path": content}
    given = _keys(content, {"path", "axes", "y", "x", "unit", "negate", "of", "names"}, name, "positions")
    found: dict[str, Any] = {}
    if ("path" in given) == bool({"y", "x"} & set(given)) or ("y" in given) != ("x" in given):
        raise ConfigError(f"{name}: positions need a path of an (M, 2) array, or y and x, an array each.")
    if "path" in given:
        both = {key: given[key] for key in ("path", "axes") if key in given}
        found["both"] = _array(both, POSITION_AXES, name, "positions", {})
    for axis in "yx":
        if axis in given:
            found[axis] = _array(given[axis], POSITION_AXES, name, f"positions {axis}", {})
    if "unit" in given:
        found["unit"] = str(given["unit"])
        if found["unit"] != "px" and length_unit(found["unit"]) is None:
            raise ConfigError(f"{name}: unit of positions is {given['unit']!r}; allowed: px, m, mm, um, nm, A, pm.")
    if "negate" in given:
        found["negate"] = _words(given["negate"], ("y", "x"), name, "negate of positions")
    if "of" in given:
        found["of"] = _word(given["of"], ("beam", "sample"), name, "'of' in positions")
    if "names" in given:
        found["names"] = _word(given["names"], PIXEL_NAMES, name, "'names' in positions")
    return PositionsAt(**found)


def _quantity(content: Any, name: str, key: str) -> Quantity:
    if isinstance(content, AnyMapping):
        given = _keys(content, {"path", "unit"}, name, key)
        if not isinstance(given.get("path"), str):
            raise ConfigError(f"{name}: {key} has no path; give the name of an array, or the number with its unit.")
        unit = None if "unit" not in given else str(given["unit"])
        if unit is not None:
            _amount(f"1 {unit}", name, key)
        return Quantity(path=given["path"].strip("/"), unit=unit)
    return Quantity(value=_amount(str(content), name, key))


def _amount(text: str, name: str, key: str) -> float:
    what = f"{name}: {key}"
    return energy_eV_of(text, what) if key == "energy" else length_m(text, what)


def _length(value: Any, name: str, key: str) -> float:
    return length_m(str(value), f"{name}: {key}")
