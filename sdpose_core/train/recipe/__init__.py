"""Configurations of training runs, and the recipes by name."""
