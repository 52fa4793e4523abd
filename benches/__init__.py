"""Measurements, on one machine and in one run: `python -m benches` prints a table and writes JSON beside it."""
