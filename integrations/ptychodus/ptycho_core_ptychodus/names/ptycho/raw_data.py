"""Scans."""

from ptycho_core_ptychodus.tf_flow import RawData

__all__ = ["RawData"]
