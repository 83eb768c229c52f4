"""Files that a command writes: whole or absent, and never over an input."""
