"""A run directory, and what a run would cost."""
