"""The name by which ptychodus looks for PtychoPINN's Torch side; ptycho-core is behind it."""

from ptycho_core_ptychodus.guard import refuse_foreign

refuse_foreign()
