"""Who watches a run: whose warnings are notices, and that they still reach whoever listened before."""

from __future__ import annotations

import warnings

import pytest

from ptycho_core.api.observe import Observer, is_own_warning


@pytest.mark.parametrize(
    ("filename", "own"),
    [
        ("/work/ptycho_core/api/refine.py", True),
        ("/venv/lib/python3.12/site-packages/ptycho_core/api/refine.py", True),
        ("/venv/lib/python3.12/site-packages/ptycho_backend_torch/backend.py", True),
        ("/venv/lib/python3.12/site-packages/torch/nn/module.py", False),
        ("/home/me/ptycho_work/.venv/lib/python3.12/site-packages/torch/nn/module.py", False),
        ("/home/me/scan.py", False),
    ],
)
def test_a_warning_is_ours_by_the_package_that_raised_it(filename: str, own: bool) -> None:
    assert is_own_warning(UserWarning, filename) is own


def test_a_library_s_own_category_is_never_ours() -> None:
    class TorchWarning(UserWarning):
        __module__ = "torch"

    assert not is_own_warning(TorchWarning, "/work/ptycho_core/api/refine.py")


def test_notices_are_told_once_and_warnings_go_on() -> None:
    watcher = Observer()
    with warnings.catch_warnings(record=True) as caught, watcher.listening():
        warnings.simplefilter("always")
        for text in ("ours,\n twice", "ours,\n twice"):
            warnings.warn_explicit(text, UserWarning, "/work/ptycho_core/api/refine.py", 1)
        warnings.warn_explicit("theirs", UserWarning, "/lib/torch/a.py", 1)
    assert watcher.notices == ["ours, twice"]
    assert [str(w.message) for w in caught] == ["ours,\n twice", "ours,\n twice", "theirs"]


def test_seconds_of_a_stage_add_up_and_a_failed_one_counts() -> None:
    watcher = Observer()
    watcher.add_seconds("train", 1.25)
    with pytest.raises(ZeroDivisionError), watcher.stage("train"):
        raise ZeroDivisionError
    assert 1.25 < watcher.seconds["train"] < 2
    assert list(watcher.facts()) == ["train", "total"]
