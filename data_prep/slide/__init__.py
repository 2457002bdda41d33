"""Whole-slide images: their scale, their pixels, their tissue."""
