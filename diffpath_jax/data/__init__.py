"""Data sets: records, manifests (no JAX), and the training pipeline."""
