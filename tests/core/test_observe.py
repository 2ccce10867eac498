"""Who watches a run: notices and seconds."""

from __future__ import annotations

import pytest

from ptycho_core.api.observe import Observer


def test_notices_are_told_once_in_one_line() -> None:
    watcher = Observer()
    for text in ("ours,\n twice", "ours,\n twice", "and more"):
        watcher.notice(text)
    assert watcher.notices == ["ours, twice", "and more"]


def test_seconds_of_a_stage_add_up_and_a_failed_one_counts() -> None:
    watcher = Observer()
    watcher.add_seconds("train", 1.25)
    with pytest.raises(ZeroDivisionError), watcher.stage("train"):
        raise ZeroDivisionError
    assert 1.25 < watcher.seconds["train"] < 2
    assert list(watcher.facts()) == ["train", "total"]
