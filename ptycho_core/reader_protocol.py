"""What a reader of scan files is: its description, and the two functions of its module (specs/40-plugins)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .data.propagation import Propagation
from .limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from .data.raw import RawData
    from .data.recording import Recording
    from .io.candidate import Candidate

__all__ = ["ACCEPTED_READER_VERSIONS", "READER_VERSION", "ReadOptions", "Reader", "ReaderSpec"]

READER_VERSION = 2
"""Version of this protocol. In version 1 a reader returned a ``RawData``; in 2 it may return a ``Recording``."""

ACCEPTED_READER_VERSIONS = (1, 2)
"""First and last version of the protocol that this host accepts."""


@dataclass(frozen=True, kw_only=True)
class ReaderSpec:
    """What a reader's hook returns: enough to list it, and to know which files to ask it about.

    Attributes:
        name: of the dialect, the word in ``--dialect``; equal to the name of the entry point.
        title: what the files are, with the names they are recognised by.
        kind: container that its files are: ``npz``, ``hdf5``, ``folder`` (a folder, or the files that a pattern with
            ``*`` names), or ``other`` for a file that is none of them.
        module: module with the functions of :class:`Reader`; it is imported when there is a file of that container.
        protocol_version: version of this protocol that it was written for.
        priority: readers of one container are asked from the highest down; the more telling the names that a reader
            goes by, the higher. Ours are at 10 and 20.
        requires: top-level modules that must be importable.
        extra: what to pip install when one is missing.
        one_scan: whether its files hold one scan each, so that ``options.entry`` is refused before it is asked to read.
    """

    name: str
    title: str
    kind: str
    module: str
    protocol_version: int
    priority: int = 0
    requires: tuple[str, ...] = ()
    extra: str = ""
    one_scan: bool = False


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What the caller says of a file beside what is in it.

    The first five are a reader's own business. All others are settled for every dialect alike when its recording
    becomes a scan (``io.settle``); a reader need not look at them.

    Attributes:
        measurement: ``amplitude`` or ``counts`` (``intensity`` means counts), where the file does not state it.
        propagation: how waves get to the detector, where the file does not state it; one that contradicts the file is
            refused.
        entry: which of several scans in the file, by name or by number from 0; None takes the only one.
        mapping: YAML file that says which dataset is what, for a file of no known dialect.
        follow: read a file that is still being written, up to its last whole frame.
        positions: file with the positions of the frames, where they lie beside the scan.
        position_unit: unit of the stored positions (``m``, ``mm``, ``um``, ``nm``, ``A``, ``pm``, ``px``); a reader
            that obeys a unit in the file hands the numbers over as they are stored where this is given.
        raster: (Ny, Nx) of a raster scan, the x axis fastest, whose frames lie in one row.
        scan_step_m: (y, x) steps of a raster, metres.
        energy_eV: over the file's.
        distance_m: over the file's.
        detector_pixel_size_m: over the file's.
        pixel_size_m: of an object pixel of the frames as stored; over the file's.
        radiation: ``photon`` or ``electron``; over the file's.
        crop: side of the square window about the beam that is used, detector pixels.
        pad: side of the square window, larger than the frames; what lies outside of them is masked.
        bin: detector pixels binned along each axis.
        centre: (y, x) detector pixel of zero frequency; ``auto`` finds it; None takes what the file says.
        rotate_deg: angle by which the axes of the scan are turned against those of the detector.
        orientation: how stored positions lie on the detector's axes, a word of ``data.orientation.ORIENTATIONS``; None
            takes them as they are, as ``none`` does, but does not say so: a search for a probe may turn them.
        mask: file with a mask, laid over the file's own; ``auto`` finds bad pixels by their values.
        mask_polarity: ``good`` or ``bad``: what True (or 1) means in `mask`; where none is given, in the file's own.
        background: expected counts of every pixel, a number, or a file with an (H, W) image of them.
        offset: added to every stored value, and to the expected background: for frames from which a dark level was
            taken off, so that noise left values below 0. What is still below 0 is taken for 0.
        frames: which frames: ``START:STOP:STEP``, or a file with their numbers.
        gain: stored values of one photon; ``auto`` estimates it from the noise; None takes 1, or the estimate where the
            values cannot be photons.
        look_at: most frames whose counts are read; for inspecting a scan too large to read. None reads all.
        allow_external: whether an HDF5 file may have data in files outside of its own folder, behind links, virtual
            datasets or external storage. Inside of it they are read as if they lay in the file.
        limits: what reading may cost; `allow_external` is one of them.
    """

    measurement: str | None = None
    propagation: Propagation | None = None
    entry: str | None = None
    mapping: Path | None = None
    follow: bool = False
    positions: Path | None = None
    position_unit: str | None = None
    raster: tuple[int, int] | None = None
    scan_step_m: tuple[float, float] | None = None
    energy_eV: float | None = None
    distance_m: float | None = None
    detector_pixel_size_m: float | None = None
    pixel_size_m: float | None = None
    radiation: str | None = None
    crop: int | None = None
    pad: int | None = None
    bin: int = 1
    centre: tuple[float, float] | str | None = None
    rotate_deg: float = 0.0
    orientation: str | None = None
    mask: Path | str | None = None
    mask_polarity: str | None = None
    background: Path | float | None = None
    offset: float | None = None
    frames: str | None = None
    gain: float | str | None = None
    look_at: int | None = None
    allow_external: bool = False
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        """Take what means the same: names of files as text, an entry as a number, lists for pairs, a step for both."""
        settled: dict[str, Any] = {
            name: Path(value)
            for name in ("mapping", "positions", "background")
            if isinstance(value := getattr(self, name), str)
        }
        settled |= {name: str(value) for name in ("entry", "frames") if (value := getattr(self, name)) is not None}
        settled |= {
            name: tuple(value)
            for name in ("raster", "scan_step_m", "centre")
            if not isinstance(value := getattr(self, name), str | float | int | None)
        }
        settled["limits"] = replace(self.limits, external=self.allow_external or self.limits.external)
        if isinstance(self.scan_step_m, float | int):
            settled["scan_step_m"] = (float(self.scan_step_m),) * 2
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    def given(self) -> dict[str, str]:
        """Those that are not left at their default, in words, for provenance."""
        values = (
            (field.name, getattr(self, field.name), field.default) for field in fields(self) if field.name != "limits"
        )
        return {name: str(value) for name, value, default in values if value != default}


class Reader(Protocol):
    """The module of a reader, or anything else with these two functions."""

    def recognises(self, file: Candidate, /) -> bool:
        """Whether an examined file is of this dialect, by its names; nothing is read for it."""

    def read(self, file: Candidate, options: ReadOptions, /) -> Recording | RawData:
        """Read the scan: what is in the file, unchanged, with what it means; no frame is read for it but a sample.

        A ``RawData`` is taken for a recording in object pixels.

        Raises:
            DataError: it is no usable scan; the message says what was found, and the fix.
        """
