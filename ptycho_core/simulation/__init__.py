"""Scans with a truth: an object is drawn, and photons are counted through the oracle."""

from __future__ import annotations

from .scan import POSITIONS, SimulatedScan, SimulationConfig, demo_config, simulate_scan, texture_config

__all__ = ["POSITIONS", "SimulatedScan", "SimulationConfig", "demo_config", "simulate_scan", "texture_config"]
