"""Slices of a thick object, and probes that vary from frame to frame, between our images and pty-chi's parameters.

A thick object is slices with free space between them (Maiden et al., JOSA A 29, 1606 (2012)). A probe that varies is
orthogonal probe relaxation (OPR; Odstrčil et al., Opt. Express 24, 8360 (2016)): the first mode of frame j is
w_j0 P_0 + Σ_i w_ji U_i, coherently, with K modes U_i beside the P incoherent ones. An image holds them after those: its
probe is (P + K, N, N) and its weights (M, P + K); ``opr_modes`` in its stats says how many they are.

This module imports no framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.enginekit.stitching import slices_shown
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.physics.probe import add_modes
from ptycho_core.physics.propagation import wavelength_m

from .options import PtychiOptions

__all__ = ["OPR_STAT", "Opr", "Optics", "bound", "first_opr", "laid_slices", "optics_of", "options_for", "split"]

NAME = "ptychi"
OPR_STAT = "opr_modes"
"""Name of the statistic of an image that says how many of its modes are coherent with the first."""

_START_WEIGHT = 1e-3
"""Spread of the first weights of OPR modes: pty-chi divides by them, so they must not be 0."""


@dataclass(frozen=True, kw_only=True)
class Optics:
    """What waves between slices need: `wavelength_m`, `pixel_size_m` of the object, and the `spacing_m` of slices."""

    wavelength_m: float
    pixel_size_m: float
    spacing_m: float


@dataclass(frozen=True)
class Opr:
    """OPR modes: `modes` (K, N, N) complex64 in units of the probe, `weights` (M, 1 + K) of the first mode and them."""

    modes: NDArray[np.complex64]
    weights: NDArray[np.float32]

    def with_size(self, rms: float) -> Opr:
        """The same with modes of a root mean square, which pty-chi gives them at every step and leaves the weights."""
        sizes = np.maximum(np.sqrt(np.mean(np.abs(self.modes) ** 2, axis=(1, 2))), np.finfo(np.float32).tiny)
        weights = self.weights.copy()
        weights[:, 1:] *= sizes / rms
        return Opr((self.modes * (rms / sizes)[:, None, None]).astype(np.complex64), weights)

    def of_frames(
        self, frames: NDArray[np.int64], found: NDArray[np.float32], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Weights (M, 1 + K) of all frames of a scan where those of some were found.

        A frame that was not looked at takes what the frames before and after it say: a beam drifts with time.

        Args:
            frames: (J,) those that were found.
            found: (J, 1 + K) their weights.
            numbers: (M,) number of each frame in its file.
        """
        known = numbers[frames]
        order = np.argsort(known, kind="stable")
        columns = [np.interp(numbers, known[order], column[order]) for column in found.T]
        weights = np.stack(columns, axis=1).astype(np.float32)
        weights[frames] = found
        return weights


def optics_of(raw: RawData, spacing_m: float) -> Optics:
    """Wavelength and size of an object pixel of a scan, for slices that far apart.

    Raises:
        DataError: the scan does not say them.
    """
    known = {"energy_eV": raw.geometry.energy_eV, "pixel_size_m": raw.geometry.pixel_size_m}
    missing = [f"geometry.{name}" for name, value in known.items() if value is None]
    if missing or known["energy_eV"] is None or known["pixel_size_m"] is None:
        raise DataError(
            f"engine '{NAME}': {raw.source.path or 'scan'} does not say {' and '.join(missing)}, and waves between "
            "slices (PtychiOptions.slices) need photon energy and object pixel; give them with the scan, or leave the "
            "slices out."
        )
    wavelength = wavelength_m(known["energy_eV"], raw.geometry.radiation)
    return Optics(wavelength_m=wavelength, pixel_size_m=float(known["pixel_size_m"]), spacing_m=spacing_m)


def first_opr(probe: NDArray[np.complex64], n_modes: int, n_frames: int, seed: int) -> Opr:
    """OPR modes to start from: the first mode times weak phase ramps, with next to no weight in any frame."""
    modes = add_modes(probe[:1], 1 + n_modes)[1:]
    size = np.sqrt(np.mean(np.abs(probe[0]) ** 2) / np.mean(np.abs(modes) ** 2, axis=(1, 2), keepdims=True))
    weights = np.random.default_rng([seed, n_modes]).normal(scale=_START_WEIGHT, size=(n_frames, 1 + n_modes))
    weights[:, 0] = 1
    return Opr((modes * size).astype(np.complex64), weights.astype(np.float32))


