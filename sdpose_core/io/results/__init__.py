"""Files of results: one module per format, which writes and reads it; the suffix decides."""
