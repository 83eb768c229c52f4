"""Training on a user's own labels, from a label tool's file to a student that serves."""
