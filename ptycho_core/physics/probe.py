"""Probes: where a reconstruction starts from when the scan brings none, and incoherent modes (FM-12 … FM-15)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.frames import cut_window
from ..data.propagation import FAR_FIELD, Propagation
from ..errors import ConfigError
from .forward import mode_intensity
from .propagation import far_field, far_field_adjoint, propagate, propagate_adjoint

__all__ = [
    "add_modes",
    "aperture_probe",
    "initial_scale",
    "mode_powers",
    "orthogonalise",
    "probe_from_mean_pattern",
    "windowed_probe",
]


def _centred(wave: NDArray[Any]) -> NDArray[Any]:
    """Move a wave whose far field has a flat phase, so focused on pixel 0, to the middle of its window."""
    return np.fft.fftshift(wave, axes=(-2, -1))


def _defocus_phase(N: int, defocus_px2: float) -> NDArray[np.float64]:
    """−π λz |f|² on the detector grid, f in cycles per object pixel, zero frequency at (N/2, N/2)."""
    f = np.fft.fftshift(np.fft.fftfreq(N))
    return np.asarray(-math.pi * defocus_px2 * (f[:, None] ** 2 + f[None, :] ** 2))


def aperture_probe(
    N: int, radius_px: float, *, inner_radius_px: float = 0.0, defocus_px2: float = 0.0, total: float = 1.0
) -> NDArray[np.complex64]:
    """Probe behind an ideal lens, P = F⁻¹[ aperture(q) · e^{−iπ λz |f|²} ] (FM-13).

    The aperture is what the bare beam shows on the detector: a disk for a circular lens, an annulus for a zone plate
    with a central stop.

    Args:
        N: side, pixels.
        radius_px: radius of the bright cone on the detector, detector pixels.
        inner_radius_px: radius of the central stop on the detector, detector pixels; 0 for a plain circular lens.
        defocus_px2: λz / (object pixel size)², so wavelength × distance from the focus in square object pixels;
            positive downstream of the focus.
        total: Σ|P|².

    Returns:
        (1, N, N) complex64, centred on (N/2, N/2) within half a pixel.

    Raises:
        ConfigError: an aperture with no opening, or one that leaves the detector.
    """
    if not 0 <= inner_radius_px < radius_px <= N / 2:
        raise ConfigError(
            f"aperture: inner radius {inner_radius_px} and radius {radius_px} detector pixels; "
            f"they must obey 0 ≤ inner < outer ≤ N/2 = {N / 2:g}."
        )
    q = np.arange(N) - N // 2
    distance = np.hypot(q[:, None], q[None, :])
    # edges one pixel soft: a hard edge on a pixel grid is neither round nor differentiable in the radius
    opening = np.clip(radius_px - distance + 0.5, 0, 1) * np.clip(distance - inner_radius_px + 0.5, 0, 1)
    if inner_radius_px == 0:
        opening = np.clip(radius_px - distance + 0.5, 0, 1)
    wave = _centred(far_field_adjoint(opening * np.exp(1j * _defocus_phase(N, defocus_px2))))
    return (wave * math.sqrt(total / np.sum(np.abs(wave) ** 2)))[None].astype(np.complex64)


def defocused(probe: NDArray[Any], defocus_px2: float) -> NDArray[np.complex64]:
    """A probe farther downstream: F⁻¹[ F P · e^{−iπ λz |f|²} ] (PROBE-8).

    Args:
        probe: (..., N, N) complex.
        defocus_px2: λz / (object pixel size)², z the way from where it is; negative: upstream.

    Returns:
        (..., N, N) complex64.
    """
    return next(defocused_planes(probe, [defocus_px2]))


def defocused_planes(probe: NDArray[Any], defoci_px2: Iterable[float]) -> Iterator[NDArray[np.complex64]]:
    """A probe in several planes, one after another: see :func:`defocused`, of which this is the whole.

    Args:
        probe: (..., N, N) complex.
        defoci_px2: of each plane.

    Yields:
        (..., N, N) complex64.
    """
    field = far_field(probe)
    for defocus_px2 in defoci_px2:
        phase = np.exp(1j * _defocus_phase(probe.shape[-1], defocus_px2))
        yield np.asarray(far_field_adjoint(field * phase), np.complex64)


def disc_probe(N: int, radius_px: float, *, total: float = 1.0) -> NDArray[np.complex64]:
    """Probe right behind a hole: 1 within a circle about (N/2, N/2), 0 outside, the rim shaded over a pixel (PROBE-3).

    Args:
        N: side, pixels.
        radius_px: of the hole, object pixels.
        total: Σ|P|².

    Returns:
        (1, N, N) complex64.

    Raises:
        ConfigError: no hole, or one that is wider than the window.
    """
    if not 0 < radius_px <= N / 2:
        raise ConfigError(f"disc: radius {radius_px:g} object pixels; it must obey 0 < radius ≤ N/2 = {N / 2:g}.")
    r = np.arange(N) - N // 2
    disc = np.clip(radius_px - np.hypot(r[:, None], r[None, :]) + 0.5, 0, 1)
    return np.asarray((disc * math.sqrt(total / np.sum(disc**2)))[None], np.complex64)


def probe_from_mean_pattern(
    mean_pattern: NDArray[np.float64], *, defocus_px2: float = 0.0, propagation: Propagation = FAR_FIELD
) -> NDArray[np.complex64]:
    """Probe that arrives at the detector with the mean measured amplitude (FM-12).

    In the far field P = F⁻¹[ √k̄ e^{−iπ λz|f|²} ], with a defocus phase. In the near field P = F⁻¹ √k̄: the beam is
    taken to be parallel at the detector, after what curvature there is was taken out with the magnification.

    Args:
        mean_pattern: (N, N) mean counts, on the detector's pixels.
        defocus_px2: see :func:`aperture_probe`; far field only.
        propagation: of the scan.

    Returns:
        (1, N, N) complex64 with Σ|P|² = mean counts of a frame.

    Raises:
        ConfigError: a defocus for a near field.
    """
    amplitude = np.sqrt(np.maximum(mean_pattern, 0.0))
    if propagation.is_near:
        if defocus_px2:
            raise ConfigError(f"defocus_px2 = {defocus_px2:g} for a {propagation}; it is of far fields. Leave it out.")
        return propagate_adjoint(amplitude, propagation)[None].astype(np.complex64)
    phase = _defocus_phase(len(mean_pattern), defocus_px2)
    return _centred(far_field_adjoint(amplitude * np.exp(1j * phase)))[None].astype(np.complex64)


def windowed_probe(
    probe: NDArray[Any], top: int, left: int, side: int, bin_px: int = 1, propagation: Propagation = FAR_FIELD
) -> NDArray[np.complex64]:
    """The probe of frames of which a window was cut and binned (FM-36).

    In the far field the window cuts the wave at the detector, so that the probe's pixel becomes n/side of what it was;
    binning b detector pixels leaves that pixel, and 1/b of the probe's own window. In a near field detector and sample
    have the same pixels: the probe is cut, and averaged over what is binned.

    Args:
        probe: (P, n, n) complex, of frames n×n.
        top: first row of the window; negative where it begins before the frames.
        left: first column.
        side: of the window, pixels before binning; a multiple of `bin_px`.
        bin_px: pixels binned along each axis.
        propagation: of the scan.

    Returns:
        (P, N, N) complex64, N = side / bin_px.
    """
    N = side // bin_px
    if propagation.is_near:
        cut = cut_window(np.asarray(probe, np.complex128), top, left, side)
        return np.asarray(cut.reshape(len(cut), N, bin_px, N, bin_px).mean(axis=(2, 4)), np.complex64)
    n = probe.shape[-1]
    # phases at the detector count from pixel 0; with this ramp pixel (n-1)/2 of the one is (side-1)/2 of the other
    q = (np.arange(side) - side // 2) / side * (side / n - 1) / 2
    ramp = np.exp(-2j * math.pi * (q[:, None] + q[None, :]))
    wave = far_field_adjoint(cut_window(far_field(probe), top, left, side) * ramp)
    # the middle of the pixels that are binned into one lies (b-1)/2 beyond the first of them
    turn = np.exp(-1j * math.pi * (bin_px - 1) / side * np.arange(side))
    wave = wave * turn[:, None] * turn[None, :]
    first = (side - N) // 2
    return np.asarray(wave[:, first : first + N, first : first + N], np.complex64)


def initial_scale(
    mean_counts: float,
    probe: NDArray[Any],
    mask: NDArray[np.bool_] | None = None,
    background: NDArray[Any] | None = None,
    propagation: Propagation = FAR_FIELD,
) -> float:
    """S with which the flat object has the mean counts: (k̄ − Σ_good b) / Σ_good Σ_p |F P_p|² (FM-6).

    Without a mask the divisor is Σ|P|². A background estimated a little too high must not make the beam vanish: at
    least a hundredth of the counts is taken for signal; likewise a hundredth of the power for what the mask leaves.

    Args:
        mean_counts: k̄, mean counts in the good pixels of a frame.
        probe: (P, N, N) complex modes.
        mask: (N, N) True = good, or None.
        background: (N, N) expected background counts b, or None.
        propagation: of the scan.
    """
    power = mode_intensity(propagate(probe, propagation))
    good = np.ones(power.shape, dtype=bool) if mask is None else mask
    level = 0.0 if background is None else float(background[good].sum(dtype=np.float64))
    signal = max(mean_counts - level, 0.01 * mean_counts)
    return float(signal / max(power[good].sum(), 0.01 * power.sum()))


def mode_powers(probe: NDArray[Any]) -> NDArray[np.float64]:
    """Fraction of the power in each mode, (P, N, N) → (P,) float64 that sums to 1."""
    power = np.sum(np.abs(probe.astype(np.complex128)) ** 2, axis=(-2, -1))
    return np.asarray(power / power.sum())


def orthogonalise(probe: NDArray[Any]) -> NDArray[Any]:
    """Mix modes unitarily so that they are mutually orthogonal, strongest first (FM-14).

    The mixing leaves Σ_p P_p(r) P_p*(r′) and with it every predicted pattern unchanged. The phase of each mode is
    chosen so that its sum with the mode it came from is largest, which keeps a probe that is orthogonal already as
    it is.

    Args:
        probe: (P, N, N) complex modes.

    Returns:
        (P, N, N) complex64, or complex128 where the probe is.
    """
    dtype = np.complex128 if probe.dtype == np.complex128 else np.complex64
    flat = probe.reshape(len(probe), -1).astype(np.complex128)
    mixing, strength, rows = np.linalg.svd(flat, full_matrices=False)
    main = mixing[np.argmax(np.abs(mixing), axis=0), np.arange(len(probe))]
    phase = main / np.abs(main)
    return np.asarray(((strength * phase)[:, None] * rows).reshape(probe.shape), dtype=dtype)


def _ramps() -> list[tuple[float, float]]:
    return [(0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0), (1, 2), (2, 1), (2, -1), (1, -2), (2, 2)]


def add_modes(probe: NDArray[Any], n_modes: int, *, fraction: float = 0.03) -> NDArray[np.complex64]:
    """Bring a probe to `n_modes` modes: leave the strongest, or add weak copies of the main one (FM-15).

    A new mode is the main mode times a phase ramp of half a turn over the main mode's width, made orthogonal to all
    modes before it, and carries `fraction` of the power; the total power stays.

    Args:
        probe: (P, N, N) complex modes.
        n_modes: modes wanted, at most 11 more than there are.
        fraction: power of each new mode as a fraction of the total.

    Returns:
        (n_modes, N, N) complex64.

    Raises:
        ConfigError: more modes than can be made, none, or new modes that would take 90 % of the power or more.
    """
    probe = probe.astype(np.complex128)
    if n_modes < 1:
        raise ConfigError(f"probe_modes = {n_modes}; it must be at least 1.")
    if n_modes <= len(probe):
        strongest = np.argsort(-mode_powers(probe), kind="stable")[:n_modes]
        return probe[np.sort(strongest)].astype(np.complex64)
    if n_modes - len(probe) > len(_ramps()):
        raise ConfigError(f"probe_modes = {n_modes}: at most {len(_ramps())} modes can be added to {len(probe)}.")
    rest = 1 - fraction * (n_modes - len(probe))
    if not 0.1 < rest < 1:
        raise ConfigError(
            f"{n_modes - len(probe)} new modes of {fraction:g} of the power each leave {rest:g} of it to the probe; "
            "it must be between 0.1 and 1."
        )
    N = probe.shape[-1]
    total = np.sum(np.abs(probe) ** 2)
    main = probe[np.argmax(mode_powers(probe))]
    weight = np.abs(main) ** 2 / np.sum(np.abs(main) ** 2)
    r = np.arange(N) - (N - 1) / 2
    y, x = r[:, None] - np.sum(weight * r[:, None]), r[None, :] - np.sum(weight * r[None, :])
    spread = math.sqrt(np.sum(weight * (y**2 + x**2))) + 1e-9
    basis = [mode / np.linalg.norm(mode) for mode in orthogonalise(probe).astype(np.complex128) if mode.any()]
    added = []
    for ramp_y, ramp_x in _ramps()[: n_modes - len(probe)]:
        mode = main * np.exp(1j * math.pi / (2 * spread) * (ramp_y * y + ramp_x * x))
        for _ in range(2):  # twice: one pass of Gram–Schmidt loses orthogonality when little is left
            for other in basis:
                mode = mode - np.vdot(other, mode) * other
        mode /= np.linalg.norm(mode)
        basis.append(mode)
        added.append(mode * math.sqrt(fraction * total))
    return np.concatenate([probe * math.sqrt(rest), np.array(added)]).astype(np.complex64)
