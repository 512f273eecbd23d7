"""Transforms of integers and categories: dequantization, binarization, shifts modulo K."""
