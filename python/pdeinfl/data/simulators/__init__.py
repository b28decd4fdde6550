"""Simulators of the two equations."""
