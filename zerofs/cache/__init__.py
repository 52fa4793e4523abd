"""Copies of what the store holds: decoded in memory, sealed on disk. Safe to lose at any time."""
