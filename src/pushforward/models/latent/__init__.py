"""Models with latent variables: autoencoders, VAEs and cyclic conditionals."""
