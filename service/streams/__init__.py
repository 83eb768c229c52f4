"""Streams of frames, whatever the front end."""
