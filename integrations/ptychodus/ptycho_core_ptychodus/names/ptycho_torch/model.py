"""The model."""

from ptycho_core_ptychodus.torch_flow import LoadedModel as PtychoPINN_Lightning

__all__ = ["PtychoPINN_Lightning"]
