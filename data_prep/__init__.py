"""Slides and annotations in, training shards out. Never imports JAX."""
