"""The NumPy engine: solver sweeps without a framework, so that a bare installation reconstructs something real."""
