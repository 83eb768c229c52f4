"""Damaged inputs of every kind that the project reads: none may crash it or be its fault.

`python -m tests.fuzz --count 50000` runs the long one. Every input follows from its kind and number
alone, so that `--kind pictures --only 1234` tries one again.
"""
