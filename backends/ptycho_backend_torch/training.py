"""Training with Lightning's processes and devices: parameters, optimiser and batches; the loop is ``enginekit``'s."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.func import functional_call

from ptycho_core.enginekit.engine_threads import FixedThreads, Threads
from ptycho_core.enginekit.network_loop import Step, Training
from ptycho_core.enginekit.network_result import Learnt, NetworkResult
from ptycho_core.enginekit.training_groups import TrainingGroups
from ptycho_core.errors import Cancelled, ConfigError, PtychoError
from ptycho_core.protocol import Progress
from ptycho_core.runtime import Runtime

from .data import Loader
from .gradient import computing_threads
from .hardware import choose_device, low_precision
from .network import PtychoNetwork
from .relay import Listener, Mailbox, has_own_processes, strategy_of

__all__ = ["TorchLearner", "fit"]


class TorchLearner:
    """See ``enginekit.network_loop.Learner``.

    Args:
        network: its parameters are trained in place.
        data: groups to learn from, and those that are held out.
        fabric: devices and processes.
        num_workers: processes that read ahead.
        threads: of the operations, on a processor.
    """

    def __init__(
        self, network: PtychoNetwork, data: TrainingGroups, fabric: Fabric, num_workers: int, threads: Threads
    ) -> None:
        self.threads = threads if fabric.device.type == "cpu" else FixedThreads(1)
        self.network, self.data, self.config, self.fabric = network, data, data.config, fabric
        optimizer = torch.optim.AdamW(network.groups(), fused=True)
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.forward, self.optimizer = fabric.setup(network, optimizer)
        self.steps_an_epoch, self.n_heldout = data.draw.steps_an_epoch(fabric.world_size), data.n_heldout
        self.leads = fabric.global_rank == 0
        self.average: dict[str, Tensor] | None = None
        self._loader = Loader(data, num_workers)

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes so."""
        return wish if self.fabric.world_size == 1 else self._sum([float(wish)])[0] > 0

    def _sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        mine = torch.tensor(values, dtype=torch.float32, device=self.fabric.device)
        total: Tensor = self.fabric.all_reduce(mine, reduce_op="sum")
        return total.tolist()

    def _parameters(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.network.named_parameters()}

    def values(self) -> dict[str, NDArray[np.float32]]:
        """Name → parameter: the moving average where there is one, else as it is."""
        values = self._parameters() if self.average is None else self.average
        return {name: value.cpu().numpy().copy() for name, value in values.items()}

    def _read(self, batches: Sequence[Any]) -> Iterator[dict[str, Tensor]]:
        for batch in self._loader.read(batches):
            yield {name: value.to(self.fabric.device) for name, value in batch.items()}

    def batches(self, epoch: int, first_batch: int) -> Iterator[dict[str, Tensor]]:
        """This process's share of the batches of an epoch."""
        rank, world_size = self.fabric.global_rank, self.fabric.world_size
        order = self.data.draw.batches(epoch, rank=rank, world_size=world_size, first_batch=first_batch)
        return self._read(list(order))

    def step(self, batch: dict[str, Tensor], factor: float, look: bool) -> Step:
        """One step of the optimiser."""
        with (
            self.threads.step(("train", look, *batch["counts"].shape[1:]), len(batch["counts"])) as n_threads,
            computing_threads(self.fabric.device, n_threads),
        ):
            return self._step(batch, factor, look)

    def _step(self, batch: dict[str, Tensor], factor: float, look: bool) -> Step:
        config = self.config
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        self.optimizer.zero_grad()
        loss, patches = self.forward(batch)
        self.fabric.backward(loss)
        if config.gradient_clip_norm is not None:  # probe and scale have steps of their own size
            nn.utils.clip_grad_norm_(self.network.generator.parameters(), config.gradient_clip_norm)
        self.optimizer.step()
        if config.weight_average > 0:
            d, before = config.weight_average, self.average
            self.average = {
                name: value.clone() if before is None else d * before[name] + (1 - d) * value
                for name, value in self._parameters().items()
            }
        told = [loss.detach(), self.network.variation(patches, int(batch["scan"]))] if look else [loss.detach()]
        means = self.fabric.all_reduce(torch.stack(told), reduce_op="mean").tolist()
        return Step(means[0], len(batch["counts"]), means[1] if look else None)

    def heldout_loss(self) -> float:
        """Mean loss of the held-out frames of all scans, by the weights that count in the end."""
        values, total = self.average or self._parameters(), 0.0
        order = self.data.heldout_batches()[self.fabric.global_rank :: self.fabric.world_size]
        with torch.no_grad():
            for batch in self._read(order):
                with (
                    self.threads.step("held out", len(batch["counts"])) as n_threads,
                    computing_threads(self.fabric.device, n_threads),
                ):
                    loss, _ = functional_call(self.network, values, (batch,), {"counted": True})
                    total += float(loss) * int(batch["counted"].sum())
        return self._sum([total])[0] / self.n_heldout if self.fabric.world_size > 1 else total / self.n_heldout

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Parameters, average and the state of the optimiser."""
        arrays = {f"parameter.{name}": value for name, value in self._parameters().items()}
        arrays |= {f"average.{name}": value for name, value in (self.average or {}).items()}
        for name, parameter in self.network.named_parameters():
            state = self.optimizer.state.get(parameter, {})
            arrays |= {f"optimizer.{key}.{name}": value for key, value in state.items()}
        return {name: value.cpu().numpy().copy() for name, value in arrays.items()}

    def take(self, arrays: Mapping[str, NDArray[Any]], steps: int) -> None:
        """Go on from them."""
        average, averaged = {}, any(name.startswith("average.") for name in arrays)
        for name, parameter in self.network.named_parameters():
            parameter.data.copy_(torch.from_numpy(arrays[f"parameter.{name}"]))
            if averaged:
                average[name] = torch.empty_like(parameter.data).copy_(torch.from_numpy(arrays[f"average.{name}"]))
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"optimizer.{key}.{name}" in arrays:  # parameters that no step has changed have none
                    value = torch.from_numpy(arrays[f"optimizer.{key}.{name}"]).to(self.fabric.device)
                    # the fused step takes it to lie in memory as the parameter does
                    placed = torch.empty_like(parameter.data).copy_(value) if value.ndim else value
                    self.optimizer.state[parameter][key] = placed
        self.average = average or None


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    logger = logging.getLogger("lightning.fabric")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", module=r"torch\..*")
            yield
    finally:
        logger.setLevel(level)


class _QuietLightning:
    """Holds back Lightning's start-up notes and tips while any training runs; errors pass.

    Warning filters and log levels belong to the process. If each of two trainings that overlap put back what it found,
    the one that ends last would put back what the first had set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._undo.enter_context(_held_back())
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._undo.close()


