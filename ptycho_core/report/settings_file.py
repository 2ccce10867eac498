"""``settings.yaml`` of a result: what decided it, and how its scan was read, as ``--config`` takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import TrainingConfig
from ..config_mapping import config_to_mapping
from ..data.run import Run
from ..io.result_folder import NOTHING_REPLACED, as_output_error
from ..io.result_names import SETTINGS_NAME
from ..io.settings_text import APPLY, READING, comment, reading_of, settings_lines
from ..runtime import Runtime
from ..text import printable, shell_words, shortened

__all__ = ["settings_of", "write_model_settings", "write_settings"]


def settings_of(
    config: TrainingConfig,
    runtime: Runtime,
    reading: Mapping[str, Any],
    command: Sequence[str],
    version: str,
    applied: Mapping[str, Any] | None = None,
) -> str:
    """The text of ``settings.yaml``.

    Args:
        config: what decided the result.
        runtime: of which the precision decides it too, where one is asked for.
        reading: how the scan was read, by the names of the command's options.
        command: that was given, or empty.
        version: of this program.
        applied: which model made the image, and how it was applied; None of a run. The config is the model's then, but
            for how it is applied and refined.
    """
    values = config_to_mapping(config) if applied is None else _of_applying(config, applied)
    if values.get("model", ...) is None:
        del values["model"]
    if runtime.precision != "auto":
        values["runtime"] = {"precision": runtime.precision}
    if reading:
        values[READING] = dict(reading)
    head = [*comment(f"The settings of a result of ptycho-core {version}, for --config.")]
    if command:
        head += [f"# {shortened(printable(shell_words(['ptycho', *command])))}"]
        if reading or applied is not None:
            head += comment("Relative names of files are from the folder in which that command was given.")
    return "\n".join([*head, *settings_lines(values)]) + "\n"


def _of_applying(config: TrainingConfig, applied: Mapping[str, Any]) -> dict[str, Any]:
    """What decides an image that a model makes, beside the model."""
    values: dict[str, Any] = {APPLY: dict(applied), "inference": asdict(config.inference)}
    if config.refinement.engine != "none":
        values["refinement"] = asdict(config.refinement)
    return values


def _write(folder: Path, text: str) -> None:
    with as_output_error(folder, NOTHING_REPLACED):
        (folder / SETTINGS_NAME).write_text(text, encoding="utf-8", errors="backslashreplace")


def _version(provenance: Mapping[str, Any]) -> str:
    return str(provenance.get("versions", {}).get("ptycho-core", ""))


def write_settings(folder: Path, run: Run) -> None:
    """Write the settings of a run.

    Args:
        folder: that a result is staged in.
        run: the run.

    Raises:
        OutputError: the file cannot be written.
    """
    reading = reading_of(run.provenance, run.scan.raw.source.details.get("read_with"))
    command = run.provenance.get("command", ())
    applied = run.provenance.get(APPLY)
    version = _version(run.provenance)
    _write(folder, settings_of(run.config, run.runtime, reading, command, version, applied))


def write_model_settings(folder: Path, config: TrainingConfig, runtime: Runtime, provenance: Mapping[str, Any]) -> None:
    """Write the settings of a training without an image; as :func:`write_settings`."""
    reading, command = reading_of(provenance, None), provenance.get("command", ())
    _write(folder, settings_of(config, runtime, reading, command, _version(provenance)))
