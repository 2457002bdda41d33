"""Formats of slides: a module a format, each of which registers its reader."""
