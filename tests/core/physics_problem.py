"""The hard inputs that are shipped to engines' authors too, under the name that the tests of core call them by."""

from __future__ import annotations

from ptycho_core.testing.problems import Problem, complex_noise, make_problem, smooth_probe

__all__ = ["Problem", "complex_noise", "make_problem", "smooth_probe"]
