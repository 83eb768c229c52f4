"""How weights are moved: optimisers, averaging, batch norm."""
