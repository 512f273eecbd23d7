"""Likelihoods of data unlike the training data, and tests of batches."""
