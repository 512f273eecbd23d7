"""What papers and benchmarks share: data sets, results and tables."""
