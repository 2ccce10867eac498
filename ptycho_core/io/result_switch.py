"""How the files of one result take the places of another's, at once for whoever looks.

A new result lies whole in ``.commit-ID`` of its folder. Fixed names in a plain folder cannot change together, so for
the moment of the switch they are links through one pointer::

    report.html -> .commit-ID/.now/report.html        and so every name of the old and of the new result
    .commit-ID/.now -> .old                           then: ``.``, the new files; this one rename is the switch
    .commit-ID/.old/report.html                       a second name of the old file

Before the pointer turns, every name reads as the old file; after it, as the new one; then the files themselves take
the places of the links. A process killed at any step leaves links that read as one whole result, also for a program
that knows nothing of this, and whoever opens the folder next goes on with the same steps: each may be done again.

Where there are no symbolic links the pointer is a small file, names are missing while the switch lasts, and
:func:`where_it_lies` finds them. Where there are no hard links an old file is moved, and its name is missing until its
link stands. Files of two results never lie beside each other.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic import flush_folder
from .result_names import COMMIT_NAME, PLAN_NAME, RESULT_NAMES, SUMMARY_NAME

__all__ = ["Switch", "is_switch_link", "where_it_lies"]

_NOW, _NEXT, _LINK, _OLD = ".now", ".next", ".link", ".old"
_BEFORE, _AFTER = _OLD, "."
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}
_LINK_TEXT = re.compile(rf"({COMMIT_NAME.pattern})/{re.escape(_NOW)}/(.+)", re.DOTALL)


def is_switch_link(path: Path) -> bool:
    """Whether a path is the link that a switch of its folder puts in place of the file of that name."""
    try:
        text = os.readlink(path)
    except OSError:  # not there, or no link
        return False
    found = _LINK_TEXT.fullmatch(text.replace(os.sep, "/"))
    return found is not None and found[2] == path.name and (path.parent / found[1]).is_dir()


def where_it_lies(path: Path) -> Path:
    """The file of a result that a path in its folder means, also where a switch was cut off that could make no links.

    Args:
        path: a file in a result folder, or any other, which is returned as it is.
    """
    if path.name not in RESULT_NAMES or os.path.lexists(path):
        return path
    for commit in sorted(path.parent.glob(".commit-*")):
        side = _side(commit) if COMMIT_NAME.fullmatch(commit.name) else None
        if side is not None and (commit / side / path.name).is_file():
            return commit / side / path.name
    return path


def _side(commit: Path) -> str | None:
    """Where the pointer of a switch leads: to the old files, to the new ones; None where it was not begun."""
    now = commit / _NOW
    try:
        text = os.readlink(now) if now.is_symlink() else now.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    return text if text in (_BEFORE, _AFTER) else None


def _plan(commit: Path) -> dict[str, Any] | None:
    """What is to be done, by the program that wrote it; None where a stranger's folder has the name of ours."""
    path = commit / PLAN_NAME
    if not path.is_file():
        return None
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(plan, dict) or not isinstance(plan.get("replaces"), dict):
        return None
    return plan if isinstance(plan.get("writes"), list) and isinstance(plan.get("removes"), list) else None


