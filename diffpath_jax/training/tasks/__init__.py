"""Tasks: parameters to start from, and losses."""
