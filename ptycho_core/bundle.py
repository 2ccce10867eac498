"""The model bundle: one zip with a trained model in it, which any engine with the same generator can read.

``model.ptycho`` holds ``manifest.json`` (what it is, its config, statistics, history, provenance, and the SHA-256 of
the two others and of itself), ``weights.safetensors`` and ``probe.safetensors`` (float32 (P, N, N, 2): real and
imaginary part). Nothing in it is code and nothing is unpacked to disk (specs/50-model-bundle). Reading is strict: the
file comes from anywhere. Equal models give equal bytes: members are stored uncompressed, in one order, with one date.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import TrainingConfig
from .config_mapping import config_from_mapping, config_to_mapping, with_typed_options
from .data.container import Statistics
from .data.raw import SIDES, SIDES_IN_WORDS
from .enginekit.architectures import GENERATORS
from .errors import ArchiveError, ConfigError
from .io.atomic import write_bytes
from .runtime import Runtime

__all__ = ["FORMAT", "SCHEMA_VERSION", "Bundle", "read_bundle", "write_bundle"]

FORMAT = "ptycho-model"
SCHEMA_VERSION = 2

_MANIFEST, _WEIGHTS, _PROBE = "manifest.json", "weights.safetensors", "probe.safetensors"
_LIMITS = {_MANIFEST: 64 * 2**20, _WEIGHTS: 8 * 2**30, _PROBE: 2**30}
_DTYPES = ("float32", "int64")
_STORED_AS = ("F32", "I64")
"""The same in the words of safetensors."""

_KEYS = (
    "format", "schema_version", "backend", "generator", "side", "config", "statistics", "scale", "history",
    "provenance", "members", "sha256",
)  # fmt: skip
_SINCE_SCHEMA_2 = ("forward_model", "slice_spacing_m")

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


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json_bytes(manifest: Mapping[str, Any]) -> bytes:
    # a provenance entry that JSON does not know becomes text: a trained model must not be lost over it
    return json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False, default=str).encode("utf-8")


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
        raise ArchiveError(f"{where}: side = {bundle.side!r}; it must be {SIDES_IN_WORDS}.")
    named = None if bundle.config.model is None else bundle.config.model.generator
    if bundle.generator is not None and bundle.generator != named:
        raise ArchiveError(f"{where}: the generator is {bundle.generator!r} but its config says {named!r}.")
    numbers = {"scale": bundle.scale, "statistics.mean_counts": bundle.statistics.mean_counts}
    for name, number in (numbers | {"statistics.scale": bundle.statistics.scale}).items():
        if not (math.isfinite(number) and number > 0):
            raise ArchiveError(f"{where}: {name} = {number!r}; it must be a finite number > 0.")
    if not bundle.backend:
        raise ArchiveError(f"{where}: the name of the engine is empty.")
    if bundle.forward_model not in ("", bundle.backend):
        raise ArchiveError(
            f"{where}: forward_model = {bundle.forward_model!r}; it must be {bundle.backend!r}, which made it, or "
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
    members = {_PROBE: save({"probe": probe}), _WEIGHTS: save(weights)}
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
        "members": {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in members.items()},
    }
    manifest["sha256"] = _sha256(_json_bytes(manifest))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {_MANIFEST: _json_bytes(manifest), **members}.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # else the byte depends on the system
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    write_bytes(path, buffer.getvalue())


def _check_names(names: list[str], where: str) -> None:
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in name:
            raise ArchiveError(
                f"{where}: member {name!r} points outside the bundle; this is not a file to trust, delete it."
            )
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ArchiveError(f"{where}: member {double[0]!r} is there {names.count(double[0])} times; allowed: once.")


def _read_member(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    """Read one member, of a bounded size: compressed members, where a small file can hide a huge one, are refused."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
        raise ArchiveError(f"{where}: member {name!r} is compressed or encrypted; members must be stored plain.")
    if info.file_size != info.compress_size or info.file_size > _LIMITS[name]:
        raise ArchiveError(
            f"{where}: member {name!r} claims {info.file_size} bytes in {info.compress_size}; "
            f"allowed: equal, and at most {_LIMITS[name]}."
        )
    return archive.read(info)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key is there twice")
    return out


