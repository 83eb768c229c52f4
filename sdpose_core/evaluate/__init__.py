"""Measuring poses and detections as the field does."""
