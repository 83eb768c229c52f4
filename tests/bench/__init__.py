"""Tests of the maintainers' measurements."""
