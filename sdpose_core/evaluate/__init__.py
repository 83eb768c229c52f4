"""Measuring poses and detections with the standard metrics."""
