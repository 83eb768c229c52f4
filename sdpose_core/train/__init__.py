"""Training a student: recipes, losses, the loop and its checkpoints."""
