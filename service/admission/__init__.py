"""Whether a request may enter: its key's limits, requests in flight, forecast, memory."""