def _no_constants(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _read_manifest(content: bytes, where: str) -> dict[str, Any]:
    try:
        manifest = json.loads(content.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{where}: {_MANIFEST} is not valid JSON ({error}); the bundle is damaged.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArchiveError(f"{where}: {_MANIFEST} does not say format = {FORMAT!r}; this is not a model bundle.")
    version = manifest.get("schema_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ArchiveError(f"{where}: schema_version = {version!r}; it must be a whole number from 1.")
    if version > SCHEMA_VERSION:
        raise ArchiveError(
            f"{where}: schema {version} is newer than {SCHEMA_VERSION}, the newest that this ptycho-core reads; "
            "upgrade ptycho-core."
        )
    _check_keys(manifest, _KEYS if version == 1 else _KEYS + _SINCE_SCHEMA_2, _MANIFEST, where)
    stated = manifest.pop("sha256")
    if stated != _sha256(_json_bytes(manifest)):
        raise ArchiveError(f"{where}: {_MANIFEST} does not match its SHA-256; the bundle was changed or is damaged.")
    return manifest


def _check_keys(given: Any, wanted: tuple[str, ...], what: str, where: str) -> None:
    if not isinstance(given, dict) or set(given) != set(wanted):
        keys = set(given) if isinstance(given, dict) else set()
        raise ArchiveError(
            f"{where}: {what} lacks {sorted(set(wanted) - keys)} and has {sorted(keys - set(wanted))} beyond what "
            "the schema allows."
        )


def _number(value: Any, what: str, where: str, kind: type = float) -> Any:
    allowed = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, allowed):
        expected = "number" if kind is float else "whole number"
        raise ArchiveError(f"{where}: {what} = {value!r}; it must be a {expected}.")
    try:
        return kind(value)
    except OverflowError as error:
        raise ArchiveError(f"{where}: {what} is a number of {len(str(value))} digits; that is too large.") from error


def _read_history(value: Any, where: str) -> dict[str, list[float]]:
    if not isinstance(value, dict) or not all(isinstance(series, list) for series in value.values()):
        raise ArchiveError(f"{where}: history must map names to lists of numbers.")
    return {
        name: [math.nan if v is None else _number(v, f"history.{name}", where) for v in series]
        for name, series in value.items()
    }


def _read_tensors(content: bytes, name: str, where: str, backend: str) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        stored = {tensor: info["dtype"] for tensor, info in header.items() if tensor != "__metadata__"}
        for tensor, kind in stored.items():
            if kind not in _STORED_AS:
                raise ArchiveError(
                    f"{where}: {name}: engine {backend!r} stored {tensor!r} as {kind}; every engine reads "
                    f"{' or '.join(_STORED_AS)}. Save the model again in single precision."
                )
        return load(content)
    except ArchiveError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArchiveError(f"{where}: {name} is not a readable safetensors file ({error}).") from error


def _read_probe(content: bytes, side: int, where: str, backend: str) -> NDArray[np.complex64]:
    tensors = _read_tensors(content, _PROBE, where, backend)
    probe = tensors.get("probe")
    if list(tensors) != ["probe"] or probe is None:
        raise ArchiveError(f"{where}: {_PROBE} holds {sorted(tensors)}; it must hold one tensor, 'probe'.")
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
    wanted = dict(expected(bundle.config, bundle.side))
    missing, extra = sorted(set(wanted) - set(bundle.weights)), sorted(set(bundle.weights) - set(wanted))
    if missing or extra:
        raise ArchiveError(
            f"{where}: the weights of generator '{bundle.generator}' (made by engine '{bundle.backend}') lack "
            f"{missing[:5]} ({len(missing)}) and have {extra[:5]} ({len(extra)}) beyond what this engine knows."
        )
    for name, shape in wanted.items():
        array = bundle.weights[name]
        if array.shape != tuple(shape) or array.dtype != np.float32:
            raise ArchiveError(
                f"{where}: weight {name!r} is {array.dtype} {array.shape}; it must be float32 {tuple(shape)}."
            )


def _read_members(path: Path, where: str) -> tuple[dict[str, Any], bytes, bytes]:
    """Return manifest, weights and probe, after names, sizes and hashes were checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.orig_filename for info in archive.infolist()]
            _check_names(names, where)
            if _MANIFEST not in names:
                raise ArchiveError(f"{where}: no {_MANIFEST} among its {len(names)} members; this is not a bundle.")
            manifest = _read_manifest(_read_member(archive, _MANIFEST, where), where)
            if set(names) != set(_LIMITS):
                raise ArchiveError(f"{where}: members {sorted(names)}; allowed: exactly {sorted(_LIMITS)}.")
            _check_keys(manifest["members"], (_WEIGHTS, _PROBE), "members", where)
            contents = [_read_member(archive, name, where) for name in (_WEIGHTS, _PROBE)]
    except FileNotFoundError as error:
        raise ArchiveError(f"{where}: no such file.") from error
    except ArchiveError:
        raise
    # zipfile lets all of these out when central directory or headers are damaged
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
        raise ArchiveError(f"{where}: not a complete zip file ({error}); it is truncated or no bundle.") from error
    except OSError as error:
        raise ArchiveError(f"{where}: cannot be read ({error.strerror or error}).") from error
    for name, content in zip((_WEIGHTS, _PROBE), contents, strict=True):
        stated = manifest["members"][name]
        if stated != {"bytes": len(content), "sha256": _sha256(content)}:
            raise ArchiveError(f"{where}: {name} does not match its SHA-256; the bundle was changed or is damaged.")
    return manifest, contents[0], contents[1]


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
    where = str(path)
    manifest, weights, probe = _read_members(path, where)
    for name in ("backend", "generator"):
        if not (isinstance(manifest[name], str) or (name == "generator" and manifest[name] is None)):
            raise ArchiveError(f"{where}: {name} = {manifest[name]!r}; it must be a name.")
    if not isinstance(manifest["config"], dict) or not isinstance(manifest["provenance"], dict):
        raise ArchiveError(f"{where}: config and provenance must be JSON objects.")
    try:
        config = config_from_mapping(TrainingConfig, _current_config(manifest), plain_options=True)
        config = config if engine is None else with_typed_options(config, engine)
    except (ConfigError, OverflowError) as error:
        raise ArchiveError(f"{where}: its config cannot be used here: {error}") from error
    spacing = manifest.get("slice_spacing_m")
    statistics = manifest["statistics"]
    _check_keys(statistics, ("mean_counts", "n_frames", "scale"), "statistics", where)
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
        weights=_read_tensors(weights, _WEIGHTS, where, manifest["backend"]),
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
