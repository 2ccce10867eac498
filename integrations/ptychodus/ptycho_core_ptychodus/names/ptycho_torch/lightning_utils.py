"""Model files."""

from ptycho_core_ptychodus.torch_flow import find_best_checkpoint

__all__ = ["find_best_checkpoint"]
