"""The run itself: data in, steps, scores, files."""
