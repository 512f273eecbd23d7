"""Surjections: transforms that drop or add coordinates, signs or an order, with the conditional density of what they drop."""
