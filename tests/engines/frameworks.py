"""What the tests must say to a framework itself: one small adapter each, which imports it when it is made.

Everything else in this folder speaks NumPy and the engine protocol.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ptycho_core.testing.tolerances import relative_error

__all__ = ["Framework", "Side", "framework_of"]


class Framework(Protocol):
    """A framework as the tests use it.

    Attributes:
        physics: the engine's twin of ``ptycho_core.physics``.
        helpers: public functions of the twin that only this framework needs.
        package: import name of the engine.
    """

    physics: ModuleType
    helpers: frozenset[str]
    package: str

    def put(self, value: Any, precision: str) -> Any:
        """An array as a tensor; real and complex ones in the precision ``float32`` or ``float64``. None stays None."""

    def get(self, tensor: Any) -> np.ndarray:
        """A tensor as an array."""

    def gradient(self, function: Callable[..., Any], *inputs: Any) -> tuple[np.ndarray, list[np.ndarray]]:
        """Value of a real function of tensors, and its gradient for each: ∂L/∂Re + i ∂L/∂Im for complex ones."""

    def seed(self, seed: int) -> None:
        """Set the global random state."""

    def draw(self) -> float:
        """Draw from the global random state."""

    def settings(self) -> dict[str, Any]:
        """Whatever of the process an engine could have changed in the framework."""

    def batches(self, groups: Any, num_workers: int = 0, epoch: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Training batches as the engine reads them, in the order of an epoch."""

    def border(self, monkeypatch: Any) -> list[int]:
        """The bytes of each array that crosses between NumPy and the framework from now on, either way."""


COMPLEX = {"float32": "complex64", "float64": "complex128"}


class Torch:
    package = "ptycho_backend_torch"
    helpers = frozenset({"add_patches", "free_slope", "reached"})

    def __init__(self) -> None:
        self.torch = importlib.import_module("torch")
        self.physics = importlib.import_module("ptycho_backend_torch.physics")

    def put(self, value, precision):
        if value is None:
            return None
        tensor = self.torch.from_numpy(np.array(value))
        if tensor.is_complex():
            return tensor.to(getattr(self.torch, COMPLEX[precision]))
        return tensor.to(getattr(self.torch, precision)) if tensor.is_floating_point() else tensor

    def get(self, tensor):
        return tensor.detach().numpy()

    def gradient(self, function, *inputs):
        leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        value = function(*leaves)
        self.torch.autograd.backward(value)
        return self.get(value), [leaf.grad.numpy() for leaf in leaves]

    def seed(self, seed):
        self.torch.manual_seed(seed)

    def draw(self):
        return float(self.torch.rand(()))

    def settings(self):
        torch = self.torch
        return {
            "threads": torch.get_num_threads(),
            "dtype": torch.get_default_dtype(),
            "grad": torch.is_grad_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "matmul": torch.get_float32_matmul_precision(),
            "log level": logging.getLogger("lightning.fabric").level,
        }

    def batches(self, groups, num_workers=0, epoch=0):
        loader = importlib.import_module("ptycho_backend_torch.data").Loader(groups, num_workers)
        for batch in loader.read(groups.batches(epoch)):
            yield {name: value.numpy() for name, value in batch.items()}

    def border(self, monkeypatch):
        crossed, torch, into = [], self.torch, self.torch.from_numpy

        def from_numpy(array):
            crossed.append(array.nbytes)
            return into(array)

        def counting(method):
            def called(tensor, *args, **more):
                crossed.append(tensor.numel() * tensor.element_size())
                return method(tensor, *args, **more)

            return called

        monkeypatch.setattr(torch, "from_numpy", from_numpy)
        for name in ("numpy", "tolist", "item", "__float__", "__array__"):
            monkeypatch.setattr(torch.Tensor, name, counting(getattr(torch.Tensor, name)))
        return crossed


class TensorFlow:
    package = "ptycho_backend_tensorflow"
    helpers = frozenset({"free_slope", "times"})

    def __init__(self) -> None:
        self.tf = importlib.import_module("tensorflow")
        self.physics = importlib.import_module("ptycho_backend_tensorflow.physics")

    def put(self, value, precision):
        if value is None:
            return None
        array = np.array(value)
        kind = {"c": COMPLEX[precision], "f": precision}.get(array.dtype.kind)
        return self.tf.constant(array if kind is None else array.astype(kind))

    def get(self, tensor):
        return self.tf.convert_to_tensor(tensor).numpy()

    def gradient(self, function, *inputs):
        with self.tf.GradientTape() as tape:
            tape.watch(inputs)
            value = function(*inputs)
        return self.get(value), [self.get(part) for part in tape.gradient(value, inputs)]

    def seed(self, seed):
        self.tf.random.set_seed(seed)

    def draw(self):
        return float(self.tf.random.uniform(()))

    def settings(self):
        config = self.tf.config
        return {
            "eager": config.functions_run_eagerly(),
            "jit": config.optimizer.get_jit(),
            "optimizer": config.optimizer.get_experimental_options(),
            "threads": (
                config.threading.get_inter_op_parallelism_threads(),
                config.threading.get_intra_op_parallelism_threads(),
            ),
            "placement": config.get_soft_device_placement(),
            "tf32": config.experimental.tensor_float_32_execution_enabled(),
            "log level": logging.getLogger("tensorflow").level,
        }

    def batches(self, groups, num_workers=0, epoch=0):
        tensors = importlib.import_module("ptycho_backend_tensorflow.data").tensors
        for batch in tensors(groups, groups.batches(epoch), num_workers):
            yield {name: value.numpy() for name, value in batch.items()}

    def border(self, monkeypatch):
        constants = importlib.import_module("tensorflow.python.framework.constant_op")
        eager = importlib.import_module("tensorflow.python.framework.ops").EagerTensor
        crossed, into, out = [], constants.convert_to_eager_tensor, eager._numpy

        def convert(value, *args, **more):
            crossed.append(np.asarray(value).nbytes)
            return into(value, *args, **more)

        def read(tensor):
            crossed.append(tensor.dtype.size * int(np.prod(tensor.shape)))
            return out(tensor)

        monkeypatch.setattr(constants, "convert_to_eager_tensor", convert)
        monkeypatch.setattr(eager, "_numpy", read)
        return crossed


_KINDS: dict[str, type[Framework]] = {"pytorch": Torch, "tensorflow": TensorFlow}


def framework_of(engine: Any) -> Framework:
    """The framework of an engine."""
    return _KINDS[engine.name]()


@dataclass
class Side:
    """One precision of a twin.

    Attributes:
        framework: its framework.
        precision: ``float32`` or ``float64``.
        limits: largest error by quantity; see ``ptycho_core.testing.tolerances``.
    """

    framework: Framework
    precision: str
    limits: dict

    @property
    def twin(self) -> Any:
        return self.framework.physics

    def put(self, value: Any) -> Any:
        return self.framework.put(value, self.precision)

    def get(self, tensor: Any) -> np.ndarray:
        return self.framework.get(tensor)

    def agrees(self, found: Any, wanted: Any, quantity: str) -> None:
        array = found if isinstance(found, (np.ndarray, np.generic)) else self.get(found)
        assert array.dtype in (np.dtype(self.precision), np.result_type(self.precision, np.complex64))
        assert relative_error(array, wanted) <= self.limits[quantity]
