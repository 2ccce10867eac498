"""The typed errors of the project: each message names the culprit, what was given, what is allowed, and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice
from typing import Any

from .text import one_line

__all__ = [
    "ArchiveError",
    "BackendConflictError",
    "BackendError",
    "BackendFaultError",
    "BackendImportError",
    "BackendProtocolError",
    "BackendUnavailableError",
    "Cancelled",
    "CollapseError",
    "ConfigError",
    "DataError",
    "EvaluationError",
    "MissingPackageError",
    "OutputError",
    "PtychoError",
    "ReaderError",
    "UnknownBackendError",
    "suggest",
]


class PtychoError(Exception):
    """Base of every error that the project raises on purpose; its text is meant for a user.

    The text is one line of bounded length whose characters only show, whatever names of a file it repeats; ``args`` has
    it as it was given.
    """

    def __str__(self) -> str:
        """The text."""
        return one_line(super().__str__())


class ConfigError(PtychoError, ValueError):
    """A configuration field is unknown, out of range, or not supported by the chosen engine."""


class DataError(PtychoError, ValueError):
    """A scan cannot be read or is not a usable ptychography scan."""


class ReaderError(PtychoError):
    """A reader of scan files is broken, does not keep its protocol, or shares its name with another."""


class ArchiveError(PtychoError, ValueError):
    """A model bundle is damaged, foreign, too new, or unsafe to unpack."""


class EvaluationError(PtychoError, ValueError):
    """Two images cannot be scored against each other (constant, no overlap, wrong shape)."""


class MissingPackageError(PtychoError, ImportError):
    """A part of this package that is not needed for reconstruction lacks an optional package."""


class OutputError(PtychoError, OSError):
    """A result cannot be written where it was asked for."""


class BackendError(PtychoError):
    """An engine failed."""


class UnknownBackendError(BackendError, ValueError):
    """No installed engine has the requested name."""


class BackendUnavailableError(BackendError, ImportError, RuntimeError):
    """The engine is known but a package it needs is not installed."""


class BackendConflictError(BackendError):
    """Two installed distributions claim one engine name."""


class BackendProtocolError(BackendError, TypeError):
    """An engine does not keep the protocol: wrong signature, wrong return type, wrong shape."""


class BackendFaultError(BackendError):
    """An engine raised what is no error of this package: a bug in it, which is the cause."""


class BackendImportError(BackendFaultError, ImportError):
    """An engine is installed with all it requires, and cannot be imported, or failed to import something later."""


class CollapseError(BackendError):
    """Training converged to a constant object; the result would be meaningless."""


class Cancelled(PtychoError):  # noqa: N818 - it is a request that was met, no error
    """Raised by a progress callback (or by Ctrl-C) to stop an engine after its current step.

    Attributes:
        checkpoint_path: where training can be resumed from, or None when nothing was saved.
        model_path: bundle of the model, where training was over; else None.
        results_path: folder with the results as far as there are any, or None.
        run: the ``Run`` as far as it came, where an image was made; else None.
        model: the ``TrainedModel`` of a training that was stopped: of a solver's epochs, of a network's best epoch so
            far; that of a whole training where its image was stopped; None before there is one.
        image: the best ``Image`` of the epochs that were made, of refining that was stopped; else None.
    """

    def __init__(
        self,
        message: str = "cancelled",
        checkpoint_path: str | None = None,
        *,
        model_path: str | None = None,
        results_path: str | None = None,
        run: Any = None,  # a Run: everything imports this module, so it imports nothing of the package
        model: Any = None,
        image: Any = None,
    ) -> None:
        super().__init__(message)
        self.checkpoint_path = checkpoint_path
        self.model_path = model_path
        self.results_path = results_path
        self.run = run
        self.model = model
        self.image = image


_COMPARED, _LONGEST = 2000, 200
_FARTHER = 0.2
"""Likeness below that of the nearest name at which another is no guess beside it."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest allowed names, or an empty text.

    Comparing takes long: of thousands of names the first are compared, and none that is far longer.
    """
    usual = [other for other in islice(allowed, _COMPARED) if len(other) <= _LONGEST]
    likeness = [
        (difflib.SequenceMatcher(None, other, name[:_LONGEST]).ratio(), other)
        for other in difflib.get_close_matches(name[:_LONGEST], usual, n=3, cutoff=0.5)
    ]
    near = [other for like, other in likeness if like > likeness[0][0] - _FARTHER]
    return f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
