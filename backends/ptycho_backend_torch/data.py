"""Batches of groups as PyTorch data, useful on their own; their arrays are those of ``enginekit.training_groups``.

What is asked for is a batch that says everything: epoch, scan and groups. Groups are drawn anew each epoch, and the
processes that read for a training do not see which epoch it has come to.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho_core.enginekit.groups import Batch
from ptycho_core.enginekit.training_groups import TrainingGroups

__all__ = ["BatchDataset", "Loader"]


class BatchDataset(Dataset[dict[str, Tensor]]):
    """Batches as tensors, each asked for by what it holds."""

    def __init__(self, groups: TrainingGroups) -> None:
        self.groups = groups

    def __getitem__(self, batch: Batch) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array.copy()) for name, array in self.groups.read(batch).items()}


class _Order(Sampler[Batch]):
    """The batches that are asked for next."""

    def __init__(self) -> None:
        self.batches: Sequence[Batch] = ()

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _leave_stopping_to_the_parent(worker: int) -> None:
    """What a terminal sends to all of its processes is met by the one that trains, after a whole step."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class Loader:
    """Reads batches, in this process or ahead in others, which live as long as it does.

    Args:
        groups: what to read from.
        num_workers: processes that read ahead.
    """

    def __init__(self, groups: TrainingGroups, num_workers: int = 0) -> None:
        self._order = _Order()
        self._loader = DataLoader(
            BatchDataset(groups),
            sampler=self._order,
            batch_size=None,
            generator=torch.Generator(),  # else the loader would draw from the global one
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            multiprocessing_context="spawn" if num_workers > 0 else None,
            worker_init_fn=_leave_stopping_to_the_parent if num_workers > 0 else None,
        )

    def read(self, batches: Sequence[Batch]) -> Iterator[dict[str, Tensor]]:
        """Batches, one after another."""
        self._order.batches = batches
        yield from self._loader
