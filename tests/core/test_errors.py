"""The tree of errors: what callers may catch."""

from __future__ import annotations

import inspect
import pickle

import pytest

from ptycho_core import errors
from ptycho_core.errors import suggest

TYPES = [value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__]


@pytest.mark.spec("CONV-9")
def test_every_error_is_a_ptycho_error_with_a_docstring() -> None:
    assert set(errors.__all__) == {t.__name__ for t in TYPES} | {"suggest"}
    for kind in TYPES:
        assert issubclass(kind, errors.PtychoError)
        assert kind.__doc__


@pytest.mark.spec("CONV-9")
@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (errors.ConfigError, (ValueError,)),
        (errors.DataError, (ValueError,)),
        (errors.ArchiveError, (ValueError,)),
        (errors.EvaluationError, (ValueError,)),
        (errors.OutputError, (OSError,)),
        (errors.UnknownBackendError, (errors.BackendError, ValueError)),
        (errors.BackendUnavailableError, (errors.BackendError, ImportError, RuntimeError)),
        (errors.BackendConflictError, (errors.BackendError,)),
        (errors.BackendProtocolError, (errors.BackendError, TypeError)),
        (errors.CollapseError, (errors.BackendError,)),
    ],
)
def test_errors_are_also_what_python_calls_them(kind: type[Exception], bases: tuple[type, ...]) -> None:
    for base in bases:
        assert issubclass(kind, base)
    assert str(kind("culprit: found; allowed")) == "culprit: found; allowed"


@pytest.mark.parametrize("kind", TYPES)
def test_errors_survive_pickling(kind: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(kind("a text")))
    assert type(copy) is kind
    assert str(copy) == "a text"


def test_cancelled_carries_the_checkpoint() -> None:
    assert errors.Cancelled().checkpoint_path is None
    stopped = errors.Cancelled("stopped", checkpoint_path="out/last.ckpt")
    assert (str(stopped), stopped.checkpoint_path) == ("stopped", "out/last.ckpt")
    assert pickle.loads(pickle.dumps(stopped)).checkpoint_path == "out/last.ckpt"
    assert not issubclass(errors.Cancelled, errors.BackendError)


def test_suggestions_are_near_or_absent() -> None:
    assert suggest("epoch", ["epochs", "seed"]) == " Did you mean 'epochs'?"
    assert suggest("train", ["training", "trains", "seed"]) == " Did you mean 'trains' or 'training'?"
    assert suggest("measurment", ["resume_from", "max_seconds", "measurement"]) == " Did you mean 'measurement'?"
    assert suggest("zzz", ["epochs", "seed"]) == ""
    assert suggest("epochs", iter(())) == ""
