"""Measurements for maintainers: `python -m tools.bench NAME`."""
