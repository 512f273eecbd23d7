"""Flows beside each other and beside other libraries, at equal steps or equal training time."""
