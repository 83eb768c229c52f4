"""Pixels and coordinates of people: images, crops, heatmaps, similarity, scores."""
