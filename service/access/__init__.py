"""Who may call, and how much: keys, their limits, and the callers that show them."""
