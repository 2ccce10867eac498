"""From whatever a caller holds (a path, a scan, finished groups) to a container that an engine can use."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .config import TrainingConfig
from .data.container import PtychoDataContainer, Statistics
from .data.raw import RawData
from .errors import ConfigError, DataError
from .physics.probe import add_modes, probe_from_mean_pattern

__all__ = ["ScanInput", "check_container", "container_of_groups", "ensure_container", "ensure_raw", "prepare_scan"]

ScanInput = RawData | PtychoDataContainer | Path | str

_PHOTONS_TOLERANCE = 0.1


def ensure_raw(data: RawData | Path | str) -> RawData:
    """Return a scan as it is, or read it from a file.

    Raises:
        DataError: neither a scan nor a path, or a file that is no usable scan.
    """
    if isinstance(data, RawData):
        return data
    if isinstance(data, (Path, str)):
        from .io import read_scan

        return read_scan(Path(data))
    raise DataError(
        f"scan data are a {type(data).__name__}; allowed: RawData, PtychoDataContainer, or the path of a scan file."
    )


def _subsample_request(config: TrainingConfig) -> dict[str, int | None]:
    return {"n_frames": config.n_subsample, "seed": config.seed}


def _was_subsampled(raw: RawData, config: TrainingConfig) -> bool:
    """Whether the scan was drawn by this very request, and perhaps split afterwards."""
    return bool(raw.source.details.get("subsample") == _subsample_request(config))


def _subsampled(raw: RawData, config: TrainingConfig) -> RawData:
    """Draw ``n_subsample`` frames, once: the scan's source remembers it, so that preparing twice draws once."""
    if config.n_subsample is None:
        return raw
    if _was_subsampled(raw, config):
        return raw
    chosen = raw.subsample(config.n_subsample, config.seed)
    details = {**raw.source.details, "subsample": _subsample_request(config)}
    return replace(chosen, source=replace(raw.source, details=details))


def _with_initial_probe(raw: RawData) -> RawData:
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


