"""Streams of frames, for every protocol."""
