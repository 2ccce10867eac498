"""The file ``reconstruction.h5``: a reconstruction for programs, laid out so that HDF5 viewers plot it at once.

Layout (specs/10-data). Paths under ``/entry`` are the contract; ``/entry/image`` repeats the object as phase and
amplitude on scan coordinates because few viewers draw complex numbers.

    object        (H, W) complex64, attributes ``origin_px`` (2,) and, when known, ``pixel_size_m``
    coverage      (H, W) float32
    probe         (P, N, N) complex64
    positions_px  (M, 2) float64 frame centres (y, x) as used; nominal_positions_px as read
    slices        (L, H, W) complex64 of a thick object, attribute ``spacing_m``, where it has some
    mode_weights  (M, P) float32, what each frame takes of each mode, where it does not take all of all
    forward_model text, the engine whose own forward model alone explains the image, where that of core does not
    propagation   group, as in a scan file: attributes ``propagation``, and ``fresnel_number`` of a near field
    scale         float, λ = scale · Σ_p |F ψ_p|² + background
    role          (M,) uint8, 0 train, 1 heldout, 2 unused; attribute ``unused`` (JSON): reason → frames
    figures       JSON: figures of merit of the training and of the held-out frames, each with its floor
    frame_figures (M, 8) float64 sums of each frame that figures are made of; attribute ``columns``
    dropped       JSON: what was left out, by reason
    losses/NAME, refinement/NAME   (E,) float64, one value an epoch
    stages/NAME   an image made on the way: object, coverage, probe, positions_px, nominal_positions_px, scale, figures
    config, provenance   JSON text

Format 1, of version 0.1, had one figure, ``r_factor``, which is the Fourier error over all frames here, and no roles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config_mapping import config_to_mapping
from ..data.container import Role
from ..data.propagation import Propagation
from ..data.results import Scored
from ..errors import DataError
from ..physics.merit import SUMS
from .atomic import atomic_path
from .stated import propagation_in, statement_of

if TYPE_CHECKING:
    import h5py

    from ..data.run import Run

__all__ = ["StoredReconstruction", "figures_of", "plain_json", "read_reconstruction", "write_reconstruction"]

_FORMAT = "ptycho-reconstruction"
_VERSION = 2


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
        losses: name → one value an epoch.
        config: what the reconstruction was made with, plain JSON data; empty when the file does not say.
        provenance: where it came from, plain JSON data; empty when the file does not say.
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
    format_version: int = _VERSION
    figures: Mapping[str, Any] = field(default_factory=dict)
    role: NDArray[np.uint8] | None = None
    losses: Mapping[str, list[float]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def plain_json(value: Any) -> Any:
    """Return a value as strict JSON data: NumPy becomes lists and numbers, a path text, NaN and infinity null."""
    if isinstance(value, Mapping):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain_json(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain_json(v) for v in value]
    if isinstance(value, np.generic):
        return plain_json(value.item())
    if isinstance(value, complex):
        return [plain_json(value.real), plain_json(value.imag)]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _write_image(
    entry: h5py.Group, obj: NDArray[np.complex64], origin_px: NDArray[np.float64], pixel_m: float | None
) -> None:
    """Phase (the default signal), amplitude and coverage as NXdata on scan coordinates."""
    lit = entry["coverage"][()] > 0
    removed = float(np.angle(np.sum(obj[lit], dtype=np.complex128))) if lit.any() else 0.0
    phase = np.where(lit, np.angle(obj * np.complex64(np.exp(-1j * removed))), np.float32(np.nan))
    image = entry.create_group("image")
    image.attrs.update(NX_class="NXdata", signal="phase", auxiliary_signals=["amplitude", "coverage"], axes=["y", "x"])
    image["title"] = "Reconstructed object"
    image["phase"] = phase.astype(np.float32)
    image["phase"].attrs.update(
        long_name="phase (rad), global phase removed", units="rad", removed_global_phase_rad=removed
    )
    image["amplitude"] = np.where(lit, np.abs(obj), np.float32(np.nan)).astype(np.float32)
    image["amplitude"].attrs["long_name"] = "amplitude"
    image["coverage"] = entry["coverage"]  # a hard link: no second copy
    unit, step = ("px", 1.0) if pixel_m is None else ("m", pixel_m)
    for axis, name in enumerate("yx"):
        image[name] = (origin_px[axis] + np.arange(obj.shape[axis])) * step
        image[name].attrs.update(units="pixel" if unit == "px" else unit, long_name=f"{name} ({unit})")


def _write_losses(group: h5py.Group, history: Mapping[str, Sequence[float]]) -> None:
    for name, values in history.items():
        # a slash would make a nested group of the name
        group[name.replace("/", "_")] = np.asarray(list(values), dtype=np.float64)
    names = sorted(set(group) - {"epoch"}, key=lambda n: (n != "train_loss", n))
    if not names:
        return
    # one NXdata has one axis: only curves as long as the first are drawn with it
    same = [n for n in names[1:] if len(group[n]) == len(group[names[0]])]
    group.attrs.update(NX_class="NXdata", signal=names[0], axes=["epoch"])
    if same:
        group.attrs["auxiliary_signals"] = same
    if "epoch" not in group:
        group["epoch"] = np.arange(1, len(group[names[0]]) + 1)


def write_reconstruction(path: Path | str, run: Run) -> None:
    """Write ``reconstruction.h5``; the old file stays until the new one is complete.

    Args:
        path: the file.
        run: what to write; its last stage is the image, earlier ones stand under ``stages``.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        _write(temporary, run)


