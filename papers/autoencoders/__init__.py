"""Variational autoencoders: posteriors of codes and of weights."""
