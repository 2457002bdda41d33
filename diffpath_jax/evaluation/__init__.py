"""Evaluation: what is measured of a set of images, kept on disk, and shown."""
