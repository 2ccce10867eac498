"""The model file."""

from ptycho_core_ptychodus.tf_flow import save

__all__ = ["save"]
