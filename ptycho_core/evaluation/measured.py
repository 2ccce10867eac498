"""What a verdict weighs: figures measured on an image and its frames, as values (see ``evaluation.measure``)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Judged", "Measured", "Residual"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Some frames against the null model.

    Attributes:
        n_frames: how many.
        foretold: S of ``physics.evidence``, summed over the frames.
        sd: √Var S, the larger of that of counting and that of the squares themselves.
        predicted: V.
        structure: C.
        spread: C with its noise.
        structure_sd: standard deviation of C without structure.
        excess: Σ(d − E d) of the image in these frames.
        usual_deviance: median over these frames of Σd / ΣE d.
    """

    n_frames: int
    foretold: float
    sd: float
    predicted: float
    structure: float
    spread: float
    structure_sd: float
    excess: float
    usual_deviance: float


@dataclass(frozen=True, kw_only=True)
class Residual:
    """How what the image leaves is spread over pixels and frames, in units of the misfit above noise.

    Attributes:
        fixed_share: part that is the same in every frame.
        fixed_in_few: part of that in the hundredth of the pixels with most of it.
        bright_deficit: part of the expected counts that is missing where the most are expected.
        at_peak: samples with the largest count of all, among the frames that were looked at.
        peak: that count.
        whiteness: correlation of the misfit with that of the next pixel, in units of noise; near 0 where it is as
            grainy as noise.
        dispersion: mean of (k − λ)²/λ where few counts are expected (1 to 10), and where many are (over 30); 0 where
            there are too few such pixels to say.
        floor_counts: counts a pixel of an even level under the frames, in its darkest fifth; 0 where that is not even.
        intensity_share: part that is a factor of each frame.
        intensity_spread: standard deviation of that factor, beyond counting.
        few_frames_share: part of that of the training frames that lies in the twentieth of them with most of it.
        worst_frames: numbers of those frames.
        step_frame: number of the frame, in the order of the file, from which on frames are explained differently.
        step_factor: geometric mean of their reduced deviance over that of the frames before.
        step_sigma: the difference of the logarithms over its standard error.
    """

    fixed_share: float
    fixed_in_few: float
    bright_deficit: float
    at_peak: int
    peak: float
    whiteness: float
    dispersion: tuple[float, float]
    floor_counts: float
    intensity_share: float
    intensity_spread: float
    few_frames_share: float
    worst_frames: tuple[int, ...]
    step_frame: int = 0
    step_factor: float = 1.0
    step_sigma: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured on an image; see each.

    Attributes:
        heldout: held-out frames that training frames overlap with, or None without any.
        training: training frames.
        covered: held-out frames that lie where training frames lit the object; `heldout` has some of them.
        uncovered: held-out frames that lie where too little of the object was lit, although training frames are near.
        apart: held-out frames that no training frame is near.
        unlikeness: mean square of the relative difference of the frames from their mean, noise taken off.
        unlikeness_sd: its standard deviation where all frames are alike.
        evenness: mean square of the relative difference of the mean frame from an even detector.
        evenness_sd: its standard deviation where it is even.
        freedom: numbers that were fitted, per training frame: two a lit pixel of the object and of the probe.
        contrast_amplitude: spread of the amplitude over its mean, in the well covered region.
        contrast_phase_rad: spread of the phase there, radians, a ramp taken off.
        contrast_noise: what noise at that coverage makes of either.
        lit_pixels: pixels of the object that are lit.
        holes: part of the object within the outline of the positions that is lit by less than a tenth of the median.
        overlap: 1 − median distance to the next frame / diameter of the probe.
        diameter_px: of the probe.
        extent_px: the longer side of the field of positions.
        probe_likeness: correlation of the strongest mode with that which was begun with.
        total_photons: counts of all used frames.
        counts_a_frame: mean.
        residual: see there.
    """

    heldout: Judged | None
    training: Judged
    covered: int
    uncovered: int
    apart: int
    unlikeness: float
    unlikeness_sd: float
    evenness: float
    evenness_sd: float
    freedom: float
    contrast_amplitude: float
    contrast_phase_rad: float
    contrast_noise: float
    lit_pixels: int
    holes: float
    overlap: float
    diameter_px: float
    extent_px: float
    probe_likeness: float
    total_photons: float
    counts_a_frame: float
    residual: Residual
