"""Reading ``reconstruction.h5`` back, strictly, in every format so far; ``reconstruction_file`` has the layout.

Format 1, of version 0.1, had one figure, ``r_factor``, which is the Fourier error over all frames here, and no roles.
Format 2 had no geometry but the object pixel, no times and no ring correlations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.container import Role
from ..data.findings import FourierRingCorrelation
from ..data.propagation import Propagation
from ..data.raw import Geometry
from ..errors import DataError
from ..physics.merit import SUMS
from ..text import listed
from .guarded import in_child
from .h5_names import check_surroundings
from .h5_values import open_h5, whole
from .npz import GEOMETRY_KEYS
from .result_switch import where_it_lies
from .stated import positive_numbers, propagation_in

if TYPE_CHECKING:
    import h5py

__all__ = ["CUTOFFS", "FORMAT", "FRC_ARRAYS", "VERSION", "StoredReconstruction", "read_reconstruction"]

FORMAT = "ptycho-reconstruction"
VERSION = 3
FRC_ARRAYS = ("frequency", "correlation", "n_pixels", "half_bit")
_MOST_STAGES = 8
CUTOFFS = ("cutoff_half", "cutoff_one_seventh", "cutoff_half_bit")


@dataclass(frozen=True, kw_only=True)
class StoredReconstruction:
    """A reconstruction read back from its file.

    Attributes:
        path: the file.
        object: (H, W) complex64.
        coverage: (H, W) float32, about the number of times a pixel was lit.
        origin_px: (2,) float64 scan coordinates (y, x) of the centre of pixel (0, 0).
        probe: (P, N, N) complex64.
        scale: s, with λ = s · Σ_p |F ψ_p|² + background.
        positions_px: (M, 2) float64 frame centres (y, x) as used.
        slices: (L, H, W) complex64 slices of a thick object, whose product is `object`, or None.
        slice_spacing_m: metres between two of them, or None.
        mode_weights: (M, P) float32, what each frame takes of each mode of the probe, or None.
        forward_model: name of the engine whose own forward model alone explains the image, or empty.
        pixel_size_m: side of an object pixel, metres, or None when the file does not say.
        propagation: from the object to the detector, which is F of λ; None when the file does not say.
        format_version: of the file; 1 is of version 0.1, whose one figure is told as ``fourier_error`` of ``train``.
        figures: figures of merit by role (``train``, ``heldout``), plain JSON data; empty when the file does not say.
        role: (M,) uint8 role of each frame, or None in an old file.
        losses: of the training; name → one value an epoch.
        refinement_losses: the same of refining.
        unused: reason → frames that are unused for it.
        frame_sums: (M, 8) float64 sums that figures are made of, by frame; None in an old file.
        nominal_positions_px: (M, 2) float64 frame centres (y, x) as read; None when the file does not say.
        dropped: how many frames, pixels or patches were left out, by reason.
        geometry: the instrument, as far as it was known; of files before format 3 the object pixel alone.
        frc: ``half_data``, ``truth`` → ring correlation of the image.
        title: of the run.
        start_time: ISO 8601, or empty.
        end_time: ISO 8601, or empty.
        program: name and version of what wrote the file, or empty.
        config: what the reconstruction was made with, plain JSON data; empty when the file does not say.
        provenance: where it came from, plain JSON data; empty when the file does not say.
        verdict: on the image, plain JSON data of ``data.verdict``; empty when the file does not say.
        stages: name → an image that was made on the way, in the order of their names.
    """

    path: Path
    object: NDArray[np.complex64]
    coverage: NDArray[np.float32]
    origin_px: NDArray[np.float64]
    probe: NDArray[np.complex64]
    scale: float
    positions_px: NDArray[np.float64]
    slices: NDArray[np.complex64] | None = None
    slice_spacing_m: float | None = None
    mode_weights: NDArray[np.float32] | None = None
    forward_model: str = ""
    pixel_size_m: float | None = None
    propagation: Propagation | None = None
    format_version: int = VERSION
    figures: Mapping[str, Any] = field(default_factory=dict)
    role: NDArray[np.uint8] | None = None
    losses: Mapping[str, list[float]] = field(default_factory=dict)
    refinement_losses: Mapping[str, list[float]] = field(default_factory=dict)
    unused: Mapping[str, list[int]] = field(default_factory=dict)
    frame_sums: NDArray[np.float64] | None = None
    nominal_positions_px: NDArray[np.float64] | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    geometry: Geometry = field(default_factory=Geometry)
    frc: Mapping[str, FourierRingCorrelation] = field(default_factory=dict)
    title: str = ""
    start_time: str = ""
    end_time: str = ""
    program: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    verdict: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, StoredReconstruction] = field(default_factory=dict)


def _array(entry: h5py.Group, name: str, rank: int, dtype: type, path: Path) -> NDArray[Any]:
    import h5py

    node = entry.get(name)
    if not isinstance(node, h5py.Dataset):
        raise DataError(
            f"{path}: no dataset /entry/{name}; a reconstruction file holds object, coverage, probe, positions_px "
            f"and scale under /entry. Found: {listed(sorted(entry)) or 'nothing'}."
        )
    wanted = "a complex" if np.issubdtype(dtype, np.complexfloating) else "a real"
    kinds = "c" if wanted == "a complex" else "fiu"
    if node.ndim != rank or node.dtype.kind not in kinds or 0 in node.shape:
        raise DataError(
            f"{path}: /entry/{name} is {node.dtype} of shape {node.shape}; it must be {wanted} array of rank {rank}."
        )
    values: NDArray[Any] = np.asarray(whole(node, f"/entry/{name}"), dtype=dtype)
    if not np.isfinite(values).all():
        raise DataError(f"{path}: /entry/{name} holds NaN or infinite values; write the reconstruction again.")
    return values


def _document(entry: h5py.Group, name: str, path: Path) -> dict[str, Any]:
    """A JSON object stored as text, or an empty one when it is not there."""
    import h5py

    node = entry.get(name)
    if node is None:
        return {}
    try:
        content = json.loads(node.asstr()[()]) if isinstance(node, h5py.Dataset) else None
    except (TypeError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: /entry/{name} is not JSON text ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: /entry/{name} is not a JSON object.")
    return content


def _attribute(node: h5py.Dataset, name: str, size: int, path: Path) -> NDArray[np.float64] | None:
    if name not in node.attrs:
        return None
    try:
        values = np.asarray(node.attrs[name], dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if len(values) != size or not np.isfinite(values).all():
        raise DataError(
            f"{path}: attribute {name} of {node.name} is {node.attrs[name]!r}; it must be {size} finite number(s)."
        )
    return values


def _read_losses(entry: h5py.Group, name: str) -> dict[str, list[float]]:
    import h5py

    group = entry.get(name)
    if not isinstance(group, h5py.Group):
        return {}
    return {
        name: [float(v) for v in node[()]]
        for name, node in group.items()
        if name != "epoch" and isinstance(node, h5py.Dataset) and node.ndim == 1 and node.dtype.kind in "fiu"
    }


def _text(entry: h5py.Group, name: str, path: Path) -> str:
    """One text, empty when it is not there."""
    import h5py

    node = entry.get(name)
    if node is None:
        return ""
    if not isinstance(node, h5py.Dataset) or h5py.check_string_dtype(node.dtype) is None or node.shape != ():
        raise DataError(f"{path}: /entry/{name} is not one text; write the reconstruction again.")
    return str(node.asstr()[()])


def _read_geometry(entry: h5py.Group, pixel_size_m: float | None, path: Path) -> Geometry:
    import h5py

    group = entry.get("geometry")
    if not isinstance(group, h5py.Group):
        return Geometry(pixel_size_m=pixel_size_m)
    stored = {key: group[key][()] for key in GEOMETRY_KEYS if key in group}
    numbers = positive_numbers(stored, GEOMETRY_KEYS, f"{path}: /entry/geometry")
    try:
        return Geometry(**numbers, radiation=_text(group, "radiation", path) or "photon")
    except DataError as error:
        raise error if str(error).startswith(str(path)) else DataError(f"{path}: /entry/geometry: {error}") from error


def _read_frc(entry: h5py.Group, path: Path) -> dict[str, FourierRingCorrelation]:
    found: dict[str, FourierRingCorrelation] = {}
    for name in ("half_data", "truth"):
        group = entry.get(f"frc_{name}")
        if group is None:
            continue
        curves: dict[str, Any] = {key: _array(group, key, 1, np.float64, path) for key in FRC_ARRAYS}
        for key in CUTOFFS:
            cutoff = _attribute(group, key, 1, path)
            curves[key] = None if cutoff is None else float(cutoff[0])
        if None in (curves[key] for key in CUTOFFS) or len({len(curves[key]) for key in FRC_ARRAYS}) > 1:
            raise DataError(f"{path}: /entry/frc_{name} lacks a cut-off, or its curves differ in length.")
        curves["n_pixels"] = curves["n_pixels"].astype(np.int64)
        found[name] = FourierRingCorrelation(**curves)
    return found


def _read_frames(entry: h5py.Group, M: int, path: Path) -> dict[str, Any]:
    """What is known of each frame, by the fields of a stored reconstruction."""
    found: dict[str, Any] = {"role": _read_role(entry, M, path)}
    if "role" in entry and "unused" in entry["role"].attrs:
        try:
            found["unused"] = {
                str(k): [int(n) for n in v] for k, v in json.loads(entry["role"].attrs["unused"]).items()
            }
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: attribute unused of /entry/role is no JSON object of lists ({error}).") from error
    for name, key, columns in (
        ("frame_figures", "frame_sums", len(SUMS)),
        ("nominal_positions_px", "nominal_positions_px", 2),
    ):
        if name in entry:
            values = _array(entry, name, 2, np.float64, path)
            if values.shape != (M, columns):
                raise DataError(f"{path}: /entry/{name} has shape {values.shape}; it must be ({M}, {columns}).")
            found[key] = values
    return found


def _read_figures(entry: h5py.Group, version: int, path: Path) -> dict[str, Any]:
    """Figures by role; the one figure of an old file, which was called R-factor, under its present name."""
    if version == 1:
        r = float(_array(entry, "r_factor", 0, np.float64, path)) if "r_factor" in entry else None
        return {} if r is None else {"train": {"fourier_error": r}, "heldout": None}
    return _document(entry, "figures", path)


def _read_role(entry: h5py.Group, M: int, path: Path) -> NDArray[np.uint8] | None:
    if "role" not in entry:
        return None
    role: NDArray[np.uint8] = _array(entry, "role", 1, np.uint8, path)
    if len(role) != M or not np.isin(role, list(Role)).all():
        raise DataError(
            f"{path}: /entry/role has {len(role)} values up to {role.max()} for {M} frames; it must have one of "
            f"{', '.join(f'{int(known)} ({known.name.lower()})' for known in Role)} for each."
        )
    return role


def _read_physics(entry: h5py.Group, shape: tuple[int, ...], M: int, P: int, path: Path) -> dict[str, Any]:
    """Slices, weights of modes, propagation and whose forward model it is, by the fields of a stored reconstruction."""
    import h5py

    found: dict[str, Any] = {}
    if "slices" in entry:
        slices, spacing = (
            _array(entry, "slices", 3, np.complex64, path),
            _attribute(entry["slices"], "spacing_m", 1, path),
        )
        if slices.shape[1:] != shape or spacing is None or spacing[0] <= 0:
            raise DataError(
                f"{path}: /entry/slices has shape {slices.shape} and spacing_m {spacing}; it must be (L, {shape[0]}, "
                f"{shape[1]}) as the object is, with a spacing above 0."
            )
        found |= {"slices": slices, "slice_spacing_m": float(spacing[0])}
    if "mode_weights" in entry:
        weights = _array(entry, "mode_weights", 2, np.float32, path)
        if weights.shape != (M, P):
            raise DataError(f"{path}: /entry/mode_weights has shape {weights.shape}; it must be ({M}, {P}).")
        found["mode_weights"] = weights
    if isinstance(entry.get("propagation"), h5py.Group):
        found["propagation"] = propagation_in(entry["propagation"].attrs, str(path))
    found["forward_model"] = _text(entry, "forward_model", path)
    return found


def _read_entry(entry: h5py.Group, version: int, path: Path) -> StoredReconstruction:
    obj = _array(entry, "object", 2, np.complex64, path)
    coverage = _array(entry, "coverage", 2, np.float32, path)
    probe = _array(entry, "probe", 3, np.complex64, path)
    positions = _array(entry, "positions_px", 2, np.float64, path)
    scale = float(_array(entry, "scale", 0, np.float64, path))
    origin = _attribute(entry["object"], "origin_px", 2, path)
    pixel_size = _attribute(entry["object"], "pixel_size_m", 1, path)
    if origin is None:
        raise DataError(f"{path}: /entry/object has no attribute origin_px, so its place in the scan is unknown.")
    if coverage.shape != obj.shape:
        raise DataError(f"{path}: /entry/coverage has shape {coverage.shape}, the object {obj.shape}; they must agree.")
    if probe.shape[1] != probe.shape[2]:
        raise DataError(f"{path}: /entry/probe has shape {probe.shape}; it must be (P, N, N).")
    if positions.shape[1] != 2:
        raise DataError(f"{path}: /entry/positions_px has shape {positions.shape}; it must be (M, 2), each row (y, x).")
    if scale <= 0:
        raise DataError(f"{path}: /entry/scale = {scale:g}; it must be positive.")
    if pixel_size is not None and pixel_size[0] <= 0:
        raise DataError(f"{path}: attribute pixel_size_m = {pixel_size[0]:g}; it must be positive.")
    pixel_size_m = None if pixel_size is None else float(pixel_size[0])
    program = _text(entry, "program_name", path)
    if program:
        program += f" {entry['program_name'].attrs.get('version', '')}".rstrip()
    return StoredReconstruction(
        **_read_physics(entry, obj.shape, len(positions), len(probe), path),
        **_read_frames(entry, len(positions), path),
        path=path,
        object=obj,
        coverage=coverage,
        origin_px=origin,
        probe=probe,
        scale=scale,
        positions_px=positions,
        pixel_size_m=pixel_size_m,
        format_version=version,
        figures=_read_figures(entry, version, path),
        losses=_read_losses(entry, "losses"),
        refinement_losses=_read_losses(entry, "refinement"),
        dropped=_document(entry, "dropped", path),
        geometry=_read_geometry(entry, pixel_size_m, path),
        frc=_read_frc(entry, path),
        title=_text(entry, "title", path),
        start_time=_text(entry, "start_time", path),
        end_time=_text(entry, "end_time", path),
        program=program,
        config=_document(entry, "config", path),
        provenance=_document(entry, "provenance", path),
        verdict=_document(entry, "verdict", path),
        stages=_read_stages(entry, version, path),
    )


def _read_stages(entry: h5py.Group, version: int, path: Path) -> dict[str, StoredReconstruction]:
    """The images that were made on the way; one of them has none of its own."""
    import h5py

    group = entry.get("stages")
    if not isinstance(group, h5py.Group):
        return {}
    if len(group) > _MOST_STAGES:
        raise DataError(f"{path}: /entry/stages has {len(group)} images; at most {_MOST_STAGES} are made on the way.")
    found = {}
    for name in sorted(group):
        if not isinstance(group[name], h5py.Group) or "stages" in group[name]:
            raise DataError(f"{path}: /entry/stages/{name} is no image of a stage; write the reconstruction again.")
        found[str(name)] = _read_entry(group[name], version, path)
    return found


def read_reconstruction(path: Path | str) -> StoredReconstruction:
    """Read ``reconstruction.h5``, strictly.

    Raises:
        DataError: no such file, no HDF5 file, or not a reconstruction; the message says what was found.
    """
    path = where_it_lies(Path(path))
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the reconstruction.h5 that a run wrote.")
    found: StoredReconstruction = in_child(_read, path, about=path)
    return found


def _read(path: Path) -> StoredReconstruction:
    import h5py

    try:
        with open_h5(path) as file:
            check_surroundings(file)
            version = file.attrs.get("format_version", 1)
            version = int(version) if isinstance(version, (int, np.integer)) else 1
            if version > VERSION:
                raise DataError(
                    f"{path}: written in format version {version}, this release reads up to {VERSION}; update it."
                )
            entry = file.get("entry")
            if not isinstance(entry, h5py.Group):
                raise DataError(
                    f"{path}: no group /entry, so not a reconstruction. Found: {listed(file) or 'nothing'}."
                )
            return _read_entry(entry, version, path)
    except (OSError, RuntimeError, KeyError) as error:
        # h5py reports a damaged file with any of these, depending on where the damage lies
        raise DataError(f"{path}: cannot be read as HDF5 ({error}); it is damaged or another kind of file.") from error
