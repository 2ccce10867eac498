"""Objects to simulate scans of: pairs of (H, W) maps in [0, 1], how much a pixel absorbs and how much it shifts phase.

The maps are turned into a transmission by :func:`transmission`. Every edge is one pixel soft: an edge on the pixel grid
would put energy beyond Nyquist that no scan can carry, and would favour one orientation over another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, suggest

__all__ = ["OBJECTS", "TEXTURES", "draw_object", "transmission"]

Maps = tuple[NDArray[np.float64], NDArray[np.float64], dict[str, Any]]

TEXTURES = ("astronaut", "brick", "camera", "coffee", "grass", "gravel", "moon")
"""Images that every scikit-image wheel holds, so that a simulation never downloads anything."""

_LINE_WIDTHS_PX = (1.5, 10.0)
_LINE_LENGTHS_PX = (40.0, 220.0)
_LINES_AREA = 0.75
_LEAF_RADII_PX = (2.5, 45.0)
_LEAVES_AREA = 5.0
_SPOKES = 36


def _stretch(values: NDArray[np.float64], low: float = 0.0, high: float = 100.0) -> NDArray[np.float64]:
    """Map the range between two percentiles to [0, 1] and clip."""
    bottom, top = np.percentile(values, [low, high])
    return np.asarray(np.clip((values - bottom) / max(top - bottom, 1e-12), 0.0, 1.0))


def _window(centre: NDArray[np.float64], reach: float, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """The part of the canvas within `reach` of a point, or None when there is none."""
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, shape).astype(int)
    return None if (high <= low).any() else (slice(low[0], high[0]), slice(low[1], high[1]))


def _offsets(
    window: tuple[slice, slice], centre: NDArray[np.float64], angle: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates along and across a direction, from a centre, on a window of the canvas."""
    y = np.arange(window[0].start, window[0].stop)[:, None] - centre[0]
    x = np.arange(window[1].start, window[1].stop)[None, :] - centre[1]
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _lines(shape: tuple[int, int], rng: np.random.Generator) -> Maps:
    """Straight wires of many widths, orientations and materials; where they cross, their effects add up."""
    clear = [np.ones(shape), np.ones(shape)]
    margin, area, n = _LINE_LENGTHS_PX[1] / 2, 0.0, 0
    # lines may start outside the canvas, else its border would be emptier than its middle
    target = _LINES_AREA * (shape[0] + 2 * margin) * (shape[1] + 2 * margin)
    while area < target:
        width = math.exp(rng.uniform(*np.log(_LINE_WIDTHS_PX)))
        length = rng.uniform(*_LINE_LENGTHS_PX)
        centre = rng.uniform(-margin, np.array(shape) + margin)
        angle, strengths = rng.uniform(0, math.pi), rng.uniform(0.25, 0.85, 2)
        area, n = area + width * length, n + 1
        window = _window(centre, length / 2 + width + 1, shape)
        if window is None:
            continue
        along, across = _offsets(window, centre, angle)
        inside = np.clip((width + 1) / 2 - np.abs(across), 0, min(width, 1))
        inside *= np.clip((length + 1) / 2 - np.abs(along), 0, 1)
        for field, strength in zip(clear, strengths, strict=True):
            field[window] *= 1 - strength * inside
    return 1 - clear[0], 1 - clear[1], {"lines": n}


def _dead_leaves(shape: tuple[int, int], rng: np.random.Generator) -> Maps:
    """Ellipses that hide one another, radii by a power law of −3: statistics of natural scenes at every scale."""
    fields = [np.full(shape, rng.uniform()), np.full(shape, rng.uniform())]
    small, large = _LEAF_RADII_PX
    area, n = 0.0, 0
    target = _LEAVES_AREA * (shape[0] + 2 * large) * (shape[1] + 2 * large)
    while area < target:
        radius = (small**-2 - rng.uniform() * (small**-2 - large**-2)) ** -0.5
        stretch = math.exp(rng.uniform(0, 0.5))
        half_axes = radius * stretch, radius / stretch
        centre = rng.uniform(-large, np.array(shape) + large)
        angle, values = rng.uniform(0, math.pi), rng.uniform(size=2)
        area, n = area + math.pi * radius**2, n + 1
        window = _window(centre, half_axes[0] + 1, shape)
        if window is None:
            continue
        along, across = _offsets(window, centre, angle)
        reach = np.hypot(along / half_axes[0], across / half_axes[1])
        slope = np.hypot(along / half_axes[0] ** 2, across / half_axes[1] ** 2) / np.maximum(reach, 1e-9)
        inside = np.clip((1 - reach) / np.maximum(slope, 1 / large) + 0.5, 0, 1)
        for field, value in zip(fields, values, strict=True):
            field[window] += inside * (value - field[window])
    return fields[0], fields[1], {"leaves": n}


