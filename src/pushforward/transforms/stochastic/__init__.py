"""Stochastic transforms: noise on the data, latent variables, and conditional likelihoods of the data."""
