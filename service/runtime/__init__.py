"""From settings to a ready pipeline, and the way down again."""
