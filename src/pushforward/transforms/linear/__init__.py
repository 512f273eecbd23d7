"""Linear transforms of vectors: permutations, whitening, and learned matrices."""
