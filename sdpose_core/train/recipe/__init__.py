"""What a run is asked to do: its configuration and the recipes by name."""
