"""From frames to what a model takes."""

from ptycho_core_ptychodus.tf_flow import load

__all__ = ["load"]
