"""Models of vectors."""
