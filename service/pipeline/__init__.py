"""From image bytes to poses; every front end calls it."""
