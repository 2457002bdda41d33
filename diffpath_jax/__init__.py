"""Synthetic histopathology with class-conditional diffusion models in JAX."""
