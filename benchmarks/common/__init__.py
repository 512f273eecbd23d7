"""Helpers of papers and benchmarks: data sets, results and tables."""
