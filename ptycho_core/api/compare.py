"""Scoring images against one another, or against the truth, whatever they are held in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data.compared import ComparedImage, ComparedImages
from ..data.raw import ObjectGuess, RawData
from ..data.results import Image, Scored
from ..data.run import Run
from ..errors import ConfigError, DataError, EvaluationError
from ..text import counted

if TYPE_CHECKING:
    from ..data.findings import Comparison

__all__ = ["Comparable", "compare", "compare_images"]

Comparable = Path | str | Run | Scored | Image | ObjectGuess | RawData
"""Whatever has an object in it; a path is a result folder, a ``reconstruction.h5``, an NPZ that has one, a product of
ptychodus, or a scan with its object."""

_PAIRS_FROM = 3


def compare(estimate: Comparable, reference: Comparable, *, measurement: str | None = None) -> Comparison:
    """Score an image against another after registration and removal of global phase, phase ramp and scale.

    Args:
        estimate: image to score.
        reference: the truth, or the image to compare with.
        measurement: what the frames of a scan file are, where it does not say.

    Raises:
        DataError: no object where one was given.
        EvaluationError: the two cannot be scored: constant, or without common pixels.
    """
    return _score(_placed(estimate, measurement), _placed(reference, measurement))


def compare_images(
    images: Sequence[Comparable], truth: Comparable | None = None, *, measurement: str | None = None
) -> ComparedImages:
    """Score several images against a truth, or else against the last of them, and put all on its pixels.

    Args:
        images: at least one, and two without a truth.
        truth: the true object, or None.
        measurement: what the frames of a scan file are, where it does not say.

    Returns:
        Scores, the scores of each pair where there are three images or more, and the images on the reference's pixels.

    Raises:
        ConfigError: too few images.
        DataError: no object where one was given.
        EvaluationError: no image can be scored: constant, or without common pixels.
    """
    if len(images) < (2 if truth is None else 1):
        raise ConfigError(f"{counted(len(images), 'image')} cannot be compared; give another one, or a truth.")
    found = _told_apart([_placed(image, measurement) for image in images])
    reference = found[-1] if truth is None else _placed(truth, measurement)
    scores: list[Comparison | None] = []
    reasons: dict[str, str] = {}
    first: EvaluationError | None = None
    for image in found:
        try:
            scores.append(None if image is reference else _score(image, reference))
        except EvaluationError as error:
            first = first or error
            scores.append(None)
            reasons[image.name] = str(error)
    if first is not None and all(score is None for score in scores):
        raise first
    known = [i for i, image in enumerate(found) if image.name not in reasons]
    pairs = {}
    if len(found) >= _PAIRS_FROM:
        for place, i in enumerate(known):
            for j in known[place + 1 :]:
                to_reference = found[j] is reference
                try:
                    score = scores[i] if to_reference else _score(found[i], found[j])
                except EvaluationError as error:
                    reasons[f"{found[i].name} against {found[j].name}"] = str(error)
                    continue
                if score is not None:
                    pairs[i, j] = score
    on_reference: list[NDArray[np.complex64] | None] = []
    for image in found:
        try:
            on_reference.append(None if image.name in reasons else _on(reference, image))
        except EvaluationError as error:
            on_reference.append(None)
            reasons[f"{image.name}, as a picture"] = str(error)
    return ComparedImages(
        images=tuple(found),
        reference=reference,
        is_truth=truth is not None,
        scores=tuple(scores),
        pairs=pairs,
        aligned=tuple(on_reference),
        reference_object=reference.object,
        reasons=reasons,
    )


def _told_apart(images: Sequence[ComparedImage]) -> list[ComparedImage]:
    """The images, those of one name numbered."""
    taken: set[str] = set()
    out = []
    for image in images:
        numbered = (f"{image.name} ({again})" for again in count(2))
        name = next(name for name in chain([image.name], numbered) if name not in taken)
        taken.add(name)
        out.append(image if name == image.name else replace(image, name=name))
    return out


def _score(first: ComparedImage, second: ComparedImage) -> Comparison:
    from ..evaluation.metrics import compare_objects

    return compare_objects(
        first.object,
        first.origin_px,
        second.object,
        second.origin_px,
        coverage=first.coverage,
        positions_px=first.positions_px,
    )


def _on(reference: ComparedImage, image: ComparedImage) -> NDArray[np.complex64]:
    """An image (H, W) on the reference's pixels, with its global phase, ramp and scale; NaN where either has none."""
    from ..evaluation.alignment import align
    from ..physics.gauge import ramp_wave

    out = np.full(reference.object.shape, np.nan, np.complex64)
    if image is reference:
        return reference.object
    # the other way round than scored: what is resampled is the image, and the reference keeps its pixels
    done = align(
        reference.object,
        reference.origin_px,
        image.object,
        image.origin_px,
        coverage=reference.coverage,
        truth_coverage=image.coverage,
        positions_px=image.positions_px if reference.positions_px is None else reference.positions_px,
    )
    shape = done.truth.shape
    middle = ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    k = (float(done.ramp_rad_per_px[0]), float(done.ramp_rad_per_px[1]))
    turned = done.truth * ramp_wave(k, middle, shape) * (done.scale * np.exp(1j * done.phase_rad))
    y, x = np.round(done.origin_px - reference.origin_px).astype(int)
    out[y : y + shape[0], x : x + shape[1]] = np.where(done.region, turned, np.nan)
    return out


def _placed(given: Comparable, measurement: str | None) -> ComparedImage:
    if isinstance(given, (Path, str)):
        from ..io.stored_images import read_image

        return read_image(given, measurement=measurement)
    if isinstance(given, Run):
        pixel, verdict = given.scan.raw.geometry.pixel_size_m, given.verdict
        return replace(
            _placed(given.scored, measurement),
            name=given.title,
            pixel_size_m=pixel,
            seconds=given.seconds.get("total"),
            verdict="" if verdict is None else verdict.sentence,
        )
    if isinstance(given, Scored):
        image, used = given.image, given.scan.used_frames
        return ComparedImage(
            name=f"image of {given.engine}",
            object=image.object,
            origin_px=image.origin_px,
            coverage=image.coverage,
            positions_px=image.positions_px[used],
            figures={
                "train": given.train.to_mapping(),
                "heldout": None if given.heldout is None else given.heldout.to_mapping(),
            },
            engine=given.engine,
        )
    if isinstance(given, Image):
        return ComparedImage(
            name="image",
            object=given.object,
            origin_px=given.origin_px,
            coverage=given.coverage,
            positions_px=given.positions_px,
        )
    if isinstance(given, RawData):
        if given.object_guess is None:
            raise DataError(f"{given.source.path or 'scan'}: a scan without an object; compare images.")
        given = given.object_guess
    if isinstance(given, ObjectGuess):
        return ComparedImage(
            name="object of a scan", object=given.object, origin_px=np.asarray(given.origin_px, np.float64)
        )
    raise DataError(
        f"a {type(given).__name__} holds no image; allowed: a path, Run, Scored, Image, ObjectGuess, RawData."
    )