_quiet_lightning = _QuietLightning()

_DDP: dict[str, Any] = {"ddp": "popen", "ddp_spawn": "spawn", "ddp_fork": "fork", "ddp_notebook": "fork"}
"""Strategy that averages gradients → how it starts its processes."""


def _train(
    fabric: Fabric,
    data: TrainingGroups,
    runtime: Runtime,
    facts: Mapping[str, Any],
    backend: str,
    progress: Progress | Mailbox,
    threads: Threads,
    result: NetworkResult | None = None,
) -> tuple[Any, ...]:
    """Train in this process; where it was started for that, errors are handed over to the caller's too."""
    mailbox, training = progress if isinstance(progress, Mailbox) else None, None
    if mailbox is not None:
        mailbox.settle_in()
    try:
        with torch.inference_mode(mode=False), torch.enable_grad():
            reduced = low_precision(runtime.precision, fabric.device)
            network = PtychoNetwork(data.config, data.scans, data.n_trained, reduced)
            learner = TorchLearner(network, data, fabric, runtime.num_workers, threads)
            tell = progress.progress if isinstance(progress, Mailbox) else progress
            training = Training(learner, data.config, runtime, backend, facts, tell, result)
            return tuple(training.run())
    except PtychoError as error:
        if mailbox is not None and not isinstance(error, Cancelled):
            mailbox.error(error, None)
        elif mailbox is not None:
            # all are stopped at the same step; the first that ends takes the others along, amid what they write
            if fabric.global_rank == 0:
                mailbox.error(error, None if training is None else training.so_far())
            fabric.barrier()
        raise


def _train_aside(fabric: Fabric, **given: Any) -> tuple[Any, ...]:
    """Train in a process that was started for it, and part from the others.

    A thread by which they speak that still holds a tensor while Python ends aborts the process, and is taken for a
    training that failed: the group must be gone before. Lightning sees to that for NCCL alone.
    """
    learnt = _train(fabric, **given)
    gc.collect()  # the training is over, and what is left of it holds the group
    if distributed.is_initialized():
        distributed.destroy_process_group()
    return learnt


def fit(
    data: TrainingGroups, result: NetworkResult, facts: Mapping[str, Any], progress: Progress, threads: Threads
) -> Learnt:
    """Train, in this process or in others; several divide the threads that nobody asked for among them.

    Raises:
        ConfigError: devices or a strategy that are not to be had here.
        CollapseError, BackendError, Cancelled, ArchiveError, OutputError: see ``enginekit.network_loop``.
    """
    config, runtime, backend = result.config, result.runtime, result.engine.name
    name = strategy_of(runtime.strategy, runtime.devices)
    aside = has_own_processes(name)
    device = choose_device(runtime.accelerator).type
    settings: dict[str, Any] = {"accelerator": device, "devices": runtime.devices, "strategy": name}
    if data.n_trained > 1 and (config.probe_trainable or config.scale_trainable) and name in _DDP:
        # a step leaves probe and scale of other scans alone; processes that share gradients would wait for theirs
        settings["strategy"] = DDPStrategy(start_method=_DDP[name], find_unused_parameters=True)
    if aside:
        threads = FixedThreads(runtime.threads or max(1, threads.most // runtime.devices))
    # in one piece: Lightning looks for modules in what it is given, and cannot pass through frozen values
    train = _train_aside if aside else _train
    job = functools.partial(
        functools.partial, train, data=data, runtime=runtime, facts=facts, backend=backend, threads=threads
    )
    with _quiet_lightning:
        try:
            fabric = Fabric(**settings)
        except (ValueError, MisconfigurationException) as error:
            given = ", ".join(f"{name} = {value!r}" for name, value in settings.items())
            said = " ".join(str(error).split()).rstrip(".")
            raise ConfigError(f"Lightning refuses {given}: {said}. Choose others, or leave them out.") from error
        if not aside:
            return Learnt(*fabric.launch(job(progress=progress, result=result)))
        with Listener(progress, result) as listener:
            return Learnt(*fabric.launch(job(progress=listener.mailbox)))