def _siemens_star(shape: tuple[int, int], rng: np.random.Generator) -> Maps:
    """A spoke target of one material with three ring gaps, at a random angle, off centre by a random sub-pixel."""
    centre = (np.array(shape) - 1) / 2 + rng.uniform(-0.5, 0.5, 2)
    turn = rng.uniform(0, 2 * math.pi)
    y, x = np.arange(shape[0])[:, None] - centre[0], np.arange(shape[1])[None, :] - centre[1]
    r, angle = np.hypot(y, x), np.arctan2(y, x) + turn
    outer = 0.45 * min(shape)
    # pixels between here and the nearest edge of a spoke, positive inside
    phase = np.mod(angle * _SPOKES / (2 * math.pi), 1.0)
    to_edge = (0.25 - np.abs(phase - 0.5)) * 2 * math.pi * r / _SPOKES
    spokes = np.clip(to_edge + 0.5, 0, 1)
    # where a spoke is narrower than two pixels the pattern cannot be drawn: leave a hub
    hub = _SPOKES * 4 / (2 * math.pi)
    star = spokes * np.clip(outer - r + 0.5, 0, 1) * np.clip(r - hub + 0.5, 0, 1)
    for fraction in (0.3, 0.55, 0.8):
        gap = hub + fraction * (outer - hub)
        star *= np.clip(np.abs(r - gap) - 1.5 + 0.5, 0, 1)
    facts = {"spokes": _SPOKES, "centre_px": centre.tolist(), "turn_rad": turn, "outer_radius_px": outer}
    return star, star.copy(), facts


def _natural_image(name: str, shape: tuple[int, int], rng: np.random.Generator) -> tuple[NDArray[np.float64], Any]:
    """A piece of a bundled image at its own resolution (enlarged only when smaller than the canvas), [0, 1]."""
    from scipy.ndimage import zoom
    from skimage import data

    image = np.asarray(getattr(data, name)(), dtype=np.float64)
    if image.ndim == 3:
        image = image @ np.array([0.2125, 0.7154, 0.0721])
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    image = np.rot90(image[:, ::-1] if mirrored else image, turns)
    enlarged = max(1.0, *(wanted / have for wanted, have in zip(shape, image.shape, strict=True)))
    if enlarged > 1:
        image = zoom(image, [math.ceil(n * enlarged) / n for n in image.shape], order=3, mode="nearest")
    corner = [int(rng.integers(have - wanted + 1)) for wanted, have in zip(shape, image.shape, strict=True)]
    piece = image[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]
    facts = {"image": name, "quarter_turns": turns, "mirrored": mirrored, "enlarged": enlarged, "corner_px": corner}
    return _stretch(piece, 1, 99), facts


def _texture(shape: tuple[int, int], rng: np.random.Generator, images: tuple[str, ...]) -> Maps:
    """Two natural images, one for absorption and one for phase."""
    names = images or tuple(rng.choice(TEXTURES, 2, replace=False).tolist())
    absorption, facts_a = _natural_image(names[0], shape, rng)
    phase, facts_p = _natural_image(names[-1], shape, rng)
    return absorption, phase, {"absorption": facts_a, "phase": facts_p}


_MAKERS: dict[str, Callable[[tuple[int, int], np.random.Generator], Maps]] = {
    "lines": _lines,
    "dead_leaves": _dead_leaves,
    "siemens_star": _siemens_star,
}

OBJECTS = (*_MAKERS, "texture")
"""Names of the objects that can be simulated."""


def draw_object(name: str, shape: tuple[int, int], rng: np.random.Generator, images: tuple[str, ...] = ()) -> Maps:
    """Draw an object.

    Args:
        name: one of :data:`OBJECTS`.
        shape: (H, W) pixels.
        rng: the only source of randomness.
        images: for ``texture``, the image for absorption and the one for phase (:data:`TEXTURES`); drawn when empty.

    Returns:
        absorption (H, W) and phase (H, W) in [0, 1] that reach both ends, and what was drawn as plain JSON data.

    Raises:
        ConfigError: unknown object or image.
    """
    for image in images:
        if image not in TEXTURES:
            raise ConfigError(f"image {image!r}; allowed: {', '.join(TEXTURES)}.{suggest(image, TEXTURES)}")
    if name == "texture":
        absorption, phase, facts = _texture(shape, rng, images)
    elif name in _MAKERS:
        absorption, phase, facts = _MAKERS[name](shape, rng)
    else:
        raise ConfigError(f"object {name!r}; allowed: {', '.join(OBJECTS)}.{suggest(name, OBJECTS)}")
    return _stretch(absorption), _stretch(phase), facts


def transmission(
    absorption: NDArray[np.float64],
    phase: NDArray[np.float64],
    amplitude_range: tuple[float, float],
    phase_range_rad: tuple[float, float],
) -> NDArray[np.complex64]:
    """O = A e^{iφ}: no absorption is the upper end of the amplitude range, no phase the lower end of the phase range.

    Args:
        absorption: (H, W) in [0, 1].
        phase: (H, W) in [0, 1].
        amplitude_range: least and greatest amplitude.
        phase_range_rad: least and greatest phase, radians.

    Returns:
        (H, W) complex64.
    """
    amplitude = amplitude_range[1] - (amplitude_range[1] - amplitude_range[0]) * absorption
    angle = phase_range_rad[0] + (phase_range_rad[1] - phase_range_rad[0]) * phase
    return np.asarray(amplitude * np.exp(1j * angle), dtype=np.complex64)
