"""A small ptychography solver in NumPy, as an example of an engine from outside."""
