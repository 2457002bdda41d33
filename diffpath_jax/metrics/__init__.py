"""Metrics: features, and distances and scores on them."""
