"""How weights are moved: optimisers, averaging, rates."""