def figures_of(scored: Scored) -> dict[str, Any]:
    """Figures of merit of an image as plain data: ``train`` and ``heldout`` (null where no frame is held out)."""
    return {
        "train": scored.train.to_mapping(),
        "heldout": None if scored.heldout is None else scored.heldout.to_mapping(),
    }


def _write_document(group: h5py.Group, name: str, document: Mapping[str, Any]) -> None:
    group[name] = json.dumps(plain_json(document), ensure_ascii=False, allow_nan=False)
    group[name].attrs["media_type"] = "application/json"


def _write_arrays(group: h5py.Group, scored: Scored) -> None:
    """What an image is made of, under the names of the contract."""
    image, raw = scored.image, scored.scan.raw
    group["object"] = image.object.astype(np.complex64, copy=False)
    group["object"].attrs["origin_px"] = np.asarray(image.origin_px, dtype=np.float64)
    if raw.geometry.pixel_size_m is not None:
        group["object"].attrs["pixel_size_m"] = float(raw.geometry.pixel_size_m)
    group["coverage"] = image.coverage.astype(np.float32, copy=False)
    group["coverage"].attrs["long_name"] = "times lit (probe intensity / its peak, summed over frames)"
    group["probe"] = image.probe.astype(np.complex64, copy=False)
    if image.slices is not None:
        group["slices"] = image.slices.astype(np.complex64, copy=False)
        group["slices"].attrs.update(spacing_m=image.slice_spacing_m, long_name="slices, upstream first")
    if image.mode_weights is not None:
        group["mode_weights"] = image.mode_weights.astype(np.float32, copy=False)
        group["mode_weights"].attrs["long_name"] = "what each frame takes of each mode of the probe"
    if image.forward_model:
        group["forward_model"] = image.forward_model
    for name, positions in (("positions_px", image.positions_px), ("nominal_positions_px", raw.positions_px)):
        group[name] = np.asarray(positions, dtype=np.float64)
        group[name].attrs.update(units="pixel", long_name="frame centres (y, x), object pixels")
    group["scale"] = float(image.scale)
    _write_document(group, "figures", figures_of(scored))


def _write_roles(entry: h5py.Group, scored: Scored) -> None:
    """The role of each frame, and the sums that its figures are made of."""
    import h5py

    names = {role.name.lower(): int(role) for role in Role}
    entry.create_dataset("role", data=scored.scan.role.astype(np.uint8), dtype=h5py.enum_dtype(names, "u1"))
    entry["role"].attrs["unused"] = json.dumps({reason: f.tolist() for reason, f in scored.scan.unused.items()})
    entry["frame_figures"] = np.asarray(scored.frame_sums, dtype=np.float64)
    entry["frame_figures"].attrs["columns"] = list(SUMS)


