"""The folder a result lies in: made late, held by one command, and switched from one result to the next in one step.

A result is a whole. Its files are written in ``.partial-ID`` inside the folder, hashed, and made durable; renaming
that to ``.commit-ID`` decides that it will be the result, whoever completes it, and ``io.result_switch`` puts it in
the place of the earlier one in one step. At every moment, and after a kill at any, the names of the folder read as one
whole result or as the other.

What may be removed is decided by two things together: this program's own list of names, and the hash in the summary
that this program wrote. A summary is a file that anyone may have put there; a name that only it knows is not followed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..text import plain_name
from .atomic import flush_folder, sweep_temporaries
from .folder_lock import LOCK_NAME, hold_folder, sweep_locks
from .made_folder import as_output_error, make_folder, remove_made
from .regular import is_same_file
from .result_names import (
    COMMIT_NAME,
    IMAGE_NAME,
    LOG_NAME,
    PARTIAL_NAME,
    PICTURE_NAMES,
    PLAN_NAME,
    RESULT_NAMES,
    SUMMARY_NAME,
    TRAINING_NAME,
)
from .result_switch import Switch, is_switch_link, where_it_lies

__all__ = [
    "LOG_NAME",
    "NOTHING_REPLACED",
    "PICTURE_NAMES",
    "RESULT_FORMAT",
    "RESULT_NAMES",
    "SUMMARY_NAME",
    "ResultFolder",
    "as_output_error",
    "default_folder",
    "read_result_summary",
    "verify_result",
]

RESULT_FORMAT = "ptycho-result"

NOTHING_REPLACED = "nothing was replaced."
"""End of the message of an error before a result is put in place."""

_ASIDE = ".kept-"
_SECURED = ".image-is-whole"
_ENDING = re.compile(
    r"(?<=.)\.(?:npz|npy|h5|hdf5|hdf|cxi|nxs|mat|ptyd|ptyr|tiff?|zarr)(?:\.(?:gz|bz2|xz|zst))?\Z",
    re.IGNORECASE | re.DOTALL,
)


def default_folder(input_path: Path | str, suffix: str = "-ptycho") -> str:
    """Name of the folder for the result of an input: its whole name without the last known ending, and a suffix.

    Args:
        input_path: file or folder with the scan; ``.`` and the like count by the name of the folder they mean.
        suffix: what is added.

    Returns:
        a plain name, in which what would not show is ``_``; ``scan-ptycho`` for the root of a file system, which has
        no name.
    """
    path = Path(input_path)
    name = path.name if path.name not in ("", "..") else Path(os.path.realpath(path)).name
    return plain_name(_ENDING.sub("", name) or "scan") + suffix


def read_result_summary(folder: Path | str) -> dict[str, Any] | None:
    """Content of ``summary.json`` where it is of a finished result of this program (also of 0.1), else None."""
    summary = _read_json(where_it_lies(Path(folder) / SUMMARY_NAME))
    if summary.get("format") == RESULT_FORMAT:
        return summary
    first_format = isinstance(summary.get("schema_version"), int) and isinstance(summary.get("files"), list)
    return summary if "format" not in summary and first_format else None


def verify_result(folder: Path | str) -> list[str]:
    """Names of a finished result whose bytes are no longer those it was written with.

    Returns:
        sorted; empty where all are as they were. Version 0.1 noted no hashes: of its files only missing ones are named.
    """
    listed = _listed(read_result_summary(folder) or {})
    return sorted(name for name, sha256 in listed.items() if not _is_ours(where_it_lies(Path(folder) / name), sha256))


@dataclass(frozen=True)
class ResultFolder:
    """A folder that this command holds and may put one result into; made by `open` only.

    Attributes:
        path: the folder.
        run_id: 32 hexadecimal digits that stand in the summary.
        writes: names that the command may write.
        inputs: files that the command reads, which are left alone whatever they are called.
        kept: names of files in the folder that belong to no result any more and were left, because they are not, or no
            longer, what this program wrote; grows as results are put in place.
        rescued: images that were whole when the command that made them failed or was killed, in ``training``.
    """

    path: Path
    run_id: str
    writes: frozenset[str]
    inputs: tuple[Path, ...] = ()
    kept: list[str] = field(default_factory=list)
    rescued: list[Path] = field(default_factory=list)

    @classmethod
    @contextmanager
    def open(
        cls,
        path: Path | str,
        *,
        overwrite: bool,
        inputs: Sequence[Path | str] = (),
        writes: Collection[str] = RESULT_NAMES,
    ) -> Iterator[ResultFolder]:
        """Make and hold a result folder while the block runs. Call it when the input of the command has been accepted.

        What a killed command left there is cleared or completed first. A block that fails leaves no folder that was not
        there before, unless there is more in it than the log: a checkpoint is kept.

        Args:
            path: the folder; made, with its parents, when it is not there.
            overwrite: whether a result that lies there may be replaced.
            inputs: files that the command reads.
            writes: names that the command may write, of `RESULT_NAMES`.

        Raises:
            OutputError: the folder is in use or cannot be written, holds a result that may not be replaced, or one of
                the inputs is what would be replaced. Nothing was touched then.
        """
        folder = Path(path)
        sources = tuple(Path(source) for source in inputs)
        _refuse_inputs(folder, sources, frozenset(writes))
        made: list[Path] = []
        try:
            make_folder(folder, made)
            with hold_folder(folder):
                result = cls(folder, uuid.uuid4().hex, frozenset(writes), sources)
                with as_output_error(folder, "choose another folder with --out."):
                    result._settle()
                if not overwrite:
                    result._refuse_what_is_there()
                yield result
        except BaseException:
            remove_made(made)
            raise

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """Yield an empty folder to write the files of a result into; when the block ends well they are the result.

        The summary, where the block writes one, gets the format, the run id, and size and hash of each file.

        An image that was said to be whole (:meth:`secure`) is not lost when what follows fails, or the process is
        killed: see ``rescued``.

        Raises:
            OutputError: a file is not of those the command may write, or something cannot be written; the earlier
                result is as it was, or else the message says that the new one will be put in place by the next command.
        """
        partial = self.path / f".partial-{self.run_id}"
        commit = self.path / f".commit-{self.run_id}"
        try:
            with as_output_error(partial, NOTHING_REPLACED):
                partial.mkdir()
            yield partial
            with as_output_error(self.path, NOTHING_REPLACED):
                self._seal(partial)
                os.rename(partial, commit)
                flush_folder(self.path)
        except OutputError as error:
            if (rescued := self._rescue(partial)) is None:
                raise
            raise OutputError(f"{error} The image is whole in {rescued}.") from error
        except BaseException:
            self._rescue(partial)
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._complete(commit)

    def secure(self, partial: Path) -> None:
        """Say that the image in a staging folder is whole: from here on only looks can fail, and it is not for them."""
        with as_output_error(partial, NOTHING_REPLACED):
            _flush(partial / IMAGE_NAME)
            (partial / _SECURED).touch()

    def _rescue(self, partial: Path) -> Path | None:
        """Move an image that is whole out of a folder that will be cleared; it takes no room to do so."""
        image, training = partial / IMAGE_NAME, self.path / TRAINING_NAME
        target = training / f"reconstruction-{partial.name[-8:]}.h5"
        try:
            secured = (partial / _SECURED).is_file() and stat.S_ISREG(image.lstat().st_mode)
            if partial.is_symlink() or not secured or os.path.lexists(target):
                return None
            training.mkdir(exist_ok=True)
            os.rename(image, target)
        except OSError:  # there is none, or the disk is at its end
            return None
        self.rescued.append(target)
        return target

    def kept_sentences(self) -> list[str]:
        """What to tell the user of each file in ``kept`` and in ``rescued``."""
        what = "it is no file of an earlier result, or was changed since"
        return [
            f"{self.path / name}: {what}, and was {'kept under this name' if _ASIDE in name else 'left as it is'}"
            for name in self.kept
        ] + [f"{path}: the image of a run that ended before its results were written" for path in self.rescued]

    def _seal(self, partial: Path) -> None:
        """Write the summary and the plan into a staging folder, and everything to disk."""
        (partial / _SECURED).unlink(missing_ok=True)
        for path in partial.iterdir():
            if path.name not in self.writes or path.is_symlink() or not path.is_file():
                raise OutputError(
                    f"{path.name}: no file of a result; this command writes {', '.join(sorted(self.writes))} "
                    "(a new name is added to RESULT_NAMES)."
                )
        names = sorted(path.name for path in partial.iterdir() if path.name != SUMMARY_NAME)
        files = {name: {"sha256": _flush(partial / name), "bytes": (partial / name).stat().st_size} for name in names}
        summary = _read_json(partial / SUMMARY_NAME)
        if not summary and (partial / SUMMARY_NAME).exists():
            raise OutputError(f"{SUMMARY_NAME}: what was written is no JSON object; nothing was replaced.")
        summary |= {"format": RESULT_FORMAT, "run_id": self.run_id, "files": files}
        earlier = read_result_summary(self.path)
        replaces = _listed(earlier or {})
        if earlier is not None:
            replaces[SUMMARY_NAME] = _sha256(self.path / SUMMARY_NAME)
        gone = replaces.keys() - files.keys() - {SUMMARY_NAME}
        removes = sorted(name for name in gone if replaces[name] is not None and not self._is_input(name))
        plan = {"writes": [*names, SUMMARY_NAME], "replaces": replaces, "removes": removes}
        for name, content in ((SUMMARY_NAME, summary), (PLAN_NAME, plan)):
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
            (partial / name).write_text(text + "\n", encoding="utf-8")
            _flush(partial / name)
        flush_folder(partial)

    def _is_input(self, name: str) -> bool:
        return any(is_same_file(source, self.path / name) for source in self.inputs)

    def _settle(self) -> None:
        """Clear what killed commands left before their one step, and complete what they left after it."""
        for path in sorted(self.path.iterdir()):
            if path.is_symlink() or not path.is_dir():
                continue
            if COMMIT_NAME.fullmatch(path.name):
                self._complete(path)
            elif PARTIAL_NAME.fullmatch(path.name):
                self._rescue(path)
                shutil.rmtree(path, ignore_errors=True)
        sweep_locks(self.path)
        sweep_temporaries(self.path)
        for folder, _, _ in os.walk(self.path / TRAINING_NAME):
            sweep_temporaries(Path(folder))

    def _complete(self, commit: Path) -> None:
        """Put a decided result in place. Every step may be the last one, and all of them may be done again."""
        end = (
            f"the earlier result is as it was and the new one is whole in {commit.name}; make room for it there, and "
            "the next command puts it in place."
        )
        with as_output_error(self.path, end):
            switch = Switch.of(self.path, commit, _is_ours, lambda path, name: self._keep(commit, path, name))
            if switch is None:
                return
            switch.complete()
        for name in sorted(RESULT_NAMES.difference(switch.writes)):
            if os.path.lexists(self.path / name) and not self._is_input(name):
                self.kept.append(name)

    def _keep(self, commit: Path, path: Path, name: str) -> None:
        """Rename what is not ours and lay where a new file goes."""
        mark, n, of = commit.name[-8:], 1, self.path / name
        while os.path.lexists(aside := of.with_name(f"{of.stem}{_ASIDE}{mark}-{n}{of.suffix}")):
            n += 1
        os.rename(path, aside)
        self.kept.append(aside.name)

    def _refuse_what_is_there(self) -> None:
        if read_result_summary(self.path) is not None:
            raise OutputError(
                f"{self.path}: holds a finished result; pass --overwrite (overwrite=True) to replace it or choose "
                "another folder with --out (out)."
            )
        found = [name for name in sorted(self.writes) if os.path.lexists(self.path / name)]
        if found:
            raise OutputError(
                f"{self.path}: holds {', '.join(found)}, which this command writes too; choose another folder with "
                "--out (out), or pass --overwrite (overwrite=True): what is no result of this program is renamed then."
            )


def _refuse_inputs(folder: Path, inputs: Sequence[Path], writes: frozenset[str]) -> None:
    """Refuse an input that is, or lies in, what would be written, removed or replaced."""
    pending = RESULT_NAMES & {path.name for path in folder.glob(".commit-*/*")}
    for source in inputs:
        for name in sorted(writes | pending | {LOCK_NAME, LOG_NAME}):
            if is_same_file(source, folder / name):
                raise OutputError(
                    f"{source}: the input would be replaced by {name} of the result in {folder}; choose another folder "
                    "with --out."
                )
        for parent in Path(os.path.realpath(source)).parents:  # Path.resolve raises where links lead in a circle
            ours = PARTIAL_NAME.fullmatch(parent.name) or COMMIT_NAME.fullmatch(parent.name)
            if ours and is_same_file(parent.parent, folder):
                raise OutputError(
                    f"{source}: the input lies in {parent.name}, which a command that was killed left in {folder} and "
                    "the next one there removes; copy it elsewhere or choose another folder with --out."
                )


def _listed(summary: Mapping[str, Any]) -> dict[str, str | None]:
    """Names of our own list in a summary → hash, or None where it is of the first format, which has none."""
    files = summary.get("files")
    if isinstance(files, list):
        return {name: None for name in files if isinstance(name, str) and name in RESULT_NAMES - {SUMMARY_NAME}}
    if not isinstance(files, dict):
        return {}
    known = {name: entry for name, entry in files.items() if name in RESULT_NAMES - {SUMMARY_NAME}}
    return {name: str(entry.get("sha256", "")) if isinstance(entry, dict) else "" for name, entry in known.items()}


def _is_ours(path: Path, sha256: str | None) -> bool:
    """Whether a plain file has the hash it was written with; None, of the first format, takes any plain file."""
    is_plain = path.is_file() and (not path.is_symlink() or is_switch_link(path))
    return is_plain and (sha256 is None or _sha256(path) == sha256)


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is none that can be read."""
    if not path.is_file():  # a pipe of that name would be waited for
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> str:
    """Bring a file to disk and return its hash."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