@dataclass(frozen=True)
class Switch:
    """The switch of a folder to the result in one of its ``.commit-ID``.

    Attributes:
        folder: of the result; held by this process.
        commit: the folder in it with the new result, its plan in ``.plan.json``.
        writes: names of the new result.
        removes: names of the old one that are not in the new one.
        is_ours: whether a path is the file of the old result that the plan says of this name, and may go.
        keep: called with a path that is not ours and the name it had; it moves it to a name that is free.
    """

    folder: Path
    commit: Path
    writes: tuple[str, ...]
    removes: tuple[str, ...]
    is_ours: Callable[[Path, str], bool]
    keep: Callable[[Path, str], None]

    @classmethod
    def of(
        cls,
        folder: Path,
        commit: Path,
        is_ours: Callable[[Path, str | None], bool],
        keep: Callable[[Path, str], None],
    ) -> Switch | None:
        """The switch that a ``.commit-ID`` holds, begun or not; None where it is not of this program.

        Args:
            folder: of the result.
            commit: the folder in it.
            is_ours: whether a path is a plain file with a hash; None, of version 0.1, stands for any plain file.
            keep: see the class.
        """
        plan = _plan(commit)
        if plan is None:
            return None
        writes, removes = (tuple(sorted(RESULT_NAMES & set(map(str, plan[key])))) for key in ("writes", "removes"))
        replaces = plan["replaces"]

        def is_old(path: Path, name: str) -> bool:
            return name in replaces and is_ours(path, replaces[name])

        return cls(folder, commit, writes, removes, is_old, keep)

    def complete(self) -> None:
        """Put the new result in place, from wherever the switch was cut off.

        Raises:
            OSError: something cannot be done. Before the pointer turned the old files are where they were then.
        """
        if _side(self.commit) != _AFTER:
            try:
                self._begin()
            except OSError:
                self._undo()
                raise
        self._end()

    def _names(self) -> Iterator[str]:
        """Names that change hands; the summary first, so that none lies there where names are missing for a while."""
        others = sorted({*self.writes, *self.removes} - {SUMMARY_NAME})
        yield from ([SUMMARY_NAME] if SUMMARY_NAME in (*self.writes, *self.removes) else [])
        yield from others

    def _begin(self) -> None:
        (self.commit / _OLD).mkdir(exist_ok=True)
        if _side(self.commit) is None:
            self._point(_BEFORE)
        linked = (self.commit / _NOW).is_symlink()
        for name in self._names():
            path = self.folder / name
            if name in self.writes or self._is_link(path) or self.is_ours(path, name):
                self._set_aside(path, linked=linked)
        flush_folder(self.folder)
        flush_folder(self.commit / _OLD)
        self._point(_AFTER)

    def _is_link(self, path: Path) -> bool:
        return is_switch_link(path) and os.readlink(path).startswith(self.commit.name)

    def _set_aside(self, path: Path, *, linked: bool) -> None:
        """Keep what has a name in ``.old``, and put a link there that reads as the same."""
        aside = self.commit / _OLD / path.name
        if self._is_link(path):
            return
        if os.path.lexists(path):
            if os.path.lexists(aside) and not _is_one(path, aside):
                self.keep(path, path.name)  # it came while the switch was cut off
            elif not linked or not self._has_second_name(path, aside):
                os.rename(path, aside)
        if linked:
            link = self.commit / _LINK
            link.unlink(missing_ok=True)
            os.symlink(f"{self.commit.name}/{_NOW}/{path.name}", link)
            os.replace(link, path)

    def _has_second_name(self, path: Path, aside: Path) -> bool:
        """Give a plain file a second name in ``.old``; False where that cannot be, and it is moved there instead."""
        if os.path.lexists(aside):  # given before the switch was cut off
            return True
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        try:
            os.link(path, aside)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise
            return False
        return True

    def _point(self, where: str) -> None:
        """Turn the pointer: a link, or a file with its text where there are none."""
        following, now = self.commit / _NEXT, self.commit / _NOW
        following.unlink(missing_ok=True)
        try:
            if now.exists() and not now.is_symlink():
                raise OSError(errno.EOPNOTSUPP, "there are no links here")
            os.symlink(where, following)
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise
            with following.open("w", encoding="utf-8") as file:
                file.write(where)
                file.flush()
                os.fsync(file.fileno())
        os.replace(following, now)
        flush_folder(self.commit)

    def _end(self) -> None:
        """Put the files in the places of the links, give back what is not ours, and tidy up."""
        for name in sorted(self.writes, key=lambda name: (name == SUMMARY_NAME, name)):
            source, path = self.commit / name, self.folder / name
            if not os.path.lexists(source):
                continue  # done before
            if os.path.lexists(path) and not self._is_link(path):
                self.keep(path, name)
            os.replace(source, path)
        for name in self.removes:
            if self._is_link(self.folder / name):
                (self.folder / name).unlink()
        old = self.commit / _OLD
        for aside in sorted(old.iterdir()) if old.is_dir() else []:
            if not self.is_ours(aside, aside.name):
                self.keep(aside, aside.name)
        flush_folder(self.folder)
        gone = self.commit.with_name(self.commit.name.replace(".commit-", ".partial-"))
        os.rename(self.commit, gone)  # one step, after which it is nothing but a leftover
        shutil.rmtree(gone, ignore_errors=True)

    def _undo(self) -> None:
        """Bring the old files back to their names, as far as that can be; what cannot still reads through its link."""
        for name in self._names():
            path, aside = self.folder / name, self.commit / _OLD / name
            with suppress(OSError):
                linked = self._is_link(path)
                if not os.path.lexists(aside):
                    if linked:  # a name of the new result alone
                        path.unlink()
                elif linked and stat.S_ISREG(aside.lstat().st_mode):
                    os.replace(aside, path)
                elif linked or not os.path.lexists(path):
                    path.unlink(missing_ok=True)
                    os.rename(aside, path)
                elif _is_one(path, aside):
                    aside.unlink()
        with suppress(OSError):
            (self.commit / _OLD).rmdir()
            for name in (_NOW, _NEXT, _LINK):
                (self.commit / name).unlink(missing_ok=True)


def _is_one(a: Path, b: Path) -> bool:
    """Whether two names are of one thing; a link is itself, wherever it leads."""
    return os.path.samestat(a.lstat(), b.lstat())