def _write(path: Path, run: Run) -> None:
    import h5py

    scored = run.scored
    with h5py.File(path, "w") as file:
        file.attrs.update(NX_class="NXroot", default="entry", format=_FORMAT, format_version=_VERSION)
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="image")
        entry["title"] = "Ptychographic reconstruction"
        _write_arrays(entry, scored)
        entry.create_group("propagation").attrs.update(statement_of(scored.scan.raw.propagation))
        _write_roles(entry, scored)
        documents = {
            "config": config_to_mapping(run.config),
            "provenance": run.provenance,
            "dropped": dict(scored.dropped),
        }
        for name, document in documents.items():
            _write_document(entry, name, document)
        _write_losses(entry.create_group("losses"), run.history)
        if run.refined is not None:
            _write_losses(entry.create_group("refinement"), run.refined.history)
        for stage in run.stages[:-1]:
            _write_arrays(entry.require_group("stages").create_group(stage.name), stage.scored)
        image = scored.image
        _write_image(entry, image.object, np.asarray(image.origin_px), scored.scan.raw.geometry.pixel_size_m)


def _array(entry: h5py.Group, name: str, rank: int, dtype: type, path: Path) -> NDArray[Any]:
    import h5py

    node = entry.get(name)
    if not isinstance(node, h5py.Dataset):
        raise DataError(
            f"{path}: no dataset /entry/{name}; a reconstruction file holds object, coverage, probe, positions_px "
            f"and scale under /entry. Found: {', '.join(sorted(entry)) or 'nothing'}."
        )
    wanted = "a complex" if np.issubdtype(dtype, np.complexfloating) else "a real"
    kinds = "c" if wanted == "a complex" else "fiu"
    if node.ndim != rank or node.dtype.kind not in kinds or 0 in node.shape:
        raise DataError(
            f"{path}: /entry/{name} is {node.dtype} of shape {node.shape}; it must be {wanted} array of rank {rank}."
        )
    values: NDArray[Any] = np.asarray(node[()], dtype=dtype)
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


def _read_losses(entry: h5py.Group) -> dict[str, list[float]]:
    import h5py

    group = entry.get("losses")
    if not isinstance(group, h5py.Group):
        return {}
    return {
        name: [float(v) for v in node[()]]
        for name, node in group.items()
        if name != "epoch" and isinstance(node, h5py.Dataset) and node.ndim == 1 and node.dtype.kind in "fiu"
    }


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
    node = entry.get("forward_model")
    if node is not None:
        if not isinstance(node, h5py.Dataset) or h5py.check_string_dtype(node.dtype) is None or node.shape != ():
            raise DataError(f"{path}: /entry/forward_model is not a name; write the reconstruction again.")
        found["forward_model"] = str(node.asstr()[()])
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
    return StoredReconstruction(
        **_read_physics(entry, obj.shape, len(positions), len(probe), path),
        path=path,
        object=obj,
        coverage=coverage,
        origin_px=origin,
        probe=probe,
        scale=scale,
        positions_px=positions,
        pixel_size_m=None if pixel_size is None else float(pixel_size[0]),
        format_version=version,
        figures=_read_figures(entry, version, path),
        role=_read_role(entry, len(positions), path),
        losses=_read_losses(entry),
        config=_document(entry, "config", path),
        provenance=_document(entry, "provenance", path),
    )


def read_reconstruction(path: Path | str) -> StoredReconstruction:
    """Read ``reconstruction.h5``, strictly.

    Raises:
        DataError: no such file, no HDF5 file, or not a reconstruction; the message says what was found.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the reconstruction.h5 that a run wrote.")
    try:
        with h5py.File(path, "r") as file:
            version = file.attrs.get("format_version", 1)
            version = int(version) if isinstance(version, (int, np.integer)) else 1
            if version > _VERSION:
                raise DataError(
                    f"{path}: written in format version {version}, this release reads up to {_VERSION}; update it."
                )
            entry = file.get("entry")
            if not isinstance(entry, h5py.Group):
                raise DataError(
                    f"{path}: no group /entry, so not a reconstruction. Found: {', '.join(file) or 'nothing'}."
                )
            return _read_entry(entry, version, path)
    except (OSError, RuntimeError, KeyError) as error:
        # h5py reports a damaged file with any of these, depending on where the damage lies
        raise DataError(f"{path}: cannot be read as HDF5 ({error}); it is damaged or another kind of file.") from error
