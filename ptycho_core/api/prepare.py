"""From whatever a caller holds (a path, a scan, two views of one) to containers, in which every frame has its role."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.frames import SubsetFrames
from ..data.raw import RawData, read_only
from ..data.roles import draw_heldout, draw_subsample
from ..errors import ConfigError, DataError
from ..physics.probe import add_modes, probe_from_mean_pattern

__all__ = [
    "NOT_DRAWN",
    "ScanInput",
    "container_of_views",
    "ensure_container",
    "ensure_raw",
    "of_one_experiment",
    "pair_of_views",
    "with_initial_probe",
]

ScanInput = RawData | PtychoDataContainer | Path | str

NOT_DRAWN = "not drawn by n_subsample"
"""Reason of the frames that ``n_subsample`` leaves out."""

_PHOTONS_TOLERANCE = 0.1


def ensure_raw(data: RawData | Path | str) -> RawData:
    """Return a scan as it is, or read it from a file.

    Raises:
        DataError: neither a scan nor a path, or a file that is no usable scan.
    """
    if isinstance(data, RawData):
        return data
    if isinstance(data, (Path, str)):
        from ..io import read_scan

        return read_scan(Path(data))
    raise DataError(
        f"scan data are a {type(data).__name__}; allowed: RawData, PtychoDataContainer, or the path of a scan file."
    )


def with_initial_probe(raw: RawData) -> RawData:
    """The scan with a probe: its own, or one from its mean pattern.

    Raises:
        DataError: the background accounts for every count.
    """
    if raw.probe is not None:
        return raw
    pattern = raw.mean_pattern()
    if raw.background is not None:
        pattern = np.maximum(pattern - np.where(True if raw.mask is None else raw.mask, raw.background, 0), 0)
    if not pattern.any():
        raise DataError(
            f"{raw.source.path or 'scan'}: it has no probe, and none can be estimated, because the background "
            "accounts for every count; give a probe, or the right background."
        )
    note = "the scan brought no probe; one was estimated from the mean pattern, in focus"
    probed = raw.with_probe(probe_from_mean_pattern(pattern))
    return replace(probed, source=replace(raw.source, assumptions=(*raw.source.assumptions, note)))


def _warn_about_photons(scan: PtychoDataContainer, config: TrainingConfig, stacklevel: int) -> None:
    if config.nphotons is None:
        return
    measured = float(scan.raw.frame_totals[scan.used_frames].mean())
    if abs(config.nphotons - measured) > _PHOTONS_TOLERANCE * measured:
        warnings.warn(
            f"nphotons = {config.nphotons:.6g}, but {scan.raw.source.path or 'the scan'} has {measured:.6g} counts a "
            "frame on average, and the measured figure is used. Is the measurement (amplitude or counts) right? "
            "Leave nphotons out to have it measured.",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def _with_modes(raw: RawData, config: TrainingConfig, stacklevel: int) -> RawData:
    """The scan with a probe of as many modes as the config asks for."""
    if config.probe_modes is None or raw.probe is None or len(raw.probe) == config.probe_modes:
        return raw
    if config.probe_modes > len(raw.probe) and not config.probe_trainable:
        warnings.warn(
            f"probe_modes = {config.probe_modes} adds modes to the {len(raw.probe)} of the probe, and with "
            "probe_trainable = false they stay the guess that they start as. Set probe_trainable to true.",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
    return raw.with_probe(add_modes(raw.probe, config.probe_modes), calibrated=raw.probe_calibrated)


def _check_agrees(scan: PtychoDataContainer, config: TrainingConfig) -> None:
    """Refuse fields that a finished container contradicts: they could have no effect any more."""
    drawn = len(scan.unused.get(NOT_DRAWN, ()))
    facts = {
        "n_subsample": (config.n_subsample, scan.raw.n_frames - drawn),
        "probe_modes": (config.probe_modes, len(scan.probe)),
    }
    for field, (asked, found) in facts.items():
        if asked is not None and asked != found:
            raise ConfigError(
                f"{field} = {asked}, but the container given for training was made with {found}; "
                f"say {field} = {found}, or give the scan instead of a container."
            )


def _with_roles(raw: RawData, config: TrainingConfig) -> PtychoDataContainer:
    """The one split: frames that ``n_subsample`` does not draw are unused, a part of the others is held out."""
    drawn = np.arange(raw.n_frames)
    if config.n_subsample is not None:
        drawn = draw_subsample(raw.n_frames, config.n_subsample, config.seed)
    heldout = drawn[draw_heldout(raw.positions_px[drawn], config.test_fraction, config.seed, config.test_split)]
    unused = {NOT_DRAWN: np.setdiff1d(np.arange(raw.n_frames), drawn)}
    return PtychoDataContainer.of(raw, heldout=heldout, unused=unused)


def ensure_container(data: ScanInput, config: TrainingConfig, *, stacklevel: int = 2) -> PtychoDataContainer:
    """Turn a path or a scan into a container, in which every frame has its role.

    A scan without a probe gets one from its mean pattern, and modes are added as ``probe_modes`` says. ``n_subsample``
    frames are drawn, and ``test_fraction`` of them held out, by ``test_split`` and ``seed``.

    Args:
        data: a finished container is returned as it is, after a check; a path is read.
        config: the fields named above, and ``nphotons``.
        stacklevel: of warnings, as in :func:`warnings.warn`.

    Warns:
        UserWarning: ``nphotons`` is given and more than 10 % off the mean counts of a frame; both are stated. Or modes
            are added that will not be refined.

    Raises:
        DataError: no usable scan, or a container that is not as specs/10-data says.
        ConfigError: more frames or modes asked for than there can be, or a field that the container contradicts.
    """
    if isinstance(data, PtychoDataContainer):
        scan = data.checked()
        _check_agrees(scan, config)
    else:
        scan = _with_roles(_with_modes(with_initial_probe(ensure_raw(data)), config, stacklevel), config)
    _warn_about_photons(scan, config, stacklevel)
    return scan


def joined_views(train: RawData, test: RawData) -> tuple[RawData, NDArray[np.int64]] | None:
    """The scan that two views are of, and which of its frames are those of `test`; None where they are of two scans.

    Raises:
        DataError: a frame is in both views.
    """
    if not isinstance(train.frames, SubsetFrames) or not isinstance(test.frames, SubsetFrames):
        return None
    if train.frames.base is not test.frames.base:
        return None
    numbers = np.concatenate([train.frames.numbers, test.frames.numbers])
    order = np.argsort(numbers, kind="stable")
    if len(np.unique(numbers)) < len(numbers):
        both = np.intersect1d(train.frames.numbers, test.frames.numbers)
        raise DataError(
            f"{train.source.path or 'scan'}: frame {int(both[0])} is held out and trained on ({len(both)} frames are "
            "both); a frame has one role. Make the two with RawData.split."
        )
    whole = len(numbers) == train.frames.base.shape[0]

    def both_of(name: str) -> NDArray[Any]:
        return read_only(np.concatenate([getattr(train, name), getattr(test, name)])[order])

    raw = replace(
        train,
        frames=train.frames.base if whole else SubsetFrames(train.frames.base, numbers[order]),
        positions_px=both_of("positions_px"),
        frame_numbers=both_of("frame_numbers"),
        frame_totals=both_of("frame_totals"),
    )
    return raw, np.flatnonzero(order >= train.n_frames)


def pair_of_views(train: ScanInput, test: ScanInput) -> tuple[RawData, NDArray[np.int64]] | None:
    """As :func:`joined_views`, for whatever a caller holds."""
    if isinstance(train, RawData) and isinstance(test, RawData):
        return joined_views(train, test)
    return None


def container_of_views(
    raw: RawData, heldout: NDArray[np.int64], config: TrainingConfig, *, stacklevel: int = 2
) -> PtychoDataContainer:
    """As :func:`ensure_container`, for a scan of which the caller says which frames (n,) are held out."""
    raw = _with_modes(with_initial_probe(raw), config, stacklevel)
    unused = {}
    if config.n_subsample is not None:
        train = np.setdiff1d(np.arange(raw.n_frames), heldout)
        drawn = train[draw_subsample(len(train), config.n_subsample, config.seed)]
        unused[NOT_DRAWN] = np.setdiff1d(train, drawn)
    scan = PtychoDataContainer.of(raw, heldout=heldout, unused=unused)
    _warn_about_photons(scan, config, stacklevel)
    return scan


def of_one_experiment(raw: RawData, like: PtychoDataContainer) -> RawData:
    """A second scan with the probe of the first.

    Raises:
        DataError: frames of another size, another mask or another background.
    """
    name = raw.source.path or "test scan"
    if raw.side != like.raw.side:
        raise DataError(
            f"{name}: frames are {raw.side}×{raw.side} but those of the training scan "
            f"are {like.raw.side}×{like.raw.side}; the two must be of one experiment."
        )
    for what, its, theirs in (("mask", raw.mask, like.raw.mask), ("background", raw.background, like.raw.background)):
        if not (its is None and theirs is None) and not np.array_equal(its, theirs):  # type: ignore[arg-type]
            raise DataError(
                f"{name}: its {what} is not that of the training scan; the two must be "
                f"of one experiment. Give both the same {what}, or leave it out of both."
            )
    return raw.with_probe(like.probe, calibrated=like.raw.probe_calibrated)
