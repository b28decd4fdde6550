"""Types of the Rust core."""

__version__: str
