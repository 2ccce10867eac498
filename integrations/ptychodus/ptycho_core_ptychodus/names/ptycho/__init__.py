"""The name by which ptychodus looks for PtychoPINN; ptycho-core is behind it (distribution ptycho-core-ptychodus)."""

from ptycho_core_ptychodus.guard import refuse_foreign

refuse_foreign()
