"""The probe, which each scan has with it."""

from ptycho_core_ptychodus.tf_flow import set_probe_guess

__all__ = ["set_probe_guess"]
