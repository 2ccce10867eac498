"""The frames of an epoch, a batch at a time, and the threads that compute while a batch is handed out."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptycho_core.enginekit.engine_threads import Threads

from .library import computing

__all__ = ["Batches"]


@dataclass
class Batches:
    """The frames of an epoch, a batch at a time, as pty-chi's loops want them.

    pty-chi's own loader reads frame by frame and shuffles with a generator that it never seeds.

    Attributes:
        patterns: (J, N, N) as pty-chi's dataset holds them.
        n_batch: frames in a batch; batches of one epoch are as even as can be.
        sampler: pty-chi's own choice of batches, or None for random ones.
        rng: decides random batches; set before each epoch.
        threads: that compute while a batch is handed out.
        kind: of the batches, for measuring; set before each epoch.
    """

    patterns: Tensor
    n_batch: int
    threads: Threads
    sampler: Any = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    kind: Hashable = None

    def __len__(self) -> int:
        return len(self.sampler) if self.sampler is not None else math.ceil(len(self.patterns) / self.n_batch)

    def __iter__(self) -> Iterator[list[Tensor]]:
        for chosen in self._chosen():
            with computing(self.threads, self.kind, len(chosen), self.patterns.device):
                yield [chosen, self.patterns[chosen.to(self.patterns.device)]]

    def _chosen(self) -> Iterator[Tensor]:
        """Numbers (j,) of the frames of each batch, on the host."""
        if self.sampler is not None:
            yield from (chosen.cpu() for chosen in self.sampler)
            return
        for drawn in np.array_split(self.rng.permutation(len(self.patterns)), len(self)):
            yield torch.as_tensor(np.sort(drawn), device="cpu")
