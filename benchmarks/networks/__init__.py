"""Networks trained on real data, and the card of every score that guards them."""
