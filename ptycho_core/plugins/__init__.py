"""Engines from outside: the hook they keep, finding and loading them, and what they can do (specs/40-plugins)."""
