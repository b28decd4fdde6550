"""Labelled trajectories: containers, readers, writer, simulators."""
