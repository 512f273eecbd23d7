"""Models of densities on a learned manifold."""
