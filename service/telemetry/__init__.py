"""Telemetry: metrics, logs, traces, request ids."""
