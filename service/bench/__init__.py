"""Measurements: the student's backends, and the service against the bare estimator."""
