"""Guards as graphs: modules of plain tensor operations, from raw inputs to score, p-value and alarm, and their files."""
