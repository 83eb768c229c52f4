"""What the service reports: metrics, logs, traces, request ids."""
