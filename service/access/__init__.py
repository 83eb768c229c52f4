"""Authentication and limits: keys, their limits, and the callers that show them."""
