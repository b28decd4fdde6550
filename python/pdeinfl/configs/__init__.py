"""Configurations that ship with the package; the same files as the repository's ``configs/``."""
