"""Errors of images and videos."""

from __future__ import annotations


class MediaError(Exception):
    """An image or a video that cannot be used; the message is one sentence without the name."""


class BrokenVideo(MediaError):
    """A video of which some frames could not be read."""