def split(image: Image) -> tuple[NDArray[np.complex64], Opr | None]:
    """The incoherent modes (P, N, N) of an image's probe, and the OPR modes beside them if it has some.

    Raises:
        DataError: its frames differ in intensity, which pty-chi has nothing for.
    """
    K = int(image.stats.get(OPR_STAT, 0)) if image.forward_model == NAME else 0
    if K:
        assert image.mode_weights is not None
        P = len(image.probe) - K
        weights = np.concatenate([image.mode_weights[:, :1], image.mode_weights[:, P:]], axis=1)
        return image.probe[:P], Opr(image.probe[P:], weights)
    if image.mode_weights is not None and not (image.mode_weights == 1).all():
        raise DataError(
            f"engine '{NAME}': frames of the image to refine differ in intensity (mode_weights), which pty-chi cannot "
            "go on from; refine it with the engine that made it, or without refinement.frame_scale."
        )
    return image.probe, None


def bound(
    image: Image,
    slices: NDArray[np.complex64] | None,
    optics: Optics | None,
    probe: NDArray[np.complex64],
    opr: Opr | None,
) -> Image:
    """An image with slices and OPR modes in it.

    Args:
        image: object, coverage and positions.
        slices: (L, H, W) on its canvas, or None for a thin object; its own object becomes their product.
        optics: where there are slices.
        probe: (P, N, N) incoherent modes.
        opr: OPR modes; their weights are told with a mean square of 1, so that a mode's power is its own.
    """
    changes: dict[str, Any] = {"probe": probe, "forward_model": NAME if slices is not None or opr is not None else ""}
    if slices is not None and optics is not None:
        lit = slices_shown(slices, image.coverage > 0)
        changes |= {"slices": lit, "object": np.prod(lit, axis=0), "slice_spacing_m": optics.spacing_m}
    if opr is not None:
        rms = np.maximum(np.sqrt(np.mean(opr.weights[:, 1:].astype(np.float64) ** 2, axis=0)), 1e-12)
        weights = np.ones((len(opr.weights), len(probe) + len(opr.modes)), np.float32)
        weights[:, 0], weights[:, len(probe) :] = opr.weights[:, 0], opr.weights[:, 1:] / rms
        modes = (opr.modes * rms[:, None, None]).astype(np.complex64)
        changes |= {
            "probe": np.concatenate([probe, modes]),
            "mode_weights": weights,
            "stats": {**image.stats, OPR_STAT: len(opr.modes)},
        }
    return replace(image, **changes)


def options_for(image: Image, options: PtychiOptions) -> PtychiOptions:
    """The options that an image is gone on with: what they leave open of slices and OPR modes is the image's.

    Raises:
        ConfigError: another number of slices or of OPR modes, or another spacing, than the image has.
    """
    has: Mapping[str, Any] = {
        "slices": None if image.slices is None else len(image.slices),
        "slice_spacing_m": image.slice_spacing_m,
        "opr_modes": image.stats.get(OPR_STAT) if image.forward_model == NAME else None,
    }
    there = {name: value for name, value in has.items() if value is not None}
    for name, value in there.items():
        given = getattr(options, name)
        if given is not None and given != value:
            raise ConfigError(
                f"engine '{NAME}': PtychiOptions.{name} = {given!r}, and the image to refine has {value!r}; leave it "
                f"out, or make the image with {name} = {given!r}."
            )
    return replace(options, **there) if there else options


def laid_slices(image: Image, thin: NDArray[np.complex64], margin_px: int, n_slices: int, *, filled: bool) -> Any:
    """Slices (L, H, W) to start from, on the canvas of an image with a margin.

    A thin object is the first slice, and the others are empty space: waves that go through it explain every frame as
    they did before.

    Args:
        image: with slices, or thin.
        thin: (H, W) its object on that canvas.
        margin_px: added on every side.
        n_slices: L.
        filled: whether what nothing lit gets the mean of what was lit, or is as an image shows it.
    """
    if image.slices is None:
        slices = np.ones((n_slices, *thin.shape), np.complex64)
        slices[0] = thin
        return slices
    lit = image.coverage > 0
    wide = ((0, 0), (margin_px, margin_px), (margin_px, margin_px))
    padded, reached = np.pad(image.slices, wide), np.pad(lit, margin_px)
    if not filled:
        return slices_shown(padded, reached)
    levels = image.slices[:, lit].mean(axis=1)
    return np.where(reached, padded, levels[:, None, None]).astype(np.complex64)
