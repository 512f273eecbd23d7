"""Embeddings of a low-dimensional latent space in the data space, and their volume elements (1/2 log det J^T J)."""
