"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real scans are not beside the checkout (../shared/data)")
    return SHARED_DATA


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked torch where PyTorch is not installed."""
    if importlib.util.find_spec("torch") and importlib.util.find_spec("lightning"):
        return
    for item in items:
        if item.get_closest_marker("torch"):  # not item.keywords: the folder tests/torch is a keyword too
            item.add_marker(pytest.mark.skip(reason="PyTorch is not installed in this environment"))
