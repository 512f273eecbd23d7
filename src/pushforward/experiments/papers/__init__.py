"""The recipes, one file a paper; importing this registers them all."""
