"""From what a model gives to an image."""

from ptycho_core_ptychodus.tf_flow import reassemble_position

__all__ = ["reassemble_position"]
