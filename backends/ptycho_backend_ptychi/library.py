"""pty-chi as a guest: what importing and running it would change in the process is kept inside a scope.

pty-chi sets torch's default device and dtype, seeds three global generators, keeps switches of its own in module
globals, writes to its loggers and to the root logger, and shows a progress bar when the level allows. A caller of this
project must notice none of it (CONV-6, CONV-7), nor must another run that is interleaved with this one. So every entry
into the library goes through :func:`inside`, which is left between epochs, when the caller's `progress` is called.

pty-chi is imported here and nowhere else; the other modules take its parts from here.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import random
import sys
import types
import warnings
from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from ptycho_core.enginekit.engine_threads import ProcessThreads, Threads

__all__ = [
    "AnalyticalIterativePtychographyReconstructor",
    "OPRModeWeights",
    "PlanarObject",
    "PlanarPtychographyForwardModel",
    "PlanarPtychographyParameterGroup",
    "PositionCorrection",
    "Probe",
    "ProbePositions",
    "PtychographyTask",
    "api",
    "computing",
    "image_proc",
    "inside",
    "set_threads",
]


class _TorchvisionLater:
    """Stands for ``torchvision.transforms.GaussianBlur`` until somebody blurs: then torchvision is imported."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("torchvision.transforms").GaussianBlur(*args, **kwargs)


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Let pty-chi be imported where torchvision is not.

    pty-chi 2.2.0 imports torchvision for one function, which makes random test images and which nothing here calls.
    The torchvision of the registry belongs to CUDA builds of torch: on a CPU build it fails when it is imported. So
    the one name is deferred; the stand-in leaves ``sys.modules`` as it was.
    """
    names = ("torchvision", "torchvision.transforms")
    if "torchvision" in sys.modules:
        yield
        return
    stand_in, transforms = (types.ModuleType(name) for name in names)
    stand_in.transforms = transforms  # type: ignore[attr-defined]
    transforms.GaussianBlur = _TorchvisionLater  # type: ignore[attr-defined]
    sys.modules.update(dict(zip(names, (stand_in, transforms), strict=True)))
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


class _NotFromPtychi(logging.Filter):
    """Drops what pty-chi writes to the root logger, told by the file that it comes from."""

    def __init__(self) -> None:
        super().__init__()
        spec = importlib.util.find_spec("ptychi")
        self.folder = os.path.dirname(spec.origin or "") + os.sep if spec is not None else os.sep

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.pathname.startswith(self.folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pty-chi's loggers, and keep its calls of ``logging.warning`` from configuring the root logger."""
    own, root = logging.getLogger("ptychi"), logging.getLogger()
    level, own_filter, handler = own.level, _NotFromPtychi(), logging.NullHandler()
    own.setLevel(logging.CRITICAL + 1)  # also what pty-chi asks before it shows a progress bar
    root.addFilter(own_filter)
    root.addHandler(handler)  # ``logging.warning`` configures a root logger that has no handler
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"ptychi(\.|$)")
            yield
    finally:
        root.removeHandler(handler)
        root.removeFilter(own_filter)
        own.setLevel(level)


with _quiet(), _without_torchvision():
    from ptychi import api, image_proc, maths, utils
    from ptychi.api.task import PtychographyTask
    from ptychi.data_structures.object import PlanarObject
    from ptychi.data_structures.opr_mode_weights import OPRModeWeights
    from ptychi.data_structures.parameter_group import PlanarPtychographyParameterGroup
    from ptychi.data_structures.probe import Probe
    from ptychi.data_structures.probe_positions import ProbePositions
    from ptychi.forward_models import PlanarPtychographyForwardModel
    from ptychi.position_correction import PositionCorrection
    from ptychi.reconstructors.base import AnalyticalIterativePtychographyReconstructor


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed the global generators that pty-chi draws from on a device, and put them back; other devices keep theirs."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002 - pty-chi draws from it
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if seed is not None:
            # torch.manual_seed would seed every CUDA device, also those that are not put back
            torch.default_generator.manual_seed(seed)
            for index in devices:
                torch.cuda.default_generators[index].manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(of_numpy)  # noqa: NPY002
            random.setstate(of_python)


_polyfit = maths.polyfit


def _fitted(x: torch.Tensor, y: torch.Tensor, deg: int = 1) -> torch.Tensor:
    """Stands for ``ptychi.maths.polyfit``: coefficients (deg + 1,) from high to low order, the same for the same input.

    That one asks ``torch.linalg.lstsq``, which pivots by memory that nobody has set: three answers to one question,
    2e-7 apart, so that a run of ``lsqml`` with momentum could not be repeated, and not be resumed to the same bits.
    """
    if deg != 1:
        return _polyfit(x, y, deg)
    x, values = x.double(), y.double()
    apart = x - x.mean()
    slope = (apart * values).sum() / (apart**2).sum()
    return torch.stack([slope, values.mean() - slope * x.mean()]).to(y.dtype)


@contextmanager
def _switches() -> Iterator[None]:
    """Set torch's default dtype and pty-chi's module globals to what this engine wants: float32, repeatable answers."""
    was = (
        torch.get_default_dtype(),
        utils.get_default_complex_dtype(),
        maths.get_use_double_precision_for_fft(),
        maths.get_allow_nondeterministic_algorithms(),
    )

    def put(dtype: torch.dtype, complex_dtype: torch.dtype, double_fft: bool, nondeterministic: bool) -> None:
        torch.set_default_dtype(dtype)
        utils.set_default_complex_dtype(complex_dtype)
        maths.set_use_double_precision_for_fft(double_fft)
        maths.set_allow_nondeterministic_algorithms(nondeterministic)

    put(torch.float32, torch.complex64, False, False)
    maths.polyfit = _fitted
    try:
        yield
    finally:
        maths.polyfit = _polyfit
        put(*was)


@contextmanager
def _environment() -> Iterator[None]:
    """Take back what torch notes in the environment: the first optimiser imports its compiler, which sets this."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    was_there = name in os.environ
    try:
        yield
    finally:
        if not was_there:
            os.environ.pop(name, None)


@contextmanager
def inside(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Enter pty-chi: quiet, on a device, with switches and random numbers of this run; on leaving all is as before.

    Args:
        device: torch's default device inside.
        seed: of the global generators inside; None leaves them where they are, and puts them back all the same.
    """
    with ExitStack() as scope:
        scope.enter_context(_environment())
        scope.enter_context(_quiet())
        scope.enter_context(_switches())
        scope.enter_context(_seeded(seed, device))
        if torch.get_default_device() != device:  # a scope, not torch.set_default_device, which stays
            scope.enter_context(device)
        yield


_process_threads = ProcessThreads(torch.get_num_threads, torch.set_num_threads)


@contextmanager
def set_threads(n_threads: int, device: torch.device) -> Iterator[None]:
    """Let each operation on a processor take so many threads, and then as many as before."""
    if device.type != "cpu":
        yield
        return
    with _process_threads.set_to(n_threads):
        yield


@contextmanager
def computing(threads: Threads, kind: Hashable, size: int, device: torch.device) -> Iterator[None]:
    """Make a step of some kind and size with as many threads as are chosen for it."""
    with threads.step(kind, size) as n_threads, set_threads(n_threads, device):
        yield
