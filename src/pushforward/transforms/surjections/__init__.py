"""Surjections: transforms that drop or add coordinates, with the conditional density of what they drop."""
