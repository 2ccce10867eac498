"""Ptychography with any reconstruction engine behind one interface."""
