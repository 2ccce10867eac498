"""The NumPy oracle: every formula of the forward model, in readable float64 (specs/20-forward-model).

Engines write their own twin with the same function names and argument order, and are tested against this one.
"""
