"""Engines of ptycho-core in the list of workflows of ptychodus; it lies where ptychodus looks for plugins."""

from ptycho_core_ptychodus.workflow import register_plugins

__all__ = ["register_plugins"]
