"""Transforms of images: invertible convolutions, reshaping (squeeze, patches, flatten) and multi-scale splitting."""
