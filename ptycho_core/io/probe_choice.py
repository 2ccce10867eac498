"""What ``--probe`` says: search for one, take that of a file, or make one as it is described (PROBE-7)."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.raw import RawData
from ..errors import ConfigError, DataError, suggest
from ..physics.probe import aperture_probe, disc_probe
from .probes import read_probe
from .units import length_m

__all__ = ["probe_from_words"]

_CALL = re.compile(r"\s*(aperture|disc)\s*\((.*)\)\s*", re.DOTALL)
_NAMES = {
    "aperture": ("radius", "inner", "semi_angle", "inner_angle", "outer_zone", "stop", "defocus_px2", "defocus"),
    "disc": ("radius",),
}
_ANGLES = {"rad": 1.0, "mrad": 1e-3, "urad": 1e-6, "µrad": 1e-6}
_EXAMPLES = (
    "aperture(radius=62, defocus_px2=-30.7), aperture(semi_angle=1.03mrad, defocus=-13.5um), "
    "aperture(outer_zone=50nm, stop=0.4, defocus=0.2mm) or disc(radius=1.5um)"
)


def probe_from_words(text: str, raw: RawData) -> RawData:
    """A scan with the probe that a text says, or without one where it is to be searched.

    ``aperture(…)`` is a lens: ``radius`` and ``inner`` of the bright field and its central stop in detector pixels; or
    ``semi_angle`` and ``inner_angle`` (rad or mrad), or ``outer_zone``, the width of a zone plate's outermost zone Δr,
    whose semi-angle is λ/(2 Δr), with ``stop``, the part of it that the central stop hides; ``defocus`` (a length) or
    ``defocus_px2``, positive where the sample is downstream of the focus. ``disc(radius=…)`` is a hole at the sample,
    its radius in object pixels or with a unit of length.

    Args:
        text: ``auto``, a path, or a description.
        raw: the scan.

    Returns:
        The scan; of ``auto`` without its own probe.

    Raises:
        ConfigError: a description that cannot be read, or an opening that does not fit.
        DataError: no usable probe in the file, or words that need an energy and a pixel size which are not known.
        ArchiveError: a damaged bundle.
    """
    if text.strip() == "auto":
        note = "the probe is searched, as --probe auto says" + ("" if raw.probe is None else "; the scan's is left out")
        return _noted(replace(raw, probe=None, probe_calibrated=False), note)
    call = _CALL.fullmatch(text)
    if call is None:
        told: list[str] = []
        raw = raw.with_probe(read_probe(Path(text), told))
        return _noted(raw, f"the probe is that of {Path(text).name}, as given", *told)
    kind, given = call[1], _arguments(text, call[1], call[2])
    if raw.propagation.is_near:
        raise ConfigError(f"--probe = {text}: the scan is a {raw.propagation}; a lens or a hole is of far fields.")
    total = float(np.nanmean(raw.frame_totals))
    if kind == "disc":
        radius = _pixels(given["radius"], raw, "disc(radius)")
        return _noted(raw.with_probe(disc_probe(raw.side, radius, total=total)), f"the probe is a {text.strip()}")
    outer, inner = _opening(text, given, raw)
    defocus = _defocus_px2(text, given, raw)
    probe = aperture_probe(raw.side, outer, inner_radius_px=inner, defocus_px2=defocus, total=total)
    note = (
        f"the probe is that of a lens, as {text.strip()} says: bright field of radius {outer:.4g} detector px, stop "
        f"{inner:.4g} px, defocus {defocus:.4g} square object px"
    )
    return _noted(raw.with_probe(probe), note)


def _noted(raw: RawData, *notes: str) -> RawData:
    return replace(raw, source=replace(raw.source, assumptions=(*raw.source.assumptions, *notes)))


def _arguments(text: str, kind: str, inside: str) -> dict[str, str]:
    """The named values between the parentheses."""
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in inside.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value or name in found or name not in _NAMES[kind]:
            raise ConfigError(
                f"--probe = {text}: {part!r} is not NAME=VALUE with NAME one of {', '.join(_NAMES[kind])}, each once."
                f"{suggest(name, _NAMES[kind])} Say {_EXAMPLES}."
            )
        found[name] = value
    if kind == "disc" and "radius" not in found:
        raise ConfigError(f"--probe = {text}: a disc needs its radius. Say {_EXAMPLES}.")
    return found


def _number(value: str, what: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"--probe: {what} = {value!r}; it must be a number.")
    return number


def _instrument(raw: RawData, what: str) -> tuple[float, float]:
    """Wavelength and object pixel, metres."""
    wavelength, pixel = raw.geometry.wavelength_m, raw.geometry.pixel_size_m
    if wavelength is None or pixel is None:
        raise DataError(
            f"{raw.source.path or 'scan'}: {what} needs the wavelength and the object pixel size, and the scan does "
            "not say them; give --energy_eV and --pixel_size_m, or describe the probe in pixels."
        )
    return wavelength, pixel


def _pixels(value: str, raw: RawData, what: str) -> float:
    """A length at the sample in object pixels: a bare number is in pixels already."""
    try:
        return float(value)
    except ValueError:
        return length_m(value, f"--probe: {what}") / _instrument(raw, what)[1]


def _angle(value: str, what: str) -> float:
    unit = next((name for name in sorted(_ANGLES, key=len, reverse=True) if value.endswith(name)), "")
    return _number(value.removesuffix(unit).strip(), what) * _ANGLES.get(unit, 1.0)


def _opening(text: str, given: dict[str, str], raw: RawData) -> tuple[float, float]:
    """Radii of the bright field and of its central stop, detector pixels."""
    ways = [name for name in ("radius", "semi_angle", "outer_zone") if name in given]
    if len(ways) != 1:
        raise ConfigError(
            f"--probe = {text}: an aperture needs one of radius, semi_angle and outer_zone, and has "
            f"{' and '.join(ways) or 'none'}. Say {_EXAMPLES}."
        )
    if ways == ["radius"]:
        outer = _number(given["radius"], "radius")
    else:
        wavelength, pixel = _instrument(raw, ways[0])
        if ways == ["semi_angle"]:
            angle = _angle(given["semi_angle"], "semi_angle")
        else:
            angle = wavelength / (2 * length_m(given["outer_zone"], "--probe: outer_zone"))
        outer = angle * raw.side * pixel / wavelength
    stops = [name for name in ("inner", "inner_angle", "stop") if name in given]
    if len(stops) > 1:
        raise ConfigError(f"--probe = {text}: {' and '.join(stops)} say the same thing; keep one.")
    inner = 0.0
    if stops == ["inner"]:
        inner = _number(given["inner"], "inner")
    elif stops == ["inner_angle"]:
        wavelength, pixel = _instrument(raw, "inner_angle")
        inner = _angle(given["inner_angle"], "inner_angle") * raw.side * pixel / wavelength
    elif stops == ["stop"]:
        inner = _number(given["stop"], "stop") * outer
    return outer, inner


def _defocus_px2(text: str, given: dict[str, str], raw: RawData) -> float:
    if "defocus" in given and "defocus_px2" in given:
        raise ConfigError(f"--probe = {text}: defocus and defocus_px2 say the same thing; keep one.")
    if "defocus" in given:
        wavelength, pixel = _instrument(raw, "defocus")
        return length_m(given["defocus"], "--probe: defocus") * wavelength / pixel**2
    return _number(given.get("defocus_px2", "0"), "defocus_px2")
