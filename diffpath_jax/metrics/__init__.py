"""Metrics: distances and scores of arrays."""
