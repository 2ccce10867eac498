"""The file ``reconstruction.h5``: a reconstruction for programs, laid out so that viewers of NeXus plot it at once.

Layout (specs/10-data). Paths under ``/entry`` are the contract; the plots repeat them as viewers draw them, since few
draw complex numbers. ``default`` leads from the root to ``/entry/image``.

    definition_local, title, start_time, end_time, duration, program_name   texts and a number; attribute ``version``
    object        (H, W) complex64, attributes ``origin_px`` (2,) and, when known, ``pixel_size_m``
    coverage      (H, W) float32
    probe         (P, N, N) complex64
    positions_px  (M, 2) float64 frame centres (y, x) as used; nominal_positions_px as read
    slices        (L, H, W) complex64 of a thick object, attribute ``spacing_m``, where it has some
    mode_weights  (M, P) float32, what each frame takes of each mode, where it does not take all of all
    forward_model text, the engine whose own forward model alone explains the image, where that of core does not
    propagation   group, as in a scan file: attributes ``propagation``, and ``fresnel_number`` of a near field
    geometry      group: energy_eV, distance_m, detector_pixel_size_m, pixel_size_m as far as they are known, and
                  radiation; instrument says the same by the names of NeXus
    scale         float, λ = scale · Σ_p |F ψ_p|² + background
    role          (M,) uint8, 0 train, 1 heldout, 2 unused; attribute ``unused`` (JSON): reason → frames
    figures       JSON: figures of merit of the training and of the held-out frames, each with its floor
    frame_figures (M, 8) float64 sums of each frame that figures are made of; attribute ``columns``
    dropped       JSON: what was left out, by reason
    losses/NAME, refinement/NAME   (E,) float64, one value an epoch
    frc_half_data, frc_truth       frequency, correlation, n_pixels, half_bit (R,); attributes: the cut-offs
    stages/NAME   an image made on the way: object, coverage, probe, positions_px, nominal_positions_px, scale, figures,
                  frame_figures
    config, provenance   JSON text
    verdict       JSON: kind, sentence, reasons, advice and figures of the verdict on the image
    image, amplitude_image, coverage_image, probe_image, r_map   plots, and so are losses, refinement and frc_*

Formats 1 and 2 are read too, see ``stored_reconstruction``.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config_mapping import config_to_mapping
from ..data.container import Role
from ..data.findings import FourierRingCorrelation
from ..data.raw import Geometry
from ..data.results import Scored
from ..physics.gauge import shown_phase
from ..physics.merit import SUMS
from ..text import storable
from .atomic import atomic_path
from .h5_output import h5_output
from .nexus import add_group, add_number, add_plot
from .stated import statement_of
from .stored_reconstruction import CUTOFFS, FORMAT, FRC_ARRAYS, VERSION, StoredReconstruction, read_reconstruction

if TYPE_CHECKING:
    import h5py

    from ..data.run import Run, Stage

__all__ = ["StoredReconstruction", "figures_of", "plain_json", "read_reconstruction", "write_reconstruction"]


def plain_json(value: Any) -> Any:
    """Return a value as strict JSON data: NumPy becomes lists and numbers, a path text, NaN and infinity null.

    Texts, and names of entries, only show and can be written as UTF-8.
    """
    if isinstance(value, Mapping):
        return {storable(str(k)): plain_json(v) for k, v in value.items()}
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
    return value if value is None or isinstance(value, (bool, int)) else storable(str(value))


def _scan_axes(
    group: h5py.Group, shape: tuple[int, ...], origin_px: NDArray[np.float64], pixel_m: float | None
) -> None:
    """Coordinates of rows and columns, in metres where the object pixel is known."""
    unit, step = ("pixel", 1.0) if pixel_m is None else ("m", pixel_m)
    for axis, name in enumerate("yx"):
        values = (origin_px[axis] + np.arange(shape[axis])) * step
        add_number(group, name, values, unit, f"{name} ({'px' if pixel_m is None else 'm'})")


def _write_images(
    entry: h5py.Group, obj: NDArray[np.complex64], origin_px: NDArray[np.float64], pixel_m: float | None
) -> None:
    """Phase (what is drawn first), amplitude and coverage on scan coordinates: together, and each by itself."""
    lit = entry["coverage"][()] > 0
    phase, off = shown_phase(obj, entry["coverage"][()])
    phase = np.where(lit, phase, np.float32(np.nan))
    image = add_plot(
        entry,
        "image",
        "Reconstructed object",
        signal="phase",
        axes=["y", "x"],
        auxiliary=["amplitude", "coverage"],
    )
    add_number(image, "phase", phase.astype(np.float32), "rad", "phase (rad), global phase and ramp removed")
    image["phase"].attrs.update(
        removed_global_phase_rad=off.phase_rad,
        removed_ramp_rad_per_px=off.ramp_rad_per_px,
        removed_ramp_about_px=off.about_px,
    )
    image["amplitude"] = np.where(lit, np.abs(obj), np.float32(np.nan)).astype(np.float32)
    image["amplitude"].attrs["long_name"] = "amplitude"
    image["coverage"] = entry["coverage"]  # a hard link: no second copy
    _scan_axes(image, obj.shape, origin_px, pixel_m)
    for name in ("amplitude", "coverage"):
        alone = add_plot(entry, f"{name}_image", f"Object: {name}", signal=name, axes=["y", "x"])
        for part in (name, "y", "x"):
            alone[part] = image[part]


def _write_probe_image(entry: h5py.Group, probe: NDArray[np.complex64], pixel_m: float | None) -> None:
    """Amplitude and phase of each mode, about the middle of the probe."""
    plot = add_plot(entry, "probe_image", "Probe", signal="amplitude", axes=["mode", "y", "x"], auxiliary=["phase"])
    plot["amplitude"] = np.abs(probe).astype(np.float32)
    add_number(plot, "phase", np.angle(probe).astype(np.float32), "rad")
    plot["mode"] = np.arange(1, len(probe) + 1)
    middle = -(np.array(probe.shape[1:]) - 1) / 2
    _scan_axes(plot, probe.shape[1:], middle, pixel_m)


def _write_r_map(entry: h5py.Group, scored: Scored, pixel_m: float | None) -> None:
    """R-factor of each used frame over its position: a scatter plot."""
    r = scored.frame_r_factors()
    used = np.isfinite(r)
    if not used.any():
        return
    plot = add_plot(
        entry, "r_map", "R-factor of each frame", signal="r_factor", axes=["x", "y"], indices={"x": 0, "y": 0}
    )
    plot["r_factor"], plot["frame"] = r[used], np.flatnonzero(used)
    unit, step = ("pixel", 1.0) if pixel_m is None else ("m", pixel_m)
    for axis, name in enumerate("yx"):
        add_number(plot, name, scored.image.positions_px[used, axis] * step, unit)


def _write_losses(entry: h5py.Group, name: str, title: str, history: Mapping[str, Sequence[float]]) -> None:
    group = entry.create_group(name)
    for key, values in history.items():
        # a slash would make a nested group of the name
        group[key.replace("/", "_")] = np.asarray(list(values), dtype=np.float64)
    names = sorted(set(group) - {"epoch"}, key=lambda n: (n != "train_loss", n))
    if not names:
        return
    # one NXdata has one axis: only curves as long as the first are drawn with it
    same = [n for n in names[1:] if len(group[n]) == len(group[names[0]])]
    group.attrs.update(NX_class="NXdata", signal=names[0], axes=["epoch"])
    group["title"] = title
    if same:
        group.attrs["auxiliary_signals"] = same
    if "epoch" not in group:
        group["epoch"] = np.arange(1, len(group[names[0]]) + 1)


def _write_frc(entry: h5py.Group, name: str, title: str, frc: FourierRingCorrelation) -> None:
    plot = add_plot(entry, name, title, signal="correlation", axes=["frequency"], auxiliary=["half_bit"])
    for key in FRC_ARRAYS:
        plot[key] = getattr(frc, key)
    plot["frequency"].attrs.update(units="1/pixel", long_name="frequency (cycles per pixel)")
    plot.attrs.update({key: float(getattr(frc, key)) for key in CUTOFFS})


def _write_stage_findings(group: h5py.Group, stage: Stage) -> None:
    if stage.half_data_frc is not None:
        _write_frc(group, "frc_half_data", "Fourier ring correlation, half data against half data", stage.half_data_frc)
    if stage.comparison is not None:
        _write_frc(group, "frc_truth", "Fourier ring correlation, image against truth", stage.comparison.frc)


def _write_geometry(entry: h5py.Group, geometry: Geometry) -> None:
    """The instrument twice: by our names, and by links of those names of NeXus that say the same."""
    units = {"energy_eV": "eV", "distance_m": "m", "detector_pixel_size_m": "m", "pixel_size_m": "m"}
    group = add_group(entry, "geometry", "NXcollection")
    group["radiation"] = geometry.radiation
    for key, unit in units.items():
        if getattr(geometry, key) is not None:
            add_number(group, key, float(getattr(geometry, key)), unit)
    instrument = add_group(entry, "instrument", "NXinstrument")
    add_group(instrument, "source", "NXsource")["probe"] = "x-ray" if geometry.radiation == "photon" else "electron"
    beam, detector = add_group(instrument, "beam", "NXbeam"), add_group(instrument, "detector", "NXdetector")
    if geometry.wavelength_m is not None:
        beam["incident_energy"] = group["energy_eV"]
        add_number(beam, "incident_wavelength", geometry.wavelength_m, "m")
    if geometry.distance_m is not None:
        detector["distance"] = group["distance_m"]
    if geometry.detector_pixel_size_m is not None:
        detector["x_pixel_size"] = detector["y_pixel_size"] = group["detector_pixel_size_m"]


def _write_head(entry: h5py.Group, run: Run) -> None:
    """What this is, of when, and by which program."""
    version = importlib.metadata.version("ptycho-core")
    # NeXus has no application definition of a reconstruction, and ``definition`` may name none of one's own
    entry["definition_local"] = FORMAT
    entry["definition_local"].attrs["version"] = str(VERSION)
    entry["title"] = run.title or "Ptychographic reconstruction"
    entry["program_name"] = "ptycho-core"
    entry["program_name"].attrs["version"] = version
    end, seconds = datetime.now(UTC), run.seconds.get("total")
    entry["end_time"] = end.isoformat(timespec="seconds")
    if seconds is not None:
        entry["start_time"] = (end - timedelta(seconds=seconds)).isoformat(timespec="seconds")
        add_number(entry, "duration", round(seconds), "s")


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
    _write_frame_figures(entry, scored)


def _write_frame_figures(group: h5py.Group, scored: Scored) -> None:
    group["frame_figures"] = np.asarray(scored.frame_sums, dtype=np.float64)
    group["frame_figures"].attrs["columns"] = list(SUMS)


def _write(path: Path, run: Run) -> None:
    scored = run.scored
    image, geometry = scored.image, scored.scan.raw.geometry
    with h5_output(path) as (file, _):
        file.attrs.update(NX_class="NXroot", default="entry", format=FORMAT, format_version=VERSION)
        entry = add_group(file, "entry", "NXentry", default="image")
        _write_head(entry, run)
        _write_arrays(entry, scored)
        _write_geometry(entry, geometry)
        entry.create_group("propagation").attrs.update(
            statement_of(scored.scan.raw.propagation), NX_class="NXcollection"
        )
        _write_roles(entry, scored)
        documents = {
            "config": config_to_mapping(run.config),
            "provenance": run.provenance,
            "dropped": dict(scored.dropped),
            "verdict": {} if run.verdict is None else run.verdict.to_mapping(),
        }
        for name, document in documents.items():
            _write_document(entry, name, document)
        _write_losses(entry, "losses", "Loss of training", run.history)
        if run.refined is not None:
            _write_losses(entry, "refinement", "Loss of refining", run.refined.history)
        _write_stage_findings(entry, run.result)
        for stage in run.stages[:-1]:
            stages = entry["stages"] if "stages" in entry else add_group(entry, "stages", "NXcollection")
            group = add_group(stages, stage.name, "NXcollection")
            _write_arrays(group, stage.scored)
            _write_frame_figures(group, stage.scored)
            _write_stage_findings(group, stage)
        _write_images(entry, image.object, np.asarray(image.origin_px), geometry.pixel_size_m)
        _write_probe_image(entry, image.probe, geometry.pixel_size_m)
        _write_r_map(entry, scored, geometry.pixel_size_m)
