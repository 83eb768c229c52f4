"""Networks on a device: backends, precision, batch sizes, graphs, processes."""
