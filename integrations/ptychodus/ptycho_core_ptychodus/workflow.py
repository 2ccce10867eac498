"""Engines of ptycho-core in the client's list of workflows: a product and its frames in a folder become a new product.

The client's list of *reconstructors* is built of five libraries by hand and takes no sixth; its workflows are
plugins. A workflow is told of each ``product.h5`` below the folder that the client watches. For one with
``diffraction.h5`` beside it a process of its own is started, since the client calls us where it draws its windows;
the product that this leaves in ``output`` is told of in its turn, and loaded.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from ptychodus.api.io import StandardFileLayout
from ptychodus.api.plugins import PluginRegistry
from ptychodus.api.workflow import FileBasedWorkflow, WorkflowAPI

from ptycho_core import available_backends

__all__ = ["EngineWorkflow", "output_folder", "register_plugins"]

logger = logging.getLogger(__name__)

_OUTPUT, _INPUT = "output", "input"


def output_folder(folder: Path) -> Path:
    """Where the result of a folder goes: ``output`` beside a folder ``input``, or in any other."""
    return (folder.parent if folder.name == _INPUT else folder) / _OUTPUT


class EngineWorkflow(FileBasedWorkflow):
    """One engine, with refinement.

    Attributes:
        engine: its name.
        started: the processes that were started, newest last.
    """

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.started: list[subprocess.Popen[bytes]] = []

    @property
    def is_watch_recursive(self) -> bool:
        """Folders of scans lie below the one that is watched."""
        return True

    def get_watch_file_pattern(self) -> str:
        """Products: those to begin with, and those that are finished."""
        return str(StandardFileLayout.PRODUCT.value)

    def execute(self, api: WorkflowAPI, file_path: Path) -> None:
        """Load a finished product, or start on one to begin with."""
        folder = file_path.parent
        if folder.name == _OUTPUT:
            api.load_product(file_path)
        elif StandardFileLayout.DIFFRACTION.path(folder).is_file():
            self._start(folder)
        else:
            logger.warning(
                "%s: there is no %s beside it, so there is nothing to reconstruct",
                file_path,
                StandardFileLayout.DIFFRACTION,
            )

    def _start(self, folder: Path) -> None:
        """Start the process; what it says goes into a log beside its result."""
        target = output_folder(folder)
        target.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "ptycho_core_ptychodus.product_run", str(folder), "--engine", self.engine]
        self.started = [process for process in self.started if process.poll() is None]
        with open(StandardFileLayout.LOG.path(target), "ab") as log:
            self.started.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        logger.info("%s: ptycho-core, engine %s, began; %s tells how far it is", folder, self.engine, log.name)


def register_plugins(registry: PluginRegistry) -> None:
    """Offer a workflow for each engine that is ready; nothing of an engine is imported."""
    for engine in available_backends():
        if engine.state == "ready":
            registry.file_based_workflows.register_plugin(
                EngineWorkflow(engine.name),
                simple_name=f"PtychoCore_{engine.name}",
                display_name=f"ptycho-core: {engine.title}",
            )