def _warn_about_photons(raw: RawData, config: TrainingConfig, stacklevel: int) -> None:
    if config.nphotons is None:
        return
    measured = float(raw.frame_totals.mean())
    if abs(config.nphotons - measured) > _PHOTONS_TOLERANCE * measured:
        warnings.warn(
            f"nphotons = {config.nphotons:.6g}, but {raw.source.path or 'the scan'} has {measured:.6g} counts a frame "
            "on average, and the measured figure is used. Is the measurement (amplitude or counts) right? "
            "Leave nphotons out to have it measured.",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def prepare_scan(raw: RawData, config: TrainingConfig, *, stacklevel: int = 2) -> RawData:
    """Make a scan ready for training: ``n_subsample`` frames, a probe, ``probe_modes`` modes.

    A scan without a probe gets one from its mean pattern. Preparing a prepared scan changes nothing.

    Args:
        raw: the scan.
        config: ``n_subsample``, ``seed``, ``probe_modes`` and ``nphotons`` are read.
        stacklevel: of the warning, as in :func:`warnings.warn`.

    Warns:
        UserWarning: ``nphotons`` is given and more than 10 % off the mean counts of a frame; both are stated. Or modes
            are added that will not be refined.

    Raises:
        ConfigError: more frames or modes asked for than there can be.
    """
    raw = _with_initial_probe(_subsampled(raw, config))
    if config.probe_modes is not None and raw.probe is not None and len(raw.probe) != config.probe_modes:
        if config.probe_modes > len(raw.probe) and not config.probe_trainable:
            warnings.warn(
                f"probe_modes = {config.probe_modes} adds modes to the {len(raw.probe)} of the probe, and with "
                "probe_trainable = false they stay the guess that they start as. Set probe_trainable to true.",
                UserWarning,
                stacklevel=stacklevel,
            )
        raw = raw.with_probe(add_modes(raw.probe, config.probe_modes), calibrated=raw.probe_calibrated)
    _warn_about_photons(raw, config, stacklevel)
    return raw


def check_container(container: PtychoDataContainer) -> PtychoDataContainer:
    """Check shapes, dtypes and ranges of a finished container and return it as it is.

    Raises:
        DataError: a field is not as specs/10-data says; the message names it, what it is and what it must be.
    """
    raw = container.raw
    name = raw.source.path or "scan"
    B, C = container.frame_indices.shape if np.ndim(container.frame_indices) == 2 else (-1, -1)
    P, N = (len(container.probe) if np.ndim(container.probe) == 3 else 1), raw.side
    wanted: dict[str, tuple[type, tuple[int, ...]]] = {
        "frame_indices": (np.int64, (B, C)),
        "counted": (np.bool_, (B, C)),
        "corners_px": (np.int64, (B, C, 2)),
        "subpixel_px": (np.float32, (B, C, 2)),
        "canvas_origin_px": (np.int64, (B, 2)),
        "canvas_shape": (np.int64, (B, 2)),
        "probe": (np.complex64, (P, N, N)),
    }
    for field, (dtype, shape) in wanted.items():
        value: Any = getattr(container, field)
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape or not value.size:
            given = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            allowed = "(B, C)" if -1 in shape else str(shape)
            raise DataError(
                f"{name}: container.{field} is {given}; it must be {np.dtype(dtype).name} {allowed}. "
                "Make containers with PtychoDataContainer.for_training or for_reconstruction."
            )
    if container.frame_indices.min() < 0 or container.frame_indices.max() >= raw.n_frames:
        raise DataError(f"{name}: container.frame_indices names frames outside the {raw.n_frames} of the scan.")
    if container.corners_px.min() < 0 or (container.corners_px + N > container.canvas_shape[:, None]).any():
        raise DataError(f"{name}: container.corners_px puts patches of side {N} outside the canvas of their group.")
    if not isinstance(container.statistics, Statistics):
        raise DataError(f"{name}: container.statistics is a {type(container.statistics).__name__}, not a Statistics.")
    return container


def _check_agrees(container: PtychoDataContainer, config: TrainingConfig) -> None:
    """Refuse sampling fields that a finished container contradicts: they could have no effect any more."""
    facts = {
        "group_size": (config.group_size, container.group_size),
        "n_groups": (config.n_groups, container.n_groups),
        "n_subsample": (None if _was_subsampled(container.raw, config) else config.n_subsample, container.raw.n_frames),
        "probe_modes": (config.probe_modes, len(container.probe)),
    }
    for field, (asked, found) in facts.items():
        if asked is not None and asked != found:
            raise ConfigError(
                f"{field} = {asked}, but the container given for training was made with {found}; "
                f"say {field} = {found}, or give the scan instead of a container."
            )


def ensure_container(
    data: ScanInput,
    config: TrainingConfig,
    *,
    statistics: Statistics | None = None,
    for_training: bool,
    like: PtychoDataContainer | None = None,
    stacklevel: int = 2,
) -> PtychoDataContainer:
    """Turn a path, a scan or a container into a container.

    Args:
        data: a finished container is returned as it is, after a check; a path is read; a scan is grouped.
        config: sampling, probe modes and seed.
        statistics: constants of the training split; None measures them on `data`.
        for_training: groups with repeats, of the prepared scan (see :func:`prepare_scan`); else a partition in which
            every frame counts once, in groups of at most ``group_size``.
        like: training container of the same experiment, whose probe and statistics the scan takes over.
        stacklevel: of warnings, as in :func:`warnings.warn`.

    Raises:
        DataError: no usable scan, a container that is not as specs/10-data says, or frames of another size than `like`.
        ConfigError: a sampling field that the scan cannot satisfy or the container contradicts.
    """
    if isinstance(data, PtychoDataContainer):
        check_container(data)
        if for_training:
            _check_agrees(data, config)
            _warn_about_photons(data.raw, config, stacklevel)
        return data
    raw = ensure_raw(data)
    if for_training:
        raw = prepare_scan(raw, config, stacklevel=stacklevel + 1)
        return PtychoDataContainer.for_training(
            raw,
            config.group_size,
            n_groups=config.n_groups,
            neighbor_pool_size=config.neighbor_pool_size,
            seed=config.seed,
            statistics=statistics,
        )
    if like is not None:
        if raw.side != like.raw.side:
            raise DataError(
                f"{raw.source.path or 'test scan'}: frames are {raw.side}×{raw.side} but those of the training scan "
                f"are {like.raw.side}×{like.raw.side}; the two must be of one experiment."
            )
        for what, its, theirs in (
            ("mask", raw.mask, like.raw.mask),
            ("background", raw.background, like.raw.background),
        ):
            if not (its is None and theirs is None) and not np.array_equal(its, theirs):  # type: ignore[arg-type]
                raise DataError(
                    f"{raw.source.path or 'test scan'}: its {what} is not that of the training scan; the two must be "
                    f"of one experiment. Give both the same {what}, or leave it out of both."
                )
        raw = raw.with_probe(like.probe, calibrated=like.raw.probe_calibrated)
        statistics = like.statistics
    raw = _with_initial_probe(raw)
    return PtychoDataContainer.for_reconstruction(raw, min(config.group_size, raw.n_frames), statistics=statistics)


def container_of_groups(data: ScanInput, config: TrainingConfig | None) -> PtychoDataContainer:
    """Training groups for an engine's own data pipeline, which may be used without the facade.

    Args:
        data: a finished container, which is taken as it is; or a scan, or the path of one.
        config: needed for a scan or a path, which is grouped by it.

    Raises:
        ConfigError: a scan or a path without a config.
        PtychoError: as :func:`ensure_container`.
    """
    if isinstance(data, PtychoDataContainer):
        return data
    if config is None:
        raise ConfigError("a scan or a path is grouped by a config; pass one, or a finished container.")
    return ensure_container(data, config, for_training=True)
