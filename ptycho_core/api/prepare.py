"""From whatever a caller holds (a path, a scan, two views of one) to containers, in which every frame has its role."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.frames import FrameSource, SubsetFrames
from ..data.orientation import MOVED, ORIENTATIONS, oriented
from ..data.probe_guess import ProbeGuess
from ..data.raw import RawData, read_only
from ..data.roles import draw_heldout, draw_subsample, outlying_frames
from ..errors import ConfigError, DataError
from ..physics.probe import add_modes
from ..protocol import Progress, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from .find_probe import find_probe

__all__ = [
    "NOT_DRAWN",
    "ProbeSearch",
    "ScanInput",
    "Tell",
    "container_of_views",
    "ensure_container",
    "ensure_raw",
    "of_one_experiment",
    "pair_of_views",
    "pass_on",
    "with_initial_probe",
]

ScanInput = RawData | PtychoDataContainer | Path | str

Tell = Callable[[str], None]
"""Who is told what a user should know, one sentence at a time."""

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


@dataclass(frozen=True, kw_only=True)
class ProbeSearch:
    """How a probe is looked for where a scan brings none.

    Attributes:
        runtime: what does the work.
        most_modes: that the engines of the job take; None: any number.
        progress: called after each trial; it may raise ``Cancelled``.
    """

    runtime: Runtime = DEFAULT_RUNTIME
    most_modes: int | None = None
    progress: Progress = no_progress


def with_initial_probe(
    raw: RawData,
    frames: NDArray[np.int64],
    config: TrainingConfig | None = None,
    search: ProbeSearch | None = None,
    tell: Tell | None = None,
) -> tuple[RawData, ProbeGuess | None]:
    """The scan with a probe: its own, or one that is found from some frames (n,), which are trained on (FM-12).

    Where another orientation explains the frames and that in which the scan was read does not, positions are brought to
    it, which is told; a scan of which somebody has said how it lies is left as it is.

    Returns:
        The scan, and where its probe came from, or None where it brought one.

    Raises:
        DataError: the background accounts for every count.
    """
    if raw.probe is not None:
        return raw, None
    how, seed = search or ProbeSearch(), 0 if config is None else config.seed
    modes = 2 if how.most_modes is None else how.most_modes
    guess = find_probe(
        raw,
        frames=frames,
        orientations=("none",) if _oriented_before(raw) else ORIENTATIONS,
        runtime=Runtime(threads=how.runtime.threads),
        most_modes=min(modes, config.probe_modes) if config and config.probe_modes else modes,
        seed=seed,
        progress=how.progress,
    )
    if tell is not None:
        changed = [text for text in guess.sentences if guess.orientation != "none" and guess.orientation in text]
        for text in (*changed, *guess.doubts):
            tell(text)
    probed = oriented(raw, guess.orientation).with_probe(guess.probe)
    noted = replace(probed.source, assumptions=(*probed.source.assumptions, *guess.sentences))
    return replace(probed, source=noted), guess


def _oriented_before(raw: RawData) -> bool:
    """Whether somebody has said, or found, how positions lie on the axes of the frames."""
    details = raw.source.details
    return bool(
        {"orientation", MOVED} & details.keys() or {"orientation", "rotate_deg"} & details.get("read_with", {}).keys()
    )


def _tell_about_photons(scan: PtychoDataContainer, config: TrainingConfig, tell: Tell) -> None:
    if config.nphotons is None:
        return
    measured = float(scan.raw.frame_totals[scan.used_frames].mean())
    if abs(config.nphotons - measured) > _PHOTONS_TOLERANCE * measured:
        tell(
            f"nphotons = {config.nphotons:.6g}, but {scan.raw.source.path or 'the scan'} has {measured:.6g} counts a "
            "frame on average, and the measured figure is used. Is the measurement (amplitude or counts) right? "
            "Leave nphotons out to have it measured."
        )


def _with_modes(raw: RawData, config: TrainingConfig, tell: Tell) -> RawData:
    """The scan with a probe of as many modes as the config asks for."""
    if config.probe_modes is None or raw.probe is None or len(raw.probe) == config.probe_modes:
        return raw
    if config.probe_modes > len(raw.probe) and not config.probe_trainable:
        tell(
            f"probe_modes = {config.probe_modes} adds modes to the {len(raw.probe)} of the probe, and with "
            "probe_trainable = false they stay the guess that they start as. Set probe_trainable to true."
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


def _drawn_frames(raw: RawData, config: TrainingConfig) -> NDArray[np.int64]:
    """The frames (n,) that ``n_subsample`` draws, or all."""
    if config.n_subsample is None:
        return np.arange(raw.n_frames)
    return draw_subsample(raw.n_frames, config.n_subsample, config.seed)


def _with_roles(
    raw: RawData,
    drawn: NDArray[np.int64],
    heldout: NDArray[np.int64],
    config: TrainingConfig,
    tell: Tell,
    search: ProbeSearch | None = None,
) -> PtychoDataContainer:
    """The scan with a role for each frame, and a probe of which frames that are not trained on know nothing."""
    # a frame far above all others would be most of the mean pattern that a probe is estimated from
    outlying = outlying_frames(raw.frame_totals)
    heldout, train = np.setdiff1d(heldout, outlying), np.setdiff1d(drawn, np.union1d(heldout, outlying))
    raw, guess = with_initial_probe(raw, train if len(train) else drawn, config, search, tell)
    raw = _with_modes(raw, config, tell)
    unused = {NOT_DRAWN: np.setdiff1d(np.arange(raw.n_frames), drawn)}
    return replace(PtychoDataContainer.of(raw, heldout=heldout, unused=unused), probe_guess=guess)


def ensure_container(
    data: ScanInput,
    config: TrainingConfig,
    *,
    tell: Tell | None = None,
    stacklevel: int = 2,
    search: ProbeSearch | None = None,
) -> PtychoDataContainer:
    """Turn a path or a scan into a container, in which every frame has its role.

    ``n_subsample`` frames are drawn, and ``test_fraction`` of them held out, by ``test_split`` and ``seed``. A scan
    without a probe gets one that is found from the others, and modes are added as ``probe_modes`` says.

    Args:
        data: a finished container is returned as it is, after a check; a path is read.
        config: the fields named above, and ``nphotons``.
        tell: called with each sentence that the user should read; None raises a warning.
        stacklevel: of warnings, as in :func:`warnings.warn`.
        search: how a probe is looked for where the scan brings none; None takes the defaults.

    Warns:
        UserWarning: ``nphotons`` is given and more than 10 % off the mean counts of a frame; both are stated. Or modes
            are added that will not be refined.

    Raises:
        DataError: no usable scan, or a container that is not as specs/10-data says.
        ConfigError: more frames or modes asked for than there can be, or a field that the container contradicts.
    """
    told: list[str] = []
    if isinstance(data, PtychoDataContainer):
        scan = data.checked()
        _check_agrees(scan, config)
    else:
        raw = ensure_raw(data)
        drawn = _drawn_frames(raw, config)
        among = draw_heldout(raw.positions_px[drawn], config.test_fraction, config.seed, config.test_split)
        scan = _with_roles(raw, drawn, drawn[among], config, told.append, search)
    _tell_about_photons(scan, config, told.append)
    pass_on(told, tell, stacklevel)
    return scan


def pass_on(told: list[str], tell: Tell | None, stacklevel: int) -> None:
    """Tell whoever listens; where nobody does, warn, at `stacklevel` above the caller."""
    for text in told:
        if tell is None:
            warnings.warn(text, UserWarning, stacklevel=stacklevel + 1)
        else:
            tell(text)


def _base_frames(raw: RawData) -> tuple[FrameSource, NDArray[np.int64]]:
    """Where the frames of a scan come from, and which (n,) of those there they are."""
    if isinstance(raw.frames, SubsetFrames):
        return raw.frames.base, raw.frames.numbers
    return raw.frames, np.arange(raw.n_frames)


def _read_twice(one: RawData, two: RawData) -> bool:
    """Whether the frames of one number are the same frame of the same file; a file may hold several scans."""
    if one.source.path is None or one.source.path != two.source.path:
        return False
    _, ours, theirs = np.intersect1d(one.frame_numbers, two.frame_numbers, return_indices=True)
    return bool(
        np.array_equal(one.frame_totals[ours], two.frame_totals[theirs])
        and np.array_equal(one.positions_px[ours], two.positions_px[theirs])
    )


def _refuse_common(train: NDArray[np.int64], test: NDArray[np.int64], name: str) -> None:
    both = np.intersect1d(train, test)
    if len(both):
        raise DataError(
            f"{name}: frame {int(both[0])} is held out and trained on ({len(both)} frames are both); a frame has one "
            "role. Make the two with RawData.split, or give the scan alone: test_fraction of it is then held out."
        )


def joined_views(train: RawData, test: RawData) -> tuple[RawData, NDArray[np.int64]] | None:
    """The scan that two views are of, and which of its frames are those of `test`; None where they are of two scans.

    A scan as it was read is a view of all its frames.

    Raises:
        DataError: a frame is in both views, or they differ in their mask or background.
    """
    name = train.source.path or "scan"
    (base, of_train), (other, of_test) = _base_frames(train), _base_frames(test)
    if base is not other:
        if _read_twice(train, test):
            _refuse_common(train.frame_numbers, test.frame_numbers, name)
        return None
    _refuse_common(of_train, of_test, name)
    _refuse_another_detector(test, train, "the two views of the scan")
    numbers = np.concatenate([of_train, of_test])
    order = np.argsort(numbers, kind="stable")

    def both_of(field: str) -> NDArray[Any]:
        return read_only(np.concatenate([getattr(train, field), getattr(test, field)])[order])

    raw = replace(
        train,
        frames=base if len(numbers) == base.shape[0] else SubsetFrames(base, numbers[order]),
        positions_px=both_of("positions_px"),
        frame_numbers=both_of("frame_numbers"),
        frame_totals=both_of("frame_totals"),
    )
    return raw, np.flatnonzero(order >= train.n_frames)


def pair_of_views(train: ScanInput, test: ScanInput) -> tuple[RawData, NDArray[np.int64]] | None:
    """As :func:`joined_views`, for whatever a caller holds.

    Raises:
        DataError: as there.
    """
    if isinstance(train, RawData) and isinstance(test, RawData):
        return joined_views(train, test)
    return None


def container_of_views(
    raw: RawData, heldout: NDArray[np.int64], config: TrainingConfig, *, tell: Tell | None = None, stacklevel: int = 2
) -> PtychoDataContainer:
    """As :func:`ensure_container`, for a scan of which the caller says which frames (n,) are held out.

    ``n_subsample`` draws from all frames, as there, so fewer of those may be left to judge by.
    """
    told: list[str] = []
    drawn = _drawn_frames(raw, config)
    scan = _with_roles(raw, drawn, np.intersect1d(heldout, drawn), config, told.append)
    _tell_about_photons(scan, config, told.append)
    pass_on(told, tell, stacklevel)
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
    _refuse_another_detector(raw, like.raw, "the two scans")
    if raw.propagation != like.raw.propagation:
        raise DataError(
            f"{name}: it is a {raw.propagation}, but the training scan is a {like.raw.propagation}; "
            "the two must be of one experiment."
        )
    return raw.with_probe(like.probe, calibrated=like.raw.probe_calibrated)


def _refuse_another_detector(raw: RawData, like: RawData, which: str) -> None:
    for what, its, theirs in (("mask", raw.mask, like.mask), ("background", raw.background, like.background)):
        if not (its is None and theirs is None) and not np.array_equal(its, theirs):  # type: ignore[arg-type]
            raise DataError(
                f"{raw.source.path or 'test scan'}: its {what} is not that of the frames to train on; {which} must be "
                f"of one experiment. Give both the same {what}, or leave it out of both."
            )
