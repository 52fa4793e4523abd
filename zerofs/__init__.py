"""zerofs: an encrypted filesystem on any object store."""

__version__ = "0.1.0"
