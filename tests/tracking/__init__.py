"""Tests of identities and smoothing."""
