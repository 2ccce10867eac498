"""The model bundle: one zip with a trained model in it, which any engine with the same generator can read.

``model.ptycho`` holds ``manifest.json`` (what it is, its config, statistics, history, provenance, and the SHA-256 of
the two others and of itself), ``weights.safetensors`` and ``probe.safetensors`` (float32 (P, N, N, 2): real and
imaginary part). Nothing in it is code and nothing is unpacked to disk (specs/50-model-bundle). Reading is strict: the
file comes from anywhere. Equal models give equal bytes: members are stored uncompressed, in one order, with one date.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle_members import (
    FORMAT,
    MANIFEST,
    MOST_HEADER,
    MOST_TENSORS,
    PROBE,
    SCHEMA_VERSION,
    WEIGHTS,
    check_keys,
    read_members,
    sealed,
    sha256,
)
from .config import TrainingConfig
from .config_checks import shown
from .config_mapping import config_from_mapping, config_to_mapping, with_typed_options
from .data.container import Statistics
from .data.raw import SIDES, SIDES_IN_WORDS
from .enginekit.architectures import GENERATORS
from .errors import ArchiveError, ConfigError, PtychoError
from .io.atomic import write_bytes
from .runtime import Runtime
from .text import one_line

__all__ = ["FORMAT", "SCHEMA_VERSION", "Bundle", "read_bundle", "write_bundle"]

_DTYPES = ("float32", "int64")
_STORED_AS = ("F32", "I64")
"""The same in the words of safetensors."""

ExpectedWeights = Callable[[TrainingConfig, int], Mapping[str, tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Everything a trained model is.

    Attributes:
        backend: engine that made it.
        generator: name of the network, or None for a solver, whose weights are its own business.
        side: N, side of a frame, pixels.
        config: the config it was trained with.
        statistics: constants of the training split.
        scale: s at the end of training.
        weights: canonical name → float32 or int64 array.
        probe: (P, N, N) complex64 at the end of training.
        forward_model: name of the engine whose own forward model alone explains what a solver found, or empty.
        slice_spacing_m: metres between two slices of a solver's thick object, or None.
        history: name → one float an epoch; NaN where an epoch has none.
        provenance: plain JSON data; see ``ptycho_core.provenance``.
    """

    backend: str
    generator: str | None
    side: int
    config: TrainingConfig
    statistics: Statistics
    scale: float
    weights: Mapping[str, NDArray[Any]]
    probe: NDArray[np.complex64]
    forward_model: str = ""
    slice_spacing_m: float | None = None
    history: Mapping[str, list[float]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def _plain(value: Any) -> Any:
    """Bring provenance to what JSON can hold; a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _check_content(bundle: Bundle, where: str) -> None:
    """Refuse what no engine could use; the same at writing and at reading."""
    if bundle.side not in SIDES:
        raise ArchiveError(f"{where}: side = {bundle.side}; it must be {SIDES_IN_WORDS}.")
    named = None if bundle.config.model is None else bundle.config.model.generator
    if bundle.generator is not None and bundle.generator != named:
        raise ArchiveError(f"{where}: the generator is {shown(bundle.generator)} but its config says {shown(named)}.")
    numbers = {"scale": bundle.scale, "statistics.mean_counts": bundle.statistics.mean_counts}
    for name, number in (numbers | {"statistics.scale": bundle.statistics.scale}).items():
        if not (math.isfinite(number) and number > 0):
            raise ArchiveError(f"{where}: {name} = {number!r}; it must be a finite number > 0.")
    if not bundle.backend:
        raise ArchiveError(f"{where}: the name of the engine is empty.")
    if bundle.forward_model not in ("", bundle.backend):
        raise ArchiveError(
            f"{where}: forward_model = {shown(bundle.forward_model)}; it must be {bundle.backend!r}, which made it, or "
            "empty."
        )
    spacing = bundle.slice_spacing_m
    if spacing is not None and not (math.isfinite(spacing) and spacing > 0):
        raise ArchiveError(f"{where}: slice_spacing_m = {spacing!r}; it must be a finite number > 0, or null.")
    for name, array in bundle.weights.items():
        if array.dtype.name not in _DTYPES:
            raise ArchiveError(
                f"{where}: weight {name!r} of engine {bundle.backend!r} is {array.dtype.name}; every engine reads "
                f"{' or '.join(_DTYPES)}, so it must be one of them."
            )
        if not np.isfinite(array).all():
            raise ArchiveError(f"{where}: weight {name!r} holds NaN or infinite values; train again.")
    probe, N = bundle.probe, bundle.side
    if probe.dtype != np.complex64 or probe.ndim != 3 or not len(probe) or probe.shape[1:] != (N, N):
        raise ArchiveError(
            f"{where}: the probe is {probe.dtype} {probe.shape}; it must be complex64 (P, {N}, {N}), P ≥ 1."
        )
    if not np.isfinite(probe).all() or not probe.any():
        raise ArchiveError(f"{where}: the probe is zero everywhere or holds NaN or infinite values.")


def write_bundle(path: Path, bundle: Bundle) -> None:
    """Write a bundle atomically; equal bundles give equal bytes.

    Args:
        path: file, by convention named ``model.ptycho``.
        bundle: what to write.

    Raises:
        ArchiveError: the bundle could not be read back (non-finite weights, wrong dtype or shape).
        OutputError: the file cannot be written; an older one is still there.
    """
    from safetensors.numpy import save

    path = Path(path)
    _check_content(bundle, f"{path} (not written)")
    probe = np.ascontiguousarray(bundle.probe).view(np.float32).reshape(*bundle.probe.shape, 2)
    weights = {name: np.ascontiguousarray(bundle.weights[name]) for name in sorted(bundle.weights)}
    members = {PROBE: save({"probe": probe}), WEIGHTS: save(weights)}
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "backend": bundle.backend,
        "generator": bundle.generator,
        "side": bundle.side,
        "config": config_to_mapping(bundle.config),
        "statistics": {
            "mean_counts": float(bundle.statistics.mean_counts),
            "n_frames": int(bundle.statistics.n_frames),
            "scale": float(bundle.statistics.scale),
        },
        "scale": float(bundle.scale),
        "forward_model": bundle.forward_model,
        "slice_spacing_m": bundle.slice_spacing_m,
        "history": {name: [_plain(float(v)) for v in values] for name, values in bundle.history.items()},
        "provenance": _plain(bundle.provenance),
        "members": {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in members.items()},
    }
    buffer = io.BytesIO()
    whole = sealed(manifest, f"{path} (not written)")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {MANIFEST: whole, **members}.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # else the byte depends on the system
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    write_bytes(path, buffer.getvalue())


def _number(value: Any, what: str, where: str, kind: type = float) -> Any:
    allowed = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, allowed):
        expected = "number" if kind is float else "whole number"
        raise ArchiveError(f"{where}: {what} = {shown(value)}; it must be a {expected}.")
    if kind is int and abs(value) >= 2**63:
        raise ArchiveError(f"{where}: {what} = {shown(value)}; it must be a whole number of 64 bits.")
    try:
        number = kind(value)
    except OverflowError as error:
        raise ArchiveError(f"{where}: {what} is a number of {len(str(value))} digits; that is too large.") from error
    if not math.isfinite(number):
        raise ArchiveError(f"{where}: {what} = {number}; it must be a finite number.")
    return number


def _read_history(value: Any, where: str) -> dict[str, list[float]]:
    if not isinstance(value, dict) or not all(isinstance(series, list) for series in value.values()):
        raise ArchiveError(f"{where}: history must map names to lists of numbers.")
    return {
        name: [math.nan if v is None else _number(v, f"history.{name}", where) for v in series]
        for name, series in value.items()
    }


def _read_tensors(content: bytes, name: str, where: str, backend: str) -> dict[str, NDArray[Any]]:
    from safetensors.numpy import load

    header_bytes = int.from_bytes(content[:8], "little")
    if not 0 < header_bytes <= min(len(content) - 8, MOST_HEADER):
        raise ArchiveError(
            f"{where}: {name} is not a readable safetensors file (a header of {header_bytes} bytes in {len(content)}; "
            f"at most {MOST_HEADER} are read)."
        )
    try:
        header = json.loads(content[8 : 8 + header_bytes])
        stored = {tensor: info["dtype"] for tensor, info in header.items() if tensor != "__metadata__"}
        if len(stored) > MOST_TENSORS:
            raise ArchiveError(f"{where}: {name} holds {len(stored)} tensors; allowed: {MOST_TENSORS}.")
        for tensor, kind in stored.items():
            if kind not in _STORED_AS:
                raise ArchiveError(
                    f"{where}: {name}: engine {backend!r} stored {shown(tensor)} as {one_line(str(kind), 40)}; every "
                    f"engine reads {' or '.join(_STORED_AS)}. Save the model again in single precision."
                )
        return load(content)
    except ArchiveError:
        raise
    except Exception as error:  # the library lets many kinds out, those of NumPy and of Python's JSON among them
        said = one_line(f"{type(error).__name__}: {error}", 200)
        raise ArchiveError(f"{where}: {name} is not a readable safetensors file ({said}).") from error


def _read_probe(content: bytes, side: int, where: str, backend: str) -> NDArray[np.complex64]:
    tensors = _read_tensors(content, PROBE, where, backend)
    probe = tensors.get("probe")
    if list(tensors) != ["probe"] or probe is None:
        raise ArchiveError(f"{where}: {PROBE} holds {shown(sorted(tensors))}; it must hold one tensor, 'probe'.")
    if probe.dtype != np.float32 or probe.ndim != 4 or probe.shape[1:] != (side, side, 2) or not len(probe):
        raise ArchiveError(
            f"{where}: the probe is {probe.dtype} {probe.shape}; it must be float32 (P, {side}, {side}, 2), P ≥ 1."
        )
    return np.ascontiguousarray(probe).view(np.complex64)[..., 0]


def _check_weights(bundle: Bundle, expected: ExpectedWeights, where: str) -> None:
    """Compare names, shapes and dtype with what the network of an engine needs."""
    if bundle.generator is None:
        raise ArchiveError(
            f"{where}: it was made by engine '{bundle.backend}', a solver: it holds a finished object and no network. "
            f"Load it with backend = {bundle.backend!r}."
        )
    try:
        wanted = dict(expected(bundle.config, bundle.side))
    except ConfigError as error:
        raise ArchiveError(f"{where}: its config cannot be used here: {error}") from error
    missing, extra = sorted(set(wanted) - set(bundle.weights)), sorted(set(bundle.weights) - set(wanted))
    if missing or extra:
        raise ArchiveError(
            f"{where}: the weights of generator '{bundle.generator}' (made by engine '{bundle.backend}') lack "
            f"{shown(missing[:5])} ({len(missing)}) and have {shown(extra[:5])} ({len(extra)}) beyond what this "
            "engine knows."
        )
    for name, shape in wanted.items():
        array = bundle.weights[name]
        if array.shape != tuple(shape) or array.dtype != np.float32:
            raise ArchiveError(
                f"{where}: weight {shown(name)} is {array.dtype} {array.shape}; it must be float32 {tuple(shape)}."
            )


def _current_config(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a bundle as it is named now.

    Bundles of schema 1 hold hardware and folders too, which decide nothing, and do not say their method.
    """
    if manifest["schema_version"] > 1:
        return dict(manifest["config"])
    hardware = {f.name for f in dataclasses.fields(Runtime)}
    config = {name: value for name, value in manifest["config"].items() if name not in hardware}
    inner = config.get("inference")
    if isinstance(inner, Mapping):
        config["inference"] = {n: v for n, v in inner.items() if n not in (*hardware, "batch_size")}
    if manifest["generator"] is None:
        config.pop("model", None)
        config["batch_size"] = None
    model = config.get("model")
    if isinstance(model, Mapping):  # it had the sizes of all generators
        sizes = {record.name: {f.name for f in dataclasses.fields(record.sizes)} for record in GENERATORS}
        foreign = set().union(*sizes.values()) - sizes.get(str(model.get("generator")), set())
        config["model"] = {name: value for name, value in model.items() if name not in foreign}
    options = config.pop("options", None)
    if isinstance(options, Mapping) and options.get("engine") == "numpy":  # settings of all solvers now
        config["algorithm"] = options.get("algorithm", TrainingConfig.algorithm)
        config["batch_size"] = options.get("batch_frames")
    elif options is not None:
        config["options"] = options
    return config | {"method": "solver" if manifest["generator"] is None else "network"}


def read_bundle(path: Path, *, expected_weights: ExpectedWeights | None = None, engine: str | None = None) -> Bundle:
    """Read a bundle, strictly; nothing in it is run or unpacked, and no engine need be installed.

    Args:
        path: the file.
        engine: name of the engine that was chosen to use it, whose options become its own class; others stay plain.
        expected_weights: (config, side) → name → shape, what the caller's network needs; None takes any weights.

    Raises:
        ArchiveError: missing, truncated, changed, from a newer schema, with members that are unsafe, missing, extra or
            double, or with values or weights of another type or shape; the message names the file and the culprit.
    """
    path = Path(path)
    try:
        return _read(path, str(path), expected_weights, engine)
    except (PtychoError, MemoryError):
        raise
    except Exception as error:  # whatever a stranger's file does to us is an error of that file
        said = one_line(f"{type(error).__name__}: {error}", 200)
        raise ArchiveError(f"{path}: is no bundle that can be read ({said}); make it again.") from error


def _read(path: Path, where: str, expected_weights: ExpectedWeights | None, engine: str | None) -> Bundle:
    manifest, weights, probe = read_members(path, where)
    for name in ("backend", "generator"):
        if not (isinstance(manifest[name], str) or (name == "generator" and manifest[name] is None)):
            raise ArchiveError(f"{where}: {name} = {shown(manifest[name])}; it must be a name.")
    if not isinstance(manifest["config"], dict) or not isinstance(manifest["provenance"], dict):
        raise ArchiveError(f"{where}: config and provenance must be JSON objects.")
    try:
        config = config_from_mapping(TrainingConfig, _current_config(manifest), plain_options=True)
        config = config if engine is None else with_typed_options(config, engine)
    except (ConfigError, OverflowError) as error:
        raise ArchiveError(f"{where}: its config cannot be used here: {error}") from error
    spacing = manifest.get("slice_spacing_m")
    statistics = manifest["statistics"]
    check_keys(statistics, ("mean_counts", "n_frames", "scale"), "statistics", where)
    side = _number(manifest["side"], "side", where, int)
    bundle = Bundle(
        backend=manifest["backend"],
        generator=manifest["generator"],
        side=side,
        config=config,
        statistics=Statistics(
            mean_counts=_number(statistics["mean_counts"], "statistics.mean_counts", where),
            n_frames=_number(statistics["n_frames"], "statistics.n_frames", where, int),
            scale=_number(statistics["scale"], "statistics.scale", where),
        ),
        scale=_number(manifest["scale"], "scale", where),
        weights=_read_tensors(weights, WEIGHTS, where, manifest["backend"]),
        probe=_read_probe(probe, side, where, manifest["backend"]),
        forward_model=manifest.get("forward_model", ""),
        slice_spacing_m=None if spacing is None else _number(spacing, "slice_spacing_m", where),
        history=_read_history(manifest["history"], where),
        provenance=manifest["provenance"],
    )
    _check_content(bundle, where)
    if expected_weights is not None:
        _check_weights(bundle, expected_weights, where)
    return bundle
