"""The options of every command that reads a scan, and what they mean as ``ReadOptions``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.propagation import Propagation
from ..errors import ConfigError, DataError
from ..limits import Limits

if TYPE_CHECKING:
    from ..reader_protocol import ReadOptions

__all__ = ["AUTO", "COST", "PROBE_AND_FINDINGS", "READING", "limits_given", "read_options"]

AUTO = "auto"
"""The word that leaves something to be found."""

_LENGTH = "LENGTH"

_MOST_DIGITS = 16  # of a whole number that a double holds

_COST = Limits()

COST = "what reading may cost"
"""Heading of the options that raise the limits."""

_LIMITS = {
    "memory": "memory_mb",
    "seconds": "seconds",
    "canvas": "canvas_px",
    "objects": "objects",
    "nesting": "nesting",
}
"""Option without ``--max_`` → field of ``Limits``."""

READING: dict[str, dict[str, dict[str, Any]]] = {
    "reading the scan": {
        "--measurement": {
            "choices": ["amplitude", "counts"],
            "help": "what the frames hold, where the file does not say",
        },
        "--propagation": {
            "metavar": "far_field|near_field:F",
            "help": "far field, or near field with its Fresnel number, where the file does not say; F is of an object "
            "pixel: pixel² / (wavelength × effective distance)",
        },
        "--dialect": {
            "metavar": "NAME",
            "help": "reader to use, as 'ptycho readers' lists them (default: found from the content)",
        },
        "--map": {
            "metavar": "FILE.yaml",
            "help": "file that says which dataset is what, for a scan in no known format",
        },
        "--entry": {"metavar": "NAME|NUMBER", "help": "which of several scans in the file"},
        "--scan_index": {"metavar": "NUMBER", "help": "the same by number, from 0"},
        "--follow": {"action": "store_true", "help": "read a file that is still written, up to its last whole frame"},
        "--frames": {"metavar": "START:STOP:STEP|FILE", "help": "frames to use (default: all)"},
    },
    "positions": {
        "--positions": {
            "metavar": "FILE",
            "help": "file with the positions; text, .npy, MAT, HDF5 or NPZ (FILE:Y,X names two arrays in it), a "
            "product of ptychodus, a reconstruction.h5, or another scan",
        },
        "--position_unit": {"metavar": "UNIT", "help": "m, mm, um, nm, A, pm, or px for object pixels"},
        "--raster": {"metavar": "NY,NX", "help": "positions are a raster of NY rows and NX columns, x fastest"},
        "--scan_step": {"metavar": f"{_LENGTH}[,{_LENGTH}]", "help": "step of the raster, such as 50nm, or y,x"},
        "--orientation": {
            "metavar": "auto|WORD",
            "help": "axes of the positions against the detector; auto tries all; WORD is none, or transpose, flip_y, "
            "flip_x joined by +",
        },
        "--rotate": {"metavar": "DEGREES", "help": "rotate the positions against the detector, from y towards x"},
    },
    "instrument": {
        "--energy_eV": {
            "metavar": "ENERGY",
            "help": "energy of the beam, such as 8800 or 8.8keV; goes before the file's",
        },
        "--distance_m": {
            "metavar": _LENGTH,
            "help": "distance from sample to detector, such as 2.1 or 2100mm; goes before the file's",
        },
        "--detector_pixel_size_m": {
            "metavar": _LENGTH,
            "help": "side of a detector pixel, such as 75um; goes before the file's",
        },
        "--pixel_size_m": {
            "metavar": _LENGTH,
            "help": "side of an object pixel, such as 9.3A; of the frames as they are stored",
        },
        "--radiation": {"choices": ["photon", "electron"], "help": "particles of the beam (default: photon)"},
    },
    "detector": {
        "--crop": {"metavar": "N", "help": "use the N×N detector pixels about the beam"},
        "--pad": {"metavar": "N", "help": "put frames into N×N pixels; what is added is masked"},
        "--bin": {"metavar": "N", "help": "add up N×N detector pixels"},
        "--centre": {"metavar": "auto|Y,X", "help": "centre of the beam on the detector, pixels (default: the middle)"},
        "--mask": {
            "metavar": "auto|FILE",
            "help": "bad pixels: auto finds them by their values; a file goes before the scan's own mask",
        },
        "--mask_polarity": {"choices": ["good", "bad"], "help": "what 1 means in the mask"},
        "--background": {
            "metavar": "COUNTS|FILE",
            "help": "background: counts of each pixel that do not come from the probe",
        },
        "--offset": {
            "metavar": "NUMBER",
            "help": "added to all frames; for frames below 0, from which a dark level was taken",
        },
        "--gain": {"metavar": "auto|NUMBER", "help": "stored value of one photon, for frames that are not in photons"},
    },
    COST: {
        "--allow_external": {
            "action": "store_true",
            "help": "let an HDF5 file have data in files outside of its own folder, if you trust it",
        },
        "--max_memory": {"metavar": "MB", "help": f"memory beyond the file's size (default: {_COST.memory_mb:g})"},
        "--max_seconds": {
            "metavar": "S",
            "help": f"processor time of one step of reading (default: {_COST.seconds:g})",
        },
        "--max_canvas": {
            "metavar": "PX",
            "help": f"object pixels that positions may span (default: {_COST.canvas_px})",
        },
        "--max_objects": {
            "metavar": "N",
            "help": f"groups, datasets, links, members, files that a scan may have (default: {_COST.objects})",
        },
        "--max_nesting": {"metavar": "N", "help": f"groups in groups (default: {_COST.nesting})"},
        "--no_guard": {
            "action": "store_true",
            "help": "read in this process: a damaged file may end or stop it",
        },
    },
}
"""Heading → option → arguments of ``add_argument``."""

PROBE_AND_FINDINGS: dict[str, dict[str, Any]] = {
    "--probe": {
        "metavar": "auto|FILE|WORDS",
        "help": "search for the probe, read it from a file, or make it from words; a file is NPZ, HDF5, MAT, a "
        "reconstruction.h5 or a model.ptycho; words are aperture(semi_angle=1mrad, defocus=-13um) or "
        "disc(radius=1.5um) (default: the scan's own, else auto)",
    },
    "--despite_findings": {
        "action": "store_true",
        "help": "go on although the checks found an error that spoils the image, such as unmasked gaps of the detector",
    },
}
"""What commands have besides that make something of a scan."""


def read_options(options: dict[str, Any]) -> ReadOptions:
    """What a command line says of a scan.

    Args:
        options: as ``options.parse`` returned them. ``--orientation auto`` is left to the caller: it reads ``none``.

    Raises:
        ConfigError: a value that an option cannot have.
    """
    from ..io.units import energy_eV_of, length_m
    from ..reader_protocol import ReadOptions

    given = {name: value for name, value in options.items() if value is not None}
    found: dict[str, Any] = {
        name: given[name]
        for name in ("measurement", "position_unit", "radiation", "mask_polarity", "frames", "entry", "follow")
        if name in given
    }
    found |= {"allow_external": bool(given.get("allow_external")), "limits": limits_given(given)}
    found["propagation"] = _propagation(given.get("propagation"))
    if "scan_index" in given:
        if "entry" in given:
            raise ConfigError("--entry and --scan_index are given both; one names the scan.")
        found["entry"] = str(_whole(given, "scan_index"))
    for name in ("distance_m", "detector_pixel_size_m", "pixel_size_m"):
        if name in given:
            found[name] = _positive(length_m(given[name], f"--{name}"), f"--{name}")
    if "energy_eV" in given:
        found["energy_eV"] = _positive(energy_eV_of(given["energy_eV"], "--energy_eV"), "--energy_eV")
    if "scan_step" in given:
        steps = [length_m(part, "--scan_step") for part in given["scan_step"].split(",")]
        if len(steps) > 2:
            raise ConfigError(f"--scan_step = {given['scan_step']}; it must be one length, or two: y,x.")
        found["scan_step_m"] = (steps[0], steps[-1])
    if "raster" in given:
        found["raster"] = tuple(_numbers(given["raster"], "--raster", int))
    for name in ("crop", "pad", "bin"):
        if name in given:
            found[name] = _whole(given, name)
    if "centre" in given:
        text = given["centre"]
        found["centre"] = AUTO if text == AUTO else tuple(_numbers(text, "--centre", float))
    if "rotate" in given:
        found["rotate_deg"] = _number(given["rotate"], "--rotate")
    if given.get("orientation", AUTO) != AUTO:
        found["orientation"] = given["orientation"]
    for name in ("positions", "map"):
        if name in given:
            found["mapping" if name == "map" else name] = Path(given[name])
    if "mask" in given:
        found["mask"] = AUTO if given["mask"] == AUTO else Path(given["mask"])
    if "gain" in given:
        found["gain"] = AUTO if given["gain"] == AUTO else _positive(_number(given["gain"], "--gain"), "--gain")
    if "offset" in given:
        found["offset"] = _positive(_number(given["offset"], "--offset"), "--offset")
    if "background" in given:
        found["background"] = _number_or_path(given["background"])
    return ReadOptions(**found)


def limits_given(options: Mapping[str, Any]) -> Limits:
    """What a command line says that reading may cost.

    Args:
        options: as ``options.parse`` returned them.

    Raises:
        ConfigError: a value that an option cannot have.
    """
    found: dict[str, Any] = {}
    for name, field in _LIMITS.items():
        text = options.get(f"max_{name}")
        if text is not None:
            whole = isinstance(getattr(_COST, field), int)
            number = float(_whole(options, f"max_{name}")) if whole else _number(text, f"--max_{name}")
            number = _positive(number, f"--max_{name}")
            found[field] = int(number) if whole else number
    guard = _COST.guard and not options.get("no_guard")
    return Limits(**found, external=bool(options.get("allow_external")), guard=guard)


def _propagation(text: str | None) -> Propagation | None:
    if text is None:
        return None
    kind, colon, number = text.partition(":")
    try:
        return Propagation(kind, float(number) if colon else None)
    except (DataError, ValueError) as error:
        raise ConfigError(
            f"--propagation = {text}; it must be far_field, or near_field:F with the Fresnel number F of an object "
            "pixel, such as near_field:0.004."
        ) from error


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{option} = {text}; it must be a number.") from error


def _positive(number: float, option: str) -> float:
    if not 0 < number < float("inf"):
        raise ConfigError(f"{option} = {number:g}; it must be a finite number > 0.")
    return number


def _whole(given: Mapping[str, Any], name: str) -> int:
    text = str(given[name])
    if not (text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS):
        raise ConfigError(f"--{name} = {text}; it must be a whole number.")
    return int(text)


def _numbers(text: str, option: str, kind: type) -> list[Any]:
    parts = text.split(",")
    try:
        numbers = [kind(part) for part in parts]
    except ValueError as error:
        raise ConfigError(f"{option} = {text}; it must be two numbers y,x.") from error
    if len(numbers) != 2:
        raise ConfigError(f"{option} = {text}; it must be two numbers y,x.")
    return numbers


def _number_or_path(text: str) -> float | Path:
    try:
        return float(text)
    except ValueError:
        return Path(text)
